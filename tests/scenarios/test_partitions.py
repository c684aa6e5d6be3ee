"""Partitions: who serves while the network is in pieces, who must not, and what is there when it is whole again.

Written once for any Raft with a key-value store.  A node with the majority on its side has to serve; any other has to
refuse what it cannot know to be kept, or to be the latest.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from leadership import (
    elected,
    in_no_later_term,
    kept_time,
    leads_still,
    nobody_leads,
    not_judged,
    refuses_reads,
    refuses_writes,
    safe,
    stepped_down,
    still_leads,
    view,
)

from seatrial.scenario import ScenarioCluster, Unavailable


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_majority_elects_and_minority_cannot(cluster: ScenarioCluster) -> None:
    """Of three and two nodes the three elect and serve; the two elect nobody, whoever led before."""
    first, _ = await elected(cluster)
    minority = cluster.rng.child("minority").sample(cluster.nodes, 2)
    majority = cluster.others(*minority)
    async with cluster.partition(minority, majority):
        leader, _ = await elected(cluster, among=majority)
        await cluster.kv.put("x", 1, via=leader)
        for node in minority:
            await stepped_down(cluster, node)
        await nobody_leads(cluster, minority)
        assert await cluster.kv.get("x", via=majority[0]) == 1
    await cluster.wait_for_consensus()
    again, _ = await elected(cluster)
    assert again in ({first, leader} if first in majority else {leader}) or not kept_time(cluster)
    await safe(cluster)


@pytest.mark.real
async def test_minority_blocks_writes(cluster: ScenarioCluster) -> None:
    """Neither a leader nor a follower that is cut off acknowledges a write; what it refused is nowhere half-there."""
    old, _ = await elected(cluster)
    await cluster.kv.put("x", "before")
    async with cluster.isolate(old):
        await refuses_writes(cluster, old, "x")  # while it still takes itself for the leader
        new, _ = await elected(cluster, other_than=old)
        await stepped_down(cluster, old)
        await refuses_writes(cluster, old, "x")  # and when it knows better
        assert await cluster.kv.get("x", via=new) == "before"
        await cluster.kv.put("y", "meanwhile", via=new)
    await cluster.wait_for_consensus()
    seen = {await cluster.kv.get("x", via=node) for node in cluster.nodes}
    assert len(seen) == 1
    assert seen <= {"before", f"refused by {old}"}
    await safe(cluster)


@pytest.mark.real
async def test_minority_blocks_linearizable_reads(cluster: ScenarioCluster) -> None:
    """A follower that is cut off answers stale reads with what it has, and linearizable ones not at all."""
    leader, _ = await elected(cluster)
    alone = cluster.others(leader)[0]
    await cluster.kv.put("x", "before")
    await cluster.wait_for_consensus()
    async with cluster.isolate(alone):
        await cluster.kv.put("x", "after", via=leader)
        await refuses_reads(cluster, alone, "x")
        assert await cluster.kv.get("x", via=alone, consistency="stale") == "before"
        assert await cluster.kv.get("x", via=leader) == "after"
    assert await cluster.kv.get("x", via=alone) == "after"
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_healing_converges_to_one_leader(cluster: ScenarioCluster) -> None:
    """Five nodes, each alone, have no leader; five that see each other have one, in one term, and one state."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.partition(*([node] for node in cluster.nodes)):
        await stepped_down(cluster, old)
        await nobody_leads(cluster, cluster.nodes)
        await in_no_later_term(cluster, cluster.nodes, term)
    await cluster.wait_for_consensus()
    leader, later = await elected(cluster)
    seen = [await view(cluster, node) for node in cluster.nodes]
    assert later > term
    assert {(status.leader, status.term) for status in seen} == {(leader, later)}
    assert await cluster.kv.get("x") == 1
    await safe(cluster)


