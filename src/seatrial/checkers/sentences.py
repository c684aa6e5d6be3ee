"""A minimal core in words: who answered what, and what had happened before that makes it impossible.

Rule: the sentence claims only what the core and the history show; where no known pattern fits, it lists the
operations.
Knows nothing of how the core was found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from seatrial.checkers.columns import CAS, FAIL, INITIAL, MISMATCH, OK, READ, WRITE, Columns, Row
from seatrial.checkers.explain import Core
from seatrial.checkers.weakening import ANY_STATE
from seatrial.history import History, Json

_LISTED_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Account:
    """What a core shows: a short name for the pattern, one sentence, and the operation that should not be."""

    kind: str
    sentence: str
    accused: Row


def tell(core: Core, columns: Columns, history: History) -> Account:
    """Put a core of one register into words."""
    return _Teller(core, columns, history).account()


def describe(core: Core, columns: Columns, history: History) -> list[dict[str, Json]]:
    """The core's operations for a report, in the order of their invocations; `certain` as the proof needs it."""
    described: list[dict[str, Json]] = []
    originals = {row.start: row for row in columns.rows()}
    for row in core.rows:
        # A cut on the left moves no start, so the invocation is found under it; the proof may have doubted the end.
        original = originals[row.start]
        invoked = history[row.start]
        completed = history[original.end] if original.status == OK else None
        described.append(
            {
                "op": row.start,
                "completion": None if completed is None else completed.index,
                "client": invoked.client,
                "node": invoked.node if completed is None or completed.node is None else completed.node,
                "f": invoked.f,
                "value": completed.value if completed is not None and row.kind == READ else invoked.value,
                "certain": row.status == OK,
                "start_ns": invoked.time_ns,
                "end_ns": None if completed is None else completed.time_ns,
            }
        )
    return described


def show(value: Json) -> str:
    """A value as the sentences write it."""
    return "no value" if value is None else repr(value)


