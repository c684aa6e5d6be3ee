"""Reads: linearizable ones by ReadIndex and by lease, those of one session, and those that promise nothing.

TiKV's scenarios keep its names: replica read not applied, read index out of order, read by a leader with unapplied log,
lease unsafe during leader transfers, read index in a suspect lease.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from filtering import held_at
from leadership import elected, stepped_down, view

from seatrial.scenario import CheckFailed, ScenarioCluster, Unavailable, eventually

LEASES = {"lease_reads": "true", "election_timeout_ms": "1000"}
OWN = pytest.mark.cluster(system="own")
BY_LEASE = pytest.mark.cluster(system="own", options=LEASES)
TRIP_S = 0.1  # of a heartbeat that is delayed
LATE = {"value": TRIP_S * 1e6}

WAYS = pytest.mark.parametrize("way", [pytest.param("read index", marks=OWN), pytest.param("lease", marks=BY_LEASE)])
PLACES = pytest.mark.parametrize("place", ["leader", pytest.param("follower", marks=pytest.mark.real)])


async def reader_at(cluster: ScenarioCluster, place: str) -> int:
    """The node to read from."""
    leader, _ = await elected(cluster)
    return leader if place == "leader" else cluster.others(leader)[0]


@PLACES
@WAYS
async def test_linearizable_read(cluster: ScenarioCluster, place: str, way: str) -> None:
    """A read that begins after a write was acknowledged sees it, also where the write arrives late."""
    reader = await reader_at(cluster, place)
    writer = cluster.others(reader)[-1]
    async with cluster.messages("delay-appends", at=reader, value=30_000, direction="in"):
        for number in range(5):
            await cluster.kv.put("x", number, via=writer)
            assert await cluster.kv.get("x", via=reader, retries=False) == number
    await cluster.verify()


@PLACES
async def test_read_your_writes(cluster: ScenarioCluster, place: str) -> None:
    """A client reads at its node what it has just written there, before, during and after a change of the leader."""
    node = await reader_at(cluster, place)
    leader, _ = await elected(cluster)
    mine = cluster.kv.session(via=node)

    async def write_and_read(first: int) -> None:
        for number in range(first, first + 5):
            await mine.put("mine", number)
            assert await mine.get("mine") == number

    await write_and_read(0)
    victim = leader if leader != node else cluster.others(leader)[0]
    await asyncio.gather(write_and_read(5), cluster.restart(victim))
    await write_and_read(10)
    cluster.check("sessions", "linearizability")
    await cluster.verify()


@PLACES
async def test_monotonic_reads(cluster: ScenarioCluster, place: str) -> None:
    """What one node shows a client never goes back, linearizable or stale, while others write and the lead moves on."""
    node = await reader_at(cluster, place)
    stale, fresh = cluster.kv.session(via=node), cluster.kv.session(via=node)
    await cluster.kv.put("x", 0)
    written = asyncio.Event()

    async def read(session: object, consistency: str) -> list[int]:
        seen: list[int] = []
        while not written.is_set():
            value = await session.get("x", consistency=consistency)  # type: ignore[attr-defined]
            seen.append(value or 0)  # a stale one may not have it yet
            await asyncio.sleep(0.01)
        return seen

    async def write() -> None:
        for number in range(1, 9):
            await cluster.kv.put("x", number)
            if number == 4:
                victim = next(other for other in cluster.others(node))
                await cluster.restart(victim)
        written.set()

    seen_stale, seen_fresh, _ = await asyncio.gather(read(stale, "stale"), read(fresh, "linearizable"), write())
    assert seen_stale == sorted(seen_stale)
    assert seen_fresh == sorted(seen_fresh)
    assert seen_fresh[-1] >= 4
    cluster.check("sessions", "linearizability")


@OWN
async def test_monotonic_reads_of_a_client_that_changes_nodes(cluster: ScenarioCluster) -> None:
    """Linearizable reads never go back from one node to the next; stale ones do, and the checker notices."""
    leader, _ = await elected(cluster)
    behind = cluster.others(leader)[0]
    wanderer = cluster.kv.session()
    await cluster.kv.put("x", 1)
    await cluster.wait_for_consensus()
    async with cluster.messages("delay-appends", at=behind, value=200_000, direction="in"):
        await cluster.kv.put("x", 2, via=leader)
        assert await wanderer.get("x", via=leader) == 2
        assert await wanderer.get("x", via=behind) == 2, "it waits until the node has it"
        cluster.check("sessions")
        await cluster.kv.put("x", 3, via=leader)
        assert await wanderer.get("x", via=leader, consistency="stale") == 3
        assert await wanderer.get("x", via=behind, consistency="stale") == 2
    cluster.check("linearizability")  # of which a stale read is no part
    with pytest.raises(CheckFailed, match="monotonic"):
        cluster.check("sessions")


@pytest.mark.real
@OWN
async def test_replica_read_not_applied(cluster: ScenarioCluster) -> None:
    """A follower that has not applied what is committed does not answer a linearizable read with what it has."""
    leader, _ = await elected(cluster)
    follower = cluster.others(leader)[0]
    await cluster.kv.put("x", 1)
    await cluster.wait_for_consensus()
    async with cluster.messages("hold-appends", at=follower, direction="in", group="kv") as held:
        await cluster.kv.put("x", 2, via=leader)
        assert await cluster.kv.get("x", via=follower, consistency="stale") == 1
        with pytest.raises(Unavailable):
            await cluster.kv.get("x", via=follower, timeout=0.4, retries=False)
        patient = asyncio.ensure_future(cluster.kv.get("x", via=follower, retries=False))
        await asyncio.sleep(0.1)
        assert not patient.done()
    assert held.bit
    assert await patient == 2
    await cluster.verify()


@pytest.mark.parametrize("rule", ["reorder-reads", "duplicate-reads", "replay-reads", "lose-reads"])
@OWN
async def test_read_index_out_of_order(cluster: ScenarioCluster, rule: str) -> None:
    """Followers whose questions to the leader, and answers, overtake each other, come twice or not at all, never
    answer with less than was acknowledged when the read began."""
    leader, _ = await elected(cluster)
    followers = cluster.others(leader)
    await cluster.kv.put("x", 0)
    acknowledged = 0
    written = asyncio.Event()

    async def read(node: int) -> None:
        while not written.is_set():
            least = acknowledged
            seen = await cluster.kv.get("x", via=node)
            assert isinstance(seen, int)
            assert seen >= least

    async def write() -> None:
        nonlocal acknowledged
        for number in range(1, 9):
            await cluster.kv.put("x", number, via=leader)
            acknowledged = number
            await asyncio.sleep(0.01)
        written.set()

    value = 60_000 if rule == "reorder-reads" else 0.3
    async with cluster.messages(rule, at=followers, value=value, group="kv") as disorder:
        await asyncio.gather(write(), *(read(node) for node in followers for _ in range(2)))
    assert disorder.bit
    cluster.check("linearizability")
    await cluster.verify()


@pytest.mark.real
@OWN
async def test_read_by_a_leader_with_unapplied_log(cluster: ScenarioCluster) -> None:
    """A new leader, which has what its predecessor committed and does not know that it is committed, shows it to every
    reader all the same."""
    leader, _ = await elected(cluster)
    others = cluster.others(leader)
    await cluster.kv.put("x", 1)
    await cluster.wait_for_consensus()
    async with cluster.messages("delay-appends", at=others, value=50_000, direction="in", group="kv"):
        async with cluster.messages("erase-commit", at=leader, direction="out", group="kv") as secret:
            await cluster.kv.put("x", 2, via=leader)
            for node in others:
                assert await cluster.kv.get("x", via=node, consistency="stale") == 1
            await cluster.kill(leader)
        assert secret.bit
        # They are there before it leads, and before anything of its own term is committed.
        reads = [cluster.kv.get("x", via=node, retries=False) for node in others for _ in range(2)]
        assert await asyncio.gather(*reads) == [2] * 4
    await cluster.start(leader)
    await cluster.verify()


@OWN
async def test_a_leader_whose_heartbeats_are_not_answered_answers_no_read(cluster: ScenarioCluster) -> None:
    """Without a round of heartbeats that a majority answered, a leader refuses to vouch for what it has."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.messages("drop-heartbeat-answers", at=leader, direction="in", group="kv") as deafness:
        with pytest.raises(Unavailable):
            await cluster.kv.get("x", via=leader, timeout=0.15, retries=False)
        assert await cluster.kv.get("x", via=leader, consistency="stale") == 1
    assert deafness.bit
    assert await cluster.kv.get("x", via=leader) == 1


