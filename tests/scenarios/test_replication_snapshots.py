"""Snapshots: a follower that is too far behind for the log gets the state, whatever happens to it on the way.

All on our own system, whose snapshots can be asked for, and whose messages can be held and repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from seatrial.faults.base import Injection
from seatrial.scenario import ScenarioCluster, eventually

pytestmark = pytest.mark.cluster(system="own")
CHUNK_BYTES = {"sim": 4 << 10, "local": 256 << 10}  # of the state, in one message


async def forget_the_log(cluster: ScenarioCluster) -> None:
    """Every node that runs makes a snapshot of the key-value store, and keeps one entry behind it."""
    for node in cluster.running():
        last = (await cluster.members.group("kv", via=node))["last_applied"]
        await cluster.members.snapshot("kv", via=node, keep_entries=1)
        await eventually(lambda node=node, last=last: begins_at(cluster, node, last))


async def begins_at(cluster: ScenarioCluster, node: int, index: int) -> bool:
    return bool((await cluster.members.group("kv", via=node))["first_index"] >= index)


async def leave_behind(cluster: ScenarioCluster, *, chunks: int = 0) -> tuple[int, int]:
    """A follower that is down, and too far behind for everybody's log.  (leader, follower)

    chunks: how many messages the state fills, at least.
    """
    leader = await cluster.wait_for_leader(group="kv")
    await cluster.kv.put("k0", 0)
    follower = cluster.others(leader)[0]
    await cluster.kill(follower)
    await write(cluster, 6, 100)
    for number in range(chunks):
        await cluster.kv.put(f"large{number}", "x" * CHUNK_BYTES[cluster.env])
    await forget_the_log(cluster)
    return await cluster.wait_for_leader(among=cluster.others(follower), group="kv"), follower


async def write(cluster: ScenarioCluster, keys: int, value: int) -> None:
    for number in range(keys):
        await cluster.kv.put(f"k{number}", value + number)


async def expect_caught_up(cluster: ScenarioCluster, follower: int, keys: int, value: int) -> None:
    """The follower has it all, and has it from a snapshot."""
    await cluster.wait_for_consensus()
    for number in range(keys):
        assert await cluster.kv.get(f"k{number}", via=follower, consistency="stale") == value + number
    assert (await cluster.members.group("kv", via=follower))["first_index"] > 1, "its log begins behind a snapshot"
    await cluster.verify()


async def under_way(cluster: ScenarioCluster, follower: int) -> int:
    """Wait until a snapshot is on its way to the follower; who sends it."""

    async def sender() -> int | None:
        leader = await cluster.leader("kv")
        if leader is None:
            return None
        peer = (await cluster.members.group("kv", via=leader))["peers"].get(str(follower))
        return leader if peer is not None and peer["state"] == "snapshot" else None

    found = await eventually(sender)
    assert found is not None
    return found


def counted(injection: Injection, *names: str) -> int:
    """How many messages the filters did this to."""
    by_node: Mapping[str, Any] = injection.evidence["nodes"]
    return sum(counters.get(name, 0) for counters in by_node.values() for name in names)


@pytest.mark.real
async def test_snapshot_transfer_to_a_lagging_follower(cluster: ScenarioCluster) -> None:
    """A follower whose next entry nobody has any more is sent a snapshot, and follows by entries from there on."""
    _, follower = await leave_behind(cluster)
    senders = cluster.others(follower)
    async with cluster.messages("delay-snapshots", at=senders, value=1000, direction="out", group="kv") as snapshots:
        await cluster.start(follower)
        await cluster.wait_for_consensus()
        sent = await cluster.members.group("kv", via=follower)
        await write(cluster, 3, 200)
        await cluster.wait_for_consensus()
        assert (await cluster.members.group("kv", via=follower))["first_index"] == sent["first_index"]
    assert counted(snapshots, "delayed") >= 1
    await expect_caught_up(cluster, follower, 3, 200)


@pytest.mark.real
async def test_snapshot_transfer_with_a_crash_of_the_follower_during_it(cluster: ScenarioCluster) -> None:
    """A follower that dies half-way through a snapshot begins anew with what it had, and gets it all the same."""
    _, follower = await leave_behind(cluster, chunks=3)
    senders = cluster.others(follower)
    async with cluster.messages("delay-snapshots", at=senders, value=60_000, direction="out", group="kv"):
        await cluster.start(follower)
        await under_way(cluster, follower)
        await cluster.kill(follower)
    await cluster.start(follower)
    await expect_caught_up(cluster, follower, 6, 100)


@pytest.mark.parametrize("how", ["crash", "transfer"])
async def test_snapshot_transfer_with_a_leader_change_during_it(cluster: ScenarioCluster, how: str) -> None:
    """When the sender of a snapshot stops to lead, the next leader brings the follower up to date with its own."""
    _, follower = await leave_behind(cluster, chunks=3)
    senders = cluster.others(follower)
    async with cluster.messages("delay-snapshots", at=senders, value=60_000, direction="out", group="kv"):
        await cluster.start(follower)
        old = await under_way(cluster, follower)
        (new,) = (node for node in senders if node != old)
        if how == "transfer":
            await cluster.members.transfer(new, group="kv")
        else:
            await cluster.kill(old)
            assert await cluster.wait_for_leader(other_than=old, group="kv") == new, "the follower lacks entries"
    if how == "crash":
        await cluster.start(old)
    await expect_caught_up(cluster, follower, 6, 100)


async def test_snapshot_transfer_with_a_second_snapshot_during_it(cluster: ScenarioCluster) -> None:
    """While a snapshot is on its way the sender makes another and forgets the log between: the follower gets both."""
    _, follower = await leave_behind(cluster, chunks=1)
    senders = cluster.others(follower)
    delay = cluster.messages("delay-snapshots", at=senders, value=150_000, direction="out", group="kv")
    async with delay as snapshots:
        await cluster.start(follower)
        await under_way(cluster, follower)
        await write(cluster, 6, 200)
        await forget_the_log_of(cluster, senders)
        await cluster.wait_for_consensus()
    assert counted(snapshots, "delayed") >= 3, "two chunks of the first, and the second one"
    await expect_caught_up(cluster, follower, 6, 200)


async def forget_the_log_of(cluster: ScenarioCluster, nodes: Sequence[int]) -> None:
    for node in nodes:
        await cluster.members.snapshot("kv", via=node, keep_entries=1)
        await eventually(lambda node=node: begins_at(cluster, node, 2))


async def test_stale_snapshot_is_ignored(cluster: ScenarioCluster) -> None:
    """A snapshot that arrives once more, when the follower has gone on from it, takes nothing back."""
    _, follower = await leave_behind(cluster)
    senders = cluster.others(follower)
    twice = cluster.messages("duplicate-snapshots", at=senders, value=1, direction="out", group="kv")
    async with twice as copied, cluster.watch(), contextlib.AsyncExitStack() as filters:
        await started_with(cluster, follower, filters, "reorder-snapshots", 500_000)
        await write(cluster, 6, 200)
        await eventually(lambda: has(cluster, follower, "k5", 205))
        # Now it no longer has the entries that the copy, which is late by up to half a second, would replace.
        await forget_the_log_of(cluster, [follower])
        await asyncio.sleep(0.5)
        assert await has(cluster, follower, "k5", 205)
    assert counted(copied, "copied") >= 1
    cluster.check("raft-invariants")
    await expect_caught_up(cluster, follower, 6, 200)


async def has(cluster: ScenarioCluster, node: int, key: str, value: int) -> bool:
    return await cluster.kv.get(key, via=node, consistency="stale", timeout=1) == value


@pytest.mark.cluster(nodes=5)
async def test_concurrent_snapshots_to_two_followers(cluster: ScenarioCluster) -> None:
    """Two followers that are both too far behind get their snapshots at the same time, each its own."""
    leader, follower = await leave_behind(cluster)
    second = next(node for node in cluster.others(leader) if node != follower)
    await cluster.kill(second)
    await write(cluster, 6, 200)
    await forget_the_log(cluster)
    senders = cluster.others(follower, second)
    delay = cluster.messages("delay-snapshots", at=senders, value=100_000, direction="out", group="kv")
    async with delay as snapshots:
        await cluster.start(follower)
        await cluster.start(second)
        await under_way(cluster, follower)
        await under_way(cluster, second)
        await cluster.wait_for_consensus()
    assert counted(snapshots, "delayed") >= 2
    await expect_caught_up(cluster, second, 6, 200)
    assert (await cluster.members.group("kv", via=follower))["first_index"] > 1


async def test_concurrent_snapshots_of_two_leaders(cluster: ScenarioCluster) -> None:
    """The snapshots of a leader and of the next one reach a follower in one moment: it ends with the newer (after
    TiKV)."""
    _, follower = await leave_behind(cluster)
    async with contextlib.AsyncExitStack() as filters:
        collected = await started_with(cluster, follower, filters, "collect-snapshots", 2)
        old = await under_way(cluster, follower)
        await cluster.members.transfer(cluster.others(follower, old)[0], group="kv")
        await write(cluster, 6, 200)
        await cluster.wait_for_consensus()
    assert counted(collected, "held") >= 1 and counted(collected, "released") >= 1
    await expect_caught_up(cluster, follower, 6, 200)


async def test_snapshot_together_with_append(cluster: ScenarioCluster) -> None:
    """A snapshot that another leader's entries overtake on the way does no harm, and the follower gets both (after
    TiKV)."""
    _, follower = await leave_behind(cluster)
    async with contextlib.AsyncExitStack() as filters:
        overtaken = await started_with(cluster, follower, filters, "snapshot-after-append", 0)
        old = await under_way(cluster, follower)
        (new,) = cluster.others(follower, old)
        await cluster.members.transfer(new, group="kv")
        await write(cluster, 6, 200)
        assert await under_way(cluster, follower) == new
    assert counted(overtaken, "held") >= 1 and counted(overtaken, "released") >= 1
    await expect_caught_up(cluster, follower, 6, 200)


async def started_with(
    cluster: ScenarioCluster, follower: int, filters: contextlib.AsyncExitStack, rule: str, value: float
) -> Injection:
    """Start it with a filter on what it is sent, which is there before the first message is."""
    async with cluster.isolate(follower):
        await cluster.start(follower)
        described = cluster.messages(rule, at=follower, value=value, direction="in", group="kv")
        return await filters.enter_async_context(described)
