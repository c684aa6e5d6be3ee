"""Short cases at the full level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seatrial.sim.case import Case, Disk, Fault, Load, Raft
from seatrial.sim.faults import KINDS


def case(*faults: Fault, seconds: float = 3.0, **settings: Any) -> Case:
    """Three nodes, a little of everything, and these faults."""
    settings = {
        "seed": 1,
        "load": Load(rate=12.0, clients=3, keys=3, kafka_rate=20.0),
        "raft": Raft(snapshot_entries=40, keep_entries=10, election_timeout_us=200_000, heartbeat_us=40_000),
        "disk": Disk(sync_us=(200, 1_000)),
        **settings,
    }
    return Case(level="full", duration_us=int(seconds * 1e6), faults=tuple(faults), **settings)


def fault(kind: str, at_s: float, for_s: float = 0.3, **fields: Any) -> Fault:
    if KINDS[kind].lasting:
        fields["duration_us"] = int(for_s * 1e6)
    return Fault(kind=kind, at_us=int(at_s * 1e6), **fields)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    return case


@pytest.fixture
def make_fault() -> Callable[..., Fault]:
    return fault
