"""Follower reads (KIP-392 and beyond): what is committed is served by every replica, and nothing else by any.

Each claim is made of single Fetch requests, to a node that the scenario chooses.
"""

from __future__ import annotations

import asyncio

import pytest
from following import (
    NOT_LEADER_OR_FOLLOWER,
    assert_nothing_new,
    assert_sound,
    cast,
    fill,
    nothing_commits,
    rack_of,
    sent_away,
    sent_to,
    shown,
    timed_fetch,
    whole,
)

from seatrial.scenario import ScenarioCluster, eventually

pytestmark = pytest.mark.cluster(system="own")
WAIT_MS = 500
LONG_MS = 8_000
SOON_S = 0.25  # after what was waited for: no poll of any interval worth having is that fast by chance


@pytest.mark.real
async def test_committed_data(cluster: ScenarioCluster) -> None:
    """100 messages to the leader: a fetch at 0 from a follower gives all of them, checksums and offsets intact."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    await fill(log, 100)
    for node in followers:
        got = await shown(log, node, 100)
        assert_sound(got, 0)
        assert got.high_watermark == 100
        assert [int(record.value) for record in got.records] == list(range(100))
        assert got.batches == (await log.fetch(0, via=leader)).batches
    await cluster.verify()


@pytest.mark.real
async def test_uncommitted_data_is_not_at_a_follower_that_is_cut_off(cluster: ScenarioCluster) -> None:
    """50 committed, the follower cut off, 50 more: a fetch at 50 from it is empty, its high watermark 50."""
    log = cluster.log()
    _, (follower, _) = await cast(cluster, log)
    await fill(log, 50)
    await shown(log, follower, 50)
    async with cluster.isolate(follower):
        await fill(log, 50, first=50)
        assert_nothing_new(await log.fetch(50, via=follower), 50)
        assert_nothing_new(await log.fetch(50, via=follower, wait_ms=WAIT_MS), 50)
        assert await whole(log, follower) == list(range(50)), "what was committed before, it still serves"
    assert_sound(await shown(log, follower, 100), 0)
    await cluster.verify()


@pytest.mark.real
async def test_uncommitted_data_that_a_follower_holds_is_not_shown(cluster: ScenarioCluster) -> None:
    """Records that followers have stored, and that the leader does not know to be there, are shown by nobody."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    await fill(log, 10)
    for node in followers:
        await shown(log, node, 10)
    assert await log.append(10) == 10  # that it is committed comes with the next record, at the latest
    async with nothing_commits(cluster, leader):
        append = asyncio.ensure_future(log.append(11))

        async def stored() -> bool:
            held = {s.last_index for node in cluster.nodes for s in await cluster.status(node) if s.group == "t/0"}
            (known,) = [s.commit_index for s in await cluster.status(leader) if s.group == "t/0"]
            return len(held) == 1 and max(index or 0 for index in held) > (known or 0)

        await eventually(stored)
        for node in (leader, *followers):
            assert_nothing_new(await log.fetch(11, via=node, wait_ms=50), 11)
            assert_sound(await log.fetch(0, via=node), 0)
    assert await append == 11
    for node in followers:
        assert (await shown(log, node, 12)).offsets == list(range(12))
    await cluster.verify()


@pytest.mark.real
@pytest.mark.cluster(system="own", options={"fetch_from_followers": "false"})
async def test_leader_only_mode(cluster: ScenarioCluster) -> None:
    """Told that followers shall not serve, they answer NOT_LEADER_OR_FOLLOWER and name the leader, who serves."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    await fill(log, 10)
    for node in followers:
        refused = await log.fetch(0, via=node, rack=rack_of(cluster, node))
        assert (refused.error_code, refused.records) == (NOT_LEADER_OR_FOLLOWER, ())
        # Where clients of this version look it up; Fetch 12 and later name it in the answer.
        assert await log.leader(via=node) == leader
        assert await sent_to(cluster, log, leader, node) == -1
    assert await whole(log, leader) == list(range(10))
    cluster.check()


@pytest.mark.real
@pytest.mark.parametrize("place", ["leader", "follower"])
async def test_commit_wait(cluster: ScenarioCluster, place: str) -> None:
    """While nothing commits, a fetch that waits 500 ms is empty after 500 ms; one that waits longer is answered at once
    when the commit comes."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    node = leader if place == "leader" else followers[0]
    loop = asyncio.get_running_loop()
    await fill(log, 5)
    await shown(log, node, 5)
    async with nothing_commits(cluster, leader):
        append = asyncio.ensure_future(log.append(5))
        empty, seconds = await timed_fetch(log, 5, via=node, wait_ms=WAIT_MS)
        assert_nothing_new(empty, 5)
        assert empty.error_code == 0
        late_s = 0.05 if cluster.env == "sim" else 5.0  # a busy machine is late by as much as it likes
        assert seconds + 0.001 >= WAIT_MS / 1000 and seconds < WAIT_MS / 1000 + late_s
        patient = asyncio.ensure_future(log.fetch(5, via=node, wait_ms=LONG_MS))
        await asyncio.sleep(0.3)
        assert not patient.done()
    released = loop.time()
    got = await patient
    waited_s = loop.time() - released
    assert_sound(got, 5)
    assert got.offsets == [5]
    assert waited_s < (SOON_S if cluster.env == "sim" else LONG_MS / 2000)
    assert await append == 5
    await cluster.verify()