@pytest.mark.cluster(nodes=4)
async def test_symmetric_split_of_an_even_cluster(cluster: ScenarioCluster) -> None:
    """Two and two of four nodes: half is no majority, so neither half elects or serves, until both are one again."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    half = [old, cluster.others(old)[0]]
    async with cluster.partition(half):
        await stepped_down(cluster, old)
        await nobody_leads(cluster, cluster.nodes)
        await refuses_writes(cluster, half[0], "x")
        await refuses_writes(cluster, cluster.others(*half)[0], "y")
    _, later = await elected(cluster)
    assert later > term
    await cluster.kv.put("z", 2)
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_cascading_partitions(cluster: ScenarioCluster) -> None:
    """One leader after the other is cut off: five nodes bear it twice, stop at the third, and go on as nodes return."""
    async with contextlib.AsyncExitStack() as third:
        async with contextlib.AsyncExitStack() as others:
            lost: list[int] = []
            terms: list[int] = []
            for stack in (others, others, third):
                leader, term = await elected(cluster, other_than=lost)
                terms.append(term)
                await cluster.kv.put(f"of-{len(lost)}", term, via=leader)
                await stack.enter_async_context(cluster.isolate(leader))
                lost.append(leader)
            assert terms == sorted(set(terms))
            await stepped_down(cluster, lost[-1])
            await nobody_leads(cluster, cluster.others(*lost))
        # Two of the three are back: four of five are connected.
        _, later = await elected(cluster, other_than=lost[-1])
        assert later > terms[-1]
        assert [await cluster.kv.get(f"of-{turn}", via=lost[0]) for turn in range(3)] == terms
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_leader_in_the_minority(cluster: ScenarioCluster) -> None:
    """What the cut-off leader could not commit is replaced by what the majority's leader did, on all nodes."""
    old, term = await elected(cluster)
    minority = [old, cluster.others(old)[-1]]
    await cluster.kv.put("x", "kept", via=old)
    async with cluster.partition(minority):
        await refuses_writes(cluster, old, "x")
        new, later = await elected(cluster, other_than=minority)
        assert later > term
        assert await cluster.kv.get("x", via=new) == "kept"
        await cluster.kv.put("x", "latest", via=new)
        await stepped_down(cluster, old)
    await cluster.wait_for_consensus()
    await leads_still(cluster, new, later)
    # A node that was not the leader any more may have passed the write on, which arrives when the network is whole.
    found = [await cluster.kv.get("x", via=node) for node in minority]
    assert found == ["latest", "latest"] or not_judged(cluster, f"x is {found}")
    await safe(cluster)


async def test_flapping_network(cluster: ScenarioCluster) -> None:
    """Links that break and heal at every pace cost time and elections, and no acknowledged write."""
    rng = cluster.rng.child("flaps")
    await elected(cluster)
    async with cluster.watch(every=0.1), cluster.traffic(rate=30) as traffic:
        for _ in range(6):
            node = rng.choice(cluster.nodes)
            async with cluster.isolate(node):
                await asyncio.sleep(rng.uniform(0.05, 0.6))
            await asyncio.sleep(rng.uniform(0.05, 0.3))
        await elected(cluster)
        await traffic.progress(more=5)
    await cluster.wait_for_consensus()
    leader, term = await elected(cluster)
    await still_leads(cluster, leader, term, nodes=cluster.nodes)
    await traffic.assert_valid()
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_bridge(cluster: ScenarioCluster) -> None:
    """Two pairs that only one node sees both of: each pair has a majority with it, and still one alone leads."""
    bridge, *rest = cluster.rng.child("bridge").sample(cluster.nodes, 5)
    links = cluster.links_between(rest[:2], rest[2:])
    await elected(cluster)
    async with cluster.cut_links([link for link in links if bridge not in link]):
        leader, term = await elected(cluster)
        await cluster.kv.put("x", 1, via=bridge)
        await still_leads(cluster, leader, term)
        assert await cluster.kv.get("x", via=leader) == 1
    await cluster.wait_for_consensus()
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_majorities_ring(cluster: ScenarioCluster) -> None:
    """Each node sees its two neighbours alone, a majority and each another one: one of them leads, and serves."""
    ring = cluster.rng.child("ring").sample(cluster.nodes, 5)
    near = {(ring[at], ring[(at + step) % 5]) for at in range(5) for step in (1, -1)}
    await elected(cluster)
    async with cluster.cut_links([link for link in cluster.all_links() if link not in near]):
        leader, term = await elected(cluster)
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, leader, term)
        await cluster.kv.put("x", 2, via=leader)
    await cluster.wait_for_consensus()
    assert [await cluster.kv.get("x", via=node) for node in ring] == [2] * 5
    await safe(cluster)


