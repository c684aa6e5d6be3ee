"""What a scenario does to nodes, links, messages, disks and clocks: it bites, it ends, and it is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.scenario import BrokenPromise, NotHere, ScenarioCluster, Unavailable, eventually
from seatrial.scenario.surroundings import DAMAGES

pytestmark = pytest.mark.slow
Run = Callable[..., Any]


def kinds(cluster: ScenarioCluster) -> list[tuple[str, str]]:
    return [(event.type, event.fault) for event in cluster.records.faults]


def test_every_fault_is_written_down_with_what_it_left_of_the_majority(run_any: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader()
        first, second = cluster.others(leader)
        await cluster.kill(first)
        await cluster.pause(second)
        assert cluster.connected_majority() is None
        await cluster.resume(second)
        await cluster.start(first)
        await cluster.wait_for_leader()
        async with cluster.latency(cluster.links_of(first), 20):
            await cluster.kv.put("x", 1)
        await cluster.restart(first)
        await cluster.power_failure([first])
        await cluster.start_all()
        await cluster.wait_for_consensus()
        assert kinds(cluster) == [
            ("inject", "kill"),
            ("inject", "pause"),
            ("heal", "pause"),
            ("heal", "kill"),
            ("inject", "latency"),
            ("heal", "latency"),
            ("inject", "terminate"),
            ("heal", "terminate"),
            ("inject", "power-failure"),
            ("heal", "power-failure"),
        ]
        assert [event.majority is None for event in cluster.records.faults] == [False, True, *[False] * 8]
        assert all(event.bit for event in cluster.records.faults if event.type == "heal")
        assert cluster.last_state()[first].startswith("running")
        assert cluster.log_tail(first)

    run_any(scenario)


def test_healing_everything_makes_links_whole_that_are_still_being_cut(run: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader()
        async with cluster.isolate(leader):
            await cluster.wait_for_leader(among=cluster.others(leader))
            await cluster.heal_everything()
            await cluster.wait_for_consensus()
        await cluster.wait_for_consensus()

    run(scenario)


def test_messages_are_dropped_delayed_and_doubled_by_name_and_by_link(run: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader()
        no_votes = cluster.messages("drop-votes", at=cluster.nodes, group="metadata")
        async with no_votes as dropped, cluster.isolate(leader):
            with pytest.raises(DeadlineExceeded):
                await cluster.wait_for_leader(1.5, other_than=leader)
        assert dropped.bit and "drop-votes" in dropped.description
        await cluster.wait_for_leader()
        links = cluster.all_links()
        async with cluster.duplicate(links) as doubled, cluster.reorder(links, 20) as reordered:
            await cluster.kv.put("x", 1)
        async with cluster.loss(links, 0.2) as lost:
            await cluster.kv.put("x", 2)
            await eventually(cluster.leader)
        assert doubled.bit and reordered.bit
        assert lost.evidence["lost"] == []
        with pytest.raises(ClusterError, match="no-such-rule"):
            async with cluster.messages("no-such-rule", at=1):
                pass
        await cluster.verify()

    run(scenario)


def test_a_full_disk_stops_a_follower_alone_and_it_is_back_when_there_is_space(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader(group="kv")
        follower = cluster.others(leader)[0]
        async with cluster.disk_full(follower) as full:
            await cluster.kv.put("x", 1)
            await cluster.kv.put("x", 2)
        assert full.bit and cluster.unexpected_exits
        await eventually(lambda: follower in cluster.running())
        await cluster.verify()

    simulate(scenario)


def test_a_slow_disk_and_a_skewed_clock_are_felt_by_their_node_alone(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader(group="kv")
        follower = cluster.others(leader)[0]
        begun = asyncio.get_running_loop().time()
        async with cluster.slow_disk(follower, 300) as slow, cluster.clock_skew(follower, offset_ms=5000) as skewed:
            await cluster.kv.put("x", 1, via=leader)
            assert asyncio.get_running_loop().time() - begun < 0.2, "the other two are a majority"
            await asyncio.sleep(0.5)
        async with cluster.clock_skew(leader, drift_ppm=100_000) as fast:
            await asyncio.sleep(1)
        assert slow.bit and skewed.bit and fast.bit
        assert 4_999_000 < skewed.evidence["wall_clock_off_us"] < 5_001_000
        assert 99_000 < fast.evidence["wall_clock_off_us"] < 101_000
        await cluster.verify()

    simulate(scenario)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_node_lives_with_a_torn_tail_and_serves_nothing_that_is_wrong(simulate: Run, kind: str) -> None:
    simulate(damaged(kind))


@pytest.mark.parametrize("kind", ["torn-tail", "bit-flip"])
def test_files_of_a_process_are_damaged_alike(on_processes: Run, kind: str) -> None:
    on_processes(damaged(kind))


def damaged(kind: str) -> Callable[[ScenarioCluster], Awaitable[None]]:
    """One node of three loses, or gains, some bytes."""

    async def scenario(cluster: ScenarioCluster) -> None:
        for number in range(30):
            await cluster.kv.put(f"k{number % 3}", number)
        with pytest.raises(ClusterError, match="kill it before"):
            await cluster.damage(1, kind)
        await cluster.kill(1)
        with pytest.raises(ValueError, match="there is: torn-tail"):
            await cluster.damage(1, "scratch")
        assert await cluster.damage(1, kind)
        if kind == "torn-tail":
            await cluster.start(1)
            await cluster.verify()
            return
        try:
            await cluster.start(1, timeout=5)
        except NodeExited as refused:
            assert refused.exit_status in (11, 13)
        for number in range(3):
            assert await cluster.kv.get(f"k{number}") == 27 + number
        cluster.check()

    return scenario


def test_what_processes_cannot_be_made_to_suffer_is_refused_with_the_reason(on_processes: Run) -> None:

    async def scenario(cluster: ScenarioCluster) -> None:
        with pytest.raises(NotHere, match="run this scenario in sim"):
            cluster.disk_full(1)
        with pytest.raises(NotHere, match="run this scenario in sim"):
            cluster.slow_disk(1, 10)
        with pytest.raises(NotHere, match="run this scenario in sim") as caught:
            cluster.clock_skew(1, offset_ms=10)
        assert "time namespace" in caught.value.reason
        assert not cluster.records.faults

    on_processes(scenario)


@pytest.mark.external
def test_what_another_system_cannot_do_is_refused_with_the_reason(etcd: Run) -> None:

    async def scenario(cluster: ScenarioCluster) -> None:
        with pytest.raises(NotHere, match="filter messages"):
            async with cluster.loss(cluster.all_links(), 0.1):
                pass
        with pytest.raises(NotHere, match=r"etcd cannot be simulated.*--cluster-system=own --cluster-env=sim"):
            cluster.disk_full(1)
        with pytest.raises(NotHere, match="lease"):
            await cluster.kv.get("x", consistency="lease")
        with pytest.raises(NotHere, match="members of etcd"):
            await cluster.members.add()
        await cluster.kill(1)
        with pytest.raises(NotHere, match="system own"):
            await cluster.damage(1, "torn-tail")

    etcd(scenario)


def test_a_promise_that_is_broken_inside_fails_a_scenario_that_saw_nothing(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 1)
        await cluster.power_failure()
        await cluster.start_all()
        with pytest.raises(Unavailable):
            await cluster.kv.get("x", timeout=0.01)
        await asyncio.sleep(3)

    simulate(scenario)
    with pytest.raises(BrokenPromise, match=r"election-safety|promise-not-durable"):
        for seed in range(1, 20):  # not each of them comes to a vote that is forgotten in time
            simulate(scenario, seed=seed, options={"unsafe": "forget-vote"})


def test_links_that_are_reset_carry_nothing_meanwhile(simulate: Run) -> None:
    """Connections that came up between two resets once let a node that was cut off follow on."""

    async def scenario(cluster: ScenarioCluster) -> None:
        leader = await cluster.wait_for_leader(group="kv")
        alone = cluster.others(leader)[0]
        async with cluster.isolate(alone, mode="reset"):
            before = await cluster.status(alone)
            for value in range(3):
                await cluster.kv.put("x", value, via=leader)
            after = await cluster.status(alone)
            assert [status.last_index for status in after] == [status.last_index for status in before]
        await cluster.verify()

    simulate(scenario)
