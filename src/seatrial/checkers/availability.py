"""The checker of progress: while a majority of nodes was up and connected, did clients' operations succeed?

A service is one Raft group as clients see it: each partition log is one, all registers together are another.  A gap is
the time without an acknowledgement while a majority was connected, less the time in which nobody was trying.  Recovery
is the time from a fault's injection or healing to the first acknowledgement of an operation that was begun after it.

Rule: gaps are figures; they make the verdict INVALID only where a limit is set.  Only the phase with faults counts.
Knows nothing of what operations mean, except which of them need a majority.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.history import FaultEvent, Json, Op, OpType

REGISTERS: Final = "registers"
_LOG_UPDATES: Final = frozenset({"append"})  # polls succeed without a majority, when there is nothing to fetch
_REGISTER_OPERATIONS: Final = frozenset({"read", "write", "cas", "delete"})
_NANOSECONDS: Final = 1_000_000_000
# Clients pause between attempts that fail, and a pause no longer than this is part of trying.
_PAUSE_NS_MAX: Final = 1_000_000_000


class Gap(NamedTuple):
    """A stretch of time without an acknowledgement, and how much of it nobody was trying in."""

    start_ns: int
    end_ns: int
    idle_ns: int
    after: int | None  # the completion that it began with, where there was one

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns - self.idle_ns) / _NANOSECONDS


@dataclass(slots=True)
class _Service:
    """One group's operations in time."""

    steps: list[tuple[int, int, Op | None]] = field(default_factory=list)  # time, +1 begun or -1 over, acknowledgement
    acknowledged: list[tuple[int, int]] = field(default_factory=list)  # begun, over


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Longest gap while a majority was connected, and recovery after each fault.

    `gap_max_s`: a longer gap is an anomaly (seconds; None: never).
    """

    gap_max_s: float | None = None

    @property
    def name(self) -> str:
        return "availability"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        end_ns = evidence.duration_ns or max((op.time_ns for op in evidence.history), default=0)
        services = _services(evidence.history, end_ns)
        if not any(service.acknowledged for service in services.values()):
            return verdict(validity=Validity.UNKNOWN, reason="nothing to check: no operation was acknowledged")
        windows = connected_windows(evidence.faults, end_ns)
        gaps = {name: _longest(service, windows) for name, service in sorted(services.items())}
        recoveries = _recoveries(evidence.faults, services)
        measured = [row["recovery_s"] for row in recoveries if row["recovery_s"] is not None]
        stats = {
            "acknowledged": sum(len(service.acknowledged) for service in services.values()),
            "connected_s": sum(end - start for start, end in windows) / _NANOSECONDS,
            "gap_max_s": max((gap.seconds for gap in gaps.values() if gap is not None), default=0.0),
            "gap_max_by_service_s": {name: 0.0 if gap is None else gap.seconds for name, gap in gaps.items()},
            "recovery_max_s": max(measured, default=None),
            "recoveries": recoveries,
        }
        limit = self.gap_max_s
        anomalies = tuple(
            _unavailable(name, gap, limit)
            for name, gap in gaps.items()
            if gap is not None and limit is not None and gap.seconds > limit
        )
        return verdict(validity=Validity.INVALID if anomalies else Validity.VALID, anomalies=anomalies, stats=stats)


def connected_windows(faults: Iterable[FaultEvent], end_ns: int) -> list[tuple[int, int]]:
    """When a majority was up and fully connected, whoever it was, as [start, end) in nanoseconds of the run."""
    windows: list[tuple[int, int]] = []
    start: int | None = 0
    for fault in sorted((fault for fault in faults if fault.type != "skip"), key=lambda fault: fault.time_ns):
        if start is not None:
            windows.append((start, min(fault.time_ns, end_ns)))
        start = fault.time_ns if fault.majority is not None else None
    if start is not None:
        windows.append((start, end_ns))
    return _joined((start, end) for start, end in windows if start < end)


def _joined(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in windows:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _services(history: Iterable[Op], end_ns: int) -> dict[str, _Service]:
    services: dict[str, _Service] = defaultdict(_Service)
    open_ops: dict[int, Op] = {}
    for op in history:
        if op.time_ns > end_ns:
            break
        if op.type is OpType.INVOKE:
            if op.f in _LOG_UPDATES or op.f in _REGISTER_OPERATIONS:
                open_ops[op.client] = op
                services[_service_of(op)].steps.append((op.time_ns, 1, None))
            continue
        invoked = open_ops.pop(op.client, None)
        if invoked is None:
            continue
        # A mismatch took a majority to find out, like a success.
        acknowledged = op.type is OpType.OK or op.error == "mismatch"
        service = services[_service_of(invoked)]
        service.steps.append((op.time_ns, -1, op if acknowledged else None))
        if acknowledged:
            service.acknowledged.append((invoked.time_ns, op.time_ns))
    return dict(services)


def _service_of(op: Op) -> str:
    return op.key or "log" if op.f in _LOG_UPDATES else REGISTERS


def _longest(service: _Service, windows: Sequence[tuple[int, int]]) -> Gap | None:
    found = (gap for window in windows for gap in _gaps(service, window))
    return max(found, key=lambda gap: gap.seconds, default=None)


def _gaps(service: _Service, window: tuple[int, int]) -> Iterator[Gap]:
    """Stretches within the window from one acknowledgement to the next, or from and to the window's borders."""
    start_ns, end_ns = window
    steps = service.steps
    first = bisect_left(steps, start_ns, key=lambda step: step[0])
    trying = sum(change for _, change, _ in steps[:first])
    idle_ns, idle_from, tried = 0, start_ns, trying > 0
    after: int | None = None
    for time_ns, change, acknowledged in [*steps[first:], (end_ns, 0, None)]:
        time_ns = min(time_ns, end_ns)
        if trying == 0 and change >= 0 and (not tried or time_ns - idle_from > _PAUSE_NS_MAX):
            idle_ns += time_ns - idle_from
        if time_ns == end_ns:
            yield Gap(start_ns, end_ns, idle_ns, after)
            return
        trying += change
        tried = True
        if trying == 0:
            idle_from = time_ns
        if acknowledged is not None:
            yield Gap(start_ns, time_ns, idle_ns, after)
            start_ns, idle_ns, tried, after = time_ns, 0, trying > 0, acknowledged.index


