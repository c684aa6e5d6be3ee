"""Leader election: who leads, after what, in which term, and who never may.

Written once for any Raft with a key-value store; a test that names `system="own"` says what it needs of ours.
"""

from __future__ import annotations

import asyncio

import pytest
from leadership import (
    elected,
    in_no_later_term,
    leads_still,
    nobody_leads,
    refuses_reads,
    refuses_writes,
    safe,
    serves,
    stepped_down,
    still_leads,
    view,
)

from seatrial.scenario import ScenarioCluster


@pytest.mark.real
async def test_initial_election(cluster: ScenarioCluster) -> None:
    """A new cluster elects one leader, whom all nodes name in one term."""
    await cluster.wait_for_consensus()
    leader, term = await elected(cluster)
    seen = [await view(cluster, node) for node in cluster.nodes]
    assert [status.node for status in seen if status.role == "leader"] == [leader]
    assert {(status.leader, status.term) for status in seen} == {(leader, term)}
    await cluster.kv.put("x", 1)
    assert [await cluster.kv.get("x", via=node) for node in cluster.nodes] == [1, 1, 1]
    await safe(cluster)


@pytest.mark.cluster(boot=False)
async def test_initial_election_waits_for_a_majority(cluster: ScenarioCluster) -> None:
    """The first of three nodes elects nobody, the second makes a majority, the third follows whom they elected."""
    first, second, third = cluster.nodes
    await cluster.start(first)
    await nobody_leads(cluster, [first])
    await refuses_writes(cluster, first, "x")
    await cluster.start(second)
    leader, term = await elected(cluster, among=[first, second])
    await cluster.kv.put("x", 1)
    await cluster.start(third)
    await cluster.wait_for_consensus()
    await leads_still(cluster, leader, term)
    await safe(cluster)


@pytest.mark.real
async def test_re_election_after_leader_crash(cluster: ScenarioCluster) -> None:
    """Another node leads a later term, with all that was acknowledged; the old leader comes back as a follower."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1, via=old)
    await cluster.kill(old)
    new, later = await elected(cluster, other_than=old)
    assert later > term
    assert await cluster.kv.get("x", via=new) == 1
    await cluster.kv.put("x", 2, via=new)
    await cluster.start(old)
    await cluster.wait_for_consensus()
    if await leads_still(cluster, new, later):
        back = await view(cluster, old)
        assert (back.role, back.leader, back.term) == ("follower", new, later)
    await safe(cluster)


@pytest.mark.real
async def test_re_election_after_leader_isolation(cluster: ScenarioCluster) -> None:
    """The others elect a leader of a later term; the isolated one gives up, and follows when it is back."""
    old, term = await elected(cluster)
    async with cluster.isolate(old):
        new, later = await elected(cluster, other_than=old)
        assert later > term
        await stepped_down(cluster, old)
        await cluster.kv.put("x", 1, via=new)
    await cluster.wait_for_consensus()
    if await leads_still(cluster, new, later):
        assert (await view(cluster, old)).role == "follower"
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_majority_required(cluster: ScenarioCluster) -> None:
    """Three of five nodes elect a leader and serve; two do neither, for as long as they are two."""
    first, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    await asyncio.gather(cluster.kill(first), cluster.kill(cluster.others(first)[0]))
    second, later = await elected(cluster)
    assert later > term
    await serves(cluster, "x", 2)
    await cluster.kill(second)
    left = cluster.running()
    assert len(left) == 2
    await nobody_leads(cluster, left)
    await refuses_writes(cluster, left[0], "y")
    await cluster.start(second)
    await elected(cluster)
    assert await cluster.kv.get("x") == 2
    await cluster.start_all()
    await safe(cluster)


@pytest.mark.cluster(nodes=7)
async def test_rapid_successive_leader_failures(cluster: ScenarioCluster) -> None:
    """Three leaders die, each once it has acknowledged a write; each term is later, and the fourth has them all."""
    terms: list[int] = []
    for turn in range(3):
        leader, term = await elected(cluster)
        terms.append(term)
        await cluster.kv.put(f"of-{turn}", turn, via=leader)
        await cluster.kill(leader)
    last, term = await elected(cluster)
    terms.append(term)
    assert terms == sorted(set(terms))
    assert [await cluster.kv.get(f"of-{turn}", via=last) for turn in range(3)] == [0, 1, 2]
    await cluster.start_all()
    await safe(cluster)


@pytest.mark.environments("sim", reason="a busy machine keeps no times")
@pytest.mark.parametrize(
    "timeout_ms",
    [
        pytest.param(
            timeout_ms,
            marks=pytest.mark.cluster(
                system="own", options={"heartbeat_ms": heartbeat_ms, "election_timeout_ms": timeout_ms}
            ),
        )
        for heartbeat_ms, timeout_ms in ((20, 120), (50, 300), (100, 1000))
    ],
)
async def test_different_election_timeouts(cluster: ScenarioCluster, timeout_ms: int) -> None:
    """A leader is missed after its timeout and not before, and replaced within a few of them."""
    loop = asyncio.get_running_loop()
    old, term = await elected(cluster)
    begun = loop.time()
    await cluster.kill(old)
    _, later = await elected(cluster, other_than=old)
    took_ms = (loop.time() - begun) * 1000
    assert later > term
    assert timeout_ms * 0.7 <= took_ms <= timeout_ms * 10, f"the election took {took_ms:.0f} ms"
    await cluster.start(old)
    await cluster.kv.put("x", 1)
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_simultaneous_node_failures(cluster: ScenarioCluster) -> None:
    """The leader and a follower die in one moment; the rest elects, and both come back without an election."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    dead = (old, cluster.others(old)[-1])
    await asyncio.gather(*(cluster.kill(node) for node in dead))
    new, later = await elected(cluster, other_than=dead)
    assert later > term
    await cluster.kv.put("x", 2, via=new)
    await asyncio.gather(*(cluster.start(node) for node in dead))
    await cluster.wait_for_consensus()
    await leads_still(cluster, new, later)
    assert await cluster.kv.get("x", via=old) == 2
    await safe(cluster)


