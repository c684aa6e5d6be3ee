"""The zone check of `registers`, vectorised: the same answer several times sooner on large histories.

Rule: agrees with `registers.check_unique` on every input; it only says whether there is a violation, and the plain
check says which.  Knows nothing else; importing it without NumPy raises ImportError.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seatrial.checkers.columns import CAS, FAIL, INITIAL, NEVER, OK, READ, WRITE, Columns
from seatrial.checkers.registers import BEFORE_ALL, NONE, UNWRITTEN, ReusedValue

Ints: TypeAlias = NDArray[np.int64]


def is_linearizable(columns: Columns) -> bool:
    """Whether a register with all-different written values is linearizable.  Raises ReusedValue where they are not."""
    kind, old, new, start, end, status = (
        np.frombuffer(column, dtype=np.int64)
        for column in (columns.kind, columns.old, columns.new, columns.start, columns.end, columns.status)
    )
    count = len(columns.values)
    writes = np.flatnonzero(((kind == WRITE) | (kind == CAS)) & (status != FAIL))
    written = new[writes]
    if np.bincount(written, minlength=count).max(initial=0) > 1 or (written == INITIAL).any():
        raise ReusedValue
    write_start, write_end = _filled(count, UNWRITTEN), _filled(count, NEVER)
    write_start[written], write_end[written] = start[writes], end[writes]
    write_start[INITIAL] = write_end[INITIAL] = BEFORE_ALL
    reads = np.flatnonzero(kind == READ)
    read_start, read_end = _filled(count, BEFORE_ALL), _filled(count, NEVER)
    np.maximum.at(read_start, old[reads], start[reads])
    np.minimum.at(read_end, old[reads], end[reads])
    observed = read_start != BEFORE_ALL
    swaps = writes[kind[writes] == CAS]
    effective = _effective(swaps, old, new, status, observed) if len(swaps) else swaps
    if (observed & (write_start == UNWRITTEN)).any():
        return False
    live = (write_end != NEVER) | observed  # written for certain, or written because observed
    first_end, last_start = np.minimum(write_end, read_end), np.maximum(write_start, read_start)
    if not len(effective):
        values = np.flatnonzero(live)
        if (read_end[values] < write_start[values]).any():
            return False
        return not _conflict(first_end[values], last_start[values])
    if np.bincount(old[effective], minlength=count).max() > 1:
        return False
    source = _filled(count, NONE)
    source[new[effective]] = old[effective]
    chains = _chains(np.flatnonzero(live), source)
    if chains is None:
        return False
    values, heads = chains
    # The latest start of all that comes earlier in the chain: nothing later may have ended before it.
    earlier = _running_maximum_before(last_start[values], heads)
    if (write_end[values] < earlier).any() or (read_end[values] < np.maximum(earlier, write_start[values])).any():
        return False
    firsts = np.flatnonzero(heads)
    return not _conflict(
        np.minimum.reduceat(first_end[values], firsts), np.maximum.reduceat(last_start[values], firsts)
    )


def _filled(count: int, value: int) -> Ints:
    return np.full(count, value, dtype=np.int64)


def _effective(swaps: Ints, old: Ints, new: Ints, status: Ints, observed: NDArray[np.bool_]) -> Ints:
    """The compare-and-sets that took effect; marks in `observed` what they saw."""
    certain = status[swaps] == OK
    found = [swaps[certain]]
    observed[old[found[0]]] = True
    unknown = swaps[~certain]
    while len(unknown):
        seen = observed[new[unknown]]
        if not seen.any():
            break
        found.append(unknown[seen])
        observed[old[unknown[seen]]] = True
        unknown = unknown[~seen]
    return np.concatenate(found)


def _chains(live: Ints, source: Ints) -> tuple[Ints, NDArray[np.bool_]] | None:
    """Live values chain by chain, each chain in order, and where each begins; None if one bites its own tail."""
    count = len(source)
    linked = source != NONE
    ancestor = np.where(linked, source, np.arange(count))
    depth = linked.astype(np.int64)
    # Pointer doubling: after n rounds `ancestor` is 2^n steps back, and a chain has fewer steps than there are values.
    for _ in range(count.bit_length()):
        further = ancestor[ancestor]
        if np.array_equal(further, ancestor):
            break
        depth += depth[ancestor]
        ancestor = further
    if linked[ancestor[live]].any():
        return None
    order = np.lexsort((depth[live], ancestor[live]))
    values = live[order]
    return values, ~linked[values]


def _running_maximum_before(column: Ints, heads: NDArray[np.bool_]) -> Ints:
    """Per row, the maximum of the rows above it that belong to the same chain; BEFORE_ALL in a chain's first row."""
    finite = np.where(column == BEFORE_ALL, -1, column)  # starts are positions in a history: never negative
    span = int(finite.max(initial=0)) + 2
    shifts = (np.cumsum(heads) - 1) * span
    running = np.maximum.accumulate(finite + shifts)
    before = np.empty_like(column)
    before[1:] = running[:-1] - shifts[1:]
    before[heads] = BEFORE_ALL
    return before


def _conflict(first_end: Ints, last_start: Ints) -> bool:
    forward = first_end < last_start
    ends, starts = first_end[forward], last_start[forward]
    if not len(ends):
        return False
    order: Any = np.argsort(ends)
    ends, starts = ends[order], starts[order]
    if (ends[1:] < starts[:-1]).any():
        return True
    inner_ends, inner_starts = first_end[~forward], last_start[~forward]
    position = np.searchsorted(ends, inner_starts, side="left") - 1
    return bool(((position >= 0) & (inner_ends < starts[np.maximum(position, 0)])).any())
