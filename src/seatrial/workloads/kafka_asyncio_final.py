"""On aiokafka: creates topics, and reads whole partitions from chosen nodes.

A final read asks the wanted node itself, request by request, and so needs no proof of who served it; it is complete
when it has reached the high watermark that the leader named before.

Rule: whatever was not read to the end is a failure that says how far it came.
Knows nothing of why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.memory_records import MemoryRecords

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Endpoint, Request, SetupFailed
from seatrial.workloads.kafka_asyncio import (
    BACKOFF_MS,
    START_S,
    TROUBLE,
    begun,
    in_time,
    pairs_of,
    shared_settings,
    told,
)
from seatrial.workloads.kafka_settings import bootstrap, split_key

READ_S_MAX: Final = 15.0
ATTEMPT_S: Final = 2.0
RETRY_S: Final = 0.1
LATEST: Final = -1  # of ListOffsets: the high watermark
FETCH_WAIT_MS: Final = 250
FETCH_BYTES: Final = 4 << 20


class Incomplete(Exception):
    """The read ended before the end of the partition; the message says where and why."""


class AsyncFinalReadClient:
    """Each read uses connections of its own, so that nothing is left of the node that was read before."""

    def __init__(self, servers: str, name: str) -> None:
        self._settings = shared_settings(servers, name) | {"retry_backoff_ms": BACKOFF_MS}

    async def perform(self, request: Request) -> Completion:
        client = AIOKafkaClient(**self._settings)
        try:
            async with asyncio.timeout(READ_S_MAX):
                await begun(client.bootstrap())
                records = await _read(client, TopicPartition(*split_key(request.key)), request.node)
        except Incomplete as error:
            return Completion(type=OpType.FAIL, error=f"incomplete: {error}")
        except TROUBLE as error:
            return Completion(type=OpType.FAIL, error=f"incomplete: {told(error)}")
        finally:
            await in_time(client.close())
        return Completion(type=OpType.OK, value=records, node=request.node)

    async def reconnect(self) -> None:
        """Nothing to drop: each read connects anew."""

    async def close(self) -> None:
        """Nothing is open between reads."""


async def _read(client: AIOKafkaClient, place: TopicPartition, node: int | None) -> list[Json]:
    """All records, in the order they were served.  Raises Incomplete, KafkaError."""
    await client.add_topic(place.topic)
    leader = client.cluster.leader_for_partition(place)
    if leader is None or leader < 0:
        raise Incomplete(f"no leader of {place.topic}/{place.partition} is known")
    end = await high_watermark(client, leader, place)
    server = leader if node is None else node
    records: list[Json] = []
    position = 0
    while position < end:
        position, found, _ = await fetch(client, server, place, position)
        records += pairs_of(found)
    return records


async def high_watermark(client: AIOKafkaClient, leader: int, place: TopicPartition) -> int:
    """The offset behind the last committed record, as the leader knows it.  Raises Incomplete, KafkaError."""
    answer = await client.send(leader, OffsetRequest(-1, 0, [(place.topic, [(place.partition, LATEST)])]))
    _, error_code, *_, offset = answer.topics[0][1][0]
    _raise_for(error_code, leader, "its high watermark")
    return int(offset)


async def fetch(
    client: AIOKafkaClient, server: int, place: TopicPartition, position: int
) -> tuple[int, list[Any], int]:
    """The position behind the next records that one node serves, these, and the node's high watermark.

    Raises Incomplete, KafkaError.
    """
    topics = [(place.topic, [(place.partition, position, FETCH_BYTES)])]
    answer = await client.send(server, FetchRequest(FETCH_WAIT_MS, 1, FETCH_BYTES, 0, topics))
    _, error_code, watermark, *_, message_set = answer.topics[0][1][0]
    _raise_for(error_code, server, f"records from offset {position}")
    batches = MemoryRecords(message_set)
    found: list[Any] = []
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise Incomplete(f"node {server} served a batch behind offset {position} whose checksum is wrong")
        if not batch.is_control_batch:
            found += [record for record in batch if record.offset >= position]
        position = max(position, batch.next_offset)
    return position, found, int(watermark)


def _raise_for(error_code: int, node: int, what: str) -> None:
    error = for_code(error_code)
    if error is not NoError:
        raise Incomplete(f"node {node} refused {what}: {error.__name__}")


async def create_topic(
    endpoints: Sequence[Endpoint], topic: str, *, partitions: int, replication: int, timeout: float
) -> None:
    """Create `topic` and return once each of its partitions has a leader.  Raises SetupFailed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last = "nothing was tried"
    settings = shared_settings(bootstrap(endpoints), "seatrial-admin") | {"retry_backoff_ms": BACKOFF_MS}
    while loop.time() < deadline:
        admin = AIOKafkaAdminClient(**settings)
        try:
            async with asyncio.timeout(START_S):
                await begun(admin.start())
            async with asyncio.timeout(2 * ATTEMPT_S):
                last = await _created(admin, topic, partitions, replication)
        except TROUBLE as error:
            last = told(error)
        except AttributeError:  # the library does not look whether it knows one
            last = "no controller is known"
        finally:
            await in_time(admin._client.close())  # its own method does nothing where it was cut off as it started
        if not last:
            return
        await asyncio.sleep(RETRY_S)
    raise SetupFailed(f"topic {topic} was not ready within {timeout:g} s: {last}")


async def _created(admin: AIOKafkaAdminClient, topic: str, partitions: int, replication: int) -> str:
    """What is still missing; "" when the topic is there and each of its partitions has a leader."""
    wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication)
    answer = await admin.create_topics([wanted], timeout_ms=int(ATTEMPT_S * 1000))
    _, error_code, *_ = answer.topic_errors[0]
    error = for_code(error_code)
    if error not in (NoError, TopicAlreadyExistsError):  # an attempt that timed out may have been carried out
        return f"creating it was refused: {error.__name__}"
    found = (await admin.describe_topics([topic]))[0]
    led = sorted(p["partition"] for p in found["partitions"] if p["leader"] >= 0 and not p["error_code"])
    return "" if len(led) == partitions else f"{len(led)} of {partitions} partitions have a leader ({led})"
