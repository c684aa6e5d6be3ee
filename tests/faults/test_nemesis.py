"""Faults on real processes of a dummy system, one by one and as a plan: they bite, say so, and are undone."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.env import Rng
from seatrial.faults import registry
from seatrial.faults.base import NothingToHit
from seatrial.faults.nemesis import run_plan
from seatrial.faults.plan import FaultPlan, PlannedFault
from seatrial.faults.targets import Target
from seatrial.history import FaultEvent, to_json

pytestmark = pytest.mark.slow
DUMMY = str(Path(__file__).parents[1] / "cluster" / "testdata" / "dummy.toml")


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with spawn_cluster(ClusterSpec(**{"system": DUMMY, **settings})) as cluster:
            await cluster.wait_for_consensus(10)
            await scenario(cluster)

    asyncio.run(run())


def planned(
    kind: str, at_ms: int = 0, duration_ms: int = 400, target: Target = Target.ONE, **rest: Any
) -> PlannedFault:
    return PlannedFault(at_us=at_ms * 1000, duration_us=duration_ms * 1000, kind=kind, target=target, **rest)


async def run(cluster: Cluster, *faults: PlannedFault, **settings: Any) -> list[FaultEvent]:
    """Run a plan of these faults; its events, each of which can be written to a run directory."""
    events: list[FaultEvent] = []
    started_ns = time.monotonic_ns()
    settings = {"rng": Rng(7), "now_ns": lambda: time.monotonic_ns() - started_ns, **settings}
    await run_plan(FaultPlan(faults), cluster, events.append, **settings)
    assert all(json.loads(to_json(event)) for event in events)
    return events


def assert_whole(cluster: Cluster) -> None:
    assert cluster.running() == cluster.nodes
    assert cluster.links.cuts.links() == ()


NETWORK_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("partition", {}, "bytes_held"),
    ("partition", {"mode": "reset"}, "connections_reset"),
    ("isolate", {}, "bytes_held"),
    ("cut", {"direction": "out"}, "bytes_held"),
    ("cut", {"direction": "in"}, "bytes_held"),
    ("latency", {"latency_ms": 20, "jitter_ms": 5}, "bytes_delayed"),
    ("bandwidth", {"kilobytes_per_second": 1}, "bytes_delayed"),
    ("timeout", {}, "bytes_dropped"),
    ("reset", {}, "connections_reset"),
    ("flapping", {"period_ms": 100}, "cuts"),
    ("bridge", {}, "bytes_held"),
]
PROCESS_FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("kill", {}, "processes"),
    ("terminate", {}, "processes"),
    ("restart", {}, "processes"),
    ("pause", {}, "process_states"),
]


@pytest.mark.parametrize("faults", [NETWORK_FAULTS, PROCESS_FAULTS], ids=["network", "processes"])
def test_a_fault_bites_takes_out_its_target_and_heals(faults: list[tuple[str, dict[str, Any], str]]) -> None:
    async def scenario(cluster: Cluster) -> None:
        for kind, settings, proof in faults:
            one = planned(kind, duration_ms=500, target=Target.HALF, settings=settings)
            inject, heal = await run(cluster, one)
            assert (inject.type, heal.type, inject.id, heal.id) == ("inject", "heal", 0, 0), kind
            assert inject.description == heal.description
            assert heal.bit, heal
            assert heal.evidence is not None and heal.evidence[proof], heal
            (hit,) = inject.targets
            takes_out = registry.by_name(kind).takes_out
            assert inject.majority is not None, kind
            assert (set(inject.majority) == set(cluster.nodes)) == (not takes_out), kind
            # A bridge leaves two majorities, with either side.
            assert kind == "bridge" or (hit not in inject.majority) == takes_out, kind
            assert heal.majority == cluster.nodes, kind
            assert_whole(cluster)
            await cluster.wait_for_consensus(10)

    with_cluster(scenario)


def test_the_evidence_of_a_kill_is_the_exit_status_and_the_new_process() -> None:
    async def scenario(cluster: Cluster) -> None:
        before = {node: cluster.node_state(node).pid for node in cluster.nodes}
        _, heal = await run(cluster, planned("kill", duration_ms=100, target=Target.LEADER))
        assert heal.evidence is not None
        (process,) = heal.evidence["processes"]
        assert process == {
            "node": 1,
            "pid": before[1],
            "exit_status": -signal.SIGKILL,
            "new_pid": cluster.node_state(1).pid,
        }
        assert process["new_pid"] != process["pid"]
        assert cluster.unexpected_exits == []

    with_cluster(scenario, links=False)


def test_a_partition_of_nodes_that_say_nothing_did_not_bite() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.pause_all()
        await asyncio.sleep(0.1)  # what was on its way has arrived
        fault = registry.build(planned("partition"))
        async with fault.injected(cluster, Rng(1), (1,)) as injection:
            assert injection.bit is None
        assert injection.bit is False

    with_cluster(scenario)


def test_killing_all_is_only_done_by_name_and_leaves_no_majority() -> None:
    async def scenario(cluster: Cluster) -> None:
        refused, *rest = await run(cluster, planned("kill", target=Target.ALL))
        assert rest == []
        assert refused.type == "skip"
        assert refused.reason == "it would take out 3 of 3 nodes; the budget leaves 1, nodes [] are out"
        inject, heal = await run(cluster, planned("kill-all", target=Target.ALL, over_budget=True))
        assert inject.targets == (1, 2, 3)
        assert inject.majority is None
        assert heal.bit and heal.majority == (1, 2, 3)

    with_cluster(scenario, links=False)


def test_killing_all_waits_for_nodes_that_another_fault_is_starting_again() -> None:
    """It killed one that a terminated node was becoming, whose fault then had no evidence: a trial was UNKNOWN."""

    async def scenario(cluster: Cluster) -> None:
        plan = [
            planned("terminate", duration_ms=200),
            planned("kill-all", at_ms=205, target=Target.ALL, over_budget=True),
        ]
        events = await run(cluster, *plan)
        told = [(event.type, event.fault) for event in events]
        assert told == [("inject", "terminate"), ("heal", "terminate"), ("inject", "kill-all"), ("heal", "kill-all")]
        assert all(event.bit for event in events if event.type == "heal")

    with_cluster(scenario, links=False)


def test_overlapping_faults_wait_for_room_in_the_budget() -> None:
    async def scenario(cluster: Cluster) -> None:
        plan = [
            planned(kind, at_ms=at_ms, duration_ms=300) for kind, at_ms in (("pause", 0), ("kill", 50), ("isolate", 60))
        ]
        events = await run(cluster, *plan)
        assert [event.type for event in events] == ["inject", "heal"] * 3
        assert all(event.majority is not None for event in events)

    with_cluster(scenario)


def test_a_fault_that_finds_no_room_in_time_is_skipped_with_the_reason() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.kill(2)
        (skip,) = await run(cluster, planned("pause"), patience=0.5)
        assert skip.type == "skip"
        assert skip.reason == "nodes [2] were still out after 0.5 s"
        assert_whole_processes(cluster)

    def assert_whole_processes(cluster: Cluster) -> None:
        assert cluster.running() == cluster.nodes

    with_cluster(scenario, links=False)


def test_a_fault_that_this_cluster_cannot_have_is_skipped_with_the_reason() -> None:
    async def scenario(cluster: Cluster) -> None:
        (skip,) = await run(cluster, planned("partition"))
        assert skip.reason == "the cluster was started without links (ClusterSpec.links)"
        fault = registry.build(planned("majorities-ring", target=Target.ALL))
        assert fault.unavailable(cluster) == "majorities-ring needs at least 4 nodes; the cluster has 3"

    with_cluster(scenario, links=False)


def test_a_ring_of_majorities_bites_and_leaves_no_connected_majority() -> None:
    async def scenario(cluster: Cluster) -> None:
        inject, heal = await run(cluster, planned("majorities-ring", target=Target.ALL, over_budget=True))
        assert inject.majority is None
        assert heal.bit and heal.majority == (1, 2, 3, 4, 5)

    with_cluster(scenario, nodes=5)


def test_a_leader_that_nobody_knows_is_not_hit() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.kill(2)
        await cluster.kill(3)
        with pytest.raises(NothingToHit, match="nobody led for 2 s"):
            async with registry.build(planned("pause", target=Target.LEADER)).injected(cluster, Rng(1)):
                pytest.fail("it cannot be active")

    with_cluster(scenario, links=False)


def test_stopping_early_heals_at_once_and_starts_nothing_more() -> None:
    async def scenario(cluster: Cluster) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stop.set)
        plan = [planned("isolate", duration_ms=60_000), planned("pause"), planned("pause", at_ms=30_000)]
        async with asyncio.timeout(20):
            inject, heal = await run(cluster, *plan, stop=stop)
        assert (inject.type, heal.type, heal.fault) == ("inject", "heal", "isolate")
        assert_whole(cluster)

    with_cluster(scenario)


def test_cancelling_heals_before_it_goes_on() -> None:
    async def cancel_under(cluster: Cluster, kind: str) -> None:
        injected = asyncio.Event()
        events: list[FaultEvent] = []

        def emit(event: FaultEvent) -> None:
            events.append(event)
            injected.set()

        plan = FaultPlan((planned(kind, duration_ms=60_000),))
        running = asyncio.ensure_future(run_plan(plan, cluster, emit, now_ns=time.monotonic_ns, rng=Rng(1)))
        await asyncio.wait_for(injected.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 20)
        assert [event.type for event in events] == ["inject", "heal"]
        assert events[1].reason == "the run was ended"
        assert_whole(cluster)

    async def scenario(cluster: Cluster) -> None:
        for kind in ("isolate", "pause", "kill", "flapping"):
            await cancel_under(cluster, kind)

    with_cluster(scenario)


def test_what_others_broke_is_whole_at_the_end_too() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.kill(1)
        await cluster.pause(2)
        assert await run(cluster) == []
        assert_whole(cluster)

    with_cluster(scenario)


def test_a_plan_with_a_wrong_setting_is_refused_before_anything_is_done() -> None:
    async def scenario(cluster: Cluster) -> None:
        with pytest.raises(ValueError, match="pause has no setting hard; it has none"):
            await run(cluster, planned("kill"), planned("pause", settings={"hard": True}))
        assert cluster.node_state(1).incarnation == 1

    with_cluster(scenario, links=False)


def test_the_same_seed_hits_the_same_nodes() -> None:
    async def scenario(cluster: Cluster) -> None:
        plan = [planned("latency", at_ms=at_ms, duration_ms=10) for at_ms in (0, 50, 100, 150)]
        hit = [{event.id: event.targets for event in await run(cluster, *plan, rng=Rng(3))} for _ in range(2)]
        assert hit[0] == hit[1]
        fewer = {event.id: event.targets for event in await run(cluster, *plan[:2], rng=Rng(3))}
        assert fewer == {number: hit[0][number] for number in (0, 1)}

    with_cluster(scenario)
