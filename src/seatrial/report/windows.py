"""The smallest window of operations that shows an anomaly: as intervals to draw and as words.

Rule: only operations that the anomaly names are drawn.  The horizontal axis is the *order* of their beginnings and
ends, evenly spaced, because operations that prove something together may lie a millisecond or a minute apart; the
true times stand beside it.
Knows nothing of HTML, nor of why something is an anomaly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seatrial.history import Json, OpType
from seatrial.report.loading import Operation
from seatrial.report.summary import AnomalySummary
from seatrial.report.timeline import FaultRow

OPERATIONS_MAX = 40
TEXT_MAX = 60
LABELLED_MOMENTS_MAX = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One operation's interval; `left` and `width` are percent of the window."""

    index: int
    client: int
    node: int | None
    outcome: str
    f: str
    key: str
    what: str
    error: str
    left: float
    width: float
    open_ended: bool  # nobody knows when, or whether, it took effect
    begin_ns: int
    end_ns: int | None


@dataclass(frozen=True, slots=True)
class Moment:
    """A labelled place on the window's axis."""

    left: float
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is drawn for one anomaly."""

    bars: tuple[Bar, ...]
    moments: tuple[Moment, ...]
    faults: tuple[FaultRow, ...]  # those that were on somewhere in it
    begin_ns: int
    end_ns: int
    omitted: int  # operations that are named but not drawn


class OperationsByEvent:
    """Finds an operation by the index of either of its events."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._by_event: dict[int, Operation] = {}
        for operation in operations:
            self._by_event[operation.invoked.index] = operation
            if operation.completed is not None:
                self._by_event[operation.completed.index] = operation

    def find(self, events: Sequence[int]) -> list[Operation]:
        """The operations of these events, each once, by their invocation; unknown indexes are left out."""
        found = {o.invoked.index: o for event in events if (o := self._by_event.get(event)) is not None}
        return [found[index] for index in sorted(found)]


def window_of(anomaly: AnomalySummary, operations: OperationsByEvent, faults: Sequence[FaultRow]) -> Window | None:
    """The window of an anomaly; None when it names no operation of this history."""
    named = operations.find(anomaly.ops)
    if not named:
        return None
    drawn = named[:OPERATIONS_MAX]
    open_ended = {o.invoked.index for o in drawn if o.outcome is OpType.INFO}
    doubted = {entry.get("op") for entry in _core(anomaly) if entry.get("certain") is False}
    times = sorted({t for o in drawn for t in _times(o, o.invoked.index in open_ended)})
    place = {time: 100 * number / max(len(times), 1) for number, time in enumerate(times)}
    bars = tuple(_bar(o, place, o.invoked.index in open_ended or o.invoked.index in doubted) for o in drawn)
    begin, end = times[0], times[-1]
    return Window(
        bars=bars,
        moments=tuple(Moment(place[t], t) for t in times) if len(times) <= LABELLED_MOMENTS_MAX else (),
        faults=tuple(f for f in faults if not f.skipped and f.begin_ns <= end and f.end_ns >= begin),
        begin_ns=begin,
        end_ns=end,
        omitted=len(named) - len(drawn),
    )


def _core(anomaly: AnomalySummary) -> list[Mapping[str, Json]]:
    core = anomaly.detail.get("core")
    return [entry for entry in core if isinstance(entry, dict)] if isinstance(core, list) else []


def _times(operation: Operation, open_ended: bool) -> tuple[int, ...]:
    begin = operation.invoked.time_ns
    return (begin,) if open_ended or operation.completed is None else (begin, operation.completed.time_ns)


def _bar(operation: Operation, place: Mapping[int, float], open_ended: bool) -> Bar:
    invoked, completed = operation.invoked, operation.completed
    left = place[invoked.time_ns]
    right = 100.0 if open_ended or completed is None else place[completed.time_ns]
    return Bar(
        index=invoked.index,
        client=invoked.client,
        node=operation.node,
        outcome=operation.outcome.value,
        f=invoked.f,
        key=invoked.key or "",
        what=describe(operation),
        error=(completed.error or "") if completed is not None else "no completion was recorded",
        left=left,
        width=max(right - left, 1.5),
        open_ended=open_ended,
        begin_ns=invoked.time_ns,
        end_ns=completed.time_ns if completed is not None else None,
    )


def describe(operation: Operation) -> str:
    """An operation in a few words: "write 5", "read → 4", "append 7 → offset 3", "final-read → 1,204 records"."""
    invoked, completed = operation.invoked, operation.completed
    given, answered = invoked.value, completed.value if completed is not None else None
    ok = operation.outcome is OpType.OK
    match invoked.f:
        case "read":
            text = f"read → {_show(answered)}" if ok else "read"
        case "cas" if isinstance(given, list) and len(given) == 2:
            text = f"cas {_show(given[0])} → {_show(given[1])}"
        case "append":
            offset = answered[0] if ok and isinstance(answered, list) and answered else None
            text = f"append {_show(given)}" + (f" → offset {offset}" if offset is not None else "")
        case _ if isinstance(answered, list) and len(answered) > 2:
            text = f"{invoked.f} → {len(answered):,} records"
        case _:
            shown = answered if given is None and ok else given
            text = invoked.f + (f" {_show(shown)}" if shown is not None else "")
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def _show(value: Json) -> str:
    return "nothing" if value is None else str(value)
