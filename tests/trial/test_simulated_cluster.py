"""The cluster of `--env sim`: every fault is carried out as on processes, leaves evidence, and is undone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.cluster.errors import ClusterError, DeadlineExceeded
from seatrial.env import Rng
from seatrial.faults.messages import Messages
from seatrial.faults.nemesis import run_plan
from seatrial.faults.plan import KINDS, FaultPlan, PlannedFault
from seatrial.faults.targets import Target
from seatrial.history import FaultEvent, to_json
from seatrial.sim.trial_hosts import TrialHosts
from seatrial.trial.simulated_cluster import SimulatedCluster

pytestmark = pytest.mark.slow
Simulate = Callable[..., TrialHosts]


def planned(kind: str, **rest: Any) -> PlannedFault:
    target = rest.pop("target", KINDS[kind].targets[0])
    return PlannedFault(at_us=0, duration_us=1_000_000, kind=kind, target=target, over_budget=True, **rest)


async def carried_out(cluster: SimulatedCluster, *faults: PlannedFault) -> list[FaultEvent]:
    events: list[FaultEvent] = []
    began_us = cluster.clock.now_us()

    def now_ns() -> int:
        return (cluster.clock.now_us() - began_us) * 1000

    await run_plan(FaultPlan(faults), cluster, events.append, now_ns=now_ns, rng=Rng(5))
    assert all(json.loads(to_json(event)) for event in events)
    return events


# What shows that a fault of the kind did something, and settings under which it does so within a second.
PROOFS: dict[str, tuple[str, dict[str, Any]]] = {
    "partition": ("segments_held", {}),
    "isolate": ("segments_held", {}),
    "cut": ("segments_held", {"direction": "in"}),
    "latency": ("segments_delayed", {"latency_ms": 20, "jitter_ms": 10}),
    "bandwidth": ("segments_delayed", {"kilobytes_per_second": 16}),
    "timeout": ("segments_held", {}),
    "reset": ("connections_reset", {}),
    "flapping": ("segments_held", {"period_ms": 200}),
    "bridge": ("segments_held", {}),
    "majorities-ring": ("segments_held", {}),
    "kill": ("processes", {}),
    "kill-all": ("processes", {}),
    "terminate": ("processes", {}),
    "pause": ("process_states", {}),
    "restart": ("processes", {}),
    "messages": ("dropped", {"rule": "lose-heartbeats", "value": 0.5}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_that_a_plan_can_name_bites_and_is_undone(simulate: Simulate, kind: str) -> None:
    proof, settings = PROOFS[kind]

    async def scenario(cluster: SimulatedCluster) -> None:
        events = await carried_out(cluster, planned(kind, settings=settings))
        assert [event.type for event in events] == ["inject", "heal"], events
        assert events[1].bit is True and events[1].evidence is not None
        assert events[1].evidence[proof], events[1].evidence
        assert cluster.running() == cluster.nodes
        assert cluster.links.cuts.links() == ()
        await cluster.wait_for_consensus(20)

    simulate(scenario, nodes=max(3, KINDS[kind].nodes_min))


def test_a_cluster_at_rest_shows_no_evidence_of_faults(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        async with cluster.links.applied("reset_peer", {"timeout": 0}, []) as nothing:
            await asyncio.sleep(0.5)
        assert nothing.bit is False
        async with cluster.filtered([1], [{"rule": "drop-snapshots"}]) as none_seen:
            await asyncio.sleep(0.5)
        assert none_seen.bit is False

    simulate(scenario)


def test_an_isolated_leader_is_replaced_and_a_whole_cluster_keeps_its_own(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        leader = await cluster.wait_for_leader(10)
        await asyncio.sleep(5)
        assert await cluster.leader() == leader
        async with cluster.isolate(leader):
            assert await cluster.wait_for_leader(10, other_than=leader) != leader
        await cluster.wait_for_consensus(20)

    simulate(scenario)


def test_a_paused_node_stands_still_and_a_killed_one_comes_back_with_its_log(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        await cluster.pause(2)
        assert cluster.process_state(2) == "stopped"
        (said,) = await cluster.status(2)
        assert said.error is not None and "paused" in said.error
        await cluster.resume(2)
        before = (await cluster.status(3))[0].commit_index
        report = await cluster.kill(3)
        assert (report.exit_status, cluster.process_state(3)) == (-9, "gone")
        with pytest.raises(ClusterError, match="down"):
            await cluster.kill(3)
        await cluster.start(3)
        assert cluster.node_state(3).incarnation == report.incarnation + 1
        await cluster.wait_for_consensus(20)
        after = (await cluster.status(3))[0].commit_index
        assert before is not None and after is not None and after >= before

    simulate(scenario)


def test_a_wiped_node_has_forgotten_what_it_stored(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        with pytest.raises(ClusterError, match="kill it before"):
            await cluster.wipe(1)
        await cluster.kill(1)
        await cluster.wipe(1)

    hosts = simulate(scenario)
    assert hosts.servers[1].disk.mount().list_directory("data") == []


def test_a_wait_that_is_in_vain_says_what_it_last_saw(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        await asyncio.gather(cluster.kill(1), cluster.kill(2))
        with pytest.raises(DeadlineExceeded, match="node 1: down"):
            await cluster.wait_for_leader(3)
        await cluster.start_all()

    simulate(scenario)


def test_filters_are_attached_again_when_their_node_is_back_and_counted_over_its_lives(simulate: Simulate) -> None:
    async def scenario(cluster: SimulatedCluster) -> None:
        async with Messages(rule="drop-heartbeats", direction="in").injected(cluster, Rng(1), (2,)) as of_one_life:
            await asyncio.sleep(1)
        await cluster.wait_for_consensus(20)
        async with Messages(rule="drop-heartbeats", direction="in").injected(cluster, Rng(1), (2,)) as of_two:
            await asyncio.sleep(1)
            await cluster.kill(2)
            await cluster.start(2)
            await asyncio.sleep(1)
            within = of_two
        assert "lost" not in within.evidence
        assert of_one_life.bit and of_two.bit
        assert within.evidence["dropped"] > 1.5 * of_one_life.evidence["dropped"]
        async with cluster.filtered([2], [{"rule": "drop-heartbeats"}]) as fault:
            await cluster.kill(2)
        assert fault.lost == [] and 2 in fault.by_node  # a dead node's counters are still there to be read
        await cluster.start(2)

    simulate(scenario)


def test_the_same_seed_gives_the_same_events_and_another_seed_others(simulate: Simulate) -> None:
    def events_of(seed: int) -> list[str]:
        told: list[str] = []

        async def scenario(cluster: SimulatedCluster) -> None:
            faults = [planned("kill", target=Target.ONE), planned("latency", settings=PROOFS["latency"][1])]
            told.extend(to_json(event) for event in await carried_out(cluster, *faults))

        simulate(scenario, seed=seed)
        return told

    assert events_of(3) == events_of(3)
    assert events_of(3) != events_of(4)
