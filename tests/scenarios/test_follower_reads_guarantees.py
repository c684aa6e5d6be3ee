"""Follower reads beyond what Kafka promises: sessions, freshness on demand, leases, the spread of readers, and lag."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from following import (
    LINEARIZABLE,
    NOT_LEADER_OR_FOLLOWER,
    OFFSET_NOT_AVAILABLE,
    assert_sound,
    cast,
    fill,
    metric,
    sent_away,
    shown,
    whole,
)

from seatrial.scenario import ScenarioCluster, Unavailable, eventually

pytestmark = pytest.mark.cluster(system="own")
LONG_MS = 8_000
BATCH = 10  # records
PATIENT = {"election_timeout_ms": "3000"}  # so that a late message is no reason to elect


@pytest.mark.real
async def test_concurrent_consumers_half_of_them_on_followers(cluster: ScenarioCluster) -> None:
    """Ten consumers, half of them on followers, get identical data, and the followers bear their part of it.

    10,000 records on real processes; in the simulator 1,000, because ten times as many are served by the same steps.
    """
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    count, batch = (1_000, 50) if cluster.env == "sim" else (10_000, 500)
    await fill(log, count, batch=batch)
    for node in cluster.nodes:
        await shown(log, node, count)
    before = {node: await bytes_read(cluster, node) for node in cluster.nodes}
    places = [leader, followers[0], leader, followers[1], leader] * 2
    places[-1] = followers[0]
    found = await asyncio.gather(*(whole(log, node) for node in places))
    assert all(values == list(range(count)) for values in found)
    after = {node: await bytes_read(cluster, node) for node in cluster.nodes}
    each = (await log.fetch(0, via=leader, max_bytes=1 << 30)).batches
    for node in cluster.nodes:
        assert after[node] - before[node] >= places.count(node) * len(each)
    await cluster.verify()


async def bytes_read(cluster: ScenarioCluster, node: int) -> float:
    return await metric(cluster, node, "seatrial_kafka_fetch_bytes_total", topic="t", partition="0") or 0


@pytest.mark.real
async def test_monotonic_reads_across_replicas(cluster: ScenarioCluster) -> None:
    """A consumer that comes to a replica which has less than it was shown elsewhere waits there: it is neither shown
    anything again, nor told that its offset does not exist."""
    log = cluster.log()
    _, (behind, fresh) = await cast(cluster, log)
    await fill(log, 10)
    await shown(log, behind, 10)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0") as held:
        await fill(log, 10, first=10)
        await shown(log, fresh, 20)
        position = (await log.fetch(0, via=fresh)).next_offset
        assert position == 20
        early = await log.fetch(position, via=behind, wait_ms=100)
        assert (early.error_code, early.records, early.next_offset) == (0, (), position)
        patient = asyncio.ensure_future(log.fetch(position, via=behind, wait_ms=LONG_MS))
        await log.append(20)
        await asyncio.sleep(0.1)
        assert not patient.done()
    assert held.bit
    assert (await patient).offsets == [20]
    await cluster.verify()


async def test_readers_that_wander_among_nodes_that_fail_see_one_log(cluster: ScenarioCluster) -> None:
    """Readers that change nodes after each answer, while nodes are killed and cut off, get every record once, in one
    order, and none that is not in the log at the end."""
    log = cluster.log()
    await cast(cluster, log)
    over = asyncio.Event()

    async def write() -> None:
        for number in range(60):
            await log.append(number)
            await asyncio.sleep(0.03)
        over.set()

    async def wander(reader: int) -> list[int]:
        rng, position, seen = cluster.rng.child(f"reader {reader}"), 0, []
        while not over.is_set():
            node = rng.choice(cluster.running())
            with contextlib.suppress(Unavailable):
                got = await log.fetch(position, via=node, timeout=0.5)
                assert got.offsets == list(range(position, position + len(got.offsets)))
                seen += [int(record.value) for record in got.records]
                position = got.next_offset
            await asyncio.sleep(0.02)
        return seen

    async def trouble() -> None:
        for node in cluster.nodes:
            await asyncio.sleep(0.2)
            await cluster.kill(node)
            await asyncio.sleep(0.3)
            await cluster.start(node)

    seen, *_ = await asyncio.gather(asyncio.gather(*(wander(reader) for reader in range(3))), write(), trouble())
    final = [value for _, value in await log.read()]
    assert sorted(final) == list(range(60))
    for values in seen:
        assert values == final[: len(values)]
    await cluster.verify()


@pytest.mark.real
async def test_read_your_writes_by_the_last_produced_offset(cluster: ScenarioCluster) -> None:
    """Whoever was told the offset of its record gets it by that offset from a replica that does not have it yet."""
    log = cluster.log()
    _, (behind, _) = await cast(cluster, log)
    await fill(log, 5)
    await shown(log, behind, 5)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0"):
        mine = await log.append("mine")
        patient = asyncio.ensure_future(log.fetch(mine, via=behind, wait_ms=LONG_MS))
        await asyncio.sleep(0.2)
        assert not patient.done()
    (record,) = (await patient).records
    assert (record.offset, record.value) == (mine, b"mine")
    await cluster.verify()


@pytest.mark.real
async def test_linearizable_fetch(cluster: ScenarioCluster) -> None:
    """A fetch that demands it shows all that was acknowledged before it came, from a replica where that arrives late;
    one that does not demand it may show less."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    behind = followers[0]
    await fill(log, 3)
    await shown(log, behind, 3)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0") as held:
        assert await log.append(3) == 3
        assert (await log.fetch(0, via=behind)).offsets == [0, 1, 2], "which a fetch without a demand may show"
        at_leader = await log.fetch(0, via=leader, demand=LINEARIZABLE, wait_ms=LONG_MS)
        assert at_leader.offsets == [0, 1, 2, 3]
        patient = asyncio.ensure_future(log.fetch(0, via=behind, demand=LINEARIZABLE, wait_ms=LONG_MS))
        await asyncio.sleep(0.2)
        assert not patient.done(), "it waits for what it does not have yet"
    assert held.bit
    late = await patient
    assert_sound(late, 0)
    assert late.offsets == [0, 1, 2, 3]
    await cluster.verify()