class _Teller:
    def __init__(self, core: Core, columns: Columns, history: History) -> None:
        self.core, self.columns, self.history = core, columns, history
        self.certain = sorted((row for row in core.rows if row.status == OK), key=lambda row: row.end)
        self.accused = self.certain[-1]
        self.earlier = [row for row in self.certain[:-1] if row.end < self.accused.start]
        self.makers = [row for row in columns.rows() if row.new == self.accused.old and row.kind in (WRITE, CAS)]

    def account(self) -> Account:
        accused = self.accused
        found = None
        if accused.kind in (READ, CAS):
            found = (
                self._never_written()
                or self._two_swaps()
                or self._overwritten()
                or self._came_back()
                or self._two_at_once()
            )
        elif accused.kind == MISMATCH:
            found = self._wrong_mismatch()
        kind, sentence = found or ("impossible-order", self._listing())
        return Account(kind, sentence, accused)

    def _value(self, identity: int) -> str:
        return show(self.columns.values[identity])

    def _node(self, row: Row) -> int | None:
        node = self.history[row.end].node if row.status == OK else None
        return self.history[row.start].node if node is None else node

    def _deed(self, row: Row) -> str:
        """What the accused did, as the beginning of a sentence."""
        node, client = self._node(row), self.history[row.start].client
        where = f" on key {self.columns.key}" if self.columns.key is not None else ""
        who = f"client {client} was given" if node is None else f"node {node} gave client {client}"
        if row.kind == READ:
            if node is None:
                return f"client {client}'s linearizable read{where} was answered with {self._value(row.old)}"
            return f"node {node} answered a linearizable read{where} with {self._value(row.old)}"
        if row.kind == CAS:
            return f"{who} success for a compare-and-set{where} from {self._value(row.old)} to {self._value(row.new)}"
        return f"{who} a mismatch for a compare-and-set{where} that expected {self._value(row.old)}"

    def _noun(self) -> str:
        return "read" if self.accused.kind == READ else "compare-and-set"

    def _never_written(self) -> tuple[str, str] | None:
        accused = self.accused
        if accused.old == INITIAL:
            return None
        deed = self._deed(accused)
        possible = [row for row in self.makers if row.status != FAIL]
        if not self.makers:
            return "phantom-value", f"{deed}, which nobody ever tried to write"
        if not possible:
            return "observed-failed-write", f"{deed}, although the only write of it had been refused as surely not done"
        if all(row.start > accused.end for row in possible):
            return "read-from-the-future", f"{deed}, which was written only after the {self._noun()} had ended"
        return None

    def _two_swaps(self) -> tuple[str, str] | None:
        accused = self.accused
        if accused.kind != CAS:
            return None
        for row in self.certain[:-1]:
            if row.kind == CAS and row.old == accused.old and len(self.makers) <= 1:
                return (
                    "lost-update",
                    f"{self._deed(accused)} although a compare-and-set from {self._value(row.old)} to "
                    f"{self._value(row.new)} succeeded too, and {self._value(row.old)} "
                    + ("was there only before the first write" if row.old == INITIAL else "was written only once"),
                )
        return None

    def _stale_since(self) -> Row | None:
        """An acknowledged effect that lies wholly after all that could have made the accused's value."""
        makers = [row for row in self.core.rows if row.new == self.accused.old and row.kind in (WRITE, CAS)]
        for row in reversed(self.earlier):
            if row.kind in (WRITE, CAS) and row.new != self.accused.old:
                if all(maker.status == OK and maker.end < row.start for maker in makers):
                    return row
                if row.kind == CAS and row.old == self.accused.old and len(self.makers) <= 1:
                    return row
        return None

    def _overwritten(self) -> tuple[str, str] | None:
        row = self._stale_since()
        if row is None:
            return None
        return (
            "stale-read",
            f"{self._deed(self.accused)} although {self._value(row.new)} had been written and acknowledged "
            f"before the {self._noun()} began",
        )

    def _came_back(self) -> tuple[str, str] | None:
        """The value had been there, then another was seen, and now it is back, though it was written but once."""
        value = self.accused.old
        # Without a maker in the core the value was there when the core began, and cannot return once it has gone.
        makeable = any(row.new == value and row.kind in (WRITE, CAS) for row in self.core.rows)
        if makeable and len(self.makers) > 1:
            return None
        for row in reversed(self.earlier):
            if row.kind != READ or row.old == value:
                continue
            there_before = not makeable or any(
                value in (other.old, other.new) and other.end < row.start for other in self.certain
            )
            if there_before:
                other_node = self._node(row)
                by = "" if other_node is None else f" by node {other_node}"
                return (
                    "stale-read",
                    f"{self._deed(self.accused)} although an earlier read had already been answered{by} with the newer "
                    f"value {self._value(row.old)} before the {self._noun()} began",
                )
        return None

    def _two_at_once(self) -> tuple[str, str] | None:
        """Two operations under way together, and no write that was could lead from one's value to the other's."""
        if len(self.certain) != 2 or self.earlier or self.core.initial != ANY_STATE:
            return None
        return (
            "stale-read",
            f"{self._deed(self.accused)} while at the same time {self._told(self.certain[0])}, and no write that was "
            "under way then explains both",
        )

    def _wrong_mismatch(self) -> tuple[str, str] | None:
        value = self.accused.old
        if any(value in (row.old, row.new) for row in self.earlier) or value == INITIAL:
            return (
                "wrong-mismatch",
                f"{self._deed(self.accused)}, although the value was {self._value(value)} and nothing that could have "
                "changed it fits in between",
            )
        return None

    def _listing(self) -> str:
        told = [self._told(row) for row in self.certain[:_LISTED_MAX]]
        more = len(self.certain) - len(told)
        where = "" if self.columns.key is None else f" on key {self.columns.key}"
        start = "from whichever value" if self.core.initial == ANY_STATE else "from the initial value"
        return (
            f"no order of these operations{where} respects real time and explains every answer, {start}: "
            + "; ".join(told)
            + (f"; and {more} more" if more else "")
        )

    def _told(self, row: Row) -> str:
        node, client = self._node(row), self.history[row.start].client
        at = "" if node is None else f" at node {node}"
        if row.kind == READ:
            deed = f"read {self._value(row.old)}"
        elif row.kind == WRITE:
            deed = f"wrote {self._value(row.new)}"
        elif row.kind == CAS:
            deed = f"swapped {self._value(row.old)} for {self._value(row.new)}"
        else:
            deed = f"was told that the value is not {self._value(row.old)}"
        return f"client {client} {deed}{at}"


def shown_records(core: Core) -> tuple[int, ...]:
    """The core's invocations, and the completions of its certain operations, as positions in the history."""
    ends = (row.end for row in core.rows if row.status == OK)
    return tuple(sorted({*(row.start for row in core.rows), *ends}))