def _recoveries(faults: Iterable[FaultEvent], services: dict[str, _Service]) -> list[dict[str, Json]]:
    """Per fault event, the slowest service's time to its next acknowledgement; None where one never came back."""
    rows: list[dict[str, Json]] = []
    for fault in faults:
        if fault.type == "skip":
            continue
        times = [_recovery_ns(service, fault.time_ns) for service in services.values() if service.acknowledged]
        known = [time_ns for time_ns in times if time_ns is not None]
        complete = len(known) == len(times)
        rows.append(
            {
                "id": fault.id,
                "fault": fault.fault,
                "type": fault.type,
                "time_ns": fault.time_ns,
                "majority": fault.majority is not None,
                "recovery_s": max(known) / _NANOSECONDS if complete and known else None,
            }
        )
    return rows


def _recovery_ns(service: _Service, from_ns: int) -> int | None:
    return min((over - from_ns for begun, over in service.acknowledged if begun >= from_ns), default=None)


def _unavailable(name: str, gap: Gap, limit: float) -> Anomaly:
    return Anomaly(
        name="unavailable",
        message=f"{name}: nothing was acknowledged for {gap.seconds:.2f} s although a majority of nodes was up and "
        f"connected (limit {limit:g} s)",
        ops=() if gap.after is None else (gap.after,),
        key=None if name == REGISTERS else name,
        time_ns=gap.start_ns,
        detail={"start_ns": gap.start_ns, "end_ns": gap.end_ns},
    )
