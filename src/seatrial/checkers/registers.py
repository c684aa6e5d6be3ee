"""Linearizability of a register whose written values are all different: exact, and linear but for one sort of zones.

Theory (Gibbons and Korach, SIAM J. Comput. 26(4), 1997), extended by compare-and-set and by unknown outcomes. A write
and the reads of its value form a block, contiguous in any linearization.  A compare-and-set from u to v is the last
operation of block u and the first of block v, so a maximal chain of them is one contiguous block with a fixed order
inside.  A block's zone is [first end, last start] of its operations: block A must come before B exactly when A's
first end lies before B's last start.  Any cycle of these demands contains a cycle of two, so the register is
linearizable exactly when every chain is in order inside, no two forward zones (first end < last start) overlap, and
no backward zone lies inside a forward one.  A write of unknown outcome counts only where its value was observed.

Rule: a Violation holds whatever else happened; None means linearizable, leaving answers of "mismatch" aside (those
make the question a disjunction: the search decides it).  Knows nothing of histories: columns in, verdict out.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from seatrial.checkers.columns import CAS, FAIL, INITIAL, MISMATCH, NEVER, OK, READ, Columns

BEFORE_ALL: Final = -NEVER  # when the initial value was written
UNWRITTEN: Final = NEVER + 1  # the start of the write of a value that nobody may have written
NONE: Final = -1


class ReusedValue(Exception):
    """One value was written twice (or is the initial one): this check does not apply, the search does."""


class Violation(NamedTuple):
    """What is wrong, and the starts and ends of the operations that show it (some may name the same operation)."""

    kind: str
    values: tuple[int, ...]
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()


# The span that a block of operations must (forward) or can (backward) occupy: its first end, its last start and the
# first value of its chain.  Plain tuples: there is one for each value, and building them is most of the work.
Zone: TypeAlias = tuple[int, int, int]


@dataclass(slots=True)
class _Blocks:
    """Per value id: who wrote it and who observed it."""

    write_start: list[int]
    write_end: list[int]
    read_end: list[int]  # the earliest end of a read of it; NEVER where nobody read it
    read_start: list[int]  # the latest start of a read of it; BEFORE_ALL where nobody read it
    source: list[int]  # the value that the compare-and-set which wrote it started from, or NONE
    successor: list[int]  # the value that an effective compare-and-set from it wrote, or NONE
    chained: bool  # whether there was any compare-and-set


def check_unique(columns: Columns) -> Violation | None:
    """None when the register is linearizable.  Raises ReusedValue where a value was written twice."""
    blocks = _blocks(columns)
    if isinstance(blocks, Violation):
        return blocks
    violation = _settle_observed(blocks)
    if violation is not None:
        return violation
    zones = _zones(blocks)
    return zones if isinstance(zones, Violation) else _conflict(zones)


def _blocks(columns: Columns) -> _Blocks | Violation:
    count = len(columns.values)
    write_start, write_end = [UNWRITTEN] * count, [NEVER] * count
    read_end, read_start = [NEVER] * count, [BEFORE_ALL] * count
    source, successor = [NONE] * count, [NONE] * count
    write_start[INITIAL] = write_end[INITIAL] = BEFORE_ALL
    chained = False
    for kind, old, new, start, end, status in zip(
        columns.kind.tolist(),
        columns.old.tolist(),
        columns.new.tolist(),
        columns.start.tolist(),
        columns.end.tolist(),
        columns.status.tolist(),
        strict=True,
    ):
        if kind == READ:
            if end < read_end[old]:
                read_end[old] = end
            if start > read_start[old]:
                read_start[old] = start
        elif status != FAIL and kind != MISMATCH:
            if write_start[new] != UNWRITTEN:
                raise ReusedValue
            write_start[new] = start
            write_end[new] = end
            if kind == CAS:
                chained = True
                source[new] = old
                if status == OK:
                    if successor[old] != NONE:
                        return _two_cas(old, write_start[successor[old]], start)
                    successor[old] = new
    return _Blocks(write_start, write_end, read_end, read_start, source, successor, chained)


def _two_cas(value: int, start: int, other_start: int) -> Violation:
    return Violation("two-cas-from-one-value", (value,), (start, other_start))


def _settle_observed(blocks: _Blocks) -> Violation | None:
    """Give every observed value its writer; a compare-and-set of unknown outcome did happen if its value was seen."""
    write_start, source, successor = blocks.write_start, blocks.source, blocks.successor
    for value, (written, read, following) in enumerate(zip(write_start, blocks.read_start, successor, strict=True)):
        if written == UNWRITTEN and (read != BEFORE_ALL or following != NONE):
            return _phantom(blocks, value)
    if not blocks.chained:
        return None
    unknown = [value for value, end in enumerate(blocks.write_end) if end == NEVER and source[value] != NONE]
    happened = [value for value in unknown if blocks.read_start[value] != BEFORE_ALL or successor[value] != NONE]
    while happened:
        value = happened.pop()
        origin = source[value]
        if successor[origin] == value:
            continue
        if successor[origin] != NONE:
            return _two_cas(origin, write_start[successor[origin]], write_start[value])
        successor[origin] = value
        if write_start[origin] == UNWRITTEN:
            return _phantom(blocks, origin)
        if blocks.write_end[origin] == NEVER and source[origin] != NONE:
            happened.append(origin)
    return None


def _phantom(blocks: _Blocks, value: int) -> Violation:
    if blocks.read_start[value] != BEFORE_ALL:
        return Violation("phantom-value", (value,), (blocks.read_start[value],))
    return Violation("phantom-value", (value,), (blocks.write_start[blocks.successor[value]],))


def _zones(blocks: _Blocks) -> list[Zone] | Violation:
    read_start, successor = blocks.read_start, blocks.successor
    zones: list[Zone] = []
    linked = 0
    for root, (last_start, first_end, end, origin) in enumerate(
        zip(blocks.write_start, blocks.write_end, blocks.read_end, blocks.source, strict=True)
    ):
        if last_start == UNWRITTEN or origin != NONE:
            continue
        if end < last_start:
            return Violation("order-inside-chain", (root,), (last_start,), (end,))
        if end < first_end:
            first_end = end
        elif first_end == NEVER and successor[root] == NONE:
            continue  # of unknown outcome, and observed by nobody: it may as well never have happened
        if read_start[root] > last_start:
            last_start = read_start[root]
        if successor[root] == NONE:
            zones.append((first_end, last_start, root))
            continue
        chain = _chain_zone(blocks, root, first_end, last_start)
        if isinstance(chain, Violation):
            return chain
        zone, length = chain
        zones.append(zone)
        linked += length
    return (_rootless(blocks, linked) if blocks.chained else None) or zones


def _chain_zone(blocks: _Blocks, root: int, first_end: int, last_start: int) -> tuple[Zone, int] | Violation:
    """The zone of a chain whose first block is given, and how many compare-and-sets it has."""
    write_start, write_end = blocks.write_start, blocks.write_end
    read_start, read_end, successor = blocks.read_start, blocks.read_end, blocks.successor
    length = 0
    value = successor[root]
    while value != NONE:
        length += 1
        end = write_end[value]
        if end < last_start:
            return Violation("order-inside-chain", (root, value), (last_start,), (end,))
        if end < first_end:
            first_end = end
        if write_start[value] > last_start:
            last_start = write_start[value]
        end = read_end[value]
        if end < last_start:
            return Violation("order-inside-chain", (root, value), (last_start,), (end,))
        if end < first_end:
            first_end = end
        if read_start[value] > last_start:
            last_start = read_start[value]
        value = successor[value]
    return (first_end, last_start, root), length


def _rootless(blocks: _Blocks, linked: int) -> Violation | None:
    """A chain of compare-and-sets that no write and no initial value begins bites its own tail."""
    reached = [value for value, following in enumerate(blocks.successor) if following != NONE]
    if linked == len(reached):
        return None
    on_chains: set[int] = set()
    for root, origin in enumerate(blocks.source):
        value = root if origin == NONE else NONE
        while value != NONE:
            on_chains.add(value)
            value = blocks.successor[value]
    # Every value has one source and one successor, so what hangs on no root is a cycle.
    value = next(value for value in reached if value not in on_chains)
    cycle = [value]
    while blocks.source[cycle[-1]] != value:
        cycle.append(blocks.source[cycle[-1]])
    return Violation("cas-cycle", tuple(cycle), tuple(blocks.write_start[value] for value in cycle))


def _conflict(zones: list[Zone]) -> Violation | None:
    forward = sorted([zone for zone in zones if zone[0] < zone[1]])
    if not forward:
        return None
    for earlier, zone in pairwise(forward):
        if zone[0] < earlier[1]:
            return _clash("overlapping-values", earlier, zone)
    first_ends = [zone[0] for zone in forward]
    for first_end, last_start, value in zones:
        if first_end >= last_start:
            position = bisect_left(first_ends, last_start) - 1
            if position >= 0 and first_end < forward[position][1]:
                return _clash("value-inside-another", forward[position], (first_end, last_start, value))
    return None


def _clash(kind: str, one: Zone, other: Zone) -> Violation:
    return Violation(kind, (one[2], other[2]), (one[1], other[1]), (one[0], other[0]))
