"""Partitions of single directions, and links that are late, narrow, lossy or out of order.

A one-way cut is the fault that tells whether a cluster relies on links that work both ways; what is merely late or
narrow has to cost time alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from leadership import elected, for_a_while, leads_still, refuses_reads, safe, stepped_down, still_leads, term_of

from seatrial.scenario import ScenarioCluster, eventually

Fault = Callable[[ScenarioCluster], AbstractAsyncContextManager[Any]]


@pytest.mark.real
async def test_asymmetric_follower_hears_and_is_not_heard(cluster: ScenarioCluster) -> None:
    """A follower whose answers are lost has all that is committed, and changes neither leader nor term."""
    leader, term = await elected(cluster)
    mute, other = cluster.others(leader)
    async with cluster.cut_links([(mute, leader), (mute, other)]):
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, leader, term, nodes=cluster.nodes)
    await cluster.wait_for_consensus()
    await leads_still(cluster, leader, term)
    assert await cluster.kv.get("x", via=mute) == 1
    await safe(cluster)


@pytest.mark.real
async def test_asymmetric_leader_is_heard_and_hears_nothing(cluster: ScenarioCluster) -> None:
    """A leader whose heartbeats arrive, and who gets no answer, gives up, and another one serves: heartbeats alone
    must not hold up the election for ever."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.cut_links([(node, old) for node in cluster.others(old)]):
        await refuses_reads(cluster, old, "x")
        await stepped_down(cluster, old)
        new, later = await elected(cluster, other_than=old)
        assert later > term
        await cluster.kv.put("x", 2, via=new)
    await cluster.wait_for_consensus()
    await leads_still(cluster, new, later)
    assert await cluster.kv.get("x", via=old) == 2
    await safe(cluster)


# etcd's nodes hear over connections that they dial themselves (rafthttp's streams): what is cut for a sender is cut for
# what it hears, too.
@pytest.mark.cluster(system="own")
async def test_asymmetric_leader_hears_and_is_not_heard(cluster: ScenarioCluster) -> None:
    """A leader whose heartbeats are lost is replaced, and learns of it from the later term that reaches it."""
    old, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.cut_links([(old, node) for node in cluster.others(old)]):
        new, later = await elected(cluster, other_than=old)
        assert later > term

        async def it_knows() -> bool:
            return await term_of(cluster, old) >= later

        await stepped_down(cluster, old)
        await cluster.kv.put("x", 2, via=new)
        await still_leads(cluster, new, later)
        await eventually(it_knows)
    await cluster.wait_for_consensus()
    await leads_still(cluster, new, later)
    await safe(cluster)


async def test_asymmetric_triangle(cluster: ScenarioCluster) -> None:
    """Each node hears one other and is heard by the third: no two of them talk, so nobody is believed to lead."""
    old, term = await elected(cluster)
    second, third = cluster.others(old)
    async with cluster.cut_links([(second, old), (third, second), (old, third)]):
        await stepped_down(cluster, old)

        async def no_later_leader() -> None:
            assert await cluster.leader(cluster.kv.group) is None

        await for_a_while(no_later_leader)
    _, later = await elected(cluster)
    assert later > term
    await cluster.kv.put("x", 1)
    await safe(cluster)


GENTLE: dict[str, Fault] = {
    "latency": lambda cluster: cluster.latency(cluster.all_links(), 40),
    "jitter": lambda cluster: cluster.latency(cluster.all_links(), 30, 30),
    "bandwidth": lambda cluster: cluster.bandwidth(cluster.all_links(), 64),
}


@pytest.mark.parametrize("fault", GENTLE)
async def test_slow_links_cost_time_and_no_election(cluster: ScenarioCluster, fault: str) -> None:
    """Links that are late by less than a timeout, or narrow, but wide enough: leader and term stay, all is served."""
    leader, term = await elected(cluster)
    async with GENTLE[fault](cluster) as trouble:
        for value in range(5):
            await cluster.kv.put("x", value, via=cluster.nodes[value % 3])
            assert await cluster.kv.get("x", via=cluster.nodes[(value + 1) % 3]) == value
        await still_leads(cluster, leader, term, 0.7, nodes=cluster.nodes)
    assert trouble.bit
    await safe(cluster)


async def test_latency_beyond_the_election_timeout(cluster: ScenarioCluster) -> None:
    """A leader whose links are slower than anybody waits is replaced; nothing that it acknowledged is lost."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.watch(every=0.1):
        async with cluster.latency(cluster.links_of(leader), 800):
            await elected(cluster, other_than=leader)
            await cluster.kv.put("x", 2, via=cluster.others(leader)[0])
        await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=leader) == 2
    await safe(cluster)


ROUGH: dict[str, Fault] = {
    "loss": lambda cluster: cluster.loss(cluster.all_links(), 0.2),
    "reordering": lambda cluster: cluster.reorder(cluster.all_links(), most_ms=60),
    "duplication": lambda cluster: cluster.duplicate(cluster.all_links(), 0.5),
}


@pytest.mark.real
@pytest.mark.cluster(system="own")
@pytest.mark.parametrize("fault", ROUGH)
async def test_lossy_links_lose_and_repeat_no_write(cluster: ScenarioCluster, fault: str) -> None:
    """Messages are lost, overtake each other or come twice: each acknowledged write is there, once and in order."""
    await elected(cluster)
    async with ROUGH[fault](cluster) as trouble:
        for value in range(10):
            assert await cluster.kv.compare_and_set("x", None if value == 0 else value - 1, value)
        assert await cluster.kv.get("x") == 9
    assert trouble.bit
    await safe(cluster)


async def test_connections_that_are_reset_again_and_again(cluster: ScenarioCluster) -> None:
    """Between a follower and the rest every connection breaks at once, and each new one; it comes back all the same."""
    leader, term = await elected(cluster)
    broken = cluster.others(leader)[0]
    async with cluster.reset(cluster.links_of(broken)) as trouble:
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, leader, term, 0.7)
    assert trouble.bit
    await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=broken) == 1
    await safe(cluster)


async def test_black_hole(cluster: ScenarioCluster) -> None:
    """What a leader sends vanishes and no connection tells: it is replaced, and what vanished is sent anew."""
    old, term = await elected(cluster)
    async with cluster.timeout(cluster.links_of(old)):
        new, later = await elected(cluster, other_than=old)
        assert later > term
        await asyncio.gather(cluster.kv.put("x", 1, via=new), stepped_down(cluster, old))
    await cluster.wait_for_consensus()
    await leads_still(cluster, new, later)
    assert await cluster.kv.get("x", via=old) == 1
    await safe(cluster)