@OWN
async def test_a_deposed_leader_answers_no_read(cluster: ScenarioCluster) -> None:
    """Reads that wait at a leader when it is cut off are never answered with what another leader has overwritten."""
    leader, _ = await elected(cluster)
    others = cluster.others(leader)
    await cluster.kv.put("x", 1)
    async with cluster.isolate(leader):
        reads = [asyncio.ensure_future(cluster.kv.get("x", via=leader, retries=False, timeout=6)) for _ in range(3)]
        await elected(cluster, among=others)
        await cluster.kv.put("x", 2, via=others[0])
        await stepped_down(cluster, leader)
        assert not any(read.done() for read in reads)
        assert await cluster.kv.get("x", via=leader, consistency="stale") == 1
    assert await asyncio.gather(*reads) == [2, 2, 2]
    await cluster.verify()


async def seconds_of_a_read(cluster: ScenarioCluster, node: int, expected: int) -> float:
    """How long a read at the node takes, which has to see this."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await cluster.kv.get("x", via=node, consistency="lease", retries=False) == expected
    return loop.time() - begun


@BY_LEASE
async def test_a_lease_saves_the_round_trip(cluster: ScenarioCluster) -> None:
    """A leader whose lease holds answers sooner than any heartbeat could come back, again and again."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with cluster.messages("delay-heartbeats", at=leader, direction="out", group="kv", **LATE) as delay:
        await asyncio.sleep(2.5)  # beyond any lease that was granted before
        for _ in range(3):
            assert await seconds_of_a_read(cluster, leader, 1) < TRIP_S
    assert delay.bit


