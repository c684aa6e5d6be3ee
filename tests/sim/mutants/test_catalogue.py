"""Every planted bug fits the code as it is, by one line of difference, and compiles: none is disarmed silently."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seatrial.sim.mutants_catalogue import AREAS, MUTANTS, UnknownMutant, chosen
from seatrial.sim.mutation import Mutant, changed_lines, mutated, source_path

EACH = pytest.mark.parametrize("mutant", MUTANTS.values(), ids=lambda mutant: mutant.name)


@EACH
def test_mutant_fits_its_module_and_compiles(mutant: Mutant) -> None:
    source = source_path(mutant.module).read_text()
    changed = mutated(mutant, source)  # raises MutantDisarmed
    compile(changed, mutant.module, "exec")
    assert compile(changed, "", "exec") != compile(source, "", "exec"), "the difference is in a comment"


@EACH
def test_mutant_is_one_line_of_difference(mutant: Mutant) -> None:
    source = source_path(mutant.module).read_text()
    gone, new = changed_lines(source, mutated(mutant, source))
    assert len(gone) <= 1 and len(new) <= 1 and gone + new, f"{gone} became {new}"


@EACH
def test_mutant_says_what_it_is_and_where_it_is_known_from(mutant: Mutant) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", mutant.name)
    assert mutant.summary.endswith(".") and mutant.source
    assert mutant.module.startswith("seatrial.") and not mutant.module.startswith("seatrial.sim")


def test_names_are_unique_and_there_are_at_least_forty() -> None:
    assert sum(len(area) for area in AREAS.values()) == len(MUTANTS) >= 40


def test_choosing_keeps_the_order_of_the_tables() -> None:
    names = list(MUTANTS)
    assert [mutant.name for mutant in chosen([names[5], names[2]])] == [names[2], names[5]]
    assert chosen("all") == list(MUTANTS.values())


def test_choosing_an_unknown_mutant_says_so() -> None:
    with pytest.raises(UnknownMutant, match="no mutant is called nonsense"):
        chosen(["nonsense"])


def test_source_path_finds_packages_and_modules() -> None:
    assert source_path("seatrial.raft").name == "__init__.py"
    assert source_path("seatrial.raft.node") == Path(source_path("seatrial.raft")).parent / "node.py"