async def test_terms_survive_a_restart_of_everyone(cluster: ScenarioCluster) -> None:
    """No node forgets a term or a vote: after all were killed at once, the next leader's term is a later one."""
    _, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    await cluster.wait_for_consensus()
    await cluster.kill_all()
    await cluster.start_all()
    _, later = await elected(cluster)
    assert later > term
    assert await cluster.kv.get("x") == 1
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_election_safety_in_every_term_seen(cluster: ScenarioCluster) -> None:
    """Leaders are killed, cut off and outvoted by turns; in each term that comes of it one node leads at most."""
    rng = cluster.rng.child("disturbances")
    async with cluster.watch():
        for turn in range(4):
            leader, _ = await elected(cluster)
            follower = rng.choice(cluster.others(leader))
            trouble = rng.choice(("kill", "isolate", "split"))
            if trouble == "kill":
                await cluster.kill(leader)
                await elected(cluster, other_than=leader)
                await cluster.start(leader)
            else:
                minority = [leader] if trouble == "isolate" else [leader, follower]
                async with cluster.partition(minority):
                    await elected(cluster, other_than=minority)
            leader, _ = await elected(cluster)
            await serves(cluster, "turn", turn, via=leader)
        await cluster.wait_for_consensus()
    await safe(cluster)
    terms = cluster.leaders_seen(cluster.kv.group)
    assert sum(1 for leaders in terms.values() if leaders) >= 5, f"too few terms were led to say anything: {terms}"


@pytest.mark.real
async def test_check_quorum_isolated_leader_steps_down_and_refuses_linearizable_reads(cluster: ScenarioCluster) -> None:
    """A leader that hears from no majority answers no linearizable read, not even before it gives up, and gives up."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", "old", via=old)
    await cluster.wait_for_consensus()
    async with cluster.isolate(old):
        await refuses_reads(cluster, old, "x")
        new, _ = await elected(cluster, other_than=old)
        await cluster.kv.put("x", "new", via=new)
        await stepped_down(cluster, old)
        await in_no_later_term(cluster, [old], term)
        await refuses_reads(cluster, old, "x")
        assert await cluster.kv.get("x", via=old, consistency="stale") == "old"
        assert await cluster.kv.get("x", via=new) == "new"
    await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=old) == "new"
    await safe(cluster)


@pytest.mark.real
async def test_leader_stickiness(cluster: ScenarioCluster) -> None:
    """A follower that hears nothing from the leader, but reaches all others, cannot have it deposed."""
    leader, term = await elected(cluster)
    deaf, other = cluster.others(leader)
    async with cluster.cut(leader, deaf):
        await still_leads(cluster, leader, term, nodes=[other])
        await in_no_later_term(cluster, [deaf], term)
        await cluster.kv.put("x", 1, via=leader)
    await cluster.wait_for_consensus()
    await leads_still(cluster, leader, term)
    assert await cluster.kv.get("x", via=deaf) == 1
    await safe(cluster)


async def test_node_with_missing_entries_is_not_elected(cluster: ScenarioCluster) -> None:
    """Of two followers, the one that missed an acknowledged write cannot follow the dead leader in office."""
    old, term = await elected(cluster)
    behind, complete = cluster.others(old)
    async with cluster.isolate(behind, mode="reset"):
        for value in range(3):
            await cluster.kv.put("x", value, via=old)
        await cluster.kill(old)
    new, later = await elected(cluster, other_than=old)
    assert new == complete
    assert later > term
    assert await cluster.kv.get("x", via=behind) == 2
    await cluster.start(old)
    await safe(cluster)


@pytest.mark.parametrize(
    "nodes", [pytest.param(nodes, marks=pytest.mark.cluster(nodes=nodes)) for nodes in (3, 4, 5, 6, 7)]
)
async def test_random_failures_alive_iff_a_quorum_is(cluster: ScenarioCluster, nodes: int) -> None:
    """Whatever dies and comes back (the seed draws it): there is a leader that serves exactly while a majority runs."""
    rng = cluster.rng.child("failures")
    quorum = nodes // 2 + 1
    for turn in range(4):
        alive = sorted(rng.sample(cluster.nodes, rng.integer(max(1, quorum - 2), nodes)))
        await asyncio.gather(*(cluster.kill(node) for node in cluster.running() if node not in alive))
        await asyncio.gather(*(cluster.start(node) for node in alive if node not in cluster.running()))
        if len(alive) >= quorum:
            leader, _ = await elected(cluster, among=alive)
            await serves(cluster, "turn", turn, via=leader)
            assert await cluster.kv.get("turn", via=rng.choice(alive)) == turn
        else:
            for node in alive:
                await stepped_down(cluster, node)
            await nobody_leads(cluster, alive, 0.7)
            await refuses_writes(cluster, alive[0], f"refused-{turn}")
    await cluster.start_all()
    await safe(cluster)
