"""Replication: what was acknowledged is on every node, in one order, whatever its size and wherever it was sent."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from seatrial.env import Rng
from seatrial.scenario import Refused, ScenarioCluster, eventually

MEGABYTE = 1 << 20


async def write_keys(cluster: ScenarioCluster, keys: int, value: int) -> None:
    """Set k0, k1, … to `value`, `value` + 1, …"""
    for number in range(keys):
        await cluster.kv.put(f"k{number}", value + number)


async def expect_keys_on(cluster: ScenarioCluster, node: int, keys: int, value: int) -> None:
    """Each of them is there in the node's own copy."""
    for number in range(keys):
        assert await cluster.kv.get(f"k{number}", via=node, consistency="stale") == value + number


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_produce_replicate_consume_on_three_nodes(cluster: ScenarioCluster) -> None:
    """A record that one client produced is consumed from each of three nodes, at the offset that was acknowledged."""
    log = cluster.log("orders")
    offsets = [await log.append(f"order {number}") for number in range(5)]
    assert offsets == [0, 1, 2, 3, 4]
    assert await log.replicas() == [1, 2, 3]
    expected = [(number, f"order {number}") for number in range(5)]
    for node in cluster.nodes:
        await eventually(lambda node=node: _reads(cluster, node, expected))
    await cluster.verify()


async def _reads(cluster: ScenarioCluster, node: int, expected: list[tuple[int, str]]) -> bool:
    found = await cluster.log("orders").read(via=node)
    assert found == expected[: len(found)], "a follower has a prefix of the leader's log"
    return len(found) == len(expected)


@pytest.mark.real
async def test_data_replication_of_many_keys(cluster: ScenarioCluster) -> None:
    """Many keys, written through every node in turn, are all in every node's own copy."""
    await cluster.wait_for_leader(group=cluster.kv.group)
    for number in range(40):
        await cluster.kv.put(f"k{number}", 100 + number, via=cluster.nodes[number % len(cluster.nodes)])
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        await expect_keys_on(cluster, node, 40, 100)
    await cluster.verify()


async def test_follower_restart(cluster: ScenarioCluster) -> None:
    """A follower that restarts has what it had, gets what it missed, and the leader leads on in its term."""
    leader = await cluster.wait_for_leader(group=cluster.kv.group)
    await write_keys(cluster, 5, 0)
    terms = list(cluster.leaders_seen(cluster.kv.group))
    follower = cluster.others(leader)[0]
    await cluster.terminate(follower)
    await write_keys(cluster, 5, 10)
    await cluster.start(follower)
    await cluster.wait_for_consensus()
    await expect_keys_on(cluster, follower, 5, 10)
    if cluster.env == "sim":  # where nobody is late for want of a processor
        assert await cluster.leader(cluster.kv.group) == leader
        assert list(cluster.leaders_seen(cluster.kv.group)) == terms, "a restart of a follower is no election"
    await cluster.verify()


@pytest.mark.real
async def test_catch_up_after_being_offline(cluster: ScenarioCluster) -> None:
    """A node that was killed and missed many writes, some of them twice, has the last of each after it is back."""
    leader = await cluster.wait_for_leader(group=cluster.kv.group)
    await write_keys(cluster, 20, 0)
    offline = cluster.others(leader)[0]
    await cluster.kill(offline)
    for round_ in (1, 2):
        await write_keys(cluster, 20, 100 * round_)
    await cluster.start(offline)
    await cluster.wait_for_consensus()
    await expect_keys_on(cluster, offline, 20, 200)
    await cluster.verify()


async def test_consistency_on_all_nodes(cluster: ScenarioCluster) -> None:
    """Clients at every node that write the same keys at once end in one state, the same on all nodes."""
    await cluster.wait_for_leader(group=cluster.kv.group)

    async def client(node: int) -> None:
        store = cluster.kv.session(via=node)
        for number in range(8):
            await store.put(f"shared{number % 2}", 100 * node + number)

    await asyncio.gather(*(client(node) for node in cluster.nodes))
    await cluster.wait_for_consensus()
    for key in ("shared0", "shared1"):
        copies = [await cluster.kv.get(key, via=node, consistency="stale") for node in cluster.nodes]
        assert copies == [await cluster.kv.get(key)] * len(cluster.nodes)
    await cluster.verify()


@pytest.mark.parametrize("megabytes", [1, 4, pytest.param(16, marks=pytest.mark.real)])
@pytest.mark.cluster(system="own", options={"max_message_bytes": 17 * MEGABYTE})
async def test_large_messages(cluster: ScenarioCluster, megabytes: int) -> None:
    """A record of 1, 4 or 16 MB is replicated to every node byte for byte, between small ones."""
    log = cluster.log("large")
    payload = cluster.rng.child("payload").bytes(1 << 10) * (megabytes << 10)
    assert await log.append("first") == 0
    assert await log.append(payload, timeout=30) == 1
    assert await log.append("last") == 2
    for node in cluster.nodes:
        found = await eventually(lambda node=node: _all_three(cluster, node), 30)
        assert [value for _, value in found] == ["first", payload, "last"]


async def _all_three(cluster: ScenarioCluster, node: int) -> list[tuple[int, int | str | bytes]] | None:
    found = await cluster.log("large").read(via=node)
    return found if len(found) == 3 else None


