"""A reference for the checkers' verdicts: the textbook search for a linearization, independent of the code it judges.

Rule: as simple as it can be, because it is what the rest is believed by: no reductions, no windows, exponential.
Shares with the checkers only the row format.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.checkers.columns import CAS, FAIL, MISMATCH, OK, READ, Row


def is_linearizable(rows: Sequence[Row], initial: int) -> bool:
    """Wing and Gong (1993): try every operation that may come first; remember each (done, state) that led nowhere."""
    possible = (row for row in rows if row.status != FAIL)
    operations = [row for row in possible if row.status == OK or row.kind not in (READ, MISMATCH)]
    certain = sum(1 << number for number, row in enumerate(operations) if row.status == OK)
    hopeless: set[tuple[int, int]] = set()
    stack = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & certain == certain:
            return True
        if (done, state) in hopeless:
            continue
        hopeless.add((done, state))
        left = [(number, row) for number, row in enumerate(operations) if not done >> number & 1]
        first_end = min(row.end for _, row in left)
        for number, row in left:
            # Nothing that returned before this one was invoked may come after it.
            if row.start <= first_end and (after := _step(state, row)) is not None:
                stack.append((done | 1 << number, after))
    return False


def explains(witness: Sequence[Row], rows: Sequence[Row], initial: int) -> bool:
    """Whether a proposed order is one: legal step by step, in real-time order, with every certain operation once."""
    state: int | None = initial
    latest_start = -1
    for row in witness:
        if row.end < latest_start:
            return False
        latest_start = max(latest_start, row.start)
        assert state is not None
        state = _step(state, row)
        if state is None:
            return False
    placed = [row.start for row in witness]
    certain = {row.start for row in rows if row.status == OK}
    return len(set(placed)) == len(placed) and certain <= set(placed)


def _step(state: int, row: Row) -> int | None:
    """The state after an operation, or None where it is not possible."""
    if row.kind == MISMATCH:
        return None if state == row.old else state
    if row.kind in (READ, CAS) and state != row.old:
        return None
    return state if row.kind == READ else row.new
