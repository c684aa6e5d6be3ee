"""Failures and recovery: nodes die, alone and together, and what was acknowledged is there when they are back."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from seatrial.scenario import NotDone, ScenarioCluster, eventually


async def expect_everywhere(cluster: ScenarioCluster, written: dict[str, int]) -> None:
    """Once all nodes agree, each has every key in its own copy."""
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        for key, value in written.items():
            assert await cluster.kv.get(key, via=node, consistency="stale") == value
    await cluster.verify()


async def expect_no_service(cluster: ScenarioCluster, via: int) -> None:
    """Neither a write nor a linearizable read is answered."""
    attempts = (
        cluster.kv.put("blocked", 1, via=via, timeout=0.7, retries=False),
        cluster.kv.get("a", via=via, timeout=0.7, retries=False),
    )
    for answer in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(answer, NotDone), answer


@pytest.mark.real
async def test_leader_failure_with_data_consistency(cluster: ScenarioCluster) -> None:
    """After the leader's death another one leads in a later term, with everything that was acknowledged, and the dead
    one agrees when it is back."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    written = {f"k{number}": number for number in range(8)}
    for key, value in written.items():
        await cluster.kv.put(key, value)
    await cluster.kill(leader)
    new = await cluster.wait_for_leader(other_than=leader, group=group)
    for key, value in written.items():
        assert await cluster.kv.get(key, via=new) == value
    leaders = cluster.leaders_seen(group)
    assert max(term for term, who in leaders.items() if new in who) > min(
        t for t, who in leaders.items() if leader in who
    )
    await cluster.start(leader)
    await expect_everywhere(cluster, written)


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_multiple_failures_in_five_nodes(cluster: ScenarioCluster) -> None:
    """Of five nodes two dead are no hindrance; three dead stop writes and reads, until one is back."""
    group = cluster.kv.group
    await cluster.wait_for_leader(group=group)
    await cluster.kv.put("a", 1)
    dead = list(cluster.rng.child("dead").sample(cluster.nodes, 3))
    await cluster.kill(dead[0])
    await cluster.kill(dead[1])
    alive = cluster.others(*dead[:2])
    await cluster.wait_for_leader(among=alive, group=group)
    await cluster.kv.put("b", 2)
    await cluster.kill(dead[2])
    await expect_no_service(cluster, cluster.others(*dead)[0])
    await cluster.start(dead[0])
    await cluster.wait_for_leader(among=cluster.others(*dead[1:]), group=group)
    await cluster.kv.put("c", 3)
    await cluster.start(dead[1])
    await cluster.start(dead[2])
    await expect_everywhere(cluster, {"a": 1, "b": 2, "c": 3})


async def test_quorum_loss_and_return(cluster: ScenarioCluster) -> None:
    """Without a quorum nothing is served, and no longer than that: the node that never died has lost nothing either."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("a", 1)
    followers = cluster.others(leader)
    for node in followers:
        await cluster.kill(node)
    await expect_no_service(cluster, leader)
    for node in followers:
        await cluster.start(node)
    await cluster.wait_for_leader(group=group)
    await cluster.kv.put("b", 2)
    await expect_everywhere(cluster, {"a": 1, "b": 2})


@pytest.mark.cluster(nodes=5)
async def test_leader_and_follower_fail_at_once(cluster: ScenarioCluster) -> None:
    """The leader and a follower die in one moment: the other three elect one of theirs, and go on."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("a", 1)
    follower = cluster.rng.child("follower").choice(cluster.others(leader))
    await asyncio.gather(cluster.kill(leader), cluster.kill(follower))
    new = await cluster.wait_for_leader(among=cluster.others(leader, follower), group=group)
    assert await cluster.kv.get("a", via=new) == 1
    await cluster.kv.put("b", 2, via=new)
    await cluster.start_all()
    await expect_everywhere(cluster, {"a": 1, "b": 2})


@pytest.mark.real
async def test_all_fail_at_once(cluster: ScenarioCluster) -> None:
    """The power fails on every node in the midst of writes: what was acknowledged before is there after it, and what
    was not is there on all nodes or on none."""
    await cluster.wait_for_consensus()  # a term that a node told of, and had not stored yet, may be lost
    written: dict[str, int] = {}

    async def client(name: str) -> None:
        number = 0
        while cluster.running():
            number += 1
            with contextlib.suppress(NotDone):
                await cluster.kv.put(f"{name}{number}", number, timeout=1, retries=False)
                written[f"{name}{number}"] = number

    clients = [asyncio.ensure_future(client(name)) for name in ("a", "b", "c")]
    await eventually(lambda: len(written) >= 6)
    await cluster.power_failure()
    assert cluster.running() == ()
    await asyncio.gather(*clients)
    await cluster.start_all()
    await expect_everywhere(cluster, written)


