"""Cases that failed once: each file here says which bug it was, and must be VALID now.

`seatrial sim --seed N --shrink --save tests/sim/regressions` writes one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case, Outcome
from seatrial.sim.hunt import outcomes, run_quietly

FILES = sorted(Path(__file__).parent.glob("*.toml"))


@pytest.fixture(scope="module")
def outcome_of() -> dict[str, Outcome]:
    """All of them at once: the full level's are run in processes forked from one warmed one."""
    cases = {path.stem: Case.load_file(path) for path in FILES}
    by_case = {
        case: outcome
        for level in ("core", "full")
        for case, outcome in outcomes(
            [case for case in cases.values() if case.level == level], level, run_quietly, jobs=1
        )
    }
    return {stem: by_case[case] for stem, case in cases.items()}


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bug_that_was_found_once_does_not_come_back(path: Path, outcome_of: dict[str, Outcome]) -> None:
    violations = outcome_of[path.stem].violations
    assert not violations, f"{violations[0].name}: {violations[0].message}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_regression_says_which_bug_it_was_and_is_within_the_budget(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# "), f"{path.name}: begin it with a comment that says what went wrong"
    case = Case.from_toml(text)
    assert malformed(case) is None
    assert over_budget(case) is None
