"""Ways to make a register's operations demand less, so that what is still impossible proves that the whole was.

Each function here keeps linearizable operations linearizable:
1. drop an operation that only observes;
2. let an operation that certainly took effect have done so perhaps;
3. drop an operation of unknown outcome whose value nobody left needs (only where no mismatch is left: any change may
   help one);
4. cut on the right: drop what was invoked after a time; what returns later took effect perhaps;
5. cut on the left: begin in ANY state; what returned before that time vanishes, effects that straddle it happened
   perhaps.
To drop a write whose value is still read is not among them: that would invent a phantom value.

Rule: rows that `refuted` says cannot be are a certificate against the history that they were weakened from.
Knows nothing of how the operations to keep are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from seatrial.checkers.columns import CAS, INFO, MISMATCH, NEVER, OK, READ, WRITE, Row
from seatrial.checkers.schedule import Limits
from seatrial.checkers.search import search

ANY_STATE: Final = -2  # as the initial state: whichever suits
_OTHER_STATE: Final = -3  # a state that no operation at hand names


def relevant(rows: Iterable[Row]) -> list[Row]:
    """What constrains or can explain a verdict: all but operations that surely did not take effect."""
    return [row for row in rows if row.status == OK or (row.status == INFO and row.kind in (WRITE, CAS))]


def drop_unneeded(rows: Sequence[Row]) -> list[Row]:
    """Weakening 3, until nothing more can be dropped."""
    kept = list(rows)
    while not any(row.kind == MISMATCH for row in kept):
        needed = {row.old for row in kept if row.kind in (READ, CAS)}
        fewer = [row for row in kept if row.status != INFO or row.new in needed]
        if len(fewer) == len(kept):
            break
        kept = fewer
    return kept


def doubt(rows: Iterable[Row], starts: Collection[int]) -> list[Row]:
    """Weakenings 1 to 3 on the certain operations with these starts: observers go, effects become uncertain."""
    kept = []
    for row in rows:
        if row.start in starts and row.status == OK:
            if row.kind in (READ, MISMATCH):
                continue
            row = row._replace(end=NEVER, status=INFO)
        kept.append(row)
    return drop_unneeded(kept)


def without_mismatches(rows: Iterable[Row]) -> list[Row]:
    """Weakenings 1 and 3: with the mismatches go all unknown operations that only they could need."""
    return drop_unneeded([row for row in rows if row.kind != MISMATCH])


def cut_right(rows: Iterable[Row], right: int) -> list[Row]:
    """Weakening 4: what was known at time `right`."""
    kept = []
    for row in rows:
        if row.start > right:
            continue
        if row.end > right and row.status == OK:
            if row.kind in (READ, MISMATCH):
                continue
            row = row._replace(end=NEVER, status=INFO)
        kept.append(row)
    return drop_unneeded(kept)


def cut_left(rows: Iterable[Row], left: int) -> list[Row]:
    """Weakening 5; what remains has to be refuted from ANY_STATE."""
    kept = []
    for row in rows:
        if row.end < left:
            continue
        if row.start < left:
            if row.kind in (READ, MISMATCH):
                continue
            row = row._replace(end=NEVER, status=INFO)
        kept.append(row)
    return drop_unneeded(kept)


def refuted(rows: Sequence[Row], initial: int, limits: Limits) -> bool:
    """Whether it is proved, within the limits, that no register which begins as `initial` allows these operations."""
    if not any(row.status == OK for row in rows):
        return False
    if initial != ANY_STATE:
        return search(rows, initial, limits).linearizable is False
    # A state that no certain operation looks for is as good as any other such state, and only unknown
    # operations that look for it could tell the difference.
    candidates = {row.old for row in rows if row.kind != WRITE} | {_OTHER_STATE}
    return all(search(rows, state, limits).linearizable is False for state in sorted(candidates))
