"""The budget: whatever the swarm draws is within it, and each way of leaving it is told from its neighbour inside."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case, Disk, Fault, Load, Network, Raft
from seatrial.sim.swarm import draw_case

SECOND_US = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("level", ["core", "full"])
def test_thousands_of_drawn_cases_are_within_the_budget(level: str) -> None:
    for seed in range(1_000):
        case = draw_case(seed, level)  # type: ignore[arg-type]
        assert over_budget(case) is None, seed


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**40),
    level=st.sampled_from(["core", "full"]),
    nodes=st.integers(1, 9),
    duration_us=st.integers(1, 120 * SECOND_US),
    kinds=st.none() | st.sets(st.sampled_from(["wipe", "membership", "bit-rot", "clock-drift", "crash", "cut"])),
)
def test_no_drawn_case_leaves_the_budget(
    seed: int, level: str, nodes: int, duration_us: int, kinds: set[str] | None
) -> None:
    case = draw_case(seed, level, nodes=nodes, duration_us=duration_us, kinds=kinds)  # type: ignore[arg-type]
    assert malformed(case) is None
    assert over_budget(case) is None


def wipe(node: int) -> Fault:
    return Fault(at_us=0, kind="wipe", duration_us=SECOND_US, nodes=(node,))


def change(mode: str, *nodes: int) -> Fault:
    return Fault(at_us=0, kind="membership", duration_us=SECOND_US, nodes=nodes, mode=mode)


def drift(ppm: float) -> Fault:
    return Fault(at_us=0, kind="clock-drift", duration_us=SECOND_US, nodes=(1,), value=ppm)


def core(*faults: Fault, **fields: object) -> Case:
    return msgspec.structs.replace(Case(level="core", seed=1, nodes=5, spares=1, faults=faults), **fields)


INSIDE_AND_OUTSIDE = {
    "damage to a minority": (core(wipe(1), wipe(2), wipe(1)), core(wipe(1), wipe(2), wipe(3))),
    "damage to first members only": (core(wipe(5)), core(wipe(6))),
    "removal of the damaged": (core(wipe(1), change("remove", 1)), core(wipe(1), wipe(2), change("remove", 3))),
    "replacement of the damaged": (
        core(wipe(1), change("replace", 1, 6)),
        core(wipe(1), wipe(2), change("replace", 4, 6)),
    ),
    "removal without damage": (
        core(change("remove", 1), change("remove", 2), change("remove", 3)),
        core(wipe(4), change("remove", 1), change("remove", 2)),
    ),
    "coming without end": (core(wipe(1), wipe(2), change("add-voter", 6)), core(wipe(1), wipe(2), wipe(4))),
    "drift within the lease": (
        core(drift(-30_000), drift_ppm=10_000, raft=Raft(lease_reads=True)),
        core(drift(-30_000), drift_ppm=20_000, raft=Raft(lease_reads=True)),
    ),
    "drift without leases": (core(drift(90_000)), core(drift(90_000), raft=Raft(lease_reads=True))),
    "leases with check-quorum": (
        core(raft=Raft(lease_reads=True)),
        core(raft=Raft(lease_reads=True, check_quorum=False)),
    ),
    "patience with slow disks": (
        core(disk=Disk(sync_us=(10_000, 40_000))),
        core(disk=Disk(sync_us=(10_000, 80_000))),
    ),
    "patience with slow links": (
        core(network=Network(delay_us=(10_000, 40_000))),
        core(network=Network(delay_us=(10_000, 60_000))),
    ),
    "two heartbeats in a timeout": (core(raft=Raft(heartbeat_us=150_000)), core(raft=Raft(heartbeat_us=150_001))),
    "enough entries a round trip": (
        core(raft=Raft(max_inflight_messages=8, max_message_bytes=64), load=Load(rate=100)),
        core(raft=Raft(max_inflight_messages=1, max_message_bytes=64), load=Load(rate=1_000)),
    ),
    "messages as a network may treat them": (
        core(Fault(at_us=0, kind="filter", mode="stale-snapshot", links=((1, 2),))),
        core(Fault(at_us=0, kind="filter", mode="claim-snapshot-success", links=((1, 2),))),
    ),
    "a network that mostly works": (core(network=Network(loss=0.25)), core(network=Network(loss=0.3))),
}


@pytest.mark.parametrize("claim", INSIDE_AND_OUTSIDE)
def test_the_budget_tells_inside_from_outside(claim: str) -> None:
    inside, outside = INSIDE_AND_OUTSIDE[claim]
    assert over_budget(inside) is None
    assert over_budget(outside)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (core(Fault(at_us=0, kind="flood", nodes=(1,))), "no such kind"),
        (core(Fault(at_us=0, kind="bit-rot", nodes=(1,))), "not possible at level core"),
        (core(Fault(at_us=0, kind="crash", nodes=(1,), mode="melt")), "none of kill, power"),
        (core(Fault(at_us=0, kind="cut", mode="link", nodes=(1,))), "needs links"),
        (core(Fault(at_us=0, kind="pause", links=((1, 2),))), "needs nodes"),
        (core(Fault(at_us=0, kind="pause", nodes=(7,))), "no node 7; there are 1 to 6"),
        (core(Fault(at_us=0, kind="cut", mode="link", links=((1, 8),))), "no node 8"),
        (core(Fault(at_us=0, kind="filter", mode="sing", links=((1, 2),))), "no message filter 'sing'"),
        (core(Fault(at_us=-1, kind="pause", nodes=(1,))), "negative"),
        (core(nodes=12), "1 to 9 nodes"),
        (core(duration_us=0), "must be positive"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_case_that_means_nothing_is_refused_with_the_reason(case: Case, says: str) -> None:
    complaint = malformed(case)
    assert complaint is not None and says in complaint
