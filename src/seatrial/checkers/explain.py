"""From a violation among many operations to the few that show it, each step a weakening and each result certified.

Rule: what comes out is impossible by proof of the search, so it stands as evidence alone; it is locally minimal (no
single operation can be weakened further) unless time runs out first, and then it is still a proof.
Knows nothing of words: rows in, rows out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from seatrial.checkers.columns import CAS, INFO, OK, READ, Row
from seatrial.checkers.schedule import Limits
from seatrial.checkers.weakening import ANY_STATE, cut_left, cut_right, doubt, drop_unneeded, refuted

_CHECK_CONFIGURATIONS: Final = 4_000  # per question asked while minimising: most are answered in a few dozen
_LEFT_WINDOW_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Core:
    """Operations that cannot be, from `initial` (ANY_STATE: from whichever state), in the order of their starts."""

    rows: tuple[Row, ...]
    initial: int


def minimise(rows: Iterable[Row], initial: int, limits: Limits) -> Core | None:
    """The least that is left of operations known to be impossible; None where that could not be proved again."""
    kept = drop_unneeded(list(rows))
    if not refuted(kept, initial, limits):
        return None
    small = replace(limits, configurations=_CHECK_CONFIGURATIONS)
    kept = _earliest_right(kept, initial, small)
    kept, initial = _latest_left(kept, initial, small)
    kept = _doubt_all_possible(kept, initial, small)
    return Core(tuple(sorted(kept, key=lambda row: row.start)), initial)


def evidence_rows(rows: Iterable[Row], starts: Iterable[int], ends: Iterable[int]) -> list[Row]:
    """What remains when all certain operations are doubted but those with these starts or ends.

    Where one of those is itself of unknown outcome, what proves that it happened is kept as well.
    """
    kept = list(rows)
    shown_starts, shown_ends = set(starts), frozenset(ends)
    unknown = {row.new for row in kept if row.start in shown_starts and row.status == INFO}
    shown_starts |= _observers(kept, unknown)
    others = {row.start for row in kept if row.start not in shown_starts and row.end not in shown_ends}
    return doubt(kept, others)


def _observers(rows: Sequence[Row], values: set[int]) -> set[int]:
    """Starts of certain operations that found these values, or that found what an unknown swap made of them."""
    if not values:
        return set()
    by_value: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind in (READ, CAS):
            by_value[row.old].append(row)
    found: set[int] = set()
    reached = set(values)
    work = list(values)
    while work:
        observers = by_value[work.pop()]
        certain = [row.start for row in observers if row.status == OK]
        if certain:
            found.add(certain[0])
            continue
        further = {row.new for row in observers} - reached
        reached |= further
        work += further
    return found


def _earliest_right(rows: list[Row], initial: int, limits: Limits) -> list[Row]:
    """Cut at the first return with which the operations are impossible: cutting later demands more."""
    ends = sorted(row.end for row in rows if row.status == OK)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if refuted(cut_right(rows, ends[middle]), initial, limits):
            high = middle
        else:
            low = middle + 1
    cut = cut_right(rows, ends[high])
    return cut if refuted(cut, initial, limits) else rows


def _latest_left(rows: list[Row], initial: int, limits: Limits) -> tuple[list[Row], int]:
    """Cut at the last start from which the operations are impossible in any state: cutting earlier demands more."""
    starts = sorted({row.start for row in rows})
    reach = 2
    while not refuted(cut_left(rows, starts[max(0, len(starts) - reach)]), ANY_STATE, limits):
        if reach >= min(len(starts), _LEFT_WINDOW_MAX) or limits.clock() > limits.deadline:
            return rows, initial
        reach *= 2
    low, high = max(0, len(starts) - reach), len(starts) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if refuted(cut_left(rows, starts[middle]), ANY_STATE, limits):
            low = middle
        else:
            high = middle - 1
    return cut_left(rows, starts[low]), ANY_STATE


def _doubt_all_possible(rows: list[Row], initial: int, limits: Limits) -> list[Row]:
    """Delta debugging: doubt ever smaller groups of certain operations as long as the rest stays impossible."""
    certain = _certain(rows)
    size = max(1, len(certain) // 2)
    while True:
        position = 0
        while position < len(certain):
            group = {row.start for row in certain[position : position + size]}
            fewer = doubt(rows, group)
            if refuted(fewer, initial, limits):
                rows, certain = fewer, [row for row in certain if row.start not in group]
            else:
                position += size
            if limits.clock() > limits.deadline:
                return rows
        if size == 1:
            return rows
        size //= 2


def _certain(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row.status == OK), key=lambda row: row.end)