@pytest.mark.real
async def test_linearizable_fetch_at_who_is_cut_off(cluster: ScenarioCluster) -> None:
    """A leader that nobody hears, and a follower that hears nobody, do not answer such a fetch with what they have."""
    log = cluster.log()
    leader, followers = await cast(cluster, log)
    await fill(log, 3)
    for node in cluster.nodes:
        await shown(log, node, 3)
    for node in (leader, followers[0]):
        async with cluster.isolate(node):
            got = await log.fetch(0, via=node, wait_ms=100, demand=LINEARIZABLE)
            assert got.records == ()
            assert got.error_code in (OFFSET_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER) or got.preferred >= 0
        await cluster.wait_for_consensus()
        assert (await log.fetch(0, via=node, demand=LINEARIZABLE, wait_ms=LONG_MS)).offsets == [0, 1, 2]
    await cluster.verify()


@pytest.mark.real
@pytest.mark.cluster(system="own", options={**PATIENT, "follower_staleness_max_ms": "1000"})
async def test_a_follower_s_lease_bounds_how_old_its_answers_are(cluster: ScenarioCluster) -> None:
    """A follower that gets no more records goes on serving what it has while its lease runs, then sends its consumers
    to the leader; when records come again, it serves again."""
    log = cluster.log()
    leader, (behind, _) = await cast(cluster, log)
    await fill(log, 5)
    await shown(log, behind, 5)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0"):
        assert (await log.fetch(0, via=behind, demand=LINEARIZABLE, wait_ms=100)).offsets == list(range(5))
        await log.append(5)
        last = await log.fetch(0, via=behind)
        assert (last.error_code, last.preferred, last.offsets) == (0, -1, list(range(5)))
        assert (await sent_away(log, 0, behind)).preferred == leader
    assert (await shown(log, behind, 6)).offsets == list(range(6))
    await cluster.verify()


async def test_a_client_may_demand_a_shorter_bound_than_the_broker_s(cluster: ScenarioCluster) -> None:
    """With "?read=200ms" a follower shows what is no older than that, or waits until it does."""
    log = cluster.log()
    _, (behind, _) = await cast(cluster, log)
    await fill(log, 5)
    await shown(log, behind, 5)
    async with cluster.messages("delay-appends", at=behind, value=400_000, direction="in", group="t/0"):
        await log.append(5)
        await asyncio.sleep(0.3)
        assert (await log.fetch(0, via=behind)).offsets == list(range(5))
        got = await log.fetch(0, via=behind, demand="?read=200ms", wait_ms=LONG_MS)
        assert got.offsets == list(range(6)), "it was acknowledged more than 200 ms before"
    await cluster.verify()


