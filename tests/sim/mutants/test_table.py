"""The page of mutants lists what the code plants, and a hunt for a few replaces their rows alone."""

from __future__ import annotations

import re
from pathlib import Path

from seatrial.sim.mutants import MutantResult
from seatrial.sim.mutants_catalogue import MUTANTS
from seatrial.sim.mutants_table import page, result_line, summary_line

PAGE = Path(__file__).resolve().parents[3] / "docs" / "mutants.md"
FIRST, SECOND = [mutant.name for mutant in MUTANTS.values() if mutant.cases == "swarm"][:2]


def result(name: str, *, found: bool, seeds_tried: int = 7, problem: str = "") -> MutantResult:
    mutant = MUTANTS[name]
    return MutantResult(
        name=name,
        level=mutant.level,
        cases=mutant.cases,
        found=found,
        seeds_tried=seeds_tried,
        seconds=1.25,
        seed=6 if found else None,
        violation="election-safety" if found else "",
        problem=problem,
    )


def rows(document: str) -> dict[str, list[str]]:
    found = [line for line in document.splitlines() if line.startswith("| `")]
    return {row[1].strip("` "): [cell.strip() for cell in row[2:-1]] for row in (line.split("|") for line in found)}


def test_the_page_in_the_documents_lists_exactly_the_mutants_in_the_code() -> None:
    assert list(rows(PAGE.read_text())) == list(MUTANTS), (
        "make it anew: seatrial sim --mutant all --save docs/mutants.md"
    )


def test_the_page_in_the_documents_describes_them_as_the_code_does() -> None:
    described = {name: cells[:2] for name, cells in rows(PAGE.read_text()).items()}
    assert described == {mutant.name: [mutant.summary, mutant.source] for mutant in MUTANTS.values()}


def test_every_mutant_has_a_row_also_before_it_is_hunted() -> None:
    assert list(rows(page([]))) == list(MUTANTS)
    assert rows(page([]))[FIRST][-1] == "not hunted yet"


def test_a_row_says_where_a_mutant_was_found_and_which_promise_broke() -> None:
    cells = rows(page([result(FIRST, found=True)]))[FIRST]
    assert cells[2:] == [MUTANTS[FIRST].level, "7", "6", "1.2", "election-safety"]


def test_a_row_names_the_family_of_a_mutant_that_is_not_left_to_the_swarm() -> None:
    assert rows(page([]))["commit-older-terms"][2] == "core, figure-8"


def test_a_mutant_that_was_not_found_is_not_hidden() -> None:
    assert rows(page([result(FIRST, found=False)]))[FIRST][-1] == "**not found**"


def test_a_hunt_for_one_keeps_the_rows_of_the_others() -> None:
    before = page([result(FIRST, found=True), result(SECOND, found=True)])
    after = page([result(SECOND, found=False)], before)
    assert rows(after)[FIRST] == rows(before)[FIRST]
    assert rows(after)[SECOND][-1] == "**not found**"


def test_the_console_says_found_or_not_and_why_not() -> None:
    assert re.match(
        rf"found +{FIRST} .* seed 6 +7 seeds, 1.2 s  election-safety$", result_line(result(FIRST, found=True))
    )
    line = result_line(result(FIRST, found=False, problem="the process died"))
    assert line.startswith("NOT FOUND") and line.endswith("the process died")


def test_the_summary_counts_those_found_early() -> None:
    results = [result(FIRST, found=True), result(SECOND, found=True, seeds_tried=500)]
    assert summary_line(results) == "2 of 2 mutants found, 1 of them within 100 seeds"