@pytest.mark.environments("sim", reason="it takes a slow clock to have both at once for sure")
async def test_split_brain_two_claim_to_lead_and_one_remains(cluster: ScenarioCluster) -> None:
    """A cut-off leader whose slow clock lets it believe in itself for long, and the majority's: two claim to lead, in
    two terms; the old one acknowledges nothing, and is a follower when it is back."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", "old", via=old)
    async with cluster.clock_skew(old, drift_ppm=-900_000), cluster.isolate(old):
        new, later = await elected(cluster, other_than=old)
        claims = [(status.role, status.term) for status in (await view(cluster, old), await view(cluster, new))]
        assert claims == [("leader", term), ("leader", later)]
        assert later > term
        # By its clock the old leader has time to hand the write on when the network is whole, which it may.
        await refuses_writes(cluster, old, "y")
        await refuses_reads(cluster, old, "x")
        await cluster.kv.put("x", "new", via=new)
    await cluster.wait_for_consensus()
    if await leads_still(cluster, new, later):
        assert (await view(cluster, old)).role == "follower"
    assert await cluster.kv.get("x", via=old) == "new"
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_partition_and_crash_at_once(cluster: ScenarioCluster) -> None:
    """The leader dies in the moment in which another node is cut off: the three that are left elect and serve."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    alone = cluster.others(old)[0]
    async with cluster.isolate(alone):
        await cluster.kill(old)
        new, later = await elected(cluster, other_than=(old, alone))
        assert later > term
        assert await cluster.kv.get("x", via=new) == 1
        await cluster.kv.put("x", 2, via=new)
        await refuses_writes(cluster, alone, "y")
        await cluster.start(old)
        assert await cluster.kv.get("x", via=old) == 2
    assert await cluster.kv.get("x", via=alone) == 2
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_partial_partition_of_clients(cluster: ScenarioCluster) -> None:
    """Clients that reach only the smaller side are not served; those at any node of the larger one are, and a client
    between both is not told two different things."""
    old, _ = await elected(cluster)
    minority = cluster.others(old)[:2]
    await cluster.kv.put("x", 0)
    async with cluster.partition(minority):
        await elected(cluster, other_than=minority)
        for value, node in enumerate(cluster.others(*minority), start=1):
            await cluster.kv.put("x", value, via=node)
            assert await cluster.kv.get("x", via=node) == value
        for node in minority:
            with pytest.raises(Unavailable):
                await cluster.kv.compare_and_set("x", 3, "never", via=node, timeout=0.5, retries=False)
    assert [await cluster.kv.get("x", via=node) for node in cluster.nodes] == [3] * 5
    await safe(cluster)


async def test_random_restarts_under_latency(cluster: ScenarioCluster) -> None:
    """On slow links nodes restart at random under load: nothing acknowledged is lost, and all agree in the end."""
    rng = cluster.rng.child("restarts")
    await elected(cluster)
    async with cluster.latency(cluster.all_links(), 30, 20), cluster.traffic(rate=30) as traffic:
        for _ in range(3):
            node = rng.choice(cluster.nodes)
            await cluster.kill(node)
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            await cluster.start(node)
            await elected(cluster)
        await traffic.progress(more=5)
    await traffic.assert_valid()
    await safe(cluster)
