"""A history's register operations as columns of integers, one set per key: what the register checks work on.

Rule: nothing that constrains the verdict is lost, and nothing else is kept.  Reads that failed or whose answer is
unknown constrain nothing and are dropped; a compare-and-set that was answered "mismatch" did observe the register and
is kept.  Times are positions in the history (`Op.index`), so they are distinct, and a row leads back to its records.
Knows nothing of how a verdict is reached.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from typing import Final, NamedTuple

from seatrial.history import Json, Op, OpType

# Kinds of operation.
READ: Final = 0  # observed the value `old`
WRITE: Final = 1  # produced the value `new`
CAS: Final = 2  # observed `old` and produced `new` in one step
MISMATCH: Final = 3  # a compare-and-set that changed nothing because the value was not `old`

# How certain it is that it took effect.
OK: Final = 0  # it did, between start and end
FAIL: Final = 1  # it did not, and never will
INFO: Final = 2  # at any time after its start, or never; its end is NEVER

NEVER: Final = 1 << 60  # the end of an operation that may still take effect
NO_VALUE: Final = -1
INITIAL: Final = 0  # the id of the value that a register has before the first write

REGISTER_OPERATIONS: Final = frozenset({"read", "write", "cas", "delete"})


class MalformedHistory(ValueError):
    """An operation's value has not the shape that its `f` asks for."""


class Row(NamedTuple):
    """One operation on one register; `start` identifies it within its history."""

    kind: int
    old: int  # id of the value observed or expected; NO_VALUE for a write
    new: int  # id of the value produced; NO_VALUE for reads and mismatches
    start: int  # x precedes y exactly when x.end < y.start
    end: int
    status: int


@dataclass(slots=True)
class Columns:
    """All operations on one register.

    `values[i]` is the value with id i; `values[INITIAL]` is the initial one.  Columns have equal length.
    """

    key: str | None
    values: list[Json]
    kind: array[int] = field(default_factory=lambda: array("q"))
    old: array[int] = field(default_factory=lambda: array("q"))
    new: array[int] = field(default_factory=lambda: array("q"))
    start: array[int] = field(default_factory=lambda: array("q"))
    end: array[int] = field(default_factory=lambda: array("q"))
    status: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.kind)

    def add(self, kind: int, old: int, new: int, start: int, end: int, status: int) -> None:
        """Append one row."""
        self.kind.append(kind)
        self.old.append(old)
        self.new.append(new)
        self.start.append(start)
        self.end.append(end)
        self.status.append(status)

    def rows(self) -> list[Row]:
        """The same operations as rows, for the searches, which jump around in them."""
        return list(starmap(Row, zip(self.kind, self.old, self.new, self.start, self.end, self.status, strict=True)))


class _Builder:
    """Columns under construction, with the ids of the values met so far."""

    __slots__ = ("columns", "ids")

    def __init__(self, key: str | None, initial: Json) -> None:
        self.columns = Columns(key=key, values=[])
        self.ids: dict[object, int] = {}
        self.identify(initial)

    def identify(self, value: Json) -> int:
        # JSON's 1, 1.0 and true differ, and its lists and objects cannot be hashed; only plain integers and
        # strings, by far the most frequent, are their own identity.
        kind = type(value)
        identity = value if kind is int or kind is str else (json.dumps(value, sort_keys=True),)
        known = self.ids.get(identity)
        if known is None:
            known = self.ids[identity] = len(self.columns.values)
            self.columns.values.append(value)
        return known

    def add(self, invoked: Op, completed: Op | None) -> None:
        """Enter one operation; `completed` is None where nothing was recorded."""
        outcome = OpType.INFO if completed is None else completed.type
        f = invoked.f
        if f == "read":
            if completed is not None and outcome is OpType.OK:
                self.columns.add(READ, self.identify(completed.value), NO_VALUE, invoked.index, completed.index, OK)
            return
        if completed is None or outcome is OpType.INFO:
            status, end = INFO, NEVER
        else:
            status, end = (OK if outcome is OpType.OK else FAIL), completed.index
        if f == "cas":
            error = None if completed is None else completed.error
            self._add_cas(invoked, end, status, mismatched=error == "mismatch")
        else:
            value = None if f == "delete" else invoked.value
            self.columns.add(WRITE, NO_VALUE, self.identify(value), invoked.index, end, status)

    def _add_cas(self, invoked: Op, end: int, status: int, *, mismatched: bool) -> None:
        pair = invoked.value
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise MalformedHistory(
                f"op {invoked.index}: a cas needs the value [expected, new], and this one has {pair!r}"
            )
        old, new = self.identify(pair[0]), self.identify(pair[1])
        if status == FAIL and mismatched:
            self.columns.add(MISMATCH, old, NO_VALUE, invoked.index, end, OK)
        elif old != new:
            self.columns.add(CAS, old, new, invoked.index, end, status)
        elif status == OK:
            # It left the register as it was: all that it says is that it saw `old`.
            self.columns.add(READ, old, NO_VALUE, invoked.index, end, OK)


def columns_by_key(
    ops: Iterable[Op],
    *,
    initial: Json | Mapping[str | None, Json] = None,
    operations: Collection[str] = REGISTER_OPERATIONS,
) -> dict[str | None, Columns]:
    """The register operations of a history, apart for each key; operations of other kinds are passed over.

    `initial` is the value of every register before its first write, or a mapping from key to it (None for keys not in
    it).  Raises MalformedHistory.
    """
    builders: dict[str | None, _Builder] = {}
    open_ops: dict[int, Op] = {}

    def close(invoked: Op, completed: Op | None) -> None:
        builder = builders.get(invoked.key)
        if builder is None:
            first = initial.get(invoked.key) if isinstance(initial, Mapping) else initial
            builder = builders[invoked.key] = _Builder(invoked.key, first)
        builder.add(invoked, completed)

    for op in ops:
        if op.type is OpType.INVOKE:
            abandoned = open_ops.pop(op.client, None)
            if abandoned is not None:
                close(abandoned, None)
            if op.f in operations:
                open_ops[op.client] = op
        else:
            invoked = open_ops.pop(op.client, None)
            if invoked is not None:
                close(invoked, op)
    for invoked in open_ops.values():
        close(invoked, None)
    return {key: builder.columns for key, builder in builders.items()}