@pytest.mark.cluster(system="own", options={"max_message_bytes": MEGABYTE})
async def test_a_message_over_the_limit_is_refused_clearly(cluster: ScenarioCluster) -> None:
    """A record over the limit is refused by name and surely not appended; what follows it takes its offset."""
    log = cluster.log("large")
    assert await log.append("first") == 0
    with pytest.raises(Refused, match="MessageSizeTooLarge") as refused:
        await log.append(bytes(MEGABYTE + 1), timeout=30)
    assert refused.value.definite
    assert await log.append("next") == 1
    assert await log.read() == [(0, "first"), (1, "next")]
    await cluster.verify()


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_large_values(cluster: ScenarioCluster) -> None:
    """A value of up to 1 MB is taken by every node and told by every node; a larger one is refused by name."""
    values = {f"{kilobytes} KB": "x" * (kilobytes << 10) for kilobytes in (60, 70, 200, 500, 1000)}
    for node in cluster.nodes:
        for key, value in values.items():
            await cluster.kv.put(f"{key} by {node}", value, via=node)
    for node, writer in itertools.product(cluster.nodes, cluster.nodes):
        for key, value in values.items():
            assert await cluster.kv.get(f"{key} by {writer}", via=node) == value
    with pytest.raises(Refused, match="at most 1048576 bytes") as refused:
        await cluster.kv.put("over it", "x" * MEGABYTE)
    assert refused.value.definite
    assert await cluster.kv.get("over it") is None
    await cluster.verify()


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_multi_partition_and_multi_topic(cluster: ScenarioCluster) -> None:
    """Each partition of each topic counts its own offsets and holds its own records alone."""
    topics = {name: cluster.log(name, partitions=partitions) for name, partitions in (("a", 3), ("b", 2))}
    for number in range(3):
        for name, log in topics.items():
            for partition in range(log.partitions):
                assert await log.append(f"{name}/{partition} {number}", partition=partition) == number
    for name, log in topics.items():
        for partition in range(log.partitions):
            expected = [(number, f"{name}/{partition} {number}") for number in range(3)]
            assert await log.read(partition) == expected
    await cluster.verify()


@pytest.mark.cluster(system="own")
async def test_arbitrary_message_sequences(cluster: ScenarioCluster) -> None:
    """Property-based, the seed draws: any sequence of values, keys and partitions, sent by three clients at once while
    a node is away, is read as each client sent it, each record once."""
    rng = cluster.rng.child("messages")
    log = cluster.log("any", partitions=2)
    plans = [[_message(rng, client, number) for number in range(rng.integer(1, 8))] for client in range(3)]
    sent: dict[int, list[tuple[int, int | str | bytes]]] = {0: [], 1: []}

    async def client(plan: list[tuple[int, int | str | bytes, str | None]]) -> None:
        for partition, value, key in plan:
            offset = await log.append(value, partition=partition, key=key)
            sent[partition].append((offset, value))

    await log.create()
    away = rng.choice(cluster.nodes)
    await cluster.kill(away)
    await asyncio.gather(*(client(plan) for plan in plans))
    await cluster.start(away)
    await cluster.wait_for_consensus()
    for partition, records in sent.items():
        assert await log.read(partition) == sorted(records, key=lambda record: record[0])
        assert [offset for offset, _ in sorted(records, key=lambda record: record[0])] == list(range(len(records)))
    await cluster.verify()


def _message(rng: Rng, client: int, number: int) -> tuple[int, int | str | bytes, str | None]:
    """(partition, value, key); no value comes twice."""
    own = f"{client}-{number}"
    value = rng.choice(
        (
            1000 * client + number,
            f"{own} \N{SNOWMAN} \u0000\n{'x' * rng.integer(0, 300)}",
            own.encode() + rng.bytes(rng.integer(0, 300)),
        )
    )
    return rng.integer(0, 1), value, rng.choice((None, "", "key", own))


async def test_slow_follower_does_not_hold_up_the_majority(cluster: ScenarioCluster) -> None:
    """Writes are acknowledged while a slow follower does not have them yet; it gets them later."""
    leader = await cluster.wait_for_leader(group=cluster.kv.group)
    slow = cluster.others(leader)[0]
    await cluster.wait_for_consensus()

    async def acknowledged_ahead_of_the_slow_one() -> bool:
        await cluster.kv.put("x", 1, via=leader)
        told = {status.group: status for status in await cluster.status(slow)}
        ahead = {status.group: status for status in await cluster.status(leader)}
        group = cluster.kv.group or cluster.driver.group
        behind, committed = told[group].last_index or told[group].commit_index, ahead[group].commit_index
        return behind is not None and committed is not None and behind < committed

    async with cluster.latency(cluster.links_of(slow), 200) as latency:
        await eventually(acknowledged_ahead_of_the_slow_one)
        assert await cluster.leader(cluster.kv.group) == leader, "slow is not dead: nobody else was elected"
    assert latency.bit
    await cluster.wait_for_consensus()
    assert await cluster.kv.get("x", via=slow, consistency="stale") == 1
    await cluster.verify()


@pytest.mark.real
async def test_random_restarts_under_latency(cluster: ScenarioCluster) -> None:
    """With slow links, nodes restarted at random one after the other, every acknowledged write is kept (after TiKV)."""
    rng = cluster.rng.child("restarts")
    written: dict[str, int] = {}
    async with cluster.latency(cluster.all_links(), 20, jitter_ms=10) as latency:
        await cluster.wait_for_leader(group=cluster.kv.group)
        for number in range(3):
            node = rng.choice(cluster.nodes)
            await cluster.kill(node)
            await cluster.wait_for_leader(among=cluster.others(node), group=cluster.kv.group)
            await cluster.kv.put(f"k{number}", number, via=rng.choice(cluster.others(node)))
            written[f"k{number}"] = number
            await cluster.start(node)
    assert latency.bit
    await cluster.wait_for_consensus()
    for node in cluster.nodes:
        for key, value in written.items():
            assert await cluster.kv.get(key, via=node, consistency="stale") == value
    await cluster.verify()
