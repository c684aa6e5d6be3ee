"""Histories of a test's own, load in the background, and what checks say of them; members that come and go."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.cluster.errors import DeadlineExceeded
from seatrial.history import OpType
from seatrial.scenario import CheckFailed, NeverSo, Refused, ScenarioCluster, Simulation, Unavailable, eventually
from seatrial.scenario.records import recorded
from seatrial.sim.world import EventStorm

pytestmark = pytest.mark.slow
Run = Callable[..., Any]


def test_nothing_recorded_is_nothing_checked(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        with pytest.raises(CheckFailed, match="nothing to check"):
            cluster.check()
        await cluster.wait_for_consensus()
        cluster.check()
        with pytest.raises(CheckFailed, match="linearizability: UNKNOWN"):
            cluster.check("linearizability")
        with pytest.raises(ValueError, match="there are: linearizability"):
            cluster.check("beauty")

    simulate(scenario)


def test_a_history_of_the_tests_own_is_judged_with_the_rest(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        history = cluster.history
        with history.record("write", key="own", value=1) as write:
            write.ok()
        with history.record("read", key="own") as read:
            read.ok(1, node=2)
        with pytest.raises(KeyError), history.record("write", key="own", value=2):
            raise KeyError
        with history.record("write", key="own", value=3) as refused:
            refused.fail("no")
        assert [op.type for op in history.ops if op.type is not OpType.INVOKE] == ["ok", "ok", "info", "fail"]
        cluster.check()
        with history.record("read", key="own") as stale:
            stale.ok(None)
        with pytest.raises(CheckFailed, match="linearizability: INVALID"):
            cluster.check()
        assert [verdict.validity.name for verdict in cluster.records.verdicts] == ["VALID", "INVALID"]

    simulate(scenario, boot=False)


def test_long_values_are_told_apart_in_the_history_by_their_digests() -> None:
    assert recorded("short") == "short" and recorded(7) == 7 and recorded(b"ab") == "bytes:6162"
    long = ["x" * 1000, "y" * 1000, b"x" * 1000]
    assert len({recorded(value) for value in long}) == 2, "text and bytes of the same content are the same record"
    assert all(len(recorded(value)) < 80 for value in long)


@pytest.mark.parametrize("lied", [False, True], ids=["sound", "lied to"])
def test_traffic_goes_on_through_a_fault_and_is_judged_by_its_own_checkers(simulate: Run, *, lied: bool) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        async with cluster.traffic(kv=True, log=not lied, rate=80) as traffic:
            await traffic.progress(20)
            leader = await cluster.wait_for_leader(group="kv")
            begun_ns = cluster.records.now_ns()
            async with cluster.isolate(cluster.others(leader)[0]):
                await asyncio.sleep(1)
            during = traffic.performance(begun_ns, cluster.records.now_ns())
            phases = {"before": (0, begun_ns), "during": (begun_ns, cluster.records.now_ns())}
            assert traffic.report_performance(phases)["before"].acknowledged >= 20
            rows = cluster.records.verdicts[-1].stats["phases"]
            assert [(row["phase"], row["acknowledged"] > 0) for row in rows] == [("before", True), ("during", True)]
            await cluster.kill(leader)
            await traffic.progress(20)
            await cluster.start(leader)
        stopped = traffic.acknowledged
        assert during.acknowledged and during.latency_ms_median and during.per_second < 200
        assert 0 < max(traffic.gaps().values()) < 3
        await asyncio.sleep(1)
        assert traffic.acknowledged == stopped
        if lied:
            with cluster.history.record("read", key="traffic-1.0") as read:
                read.ok("what nobody wrote")
            with pytest.raises(CheckFailed, match="linearizability"):
                await traffic.assert_valid()
            return
        await traffic.assert_valid()
        assert set(traffic.gaps()) == {"registers", "traffic-1/0", "traffic-1/1"}
        with pytest.raises(Unavailable, match="0 operations"):
            await traffic.progress(1, timeout=0.2)
        cluster.check()

    simulate(scenario)


def test_traffic_runs_on_processes_and_on_other_systems(run_any: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        async with cluster.traffic(kv=True, log=cluster.system == "own") as traffic:
            await traffic.progress(10)
            await cluster.restart(cluster.nodes[-1])
            await traffic.progress(10)
        await traffic.assert_valid()
        assert traffic.gaps()["registers"] < 5

    run_any(scenario)


def test_watching_sees_every_leader_and_no_two_in_one_term(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        async with cluster.watch():
            for _ in range(2):
                leader = await cluster.wait_for_leader()
                async with cluster.isolate(leader):
                    await cluster.wait_for_leader(other_than=leader)
                await cluster.wait_for_consensus()
        seen = cluster.leaders_seen()
        assert len([term for term, leaders in seen.items() if leaders]) >= 3
        assert all(len(leaders) <= 1 for leaders in seen.values())
        cluster.check("raft-invariants")

    simulate(scenario)


def test_members_are_added_promoted_replaced_and_removed(run: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 1)
        second = await cluster.members.add()
        third = await cluster.members.add(learner=True)
        assert list(cluster.nodes) == [1, second, third]
        assert await cluster.members.states() == {1: "voter", 2: "voter", 3: "learner"}
        assert (await cluster.members.group("kv", via=1))["learners"] == [third]
        await cluster.members.promote(third)
        async with cluster.isolate(third) as cut:
            await cluster.kv.put("x", 2, via=second)
            with pytest.raises(Unavailable):
                await cluster.kv.get("x", via=third, timeout=1)
        assert cut.bit, "links of a node that came later are links like any other"
        await cluster.members.transfer(third, group="kv")
        assert await cluster.leader("kv") == third
        await cluster.members.remove(1)
        fourth = await cluster.members.replace(second)
        assert list(cluster.nodes) == [third, fourth]
        with pytest.raises(Refused) as removed:
            await cluster.members.promote(1)
        assert removed.value.code
        assert await cluster.kv.get("x", via=fourth) == 2
        await cluster.verify()

    run(scenario, nodes=1)


def test_a_simulation_goes_on_where_it_was_and_ends_by_its_virtual_deadline() -> None:
    simulation = Simulation(seed=4, nodes=3)

    async def before(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 1)

    async def test(cluster: ScenarioCluster) -> Any:
        return await cluster.kv.get("x")

    async def endless(cluster: ScenarioCluster) -> None:
        await cluster.statuses()
        await asyncio.Event().wait()

    async def in_vain(cluster: ScenarioCluster) -> None:
        await eventually(lambda: False, timeout=1)

    simulation.run(before)
    assert simulation.run(test) == 1
    with pytest.raises(NeverSo):
        simulation.run(in_vain)
    with pytest.raises(DeadlineExceeded, match="kv: follower"):
        simulation.run(endless, virtual_s=2)
    assert "leader" in " ".join(simulation.cluster.last_state().values())
    simulation.close()


def test_a_scenario_that_ran_out_of_time_cleans_up_while_the_world_still_goes(simulate: Run) -> None:
    cleaned_up = []

    async def endless(cluster: ScenarioCluster) -> None:
        async with cluster.isolate(await cluster.wait_for_leader()):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
                cleaned_up.append(await cluster.leader("kv"))

    with pytest.raises(DeadlineExceeded):
        simulate(endless, virtual_s=5)
    assert cleaned_up and cleaned_up[0] is not None


def test_a_scenario_is_dropped_in_silence_where_its_world_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: complaints.append(f"{unraisable}"))

    def dropped() -> weakref.ref[Simulation]:
        simulation = Simulation(seed=4, nodes=3)

        async def storm(cluster: ScenarioCluster) -> None:
            await cluster.kv.put("x", 1)
            simulation.hosts.world.events_max = 1
            await asyncio.Event().wait()

        with pytest.raises(EventStorm):
            simulation.run(storm)
        return weakref.ref(simulation)

    alive = dropped()
    gc.collect()
    assert alive() is None and not complaints


def test_options_that_no_server_has_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="no option 'colour'"):
        Simulation(seed=1, options={"colour": "blue"})
