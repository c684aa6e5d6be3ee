"""What is kept of a failure can be read, run and pasted."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from seatrial.sim.case import Case, Fault, Outcome, Violation
from seatrial.sim.regression import case_file, pasteable_test, save
from seatrial.sim.swarm import draw_case

VIOLATION = Violation(
    name="lost-write", message='x = 3 was acknowledged\nand is \'gone\' """ for good', at_us=1_234_000
)


def test_a_case_file_reads_back_as_the_case_and_says_what_went_wrong() -> None:
    for seed in range(30):
        case = draw_case(seed, "core")
        text = case_file(case, VIOLATION, found_by="seatrial sim --seed 3")
        assert Case.from_toml(text) == case
        assert text.startswith("# lost-write: x = 3 was acknowledged and is 'gone'")
        assert "# Seen at 1.234 s; found by `seatrial sim --seed 3`." in text


def test_a_pasted_test_runs_the_very_case() -> None:
    """For any case that the swarm draws: the source is executed over a level that notes what it is given."""
    for level in ("core", "full"):
        for seed in range(30):
            case = draw_case(seed, level)  # type: ignore[arg-type]
            assert pasted(pasteable_test(case, VIOLATION)) == case


def pasted(source: str) -> Case:
    """Run a pasteable test, with the level's `run_case` replaced by one that finds nothing; the case it was given."""
    given: list[Case] = []

    def run_case(case: Case) -> Outcome:
        given.append(case)
        return Outcome(violations=(), digest="", events=0, virtual_us=0, operations={}, bit={}, marks={})

    tree = ast.parse(source)
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.ImportFrom) and node.names[0].name == "run_case")
    ]
    names: dict[str, Any] = {"run_case": run_case}
    exec(compile(tree, "pasted", "exec"), names)
    (test,) = [value for name, value in names.items() if name.startswith("test_no_lost_write")]
    test()
    return given[0]


def test_a_pasted_test_fits_the_line_length_and_leaves_out_defaults() -> None:
    fault = Fault(at_us=200_000, kind="crash", mode="kill", duration_us=1_500_000, nodes=(1,))
    source = pasteable_test(Case(level="core", seed=4, faults=(fault,)), VIOLATION)
    assert all(len(line) <= 120 for line in source.splitlines())
    assert "network" not in source and "import Case, Fault\n" in source
    assert 'Fault(at_us=200_000, kind="crash", duration_us=1_500_000, nodes=(1,), mode="kill")' in source


def test_a_second_failure_of_one_name_and_seed_gets_a_file_of_its_own(tmp_path: Path) -> None:
    case = Case(level="core", seed=4)
    paths = [save(case, VIOLATION, tmp_path / "new", found_by="x") for _ in range(3)]
    assert [path.name for path in paths] == [
        "lost-write-core-seed-4.toml",
        "lost-write-core-seed-4-2.toml",
        "lost-write-core-seed-4-3.toml",
    ]
    assert all(Case.load_file(path) == case for path in paths)
