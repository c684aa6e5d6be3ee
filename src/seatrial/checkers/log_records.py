"""A history's operations on partition logs: who appended what, who read what where, per partition.

Operations: f="append" (value v, all different; ok value [offset, v], offset null where the client was not told),
"poll" (ok value: the [offset, v] pairs that the consumer was given), "final-read" (ok value: all pairs on the node;
an `error` says that it is incomplete), "assign" (the consumer's position was set anew, for its key or, without one,
for all); "delete-records" (value: the offset up to which; ok value: where the log starts now) and "log-start" (ok
value: where it starts).  Keys are "topic/partition".

Rule: nothing is judged here; times are positions in the history, so a record leads back to its operations.
Knows nothing of anomalies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from seatrial.checkers.columns import NEVER, MalformedHistory
from seatrial.history import Json, Op, OpType

LOG_OPERATIONS: Final = frozenset({"append", "poll", "final-read", "assign", "delete-records", "log-start"})

Offset: TypeAlias = int
Value: TypeAlias = int | str


class Append(NamedTuple):
    """One record sent; `offset` is known where it was acknowledged with one."""

    value: Value
    client: int
    start: int  # x was over before y began exactly when x.end < y.start
    end: int  # NEVER where the outcome is unknown
    outcome: OpType
    offset: Offset | None


class Read(NamedTuple):
    """One answer to a poll or final read."""

    client: int
    node: int | None
    start: int
    end: int
    pairs: tuple[tuple[Offset, Value], ...]
    final: bool
    complete: bool  # of a final read: it returned all that the node has
    continues: bool  # of a poll: the consumer's position has not been set anew since its last one


@dataclass(slots=True)
class PartitionRecords:
    """All that happened to one partition, reads in the order of their answers."""

    key: str
    appends: dict[Value, Append] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    unread_nodes: dict[int, int] = field(
        default_factory=dict
    )  # node -> op of a final read that brought no whole answer
    log_start: Offset = 0  # the furthest that anybody was told: what is before it may be gone
    log_start_op: int | None = None  # who was told
    asked_start: Offset = 0  # the furthest up to which anybody asked for records to be deleted


def partitions(ops: Iterable[Op]) -> dict[str, PartitionRecords]:
    """The records of each partition.  Raises MalformedHistory."""
    return _Collector().collect(ops)


class _Collector:
    def __init__(self) -> None:
        self.found: dict[str, PartitionRecords] = {}
        self.positioned: set[tuple[int, str]] = set()  # (client, key) of consumers with a position

    def collect(self, ops: Iterable[Op]) -> dict[str, PartitionRecords]:
        open_ops: dict[int, Op] = {}
        for op in ops:
            if op.type is not OpType.INVOKE:
                invoked = open_ops.pop(op.client, None)
                if invoked is not None:
                    self._add(invoked, op)
                continue
            abandoned = open_ops.pop(op.client, None)
            if abandoned is not None:
                self._add(abandoned, None)
            if op.f in LOG_OPERATIONS:
                open_ops[op.client] = op
                if op.f == "assign":
                    self._forget_position(op)
        for invoked in open_ops.values():
            self._add(invoked, None)
        return self.found

    def _add(self, invoked: Op, completed: Op | None) -> None:
        if invoked.f == "assign":
            self._forget_position(invoked)
            return
        if invoked.key is None:
            raise MalformedHistory(f'op {invoked.index}: {invoked.f} needs a key, "topic/partition"')
        records = self.found.setdefault(invoked.key, PartitionRecords(invoked.key))
        if invoked.f == "append":
            self._add_append(records, invoked, completed)
        elif invoked.f in ("delete-records", "log-start"):
            _add_start(records, invoked, completed)
        else:
            self._add_read(records, invoked, completed)

    def _forget_position(self, assign: Op) -> None:
        self.positioned = {
            (client, key) for client, key in self.positioned if client != assign.client or assign.key not in (None, key)
        }

    def _add_append(self, records: PartitionRecords, invoked: Op, completed: Op | None) -> None:
        value = invoked.value
        if not isinstance(value, int | str):
            raise MalformedHistory(f"op {invoked.index}: an append needs a number or text as its value, not {value!r}")
        if value in records.appends:
            raise MalformedHistory(
                f"op {invoked.index}: {value!r} was sent to {records.key} before: give each append its own value, "
                "or a record that is there twice cannot be told from two records"
            )
        outcome = OpType.INFO if completed is None else completed.type
        offset = None
        if completed is not None and outcome is OpType.OK:
            offset = _acknowledged_offset(completed)
        end = NEVER if completed is None or outcome is OpType.INFO else completed.index
        records.appends[value] = Append(value, invoked.client, invoked.index, end, outcome, offset)

    def _add_read(self, records: PartitionRecords, invoked: Op, completed: Op | None) -> None:
        final = invoked.f == "final-read"
        node = invoked.node if completed is None or completed.node is None else completed.node
        if completed is None or completed.type is not OpType.OK:
            if final and node is not None:
                records.unread_nodes.setdefault(node, invoked.index)
            return
        complete = final and completed.error is None
        if complete and node is not None:
            records.unread_nodes.pop(node, None)
        elif final and node is not None:
            records.unread_nodes.setdefault(node, invoked.index)
        consumer = (invoked.client, records.key)
        continues = not final and consumer in self.positioned
        pairs = _pairs(completed)
        if pairs and not final:
            self.positioned.add(consumer)
        records.reads.append(
            Read(invoked.client, node, invoked.index, completed.index, pairs, final, complete, continues)
        )


def _add_start(records: PartitionRecords, invoked: Op, completed: Op | None) -> None:
    if invoked.f == "delete-records":
        records.asked_start = max(records.asked_start, _offset(invoked))
    if completed is not None and completed.type is OpType.OK and _offset(completed) > records.log_start:
        records.log_start, records.log_start_op = _offset(completed), completed.index


def _offset(op: Op) -> Offset:
    if type(op.value) is not int:
        raise MalformedHistory(f"op {op.index}: the value of {op.f} is an offset, not {op.value!r}")
    return op.value


def _acknowledged_offset(completed: Op) -> Offset | None:
    answer = completed.value
    if not isinstance(answer, list | tuple) or len(answer) != 2 or not isinstance(answer[0], int | None):
        raise MalformedHistory(f"op {completed.index}: an acknowledged append needs [offset, value], not {answer!r}")
    # Clients say -1 where the broker told them no offset (acks=0).
    return answer[0] if answer[0] is not None and answer[0] >= 0 else None


def _pairs(completed: Op) -> tuple[tuple[Offset, Value], ...]:
    answer: Json = completed.value if completed.value is not None else []
    try:
        pairs = tuple((offset, value) for offset, value in answer)
    except (TypeError, ValueError):
        pairs = None
    if pairs is None or not all(type(offset) is int and isinstance(value, int | str) for offset, value in pairs):
        raise MalformedHistory(f"op {completed.index}: a read's answer is a list of [offset, value]")
    return pairs
