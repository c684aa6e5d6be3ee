"""Decide a register with any values: search for a witness; where that stalls, refute the neighbourhood it stalled at.

A stale read late in a long history would make a search try every order of all that came before.  But a violation is
local: windows of doubling length around the blocked operation, each from an arbitrary initial state, find it without
the prefix.

Rule: both answers are exact; None, with a reason, only when the limits are used up.
Knows nothing of histories: rows in, decision out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from seatrial.checkers.columns import OK, Row
from seatrial.checkers.schedule import Limits
from seatrial.checkers.search import search
from seatrial.checkers.weakening import (
    ANY_STATE,
    cut_left,
    cut_right,
    drop_unneeded,
    refuted,
    relevant,
    without_mismatches,
)

FIRST_STALL: Final = 3_000  # configurations; each further attempt may use eight times as many
_WINDOW_FIRST: Final = 8  # operations on either side of the blocked one
_WINDOW_MAX: Final = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`core` and `core_initial` certify a False: rows, weakened from those given, that cannot be from that state."""

    linearizable: bool | None
    explored: int
    core: tuple[Row, ...] = ()
    core_initial: int = ANY_STATE
    witness: tuple[Row, ...] = ()
    reason: str = ""


def decide(rows: Iterable[Row], initial: int, limits: Limits, *, stall: int = FIRST_STALL) -> Decision:
    """Whether a register that begins as `initial` allows these operations."""
    kept = sorted(relevant(rows), key=lambda row: row.start)
    explored = 0
    while True:
        remaining = limits.configurations - explored
        result = search(kept, initial, replace(limits, configurations=remaining, stall=stall))
        explored += result.explored
        if result.linearizable:
            return Decision(linearizable=True, explored=explored, witness=result.witness)
        if result.linearizable is False:
            core, core_initial = _exhausted(kept, initial, result.blocked, limits)
            return Decision(linearizable=False, explored=explored, core=core, core_initial=core_initial)
        if result.blocked is not None:
            local = refuted_near(kept, result.blocked.end, replace(limits, configurations=stall))
            if local is not None:
                return Decision(linearizable=False, explored=explored, core=tuple(local))
        if explored >= limits.configurations or limits.clock() > limits.deadline:
            return Decision(linearizable=None, explored=explored, reason=result.reason)
        stall *= 8


def refuted_near(rows: list[Row], time: int, limits: Limits) -> list[Row] | None:
    """Rows of a window around `time` that cannot be, from any state, or None; `rows` in the order of their starts."""
    starts = [row.start for row in rows]
    ends = sorted(row.end for row in rows if row.status == OK)
    start_position, end_position = bisect_right(starts, time), bisect_left(ends, time)
    reach = _WINDOW_FIRST
    while True:
        left = starts[max(0, start_position - reach)]
        right = ends[min(len(ends) - 1, end_position + reach)]
        window = cut_left(cut_right(rows, right), left)
        # Without mismatches nearly all unknown operations go too, and the question is a small one.
        plain = without_mismatches(window)
        if refuted(plain, ANY_STATE, limits):
            return plain
        if len(plain) != len(window) and refuted(window, ANY_STATE, limits):
            return window
        everything = start_position <= reach and end_position + reach >= len(ends)
        if everything or reach > _WINDOW_MAX or limits.clock() > limits.deadline:
            return None
        reach *= 2


def _exhausted(rows: list[Row], initial: int, blocked: Row | None, limits: Limits) -> tuple[tuple[Row, ...], int]:
    """What to start from when explaining a history that the search refuted as a whole."""
    if blocked is not None:
        prefix = cut_right(rows, blocked.end)
        if len(prefix) < len(rows) and refuted(prefix, initial, limits):
            return tuple(prefix), initial
    return tuple(drop_unneeded(rows)), initial
