"""PreVote: a node that was away asks before it enters a new term, and so disturbs nobody when it is back.

Each node is away for longer than it waits for a leader, so that it has every reason to stand for election.
"""

from __future__ import annotations

import asyncio

import pytest
from leadership import elected, in_no_later_term, nobody_leads, safe, stepped_down, still_leads

from seatrial.scenario import ScenarioCluster


@pytest.mark.real
async def test_pre_vote_partitioned_follower_returns_without_disturbing(cluster: ScenarioCluster) -> None:
    """With the leader in the majority: the follower that was alone finds leader and term as it left them."""
    leader, term = await elected(cluster)
    alone = cluster.others(leader)[0]
    async with cluster.isolate(alone):
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, leader, term, nodes=[alone])
    await cluster.wait_for_consensus()
    await still_leads(cluster, leader, term, 0.7)
    assert await cluster.kv.get("x", via=alone) == 1
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(nodes=5)
async def test_pre_vote_leader_in_the_minority_returns_without_disturbing(cluster: ScenarioCluster) -> None:
    """The old leader and its follower stay in their term, elect nobody, and follow the majority's leader at last."""
    old, term = await elected(cluster)
    minority = [old, cluster.others(old)[0]]
    async with cluster.partition(minority):
        new, later = await elected(cluster, other_than=minority)
        assert later > term
        await stepped_down(cluster, old)
        await nobody_leads(cluster, minority)
        await in_no_later_term(cluster, minority, term)
    await cluster.wait_for_consensus()
    await still_leads(cluster, new, later, 0.7, nodes=cluster.nodes)
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_pre_vote_isolated_pair_returns_without_disturbing(cluster: ScenarioCluster) -> None:
    """Two followers that only had each other came to no new term together."""
    leader, term = await elected(cluster)
    pair = cluster.others(leader)[:2]
    async with cluster.partition(pair):
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, leader, term, nodes=pair)
    await cluster.wait_for_consensus()
    await still_leads(cluster, leader, term, 0.7, nodes=cluster.nodes)
    assert await cluster.kv.get("x", via=pair[0]) == 1
    await safe(cluster)


async def test_pre_vote_follower_rebooted_while_cut_off_returns_without_disturbing(cluster: ScenarioCluster) -> None:
    """A follower that restarts all alone, and forgets that it ever had a leader, stays in its term all the same."""
    leader, term = await elected(cluster)
    alone = cluster.others(leader)[0]
    await cluster.kv.put("x", 1)
    async with cluster.isolate(alone):
        await cluster.kill(alone)
        await cluster.start(alone)
        await still_leads(cluster, leader, term)
    await cluster.wait_for_consensus()
    await still_leads(cluster, leader, term, 0.7, nodes=cluster.nodes)
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_pre_vote_reboot_of_a_minority_of_followers(cluster: ScenarioCluster) -> None:
    """Two of five followers restart at once: the leader leads on in its term."""
    leader, term = await elected(cluster)
    rebooted = cluster.others(leader)[:2]
    await asyncio.gather(*(cluster.kill(node) for node in rebooted))
    await asyncio.gather(*(cluster.start(node) for node in rebooted))
    await still_leads(cluster, leader, term)
    await cluster.wait_for_consensus()
    await still_leads(cluster, leader, term, 0.1, nodes=cluster.nodes)
    await cluster.kv.put("x", 1)
    await safe(cluster)


@pytest.mark.cluster(nodes=5)
async def test_pre_vote_reboot_of_a_majority_of_followers(cluster: ScenarioCluster) -> None:
    """While three of five followers are down the leader gives up and nobody enters a new term; then one is elected."""
    old, term = await elected(cluster)
    rebooted = cluster.others(old)[:3]
    await asyncio.gather(*(cluster.kill(node) for node in rebooted))
    left = list(cluster.running())
    await stepped_down(cluster, old)
    await nobody_leads(cluster, left)
    await in_no_later_term(cluster, left, term)
    await asyncio.gather(*(cluster.start(node) for node in rebooted))
    leader, later = await elected(cluster)
    assert later > term
    await cluster.kv.put("x", 1)
    await cluster.wait_for_consensus()
    await still_leads(cluster, leader, later, 0.7, nodes=cluster.nodes)
    await safe(cluster)
