"""The faults there are, by name, and how a planned one becomes one that can be carried out.

Rule: what a plan can name is exactly what is here (a test compares the two tables).
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from seatrial.faults import messages, network, process
from seatrial.faults.base import Fault
from seatrial.faults.plan import PlannedFault

FAULTS: Mapping[str, type[Any]] = {
    fault.kind: fault
    for fault in (
        network.Partition,
        network.Isolate,
        network.OneWayCut,
        network.Latency,
        network.Bandwidth,
        network.BlackHole,
        network.ResetConnections,
        network.Flapping,
        network.Bridge,
        network.MajoritiesRing,
        process.Kill,
        process.KillAll,
        process.Terminate,
        process.Pause,
        process.Restart,
        messages.Messages,
    )
}


@dataclass(frozen=True, slots=True)
class FaultEntry:
    """One line of `seatrial list faults`; `unavailable` says why it cannot be done on this machine, or is None."""

    name: str
    summary: str
    settings: tuple[str, ...]
    unavailable: str | None


def names() -> tuple[str, ...]:
    return tuple(FAULTS)


def by_name(name: str) -> type[Any]:
    """The fault's class.  Raises ValueError that says what there is."""
    if name not in FAULTS:
        raise ValueError(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    return FAULTS[name]


def entries() -> tuple[FaultEntry, ...]:
    """Every fault, for people."""
    return tuple(
        FaultEntry(
            name=name,
            summary=(inspect.getdoc(fault) or "").splitlines()[0],
            settings=tuple(field.name for field in fields(fault)),
            unavailable=_unavailable_here(fault),
        )
        for name, fault in FAULTS.items()
    )


def build(planned: PlannedFault) -> Fault:
    """The fault that a plan's entry means.  Raises ValueError for a setting that it does not have."""
    fault = by_name(planned.kind)
    known = {field.name for field in fields(fault)} - {"target"}
    unknown = sorted(set(planned.settings) - known)
    if unknown:
        has = f"it has: {', '.join(sorted(known))}" if known else "it has none"
        raise ValueError(f"{planned.kind} has no setting {', '.join(unknown)}; {has}")
    built: Fault = fault(target=planned.target, **planned.settings)
    return built


def _unavailable_here(fault: type[Any]) -> str | None:
    if fault is process.Pause and not hasattr(signal, "SIGSTOP"):
        return "this system has no SIGSTOP"
    return None
