"""Records that are deleted by clients, by age and by size, on every replica; and what a replica that is behind gets."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from node_cluster import NodeCluster
from server_processes import leased_network

from seatrial import marks
from seatrial.kafka.backend import BackendError
from seatrial.machines.metadata import (
    AssignReplicas,
    CreateTopic,
    MetadataError,
    SetTopicConfigs,
    encode_command,
)
from seatrial.machines.partition_log import POINT_BYTES, encode_append
from seatrial.server.partition import HostedPartition

Scenario = Callable[[NodeCluster], Awaitable[None]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
RECORD_BYTES = 20_000


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def start(scenario: Scenario) -> None:
        async def whole(prefix: str) -> None:
            cluster = NodeCluster(tmp_path, prefix, 3)
            try:
                await cluster.start_founders()
                await scenario(cluster)
            finally:
                await cluster.close()

        with leased_network() as prefix:
            asyncio.run(whole(prefix))

    return start


async def propose(cluster: NodeCluster, command: Any) -> None:
    broker = next(iter(cluster.nodes.values())).broker
    encoded = encode_command(command, request_id=broker.new_request_id())
    assert not (await broker.propose_metadata(encoded, 20)).error


async def topic(cluster: NodeCluster, **configs: str) -> None:
    named = {name.replace("_", "."): value for name, value in configs.items()}
    await propose(cluster, CreateTopic("t", ((1, 2, 3),), named))
    await cluster.until(lambda: leader(cluster) is not None, cluster.readiness)


def leader(cluster: NodeCluster) -> HostedPartition | None:
    found = [p for node in cluster.nodes.values() if (p := node.broker.partition("t", 0)) and p.is_established]
    return found[0] if found else None


async def append(cluster: NodeCluster, number: int, *, time_ms: int = -1) -> int | None:
    """The offset at which it was acknowledged."""
    led = leader(cluster)
    if led is None:
        await asyncio.sleep(0.01)
        return None
    batch = bytes(RECORD_BYTES - 8) + number.to_bytes(8, "big")
    try:
        future = led.append(encode_append(batch, record_count=1, max_timestamp=time_ms))
        outcome = await asyncio.wait_for(asyncio.shield(future), 2)
    except (BackendError, TimeoutError):
        return None
    return outcome.base_offset


def records(partition: HostedPartition) -> dict[int, int]:
    """Number by offset, as this replica shows them."""
    found: dict[int, int] = {}
    offset = partition.log_start_offset
    while offset < partition.high_watermark:
        buffers, _ = partition.read(offset, 1 << 20)
        for head, rest in zip(buffers[::2], buffers[1::2], strict=True):
            (offset,) = struct.unpack_from(">q", head)
            found[offset] = int.from_bytes(rest[-8:], "big")
        offset += 1
    return {at: number for at, number in found.items() if at >= partition.log_start_offset}


def states(cluster: NodeCluster) -> list[tuple[int, int, str]]:
    """Of all replicas: applied index, start of the log, digest."""
    hosted = [p for node in cluster.nodes.values() if (p := node.broker.partition("t", 0)) is not None]
    return [(p.replica.last_applied, p.log_start_offset, p.machine.digest) for p in hosted]


async def agreed(cluster: NodeCluster, replicas: int) -> None:
    def same() -> bool:
        return len(states(cluster)) == replicas and len(set(states(cluster))) == 1

    await cluster.until(same, lambda: states(cluster))


def free_at_once(cluster: NodeCluster) -> None:
    for node in cluster.nodes.values():
        node.retaining.free_bytes = 1
        node.retaining.look()


async def move(cluster: NodeCluster, *replicas: int) -> bool:
    """False where that cannot be yet: a node that shall come back has not deleted what it had before."""
    made = cluster.partition(next(iter(cluster.nodes)), "t")
    if made.replicas == replicas:
        return True
    broker = next(iter(cluster.nodes.values())).broker
    command = AssignReplicas(broker.metadata.topics["t"].topic_id, 0, replicas, override=True)
    result = await broker.propose_metadata(encode_command(command, request_id=broker.new_request_id()), 20)
    return result.error == MetadataError.NONE


async def moved(cluster: NodeCluster, *replicas: int) -> None:
    def settled() -> bool:
        free_at_once(cluster)
        partition = cluster.partition(2, "t")
        return bool(partition.settled) and not partition.lingering

    for _ in range(2):  # what is under way first
        await cluster.until(settled, lambda: (cluster.partition(2, "t"), states(cluster)))
        assert await move(cluster, *replicas)


def test_what_is_more_than_a_topic_may_hold_is_deleted_everywhere_and_its_disk_freed(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, retention_bytes=str(40 * RECORD_BYTES))
        for number in range(100):
            assert await append(cluster, number) == number

        def settled() -> bool:
            free_at_once(cluster)
            parts = [node.broker.partition("t", 0) for node in cluster.nodes.values()]
            return all(p is not None and p.replica.storage.first_index > 30 for p in parts)

        await cluster.until(settled, lambda: states(cluster))
        await agreed(cluster, 3)
        for node in cluster.nodes.values():
            partition = node.broker.partition("t", 0)
            assert partition is not None
            start = partition.log_start_offset
            assert 30 < start <= 60, "as much stays as may, or a step of the sparse map more"
            assert records(partition) == {number: number for number in range(start, 100)}

    run(scenario)


def test_what_is_older_than_a_topic_may_hold_is_deleted_when_the_setting_says_so(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster)
        old = 2 * (POINT_BYTES // RECORD_BYTES + 1)  # two steps of the sparse map
        for number in range(40):
            assert await append(cluster, number, time_ms=1000 if number < old else 1 << 50) == number
        topic_id = cluster.nodes[1].broker.metadata.topics["t"].topic_id
        await propose(cluster, SetTopicConfigs(topic_id, {"retention.ms": "60000"}))
        await cluster.until(lambda: all(start == old for _, start, _ in states(cluster)), lambda: states(cluster))
        assert await append(cluster, 40) == 40

    run(scenario)


def test_offsets_are_looked_up_among_what_is_kept(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster)
        for number, time in enumerate((9, 3, 7, 5)):
            await append(cluster, number, time_ms=time)
        led = leader(cluster)
        assert led is not None and led.offset_of_max_timestamp() == (0, 9)
        assert (await led.trim(2)).log_start_offset == 2
        assert led.offset_of_max_timestamp() == (2, 7)
        await led.trim(4)
        assert led.offset_of_max_timestamp() == (-1, -1)
        assert led.offset_for_time(0) == (-1, -1)

    run(scenario)


def test_no_kept_record_is_lost_while_logs_are_cut_replicas_move_and_nodes_restart(run: Callable[..., None]) -> None:
    """A replica that moves in finds the beginning of the log gone, and may be sent on by one that was sent it."""

    async def scenario(cluster: NodeCluster) -> None:
        chance = random.Random(20251122)
        await cluster.start(4, join=(1,))
        await cluster.ready()
        await topic(cluster)
        acknowledged: dict[int, int] = {}
        number = 0
        for _ in range(8):
            wanted = chance.sample([1, 2, 3, 4], chance.randint(2, 4))
            await move(cluster, *wanted)
            victim = chance.choice([1, 2, 3, 4]) if chance.random() < 0.6 else None
            if victim is not None:
                await cluster.stop(victim)
            for _ in range(chance.randint(20, 40)):
                number += 1
                offset = await append(cluster, number)
                if offset is not None:
                    acknowledged[offset] = number
                led = leader(cluster)
                if led is not None and chance.random() < 0.1 and not led.is_trimming:
                    led.trim(max(led.high_watermark - chance.randint(0, 60), 0)).add_done_callback(
                        lambda ended: ended.exception()
                    )
                free_at_once(cluster)
            if victim is not None:
                await cluster.start(victim, join=(1, 2, 3) if victim == 4 else None)
                await cluster.ready()
        await moved(cluster, 4, 3, 2, 1)
        await agreed(cluster, 4)
        shown = [records(p) for node in cluster.nodes.values() if (p := node.broker.partition("t", 0)) is not None]
        start = states(cluster)[0][1]
        assert start > 0
        assert all(part == shown[0] for part in shown)
        assert {at: n for at, n in acknowledged.items() if at >= start}.items() <= shown[0].items()
        assert sorted(shown[0]) == list(range(start, max(shown[0], default=start - 1) + 1))
        assert "a replica was sent the state before the first record that is kept" in marks.counts

    run(scenario)
