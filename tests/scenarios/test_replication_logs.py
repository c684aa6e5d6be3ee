"""Replication across leader changes: committed entries are kept, others may vanish, and none is there twice."""

from __future__ import annotations

import asyncio

import pytest

from seatrial.cluster.status import NodeStatus
from seatrial.scenario import NotDone, ScenarioCluster, Unavailable, eventually


async def said_of(cluster: ScenarioCluster, node: int, group: str | None) -> NodeStatus:
    """What the node says of one group."""
    name = group or cluster.driver.group
    told = {status.group: status for status in await cluster.status(node)}
    return told[name]


async def attempt(cluster: ScenarioCluster, key: str, value: int, *, via: int) -> bool:
    """One try to write, at one node; whether it was acknowledged."""
    try:
        await cluster.kv.put(key, value, via=via, timeout=0.4, retries=False)
    except NotDone:
        return False
    return True


@pytest.mark.real
async def test_uncommitted_entries_at_a_leader_crash(cluster: ScenarioCluster) -> None:
    """What was committed before a leader's crash is kept; what only the leader had is not acknowledged, and is gone."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("kept", 1)
    others = cluster.others(leader)
    async with cluster.partition([leader], others):
        tries = [attempt(cluster, f"lost{number}", number, via=leader) for number in range(3)]
        assert await asyncio.gather(*tries) == [False, False, False]
        await cluster.kill(leader)
        new = await cluster.wait_for_leader(among=others, group=group)
        await cluster.kv.put("after", 2, via=new)
    await cluster.start(leader)
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        found = [
            await cluster.kv.get(key, via=node, consistency="stale")
            for key in ("kept", "after", "lost0", "lost1", "lost2")
        ]
        assert found == [1, 2, None, None, None]
    await cluster.verify()


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_entries_in_doubt_at_a_leader_crash_are_there_once(cluster: ScenarioCluster) -> None:
    """A record that followers hold, and whose acknowledgement a crash prevented, is appended once though it is sent
    again; the records before and after it keep their places."""
    log = cluster.log("t")
    assert await log.append("before") == 0
    leader = await cluster.wait_for_leader(group="t/0")
    others = cluster.others(leader)
    length = (await said_of(cluster, leader, "t/0")).last_index or 0

    async def both_hold_more() -> bool:
        return all([((await said_of(cluster, node, "t/0")).last_index or 0) > length for node in others])

    async with cluster.cut_links([(node, leader) for node in others]):  # answers are lost, entries are not
        in_doubt = asyncio.ensure_future(log.append("in doubt", timeout=20))
        await eventually(both_hold_more)
        await cluster.kill(leader)
        await cluster.wait_for_leader(among=others, group="t/0")
        offset = await in_doubt
    await cluster.start(leader)
    assert await log.append("after") == 2
    assert (offset, await log.read()) == (1, [(0, "before"), (1, "in doubt"), (2, "after")])
    await cluster.verify()


@pytest.mark.real
async def test_conflicting_suffixes_are_overwritten(cluster: ScenarioCluster) -> None:
    """Entries that a cut-off leader appended alone give way to those of the leader that a majority elected."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("x", 0)
    others = cluster.others(leader)
    async with cluster.isolate(leader):
        tries = [attempt(cluster, "x", 100 + number, via=leader) for number in range(4)]
        assert not any(await asyncio.gather(*tries)), "nothing is acknowledged without a majority"
        alone = await said_of(cluster, leader, group)
        if alone.last_index is not None and alone.commit_index is not None:
            assert alone.last_index > alone.commit_index, "there is a suffix to be overwritten"
        new = await cluster.wait_for_leader(among=others, group=group)
        for number in range(6):
            await cluster.kv.put("x", number, via=new)
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        assert await cluster.kv.get("x", via=node, consistency="stale") == 5
    await cluster.verify()


async def test_leader_change_with_log_overlap(cluster: ScenarioCluster) -> None:
    """A proposal of an old leader whose place in the log another leader's entry took is answered as done only where it
    was done at another place: that its own place is committed proves nothing (after TiKV)."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("x", 0)
    others = cluster.others(leader)
    async with cluster.isolate(leader):
        # They wait longer than the partition lasts: their places are committed, by others, before they are answered.
        waiting = [
            asyncio.ensure_future(cluster.kv.put(f"old{number}", number, via=leader, timeout=8, retries=False))
            for number in range(3)
        ]
        new = await cluster.wait_for_leader(among=others, group=group)
        for number in range(5):
            await cluster.kv.put(f"new{number}", number, via=new)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    await cluster.wait_for_consensus()
    for number, answer in enumerate(answers):
        found = await cluster.kv.get(f"old{number}")
        if isinstance(answer, NotDone):
            assert found is None or (found == number and not answer.definite), answer
        else:
            assert (answer, found) == (None, number), "it was answered as done"
    assert [await cluster.kv.get(f"new{number}") for number in range(5)] == list(range(5))
    await cluster.verify()


@pytest.mark.cluster(system="own")
async def test_log_compaction_during_leader_changes(cluster: ScenarioCluster) -> None:
    """While leaders change and every node forgets its log but for one entry, nothing that was acknowledged is lost."""
    written = 0
    for _ in range(2):
        leader = await cluster.wait_for_leader(group="kv")
        for _ in range(4):
            await cluster.kv.put(f"k{written}", written, via=leader)
            written += 1
        await cluster.kill(leader)
        await cluster.members.snapshot("kv", via=cluster.others(leader)[0], keep_entries=1)
        new = await cluster.wait_for_leader(among=cluster.others(leader), group="kv")
        await cluster.kv.put(f"k{written}", written, via=new)
        written += 1
        for node in cluster.others(leader):
            await cluster.members.snapshot("kv", via=node, keep_entries=1)
            await eventually(lambda node=node: _begins_behind(cluster, node, 1))
        await cluster.start(leader)
        await cluster.wait_for_consensus()
        assert await _begins_behind(cluster, leader, 1), "who came back got a snapshot: the entries are gone"
    for node in cluster.nodes:
        for number in range(written):
            assert await cluster.kv.get(f"k{number}", via=node, consistency="stale") == number
    await cluster.verify()


async def _begins_behind(cluster: ScenarioCluster, node: int, index: int) -> bool:
    return bool((await cluster.members.group("kv", via=node))["first_index"] > index)


async def test_an_entry_of_an_earlier_term_is_committed_with_one_of_the_new_leader(cluster: ScenarioCluster) -> None:
    """A write that outlives its leader on one follower is there for all or for none, and never changes again."""
    group = cluster.kv.group
    leader = await cluster.wait_for_leader(group=group)
    await cluster.kv.put("x", 0)
    holder, other = cluster.others(leader)
    async with cluster.cut_links([(leader, other), (holder, leader)]):
        with pytest.raises(Unavailable):
            await cluster.kv.put("x", 1, via=leader, timeout=0.3, retries=False)
        await cluster.kill(leader)
    await cluster.wait_for_leader(among=[holder, other], group=group)
    found = await cluster.kv.get("x")
    assert found in (0, 1)
    await cluster.start(leader)
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        assert await cluster.kv.get("x", via=node, consistency="stale") == found
    await cluster.verify()
