"""Disks that are full or slow: a node that cannot write acknowledges nothing, and the others go on.

Only simulated machines have disks of their own that can be filled.
"""

from __future__ import annotations

import asyncio

import pytest

from seatrial.scenario import NotDone, ScenarioCluster, eventually

pytestmark = pytest.mark.environments("sim", reason="a disk of a node's own takes root on processes")


async def back(cluster: ScenarioCluster, nodes: tuple[int, ...]) -> None:
    await eventually(lambda: set(nodes) <= set(cluster.running()))
    await cluster.wait_for_consensus()


async def test_disk_full_on_a_follower(cluster: ScenarioCluster) -> None:
    """Writes go on without a follower whose disk is full; when it has space again it has them all."""
    leader = await cluster.wait_for_leader(group="kv")
    follower = cluster.others(leader)[0]
    async with cluster.disk_full(follower) as full:
        for number in range(4):
            await cluster.kv.put("x", number, via=leader)
        assert await cluster.leader("kv") == leader
    assert full.bit
    await back(cluster, cluster.nodes)
    assert await cluster.kv.get("x", via=follower, consistency="stale") == 3
    await cluster.verify()


async def test_disk_full_on_the_leader(cluster: ScenarioCluster) -> None:
    """A leader whose disk is full acknowledges nothing that it cannot store; another one leads, nothing is lost."""
    leader = await cluster.wait_for_leader(group="kv")
    await cluster.kv.put("x", 0)
    async with cluster.disk_full(leader) as full:
        try:
            await cluster.kv.put("x", 1, via=leader, timeout=1, retries=False)
            acknowledged = True
        except NotDone:
            acknowledged = False
        new = await cluster.wait_for_leader(other_than=leader, group="kv")
        found = await cluster.kv.get("x", via=new)
        assert found == 1 if acknowledged else found in (0, 1)
        await cluster.kv.put("y", 2, via=new)
    assert full.bit and cluster.unexpected_exits
    await back(cluster, cluster.nodes)
    assert await cluster.kv.get("x", via=leader, consistency="stale") == found
    assert await cluster.kv.get("y", via=leader, consistency="stale") == 2
    await cluster.verify()


async def test_disk_full_on_a_majority_and_recovery_when_space_returns(cluster: ScenarioCluster) -> None:
    """With a majority of disks full no write is acknowledged; once there is space the cluster serves again, and has
    all that it acknowledged."""
    leader = await cluster.wait_for_leader(group="kv")
    await cluster.kv.put("x", 0)
    hit = cluster.others(leader)
    async with cluster.disk_full(hit[0]) as first, cluster.disk_full(hit[1]) as second:
        with pytest.raises(NotDone):
            await cluster.kv.put("x", 1, timeout=1.5)
    assert first.bit and second.bit
    await back(cluster, cluster.nodes)
    assert await cluster.kv.get("x") in (0, 1)
    await cluster.kv.put("x", 2)
    await cluster.verify()


async def test_slow_disk_of_a_follower_does_not_hold_up_the_majority(cluster: ScenarioCluster) -> None:
    """Writes take as long as the second fastest disk does, and the slowest node gets them later."""
    leader = await cluster.wait_for_leader(group="kv")
    slow = cluster.others(leader)[0]
    loop = asyncio.get_running_loop()
    async with cluster.slow_disk(slow, 200) as injection:
        for number in range(5):
            begun = loop.time()
            await cluster.kv.put("x", number, via=leader)
            assert loop.time() - begun < 0.15, "its answer was not waited for"
    assert injection.bit
    await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=slow, consistency="stale") == 4
    await cluster.verify()
