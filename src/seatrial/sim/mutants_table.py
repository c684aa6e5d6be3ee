"""Results of a hunt for planted bugs, for people: lines for a console, and the page `docs/mutants.md`.

Rule: the page lists every mutant of the catalogue, found or not; a hunt for some of them replaces their rows alone.
Knows nothing of how mutants are hunted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from seatrial.sim.mutants import MutantResult
from seatrial.sim.mutants_cases import FAMILIES
from seatrial.sim.mutants_catalogue import AREAS, MUTANTS
from seatrial.sim.mutation import Mutant

_HEAD: Final = """\
# Mutants: the proof that the simulator finds bugs

Each line is a bug that was planted into the server's own source as it was imported (`sim/mutants_*.py`: one line of
difference), and hunted in simulated runs until one was INVALID. It counts as found only where the untouched code is
VALID on that very case. Made by `seatrial sim --mutant all --save docs/mutants.md`; times are of one core, pure Python.

`seatrial sim --mutant NAME` repeats one. *Level*: the Raft core alone, or the full server with real clients.
*Seeds*: how many cases ran until it was found; *seed*: the one that found it.
"""
_ROW: Final = re.compile(r"^\| `([a-z0-9-]+)` \|")
_NOT_HUNTED: Final = "not hunted yet"


def result_line(result: MutantResult) -> str:
    """One mutant in the console."""
    took = f"{result.seeds_tried} seeds, {result.seconds:.1f} s"
    if result.found:
        return f"found      {result.name:36} {result.level:5} seed {result.seed:<5} {took:>20}  {result.violation}"
    return f"NOT FOUND  {result.name:36} {result.level:5} {'':10} {took:>20}  {result.problem}".rstrip()


def describe_results(results: Sequence[MutantResult], *, json: bool) -> str:
    """All of them: lines and a summary, or one JSON object."""
    if not json:
        return "\n".join([*map(result_line, results), summary_line(results)])
    validity = "VALID" if all(result.found for result in results) else "INVALID"
    return msgspec.json.encode({"validity": validity, "mutants": results}).decode()


def summary_line(results: Sequence[MutantResult]) -> str:
    found = [result for result in results if result.found]
    early = sum(result.seeds_tried <= 100 for result in found)
    return f"{len(found)} of {len(results)} mutants found, {early} of them within 100 seeds"


def page(results: Iterable[MutantResult], before: str = "") -> str:
    """The document: rows of `results`, and of the page as it was `before` for the mutants that were not hunted."""
    rows = _rows_of(before) | {result.name: _row(MUTANTS[result.name], result) for result in results}
    parts = [_HEAD]
    for area, mutants in AREAS.items():
        parts.append(f"\n## {area[0].upper()}{area[1:]}\n")
        parts.append("| mutant | what it does wrong | known from | level | seeds | seed | seconds | violation |")
        parts.append("|---|---|---|---|--:|--:|--:|---|")
        parts += [rows.get(mutant.name) or _row(mutant, None) for mutant in mutants]
    families = {name: FAMILIES[name].meaning for mutant in MUTANTS.values() if (name := mutant.cases) != "swarm"}
    if families:
        parts.append(
            "\n## Families of cases\n\nBugs that the swarm seldom or never reaches are hunted in cases of their own:\n"
        )
        parts += [f"- **{name}**: {meaning}" for name, meaning in sorted(families.items())]
    return "\n".join(parts) + "\n"


def save_page(results: Iterable[MutantResult], path: Path) -> None:
    """Write the page, with the rows of these results anew.  Raises OSError."""
    path.write_text(page(results, path.read_text() if path.exists() else ""))


def _rows_of(document: str) -> dict[str, str]:
    return {match[1]: line for line in document.splitlines() if (match := _ROW.match(line))}


def _row(mutant: Mutant, result: MutantResult | None) -> str:
    level = mutant.level if mutant.cases == "swarm" else f"{mutant.level}, {mutant.cases}"
    if result is None:
        found = ["", "", "", _NOT_HUNTED]
    elif result.found:
        found = [str(result.seeds_tried), str(result.seed), f"{result.seconds:.1f}", result.violation]
    else:
        found = [str(result.seeds_tried), "", f"{result.seconds:.1f}", "**not found**"]
    cells = [f"`{mutant.name}`", mutant.summary, mutant.source, level, *found]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
