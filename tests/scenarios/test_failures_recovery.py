"""Recovery: restarts under load, snapshots after failures, damaged files, and what clients feel of a failure."""

from __future__ import annotations

import pytest

from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.scenario import ScenarioCluster, eventually


async def snapshot_everywhere(cluster: ScenarioCluster) -> None:
    """Every node that runs makes a snapshot of the key-value store and keeps one entry behind it."""
    for node in cluster.running():
        await cluster.members.snapshot("kv", via=node, keep_entries=1)
        await eventually(lambda node=node: snapshot_of(cluster, node))


async def snapshot_of(cluster: ScenarioCluster, node: int) -> int:
    """The last entry that the node's snapshot covers; 0: it has none."""
    return int((await cluster.members.group("kv", via=node))["snapshot_index"])


async def expect_everywhere(cluster: ScenarioCluster, written: dict[str, int]) -> None:
    """Once all nodes agree, each comes to have every key in its own copy: they may agree on an older commit, until the
    entry that opens the new term commits those of the last one."""
    await cluster.wait_for_consensus()

    async def are_all_there() -> bool:
        copies = [
            {key: await cluster.kv.get(key, via=node, consistency="stale") for key in written} for node in cluster.nodes
        ]
        return all(copy == written for copy in copies)

    await eventually(are_all_there)
    await cluster.verify()


@pytest.mark.cluster(system="own")
async def test_snapshot_restore_after_failure(cluster: ScenarioCluster) -> None:
    """After a power failure each node begins with its snapshot and the entries behind it, and has everything."""
    await cluster.wait_for_leader(group="kv")
    written = {f"k{number}": number for number in range(8)}
    for key, value in written.items():
        await cluster.kv.put(key, value)
    await cluster.wait_for_consensus()
    await snapshot_everywhere(cluster)
    covered = [await snapshot_of(cluster, node) for node in cluster.nodes]
    for number in range(3):
        await cluster.kv.put(f"k{number}", 100 + number)
        written[f"k{number}"] = 100 + number
    await cluster.power_failure()
    await cluster.start_all()
    await cluster.wait_for_consensus()
    assert [await snapshot_of(cluster, node) for node in cluster.nodes] == covered
    await expect_everywhere(cluster, written)


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_rolling_restart_under_load(cluster: ScenarioCluster) -> None:
    """While each node in turn is restarted, clients are served all along, and lose nothing."""
    async with cluster.traffic(rate=30) as traffic:
        await traffic.progress(5)
        for node in cluster.nodes:
            await cluster.terminate(node)
            await traffic.progress(5)
            await cluster.start(node)
            await traffic.progress(5)
            await cluster.wait_for_consensus()
    assert cluster.unexpected_exits == []
    assert traffic.gaps()["registers"] < 5, "the other two were a majority all the time"
    await traffic.assert_valid()


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_recovery_from_a_torn_tail(cluster: ScenarioCluster) -> None:
    """A write that stopped half-way when a node died is cut off at its start, and nothing before it."""
    leader = await cluster.wait_for_leader(group="kv")
    written = {f"k{number}": number for number in range(5)}
    for key, value in written.items():
        await cluster.kv.put(key, value)
    torn = cluster.others(leader)[0]
    await cluster.kill(torn)
    assert "half-way" in await cluster.damage(torn, "torn-tail")
    await cluster.kv.put("k0", 100)
    written["k0"] = 100
    await cluster.start(torn)
    assert cluster.unexpected_exits == []
    await expect_everywhere(cluster, written)


@pytest.mark.cluster(system="own")
async def test_recovery_of_all_nodes_from_torn_tails(cluster: ScenarioCluster) -> None:
    """When all nodes died in the midst of a write, none of them takes half a write for a whole one."""
    await cluster.wait_for_leader(group="kv")
    written = {f"k{number}": number for number in range(3)}
    for key, value in written.items():
        await cluster.kv.put(key, value)
    await cluster.wait_for_consensus()  # a term that a node told of, and had not stored yet, may be lost
    await cluster.power_failure()
    for node in cluster.nodes:
        await cluster.damage(node, "torn-tail")
    await cluster.start_all()
    assert cluster.unexpected_exits == []
    await expect_everywhere(cluster, written)


async def is_registered(cluster: ScenarioCluster, nodes: int) -> bool:
    """The metadata tell of so many members: each has introduced itself."""
    return len(await cluster.members.states()) == nodes


@pytest.mark.parametrize("kind", ["truncate", "bit-flip"])
@pytest.mark.cluster(system="own")
async def test_recovery_from_damaged_files(cluster: ScenarioCluster, kind: str) -> None:
    """A node whose stored log was damaged serves nothing that is wrong: it refuses to start, or has all that it
    acknowledged; wiped and let in again as another node, it is a member with everything."""
    leader = await cluster.wait_for_leader(group="kv")
    written = {f"k{number}": number for number in range(5)}
    for key, value in written.items():
        await cluster.kv.put(key, value)
    await cluster.wait_for_consensus()
    await eventually(lambda: is_registered(cluster, 3))
    damaged = cluster.others(leader)[0]
    await cluster.kill(damaged)
    await cluster.damage(damaged, kind)
    try:
        await cluster.start(damaged, 3)
        await cluster.wait_for_consensus(3)
    except (NodeExited, DeadlineExceeded, ClusterError):
        if damaged in cluster.running():
            await cluster.kill(damaged)
        await cluster.members.replace(damaged)
        assert damaged not in cluster.nodes, "its damage was told of, and another node has its place"
    assert len(cluster.nodes) == 3
    await expect_everywhere(cluster, written)


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_performance_under_failure(cluster: ScenarioCluster) -> None:
    """Before, during and after the leader's death clients are served; latency and throughput of each are in the
    report (`--cluster-keep`), and after it they are what they were before."""
    leader = await cluster.wait_for_leader(group="kv")
    moments: list[int] = []
    async with cluster.traffic(rate=60) as traffic:
        await traffic.progress(10)
        for step in (None, cluster.kill, cluster.start):
            moments.append(cluster.records.now_ns())
            if step is not None:
                await step(leader)
            await cluster.wait_for_leader(group="kv")
            await traffic.progress(30)
        moments.append(cluster.records.now_ns())
    names = ("before", "during", "after")
    seen = traffic.report_performance({name: (moments[at], moments[at + 1]) for at, name in enumerate(names)})
    for name, performance in seen.items():
        print(f"{name}: {performance}")
        assert performance.acknowledged >= 30 and performance.latency_ms_median is not None
    assert (seen["during"].latency_ms_max or 0) > (seen["before"].latency_ms_median or 0), "somebody had to wait"
    assert seen["after"].per_second > seen["before"].per_second / 4
    assert traffic.gaps()["registers"] < 5
    await cluster.wait_for_consensus()
    await traffic.assert_valid()
