"""Leadership that is handed over, and what clocks may do to it: of our own server, whose API and clocks it takes.

In a transfer the target is elected against the loyalty that followers owe their leader, so that nothing that rests on
this loyalty (a lease, a read without a round) may be relied on from then on.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from leadership import elected, for_a_while, leads_still, safe, still_leads, term_of, view

from seatrial.scenario import ScenarioCluster, Unavailable, eventually

pytestmark = pytest.mark.cluster(system="own")


@pytest.mark.real
async def test_leadership_transfer(cluster: ScenarioCluster) -> None:
    """The chosen node leads the next term, the old leader follows it, and nothing that was acknowledged is lost."""
    old, term = await elected(cluster)
    to = cluster.others(old)[-1]
    await cluster.kv.put("x", 1, via=old)
    await cluster.members.transfer(to, group="kv")
    new, later = await elected(cluster)
    assert new == to
    assert later > term
    await cluster.wait_for_consensus()
    assert (await view(cluster, old)).role == "follower"
    assert await cluster.kv.get("x", via=to) == 1
    await cluster.kv.put("x", 2, via=old)
    await safe(cluster)


async def test_leadership_transfer_to_a_lagging_node(cluster: ScenarioCluster) -> None:
    """A target that lacks entries is given them first: it leads with all that was acknowledged without it."""
    old, _ = await elected(cluster)
    to = cluster.others(old)[0]
    async with cluster.isolate(to, mode="reset"):
        for number in range(10):
            await cluster.kv.put(f"k{number}", number, via=old)
        behind, ahead = await view(cluster, to), await view(cluster, old)
        assert (behind.last_index or 0) < (ahead.last_index or 0)
    await cluster.members.transfer(to, group="kv")
    await elected(cluster, among=[to])
    assert [await cluster.kv.get(f"k{number}", via=to) for number in range(10)] == list(range(10))
    await safe(cluster)


async def test_leadership_transfer_during_a_snapshot(cluster: ScenarioCluster) -> None:
    """A target that is being sent a snapshot leads once it has it, and what came behind it; the log is gone by then."""
    old, _ = await elected(cluster)
    to = cluster.others(old)[0]
    async with cluster.isolate(to, mode="reset"):
        for number in range(10):
            await cluster.kv.put(f"k{number}", number, via=old)
        await cluster.members.snapshot("kv", via=old, keep_entries=0)

        async def log_is_dropped() -> bool:
            return bool((await cluster.members.group("kv", via=old))["first_index"] > 5)

        await eventually(log_is_dropped)
    async with cluster.messages("delay-snapshots", at=to, value=150_000, direction="in", group="kv") as late:
        await cluster.kv.put("behind the snapshot", 1, via=old)
        await cluster.members.transfer(to, group="kv")
    assert late.bit, "no snapshot was on its way"
    await elected(cluster, among=[to])
    assert [await cluster.kv.get(f"k{number}", via=to) for number in range(10)] == list(range(10))
    assert await cluster.kv.get("behind the snapshot", via=to) == 1
    await safe(cluster)


async def test_leadership_transfer_aborted(cluster: ScenarioCluster) -> None:
    """A target that never hears of it leaves all as it was: the leader takes writes again, in its term."""
    leader, term = await elected(cluster)
    to = cluster.others(leader)[0]
    async with cluster.messages("drop-timeout-now", at=to, direction="in", group="kv") as dropped:
        await cluster.members.transfer(to, group="kv", wait=False)
        await still_leads(cluster, leader, term)
        await cluster.kv.put("x", 1, via=leader)
    assert dropped.bit, "the target was never told to stand"
    await leads_still(cluster, leader, term)
    await cluster.members.transfer(to, group="kv")
    assert await cluster.kv.get("x", via=to) == 1
    await safe(cluster)


@pytest.mark.cluster(options={"lease_reads": True})
async def test_lease_is_unsafe_during_a_transfer(cluster: ScenarioCluster) -> None:
    """A leader that was cut off after it told another to stand never answers with what the new leader has replaced,
    not even from a lease that would have run on."""
    old, _ = await elected(cluster)
    to = cluster.others(old)[0]
    await cluster.kv.put("x", "old", via=old)
    await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=old, consistency="lease") == "old"
    only_to_the_target = [link for link in cluster.links_of(old) if link != (old, to)]
    async with contextlib.AsyncExitStack() as word:
        await word.enter_async_context(cluster.messages("hold-timeout-now", at=old, direction="out", group="kv"))
        await cluster.members.transfer(to, group="kv", wait=False)
        async with cluster.cut_links(only_to_the_target):
            await word.aclose()  # from now on the target knows
            await elected(cluster, among=[to])
            await cluster.kv.put("x", "new", via=to)

            async def no_old_value() -> None:
                try:
                    found = await cluster.kv.get("x", via=old, consistency="lease", timeout=0.1, retries=False)
                except Unavailable:
                    return
                assert found == "new"

            await for_a_while(no_old_value, 0.5)
    await safe(cluster)


@pytest.mark.environments("sim", reason="all processes of a machine have one clock")
async def test_clock_skew_between_nodes(cluster: ScenarioCluster) -> None:
    """Wall clocks that are hours apart change neither leader nor term, and a new leader is elected as ever."""
    leader, term = await elected(cluster)
    early, late = cluster.others(leader)
    async with cluster.clock_skew(early, offset_ms=-3_600_000), cluster.clock_skew(late, offset_ms=7_200_000):
        await cluster.kv.put("x", 1)
        await still_leads(cluster, leader, term, nodes=cluster.nodes)
        await cluster.kill(leader)
        _, later = await elected(cluster, other_than=leader)
        assert later > term
        assert await cluster.kv.get("x", consistency="lease") == 1
        await cluster.start(leader)
        await cluster.kv.put("x", 2)
    await safe(cluster)


@pytest.mark.environments("sim", reason="all processes of a machine have one clock")
@pytest.mark.cluster(options={"lease_reads": True})
async def test_clock_drift_between_nodes(cluster: ScenarioCluster) -> None:
    """Clocks that run a few hundredths too slow and too fast cost no election, and no lease outlasts its promise."""
    leader, term = await elected(cluster)
    fast, other = cluster.others(leader)
    async with cluster.clock_skew(leader, drift_ppm=-40_000), cluster.clock_skew(fast, drift_ppm=40_000):
        await cluster.kv.put("x", 1)
        await still_leads(cluster, leader, term, nodes=cluster.nodes)
        async with cluster.isolate(leader):
            new, later = await elected(cluster, other_than=leader)
            assert later > term
            await cluster.kv.put("x", 2, via=new)
            with pytest.raises(Unavailable):  # its lease is over before anybody else can be elected
                await cluster.kv.get("x", via=leader, consistency="lease", timeout=0.5, retries=False)
        assert await cluster.kv.get("x", via=other) == 2
    await safe(cluster)


@pytest.mark.environments("sim", reason="all processes of a machine have one clock")
async def test_clock_that_stands_almost_still_on_the_leader(cluster: ScenarioCluster) -> None:
    """A leader whose clock hardly moves, and who so sends no heartbeat in time, is replaced, and then follows."""
    old, term = await elected(cluster)
    async with cluster.clock_skew(old, drift_ppm=-950_000):
        await cluster.kv.put("x", 1, via=cluster.others(old)[0])
        new, later = await elected(cluster, other_than=old)
        assert later > term
        await cluster.kv.put("x", 2, via=new)

        async def it_follows() -> bool:
            return await term_of(cluster, old) >= later and (await view(cluster, old)).role == "follower"

        await eventually(it_follows)
    await asyncio.gather(*(cluster.kv.get("x", via=node) for node in cluster.nodes))
    await safe(cluster)