async def test_repeated_power_failures(cluster: ScenarioCluster) -> None:
    """Power failures of all nodes, one after the other, each in the midst of a write, take nothing acknowledged away,
    and no vote or term either."""
    written: dict[str, int] = {}
    for number in range(3):
        await cluster.wait_for_consensus()  # as above
        await cluster.kv.put(f"k{number}", number)
        written[f"k{number}"] = number
        doubtful = asyncio.ensure_future(cluster.kv.put("doubtful", number, timeout=0.3, retries=False))
        await asyncio.sleep(cluster.rng.child(f"moment {number}").uniform(0, 0.01))
        await cluster.power_failure()
        await asyncio.gather(doubtful, return_exceptions=True)
        await cluster.start_all()
    await expect_everywhere(cluster, written)


@pytest.mark.real
async def test_rapid_leader_changes(cluster: ScenarioCluster) -> None:
    """While one leader after the other is cut off as soon as it has served, every write stays, and no term has two
    leaders."""
    group = cluster.kv.group
    written: dict[str, int] = {}
    leader: int | None = None
    async with cluster.watch():
        for number in range(3):
            previous, leader = leader, await cluster.wait_for_leader(group=group)
            assert leader != previous or number == 0 or len(cluster.leaders_seen(group)) > 1
            async with cluster.isolate(leader):
                new = await cluster.wait_for_leader(other_than=leader, group=group)
                await cluster.kv.put(f"k{number}", number, via=new)
                written[f"k{number}"] = number
    served = [term for term, who in cluster.leaders_seen(group).items() if who]
    assert len(served) >= 3, "each cut made another leader, in a term of its own"
    assert all(len(who) <= 1 for who in cluster.leaders_seen(group).values())
    await expect_everywhere(cluster, written)


async def test_write_after_failover(cluster: ScenarioCluster) -> None:
    """A client that goes on writing over the leader's death is served by the next leader, without losing a write."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    written: dict[str, int] = {}
    for number in range(6):
        if number == 3:
            await cluster.kill(leader)
        await eventually(lambda number=number: _written(cluster, number))
        written[f"k{number}"] = number
    assert await cluster.wait_for_leader(group=group) != leader
    await cluster.start(leader)
    await expect_everywhere(cluster, written)


async def _written(cluster: ScenarioCluster, number: int) -> bool:
    await cluster.kv.put(f"k{number}", number)
    return True


async def test_read_after_write_across_failures(cluster: ScenarioCluster) -> None:
    """Each write is read back, linearizably, at a node that lived through the failure that came between."""
    group = cluster.kv.group
    for number in range(3):
        leader = await cluster.wait_for_leader(group=group)
        await cluster.kv.put("x", number, via=leader)
        victim = leader if number != 1 else cluster.others(leader)[0]
        await cluster.kill(victim)
        reader = cluster.rng.child(f"reader {number}").choice(cluster.others(victim))
        assert await cluster.kv.get("x", via=reader) == number
        await cluster.start(victim)
    await cluster.verify()


@pytest.mark.real
async def test_node_rejoins_catches_up_and_can_lead(cluster: ScenarioCluster) -> None:
    """A node that was away is as good as any: with all it missed, it leads once the others may not."""
    group = cluster.kv.group
    away = cluster.others(await cluster.wait_for_leader(group=group))[0]
    await cluster.kill(away)
    for number in range(5):
        await cluster.kv.put(f"k{number}", number)
    await cluster.start(away)
    await cluster.wait_for_consensus()
    first, second = cluster.others(away)

    async def leads() -> bool:
        if await cluster.leader(group) == away:
            return True
        leader = await cluster.wait_for_leader(group=group)
        async with cluster.isolate(leader):  # the two others elect, and one of them is the one that was away
            return await cluster.wait_for_leader(among=cluster.others(leader), group=group) == away

    await eventually(leads, 30)
    for number in range(5):
        assert await cluster.kv.get(f"k{number}") == number
    await expect_everywhere(cluster, {f"k{number}": number for number in range(5)})
    assert {first, second, away} == set(cluster.nodes)