@BY_LEASE
async def test_read_index_in_a_suspect_lease(cluster: ScenarioCluster) -> None:
    """A leader that told another to take over trusts its lease no more, though nobody did: it asks the others again."""
    leader, term = await elected(cluster)
    heir = cluster.others(leader)[0]
    await cluster.kv.put("x", 1)
    async with cluster.messages("delay-heartbeats", at=leader, direction="out", group="kv", **LATE):
        await asyncio.sleep(0.5)
        assert await seconds_of_a_read(cluster, leader, 1) < TRIP_S
        async with cluster.messages("drop-timeout-now", at=heir, direction="in", group="kv") as lost:
            await cluster.members.transfer(heir, group="kv", wait=False)
            assert await seconds_of_a_read(cluster, leader, 1) >= TRIP_S
            await cluster.kv.put("x", 2, via=leader)  # once the transfer is given up
            assert await seconds_of_a_read(cluster, leader, 2) >= TRIP_S
        assert lost.bit
    seen = await view(cluster, leader)
    assert (seen.role, seen.term) == ("leader", term)
    await cluster.verify()


@pytest.mark.real
@BY_LEASE
async def test_lease_unsafe_during_leader_transfers(cluster: ScenarioCluster) -> None:
    """A leader that is cut off in the middle of handing over, well within its lease, does not answer with what its heir
    has overwritten."""
    leader, _ = await elected(cluster)
    heir = cluster.others(leader)[0]
    await cluster.kv.put("x", 1)
    assert await cluster.kv.get("x", via=leader, consistency="lease") == 1
    async with cluster.messages("hold-timeout-now", at=heir, direction="in", group="kv") as held:
        await cluster.members.transfer(heir, group="kv", wait=False)
        await eventually(lambda: held_at(cluster, heir))
        isolation = cluster.isolate(leader)
        await isolation.__aenter__()
    try:
        assert held.bit
        await elected(cluster, among=[heir])
        await cluster.kv.put("x", 2, via=heir)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await cluster.kv.get("x", via=leader, consistency="lease", retries=False, timeout=0.05)
    finally:
        await isolation.__aexit__(None, None, None)
    assert await cluster.kv.get("x", via=leader, consistency="lease") == 2
    await cluster.verify()


async def reads_by_lease_until(cluster: ScenarioCluster, leader: int, over: asyncio.Future[None], expected: int) -> int:
    """Read at the leader again and again, each time this value or nothing; how often it answered until it was over."""
    answered = 0
    while not over.done():
        with contextlib.suppress(Unavailable):
            seen = await cluster.kv.get("x", via=leader, consistency="lease", retries=False, timeout=0.02)
            assert seen == expected or over.done()
            answered += 1
        await asyncio.sleep(0.03)
    return answered


@BY_LEASE
async def test_a_lease_ends_before_another_leader_can_write(cluster: ScenarioCluster) -> None:
    """A leader that is cut off goes on answering from its lease, and has stopped before anybody else's write is
    acknowledged."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", 1)
    assert await cluster.kv.get("x", via=leader) == 1  # by a round of heartbeats, which grants the lease
    async with cluster.isolate(leader):
        write = asyncio.ensure_future(cluster.kv.put("x", 2, via=cluster.others(leader)[0]))
        assert await reads_by_lease_until(cluster, leader, write, 1) > 0, "the lease was worth something"
        await write
        with pytest.raises(Unavailable):
            await cluster.kv.get("x", via=leader, consistency="lease", retries=False, timeout=0.3)
    await cluster.verify()


@pytest.mark.environments("sim", reason="only simulated clocks can be made to drift")
@BY_LEASE
async def test_leases_of_clocks_that_drift(cluster: ScenarioCluster) -> None:
    """With clocks that drift apart as far as they may, a slow leader's lease still ends before the others elect."""
    leader, _ = await elected(cluster)
    await cluster.kv.put("x", 1)
    async with contextlib.AsyncExitStack() as drifts:
        for node in cluster.nodes:
            rate = -45_000 if node == leader else 45_000
            await drifts.enter_async_context(cluster.clock_skew(node, drift_ppm=rate))
        assert await cluster.kv.get("x", via=leader) == 1
        async with cluster.isolate(leader):
            write = asyncio.ensure_future(cluster.kv.put("x", 2, via=cluster.others(leader)[0]))
            assert await reads_by_lease_until(cluster, leader, write, 1) > 0
            await write
    await cluster.verify()