@pytest.mark.real
async def test_preferred_replica(cluster: ScenarioCluster) -> None:
    """A leader sends a consumer to the follower in its rack, keeps one of its own rack or of none, and names nobody
    whose node is down; a follower keeps whoever comes."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    await fill(log, 20)
    for node in followers:
        await shown(log, node, 20)
        await is_sent_to(cluster, leader, node, node)
        assert_sound(await log.fetch(0, via=node, rack=rack_of(cluster, node)), 0)
    assert await sent_to(cluster, log, leader, leader) == -1
    assert (await log.fetch(0, via=leader)).offsets == list(range(20))
    assert (await log.fetch(0, via=leader, rack="elsewhere")).offsets == list(range(20))
    await cluster.kill(followers[0])
    await is_sent_to(cluster, leader, followers[0], -1)
    assert await sent_to(cluster, log, leader, followers[1]) == followers[1]


async def is_sent_to(cluster: ScenarioCluster, leader: int, node: int, expected: int) -> None:
    """Wait until the leader sends a consumer of that node's rack to `expected` (-1: it serves it itself)."""

    async def so() -> bool:
        return await sent_to(cluster, cluster.log(), leader, node) == expected

    await eventually(so)


async def is_not_sent(cluster: ScenarioCluster, leader: int, node: int, *, offset: int) -> bool:
    """Whether the leader serves a consumer of that node's rack from there itself."""
    return await sent_to(cluster, cluster.log(), leader, node, offset=offset) == -1


@pytest.mark.cluster(system="own", options={"follower_staleness_max_ms": "1000"})
async def test_preferred_replica_is_none_that_is_too_far_behind(cluster: ScenarioCluster) -> None:
    """A follower whose records do not come is named to nobody, first for what it lacks, then for anything; and it names
    the leader to those that come to it."""
    log = cluster.log()
    leader, (behind, _) = await cast(cluster, log)
    await fill(log, 20)
    await shown(log, behind, 20)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0") as held:
        await fill(log, 20, first=20)
        # Once it is more than a moment behind, as the leader reckons from its samples: up to half a second off.
        await eventually(lambda: is_not_sent(cluster, leader, behind, offset=39))
        assert await sent_to(cluster, log, leader, behind, offset=10) == behind
        await is_sent_to(cluster, leader, behind, -1)
        assert (await sent_away(log, 10, behind)).preferred == leader
    assert held.bit
    await shown(log, behind, 40)
    await is_sent_to(cluster, leader, behind, behind)
    await cluster.verify()


@pytest.mark.real
async def test_a_follower_s_copy_is_the_leader_s_byte_for_byte(cluster: ScenarioCluster) -> None:
    """1,000 records to the leader, in batches of all sizes: every node serves the same bytes, checksums and all."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    count = 1_000
    value = 0
    while value < count:
        size = min(cluster.rng.integer(1, 100), count - value)
        await log.append_batch([f"{number}:{'x' * (number % 50)}" for number in range(value, value + size)])
        value += size
    original = (await shown(log, leader, count)).batches
    for node in followers:
        copy = await shown(log, node, count)
        assert_sound(copy, 0)
        assert len(copy.records) == count
        assert copy.batches == original
    await cluster.verify()


@pytest.mark.real
async def test_lag_and_catch_up(cluster: ScenarioCluster) -> None:
    """A follower that is disconnected while 500 records become 1,000 shows nothing of the rest at 600, and all of it
    once it is back."""
    log = cluster.log()
    _, (follower, _) = await cast(cluster, log)
    await fill(log, 500, batch=50)
    await shown(log, follower, 500)
    async with cluster.isolate(follower):
        await fill(log, 500, batch=50, first=500)
        assert_nothing_new(await log.fetch(600, via=follower, wait_ms=100), 500)
    await shown(log, follower, 1_000)
    assert await whole(log, follower) == list(range(1_000))
    assert (await log.fetch(600, via=follower)).offsets[0] == 600
    await cluster.verify()


@pytest.mark.real
async def test_leader_killed_during_a_follower_s_long_fetch(cluster: ScenarioCluster) -> None:
    """The fetch ends with what there is, or with nothing; whoever goes on from there misses nothing and gets nothing
    twice."""
    log = cluster.log()
    leader, (follower, _) = await cast(cluster, log)
    await fill(log, 30)
    await shown(log, follower, 30)
    patient = asyncio.ensure_future(log.fetch(30, via=follower, wait_ms=LONG_MS))
    await asyncio.sleep(0.05)
    assert not patient.done()
    await cluster.kill(leader)
    await fill(log, 30, first=30)
    got = await patient
    assert got.offsets == list(range(30, 30 + len(got.offsets)))
    assert got.offsets or got.error_code in (0, NOT_LEADER_OR_FOLLOWER)
    rest = [int(record.value) for record in got.records]
    await shown(log, follower, 60)
    rest += await whole(log, follower, first=got.next_offset)
    assert rest == list(range(30, 60))
    await cluster.start(leader)
    await cluster.verify()


@pytest.mark.real
async def test_partition_shows_nothing_new_to_the_minority(cluster: ScenarioCluster) -> None:
    """[A, B] | [C]: what the majority commits is at A and B and not at C; after healing it is at C too."""
    log = cluster.log()
    leader, (with_leader, alone) = await cast(cluster, log)
    await fill(log, 20)
    await shown(log, alone, 20)
    async with cluster.partition([leader, with_leader], [alone]):
        await fill(log, 20, first=20)
        assert (await shown(log, with_leader, 40)).offsets == list(range(40))
        for _ in range(3):
            assert_nothing_new(await log.fetch(20, via=alone, wait_ms=100), 20)
    assert (await shown(log, alone, 40)).offsets == list(range(40))
    await cluster.verify()