@pytest.mark.cluster(system="own", options={"replica_selector": "load", "follower_staleness_max_ms": "1000"})
async def test_adaptive_preferred_replica(cluster: ScenarioCluster) -> None:
    """Consumers without a rack are spread over all replicas; one that falls behind is named to nobody until it has
    caught up."""
    log = cluster.log()
    leader, (behind, other) = await cast(cluster, log)
    await fill(log, 5)
    for node in cluster.nodes:
        await shown(log, node, 5)

    assert await spread(cluster, leader) == dict.fromkeys(cluster.nodes, 3)
    async with cluster.messages("hold-appends", at=behind, direction="in", group="t/0"):
        await log.append(5)
        await asyncio.sleep(1.5)
        places = await spread(cluster, leader)
        assert places[behind] == 0, places
        assert min(places[leader], places[other]) >= 3, places
    await shown(log, behind, 6)
    await eventually(lambda: is_named(cluster, leader, behind))


async def spread(cluster: ScenarioCluster, leader: int, consumers: int = 9) -> dict[int, int]:
    """How many of so many consumers at a time, each on a connection of its own, the leader sends to each node."""
    waiting = [cluster.log().fetch(4, via=leader, wait_ms=300, min_bytes=1 << 20) for _ in range(consumers)]
    answers = await asyncio.gather(*waiting)
    places = [got.preferred if got.preferred >= 0 else leader for got in answers]
    return {node: places.count(node) for node in cluster.nodes}


async def is_named(cluster: ScenarioCluster, leader: int, node: int) -> bool:
    return (await spread(cluster, leader))[node] > 0


@pytest.mark.real
@pytest.mark.cluster(system="own", options=PATIENT)
async def test_lag_metrics_under_a_delayed_link(cluster: ScenarioCluster) -> None:
    """The leader tells by how many records, and by how many seconds, each follower is behind: of one behind a link that
    takes a second what a second brings, of the other next to nothing."""
    log = cluster.log()
    leader, (slow, fast) = await cast(cluster, log)
    await fill(log, 10)
    await shown(log, slow, 10)
    for node in (slow, fast):
        assert await lag(cluster, leader, node) == (0, 0)
    sent = 10
    async with cluster.latency([(leader, slow)], 1_000):
        loop = asyncio.get_running_loop()
        until = loop.time() + 4.0
        batches: list[tuple[float, float]] = []  # when each was begun, and there
        while loop.time() < until:
            begun = loop.time()
            await fill(log, BATCH, batch=BATCH, first=sent)
            sent += BATCH
            batches.append((begun, loop.time()))
            await asyncio.sleep(0.1)
        asked = loop.time()
        offsets, seconds = await lag(cluster, leader, slow)
        answered = loop.time()
        # A machine that stands still for a while sends less of it: what was begun just now is on its way all the same.
        on_their_way = [there for begun, there in batches if answered - begun < 0.9]
        recent = [there for _, there in batches if asked - there < 3.5]
        assert BATCH * len(on_their_way) <= offsets <= BATCH * len(recent)
        assert asked - min(on_their_way, default=asked) - 0.3 <= seconds <= 3.5
        fast_offsets, fast_seconds = await lag(cluster, leader, fast)
        assert fast_offsets <= offsets / 2
        assert fast_seconds <= seconds / 2
    await shown(log, slow, sent)
    await eventually(lambda: lag_is_none(cluster, leader, slow))
    await cluster.verify()


async def lag(cluster: ScenarioCluster, leader: int, follower: int) -> tuple[float, float]:
    """In records and in seconds."""
    labels = {"topic": "t", "partition": "0", "follower": str(follower)}
    offsets = await metric(cluster, leader, "seatrial_raft_follower_lag_offsets", **labels)
    seconds = await metric(cluster, leader, "seatrial_raft_follower_lag_seconds", **labels)
    assert offsets is not None and seconds is not None, "the leader tells of each follower"
    return offsets, seconds


async def lag_is_none(cluster: ScenarioCluster, leader: int, follower: int) -> bool:
    return await lag(cluster, leader, follower) == (0, 0)
