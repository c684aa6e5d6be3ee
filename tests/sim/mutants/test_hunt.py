"""The hunt itself: quick mutants are found, drawn or on a recorded case, and the untouched code is VALID there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case
from seatrial.sim.core import run_case
from seatrial.sim.mutants import MutantResult, hunt_mutants
from seatrial.sim.mutants_cases import FAMILIES
from seatrial.sim.mutants_catalogue import MUTANTS

CASES = sorted(Path(__file__).parent.glob("cases/*.toml"))
BY_NAME = pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)


def hunting_process(*arguments: str) -> dict[str, object]:
    command = [sys.executable, "-m", "seatrial.sim.mutants_hunt", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@BY_NAME
def test_a_mutant_is_found_on_its_recorded_case(path: Path) -> None:
    assert hunting_process(path.stem, "--case", str(path))["found"]


@pytest.mark.slow
@BY_NAME
def test_the_untouched_code_is_valid_on_the_recorded_case(path: Path) -> None:
    assert run_case(Case.load_file(path)).violations == ()


@pytest.mark.slow
def test_a_hunt_draws_seeds_until_a_mutant_is_found_and_then_tries_the_untouched_code() -> None:
    told: list[MutantResult] = []
    results = hunt_mutants(["change-before-own-commit", "vote-before-save"], seeds_max=30, jobs=2, progress=told.append)
    assert [result.name for result in results] == ["vote-before-save", "change-before-own-commit"]
    assert sorted(result.name for result in told) == ["change-before-own-commit", "vote-before-save"]
    for result in results:
        assert result.found and not result.problem, result
        assert result.seed is not None and result.violation
        assert Case.from_toml(result.case).seed == result.seed


@pytest.mark.slow
def test_a_case_that_does_not_lead_to_the_bug_finds_nothing(tmp_path: Path) -> None:
    quiet = tmp_path / "quiet.toml"
    quiet.write_text(Case(level="core", seed=1, duration_us=1_000_000).to_toml())
    assert hunting_process("commit-older-terms", "--case", str(quiet)) | {"seconds": 0} == {
        "found": False,
        "tried": 1,
        "seconds": 0,
    }


@pytest.mark.slow
def test_without_the_bug_nothing_is_found_where_the_bug_was() -> None:
    path = next(path for path in CASES if path.stem == "commit-older-terms")
    assert not hunting_process(path.stem, "--case", str(path), "--untouched")["found"]


def test_every_recorded_case_belongs_to_a_mutant() -> None:
    assert CASES and all(path.stem in MUTANTS for path in CASES)


def test_every_family_is_used_and_every_mutant_names_one_that_there_is() -> None:
    assert {mutant.cases for mutant in MUTANTS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_the_same_case_for_the_same_seed_and_another_for_another(name: str) -> None:
    level = next(mutant.level for mutant in MUTANTS.values() if mutant.cases == name)
    draw = FAMILIES[name].draw
    assert draw(7, level) == draw(7, level) != draw(8, level)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cases_of_a_family_are_within_the_budget_so_that_red_is_a_bug(name: str) -> None:
    level = next(mutant.level for mutant in MUTANTS.values() if mutant.cases == name)
    for seed in range(20):
        case = FAMILIES[name].draw(seed, level)
        assert malformed(case) is None and over_budget(case) is None
