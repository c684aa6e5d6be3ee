"""The checker of what readers are told of a partition's end: sessions, and what everybody was told before.

Operation: f="tail" (ok value: the offset behind the last record that the reader was told of), beside appends
(`log_records`).  Three promises, of which a follower that serves without asking its leader breaks each:

    monotonic-tail       the end never goes back for one client, whichever nodes it asks
    read-your-writes     the end is behind every record whose append was acknowledged to this client before
    stale-tail           the same of every client's appends: the read is linearizable

Rule: INVALID only for what no linearizable read could show; times are positions in the history.
Knows nothing of which node answered, but to name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.checkers.columns import MalformedHistory
from seatrial.history import History, Op, OpType

TAIL: Final = "tail"
_SHOWN_MAX: Final = 10


@dataclass(slots=True)
class _Known:
    """Of one partition, as the history goes on: the furthest offset that was acknowledged, and by which operation."""

    offset: int = -1
    op: Op | None = None

    def learn(self, offset: int, op: Op) -> None:
        if offset > self.offset:
            self.offset, self.op = offset, op


@dataclass(frozen=True, slots=True)
class LogSessions:
    """Monotonic ends, read-your-writes, and ends that are not stale."""

    @property
    def name(self) -> str:
        return "log-sessions"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        try:
            tails, found = _judged(evidence.history)
        except MalformedHistory as error:
            return verdict(validity=Validity.UNKNOWN, reason=str(error))
        stats = {"tails": tails, "anomalies": len(found)}
        if found:
            return verdict(validity=Validity.INVALID, anomalies=tuple(found[:_SHOWN_MAX]), stats=stats)
        if not tails:
            return verdict(validity=Validity.UNKNOWN, reason="nothing to check: no reader was told an end", stats=stats)
        return verdict(validity=Validity.VALID, stats=stats)


def _judged(history: History) -> tuple[int, list[Anomaly]]:
    """How many ends were told, and what is wrong with them.  Raises MalformedHistory."""
    everybody: dict[str, _Known] = {}
    own: dict[tuple[int, str], _Known] = {}
    last: dict[tuple[int, str], tuple[int, Op]] = {}
    under_way: dict[int, tuple[Op, _Known, _Known]] = {}  # what was acknowledged when a tail began
    found: list[Anomaly] = []
    tails = 0
    for op in history:
        key = op.key or ""
        session = (op.client, key)
        if op.type is OpType.INVOKE:
            under_way.pop(op.client, None)
            if op.f == TAIL:
                all_known, known = everybody.get(key, _Known()), own.get(session, _Known())
                began = (op, _Known(all_known.offset, all_known.op), _Known(known.offset, known.op))
                under_way[op.client] = began
        elif op.type is OpType.OK and op.f == "append":
            offset = op.value[0] if isinstance(op.value, list | tuple) and op.value else None
            if isinstance(offset, int):
                everybody.setdefault(key, _Known()).learn(offset, op)
                own.setdefault(session, _Known()).learn(offset, op)
        elif op.type is OpType.OK and op.f == TAIL:
            began = under_way.pop(op.client)
            if type(op.value) is not int:
                raise MalformedHistory(f"op {op.index}: the answer to a tail is an offset, not {op.value!r}")
            tails += 1
            found += _wrong(op, op.value, began, last.get(session))
            last[session] = (op.value, op)
    return tails, found


def _wrong(op: Op, end: int, began: tuple[Op, _Known, _Known], before: tuple[int, Op] | None) -> Iterator[Anomaly]:
    invoked, everybody, own = began
    where = "" if op.node is None else f" by node {op.node}"
    told = f"client {op.client} was told{where} that {op.key} ends at {end}"
    anomaly = partial(Anomaly, key=op.key, node=op.node, time_ns=op.time_ns)
    if before is not None and end < before[0]:
        message = f"{told}, after it had been told {before[0]}"
        yield anomaly(name="monotonic-tail", message=message, ops=(before[1].index, invoked.index, op.index))
    if own.op is not None and own.offset >= end:
        message = f"{told}, after its own append was acknowledged at {own.offset}"
        yield anomaly(name="read-your-writes", message=message, ops=(own.op.index, invoked.index, op.index))
    elif everybody.op is not None and everybody.offset >= end:
        message = f"{told}, after an append of client {everybody.op.client} was acknowledged at {everybody.offset}"
        yield anomaly(name="stale-tail", message=message, ops=(everybody.op.index, invoked.index, op.index))
