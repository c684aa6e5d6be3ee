"""Clients: what a client was told holds, whoever leads next, and what it sent twice is done once."""

from __future__ import annotations

import asyncio

import pytest
from filtering import bitten_at
from leadership import elected, view

from seatrial.scenario import ScenarioCluster, Unavailable, eventually

OWN = pytest.mark.cluster(system="own")


async def stored_behind_its_back(cluster: ScenarioCluster, leader: int, group: str, index: int) -> None:
    """Wait until every node has the group's log up to this index, and the leader, deaf to answers, has missed one."""

    async def there() -> bool:
        said = [status for node in cluster.running() for status in await cluster.status(node)]
        return all((status.last_index or 0) >= index for status in said if status.group == group)

    await eventually(there)
    # A follower has an entry before it has stored it, and answers after.
    await eventually(lambda: bitten_at(cluster, leader))


@pytest.mark.real
@OWN
async def test_request_retry_during_an_election_is_applied_once(cluster: ScenarioCluster) -> None:
    """A write whose leader died before it could answer, and which is sent again after another client's write, does not
    come back over that one."""
    await cluster.kv.put("x", "nothing yet")
    leader, _ = await elected(cluster)
    others = cluster.others(leader)
    before = (await view(cluster, leader)).last_index or 0
    async with cluster.messages("drop-append-answers", at=leader, direction="in", group="kv") as deafness:
        # It is asked of this node alone, so that it is sent again when the node is back, and no sooner.
        first = asyncio.ensure_future(cluster.kv.put("x", "first", via=leader, timeout=20))
        await stored_behind_its_back(cluster, leader, "kv", before + 1)
        assert not first.done()
        await cluster.kill(leader)
    assert deafness.bit
    await elected(cluster, among=others)
    assert await cluster.kv.get("x", via=others[0]) == "first"
    await cluster.kv.put("x", "second", via=others[1])
    await cluster.start(leader)
    await first  # acknowledged: it had been applied, once
    assert await cluster.kv.get("x") == "second"
    await cluster.verify()


@pytest.mark.real
@OWN
async def test_duplicate_write_prevention_across_a_leader_change(cluster: ScenarioCluster) -> None:
    """A record whose leader died before it could answer is in the log once, however often its producer sent it."""
    log = cluster.log()
    assert await log.append(0) == 0
    leader = await cluster.wait_for_leader(group="t/0")
    before = await last_index_of(cluster, leader, "t/0")
    async with cluster.messages("drop-append-answers", at=leader, direction="in", group="t/0") as deafness:
        append = asyncio.ensure_future(log.append(1, timeout=20))
        await stored_behind_its_back(cluster, leader, "t/0", before + 1)
        assert not append.done()
        await cluster.kill(leader)
    assert deafness.bit
    await cluster.wait_for_leader(group="t/0", other_than=leader)
    assert await append == 1, "it was given the offset of its first sending"
    assert await log.append(2) == 2
    assert await log.read() == [(0, 0), (1, 1), (2, 2)]
    await cluster.start(leader)
    await cluster.verify()


@pytest.mark.parametrize("loss", [pytest.param("kill", marks=pytest.mark.real), "pause", "isolate"])
async def test_leader_failure_under_load(cluster: ScenarioCluster, loss: str) -> None:
    """Of all that was acknowledged under load nothing is lost or doubled, and the service comes back by itself."""
    async with cluster.traffic(kv=True, log=cluster.system == "own", rate=25) as traffic:
        await traffic.progress(more=6)
        leader, term = await elected(cluster)
        others = cluster.others(leader)
        if loss == "isolate":
            async with cluster.isolate(leader):
                _, later = await elected(cluster, among=others)
                await traffic.progress(more=6)
        else:
            await (cluster.kill if loss == "kill" else cluster.pause)(leader)
            _, later = await elected(cluster, among=others)
            await traffic.progress(more=6)
            await (cluster.start if loss == "kill" else cluster.resume)(leader)
        assert later > term
        await traffic.progress(more=3)
    await cluster.wait_for_consensus()
    await traffic.assert_valid()
    assert max(traffic.gaps().values()) < 5


async def test_increments_of_many_clients_across_a_leader_change_add_up(cluster: ScenarioCluster) -> None:
    """A counter that four clients raise by compare-and-set ends at what was acknowledged, and at most at what may have
    been done as well."""
    await cluster.kv.put("counter", 0)
    acknowledged, unknown = [0] * 4, [0] * 4

    async def client(number: int) -> None:
        store = cluster.kv.session()
        while sum(acknowledged) < 12:
            try:
                seen = await store.get("counter", timeout=2)
                assert isinstance(seen, int)
                acknowledged[number] += await store.compare_and_set("counter", seen, seen + 1, timeout=2)
            except Unavailable as error:
                unknown[number] += not error.definite

    async def leader_change() -> None:
        await eventually(lambda: sum(acknowledged) >= 3)
        leader, _ = await elected(cluster)
        await cluster.kill(leader)
        await elected(cluster, among=cluster.others(leader))
        await cluster.start(leader)

    await asyncio.gather(*(client(number) for number in range(4)), leader_change())
    counted = await cluster.kv.get("counter")
    assert isinstance(counted, int)
    assert sum(acknowledged) <= counted <= sum(acknowledged) + sum(unknown)
    await cluster.verify()


@OWN
async def test_a_producer_goes_on_through_three_leader_changes(cluster: ScenarioCluster) -> None:
    """One idempotent producer's records come once and in their order, at the offsets that it was told."""
    log = cluster.log()
    told = [await log.append(0)]
    for number in range(1, 4):
        leader = await cluster.wait_for_leader(group="t/0")
        append = asyncio.ensure_future(log.append(number, timeout=20))
        await cluster.members.transfer(cluster.others(leader)[number % 2], group="t/0")
        told.append(await append)
    assert told == [0, 1, 2, 3]
    assert await log.read() == [(number, number) for number in range(4)]
    await cluster.verify()


async def test_a_write_that_was_refused_for_sure_never_appears(cluster: ScenarioCluster) -> None:
    """What a client was told has surely not been done is not done later either, when the cluster is whole again."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", "before")
    refused = []
    async with cluster.partition(*([node] for node in cluster.nodes)):
        for node in cluster.others(leader):
            with pytest.raises(Unavailable) as error:
                await cluster.kv.put("x", f"by {node}", via=node, timeout=0.5, retries=False)
            refused += [f"by {node}"] if error.value.definite else []
    await elected(cluster)
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        assert await cluster.kv.get("x", via=node) not in refused
    await cluster.verify()


async def last_index_of(cluster: ScenarioCluster, node: int, group: str) -> int:
    """Where the node's log of the group ends."""
    (found,) = [status.last_index for status in await cluster.status(node) if status.group == group]
    assert found is not None
    return found
