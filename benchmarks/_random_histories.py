"""Random register histories: runs of a correct register with real concurrency, and the same with something spoilt.

Rule: everything follows from the seed.  `run_register` is linearizable by construction; `spoil` usually, not always,
breaks it.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from typing import Final

from seatrial.checkers.columns import (
    CAS,
    FAIL,
    INFO,
    INITIAL,
    MISMATCH,
    NEVER,
    NO_VALUE,
    OK,
    READ,
    WRITE,
    Columns,
    Row,
)

_SPOILS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What clients do.  `values` None: every written value is new; otherwise that many are used again and again."""

    clients: int = 10
    reads: float = 0.5
    writes: float = 0.35  # the rest are compare-and-sets
    unknown: float = 0.0  # of writes and compare-and-sets
    failed: float = 0.0
    values: int | None = None
    mismatches: bool = False  # record a failed compare-and-set as an observation; otherwise as failed


@dataclass(slots=True)
class _Call:
    kind: int
    old: int
    new: int
    start: int
    effective: bool = False
    status: int = OK


def run_register(count: int, mix: Mix, seed: int) -> list[Row]:
    """Operations of a register that is correct, in the order of their ends; times are distinct ranks."""
    return _Run(mix, random.Random(seed)).run(count)


class _Run:
    def __init__(self, mix: Mix, chance: random.Random) -> None:
        self.mix, self.chance = mix, chance
        self.state = INITIAL
        self.now = 0
        self.fresh = INITIAL
        self.open: list[_Call] = []
        self.late: list[_Call] = []  # of unknown outcome, and not yet effective
        self.rows: list[Row] = []

    def run(self, count: int) -> list[Row]:
        issued = 0
        while issued < count or self.open:
            if self.late and self.chance.random() < 0.06:
                self._apply(self.late.pop(self.chance.randrange(len(self.late))))
            may_call = issued < count and len(self.open) < self.mix.clients
            if may_call and (not self.open or self.chance.random() < 0.4):
                self.open.append(self._call())
                issued += 1
                continue
            position = self.chance.randrange(len(self.open))
            call = self.open[position]
            if call.effective:
                self.open[position] = self.open[-1]
                self.open.pop()
                self._end(call)
            else:
                self._take_effect(call)
        return self.rows

    def _tick(self) -> int:
        self.now += 1
        return self.now

    def _new_value(self) -> int:
        if self.mix.values is not None:
            return self.chance.randrange(1, self.mix.values + 1)
        self.fresh += 1
        return self.fresh

    def _call(self) -> _Call:
        draw = self.chance.random()
        if draw < self.mix.reads:
            return _Call(READ, NO_VALUE, NO_VALUE, self._tick())
        if draw < self.mix.reads + self.mix.writes:
            return _Call(WRITE, NO_VALUE, self._new_value(), self._tick())
        old = self.state if self.chance.random() < 0.7 else max(INITIAL, self.state - 1)
        new = self._new_value()
        return _Call(CAS, old, new if new != old else old + 1, self._tick())

    def _apply(self, call: _Call) -> bool:
        if call.kind == CAS and self.state != call.old:
            return False
        self.state = call.new
        return True

    def _take_effect(self, call: _Call) -> None:
        call.effective = True
        draw = self.chance.random()
        if call.kind == READ:
            call.old = self.state
        elif draw < self.mix.failed:
            call.status = FAIL
        elif draw < self.mix.failed + self.mix.unknown:
            call.status = INFO
            draw = self.chance.random()
            if draw < 0.4:
                self._apply(call)
            elif draw < 0.8:
                self.late.append(call)
        elif not self._apply(call):
            if self.mix.mismatches:
                call.kind, call.new = MISMATCH, NO_VALUE
            else:
                call.status = FAIL

    def _end(self, call: _Call) -> None:
        end = NEVER if call.status == INFO else self._tick()
        self.rows.append(Row(call.kind, call.old, call.new, call.start, end, call.status))


def spoil(rows: list[Row], seed: int, times: int = 1) -> list[Row]:
    """The rows with that many random changes: to values, times, outcomes, or by leaving one out."""
    chance = random.Random(seed)
    spoilt = list(rows)
    for _ in range(times):
        if spoilt:
            _spoil_once(spoilt, chance)
    return with_distinct_times(spoilt)


def _spoil_once(rows: list[Row], chance: random.Random) -> None:
    choice = chance.randrange(_SPOILS)
    position = chance.randrange(len(rows))
    row = rows[position]
    values = [INITIAL, *(other.new for other in rows if other.new != NO_VALUE)]
    reads = [number for number, other in enumerate(rows) if other.kind == READ]
    if choice <= 2 and reads:
        position = chance.choice(reads)
        rows[position] = rows[position]._replace(old=chance.choice(values))
    elif choice == 3 and row.status == OK and row.end - row.start > 1:
        cut = chance.randint(row.start, row.end)
        rows[position] = row._replace(start=cut) if chance.random() < 0.5 else row._replace(end=cut)
    elif choice == 4:
        shift = chance.randint(-8, 8)
        rows[position] = row._replace(start=row.start + shift, end=row.end + (0 if row.end == NEVER else shift))
    elif choice == 5 and row.kind == READ:
        rows[position] = row._replace(old=max(values) + 1)  # a phantom
    elif choice == 6 and row.kind in (CAS, MISMATCH):
        old = chance.choice(values)
        rows[position] = row._replace(old=old) if old != row.new else row
    elif choice == 7 and len(rows) > 1:
        del rows[position]
    elif choice == 8 and row.kind in (WRITE, CAS):
        status = chance.choice((OK, FAIL, INFO))
        end = NEVER if status == INFO else row.end if row.end != NEVER else row.start + chance.randint(1, 10)
        rows[position] = row._replace(status=status, end=end)


def with_distinct_times(rows: list[Row]) -> list[Row]:
    """The same operations with ranks as times; of equal times calls come before returns: no order is lost or made."""
    events = [(row.start, 0, number) for number, row in enumerate(rows)]
    events += [(row.end, 1, number) for number, row in enumerate(rows) if row.end != NEVER]
    starts, ends = [0] * len(rows), [NEVER] * len(rows)
    for rank, (_, is_return, number) in enumerate(sorted(events)):
        (ends if is_return else starts)[number] = rank
    ranked = [row._replace(start=starts[number], end=ends[number]) for number, row in enumerate(rows)]
    return sorted(ranked, key=lambda row: row.end)


def columns_of(rows: list[Row]) -> Columns:
    """Rows as columns; a value is its own id."""
    count = max((max(row.old, row.new) for row in rows), default=0) + 1
    columns = Columns(key="x", values=list(range(count)))
    if rows:
        kind, old, new, start, end, status = (array("q", column) for column in zip(*rows, strict=True))
        columns = Columns("x", columns.values, kind, old, new, start, end, status)
    return columns
