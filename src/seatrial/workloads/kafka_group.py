"""Clients of consumer groups on aiokafka: members that consume and commit, one that asks what is committed, one that
reads at last what nobody has read.

    member      consumes what the group gives it, commits only what it was given and still holds, leaves and joins
                again; and a commit that was overtaken by its leaving arrives late, when others hold the partitions
    observer    asks for the group's offsets, and belongs to no group
    drain       reads every partition from the committed offset to its end: what the group has not read yet

Rule: a record is given when it was returned to the member; a commit is `fail` only where the coordinator refused it.
Knows nothing of how the answers are judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.protocol.commit import OffsetCommitRequest

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.kafka_asyncio import (
    BACKOFF_MS,
    POLL_S_MAX,
    START_S,
    TROUBLE,
    begun,
    in_time,
    pairs_of,
    shared_settings,
    started,
    stopped,
    told,
)
from seatrial.workloads.kafka_asyncio_final import READ_S_MAX, Incomplete, fetch, high_watermark
from seatrial.workloads.kafka_settings import OPERATION_MS, POLL_S

SESSION_MS: Final = 6000  # the least that a server takes by default
HEARTBEAT_MS: Final = 300
REBALANCE_MS: Final = 5000
JOIN_S: Final = 10.0  # a rebalance may wait for the session of a member that is gone
RECORDS_MAX: Final = 100
NO_RETENTION_TIME: Final = OffsetCommitRequest.DEFAULT_RETENTION_TIME


def group_settings(servers: str, name: str, group: str) -> dict[str, Any]:
    return shared_settings(servers, name) | {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "session_timeout_ms": SESSION_MS,
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "rebalance_timeout_ms": REBALANCE_MS,
        "fetch_max_wait_ms": 250,
        "retry_backoff_ms": BACKOFF_MS,
    }


class _Held(ConsumerRebalanceListener):  # type: ignore[misc]
    """What a member was given and has not committed: the next offset of each partition, while it holds it."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, int] = {}

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        for place in revoked:
            self.offsets.pop(place, None)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """It begins where the group had committed."""


class _Left(NamedTuple):
    """What a member was when it left: what it had not committed, and by what name and generation it would have."""

    generation: int
    member_id: str
    offsets: dict[TopicPartition, int]


class GroupMemberClient:
    """`consume` (ok: {partition: [[offset, value], …]}), `offset-commit` (ok: {partition: next offset}), `rejoin`,
    `late-commit` of what it held when it left (ok: as offset-commit, with nothing where that was refused)."""

    def __init__(self, servers: str, name: str, *, group: str, topic: str) -> None:
        self._settings = group_settings(servers, name, group)
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self._held = _Held()
        self._left: _Left | None = None
        self._client_settings = shared_settings(servers, f"{name}-late") | {"retry_backoff_ms": BACKOFF_MS}

    async def perform(self, request: Request) -> Completion:
        if request.f == "late-commit":
            return await self._commit_late()
        if request.f == "rejoin":
            if self._consumer is not None:
                as_known = self._consumer._coordinator
                self._left = _Left(as_known.generation, as_known.member_id, dict(self._held.offsets))
            await self.reconnect()
        try:
            consumer = await self._joined()
        except TROUBLE as error:
            return Completion(type=OpType.FAIL, error=told(error))
        if request.f == "rejoin":
            return Completion(type=OpType.OK)
        return await (self._commit(consumer) if request.f == "offset-commit" else self._consume(consumer))

    async def _joined(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._held = _Held()
            consumer = AIOKafkaConsumer(**self._settings)
            consumer.subscribe([self._topic], listener=self._held)
            self._consumer = await started(consumer, JOIN_S)
        return self._consumer

    async def _consume(self, consumer: AIOKafkaConsumer) -> Completion:
        try:
            async with asyncio.timeout(POLL_S_MAX):
                found = await consumer.getmany(timeout_ms=int(POLL_S * 1000), max_records=RECORDS_MAX)
        except TROUBLE as error:
            # What it may have been given meanwhile was given to nobody: it has to come again.
            await self.reconnect()
            return Completion(type=OpType.FAIL, error=told(error))
        given: dict[str, Json] = {}
        for place, records in found.items():
            given[str(place.partition)] = pairs_of(records)
            if place in consumer.assignment():
                self._held.offsets[place] = records[-1].offset + 1
        return Completion(type=OpType.OK, value=given)

    async def _commit(self, consumer: AIOKafkaConsumer) -> Completion:
        offsets = dict(self._held.offsets)
        value: Json = {str(place.partition): offset for place, offset in sorted(offsets.items())}
        if not offsets:
            return Completion(type=OpType.OK, value=value)
        try:
            async with asyncio.timeout(OPERATION_MS / 1000):
                await consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            return Completion(type=OpType.FAIL, value=value, error=told(error))
        except TROUBLE as error:
            return Completion(type=OpType.INFO, value=value, error=told(error))
        for place, offset in offsets.items():
            if self._held.offsets.get(place) == offset:
                del self._held.offsets[place]
        return Completion(type=OpType.OK, value=value)

    async def _commit_late(self) -> Completion:
        left, self._left = self._left, None
        if left is None or not left.offsets or left.generation < 0:
            return Completion(type=OpType.OK, value={})
        told_of = {str(place.partition): offset for place, offset in sorted(left.offsets.items())}
        offsets = [(self._topic, [(place.partition, offset, "") for place, offset in sorted(left.offsets.items())])]
        request = OffsetCommitRequest(
            self._settings["group_id"], left.generation, left.member_id, NO_RETENTION_TIME, offsets
        )
        client = AIOKafkaClient(**self._client_settings)
        try:
            async with asyncio.timeout(OPERATION_MS / 1000):
                await begun(client.bootstrap())
                coordinator = await client.coordinator_lookup(CoordinationType.GROUP, self._settings["group_id"])
                response = await client.send(coordinator, request)
        except TROUBLE as error:
            return Completion(type=OpType.INFO, value=told_of, error=told(error))
        finally:
            await in_time(client.close())
        refused = {code for _, partitions in response.topics for _, code in partitions} - {0}
        return Completion(type=OpType.OK, value={} if refused else told_of)

    async def reconnect(self) -> None:
        """Leave the group; whatever was held is given to somebody else."""
        self._held.offsets.clear()
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stopped(consumer)

    async def close(self) -> None:
        await self.reconnect()


class GroupObserverClient:
    """`offset-fetch` (ok: {partition: committed offset, -1 for none}); `drain` adds what is behind that, to the end:

    {"start": {partition: committed offset}, "records": {partition: [[offset, value], …]}}.
    """

    def __init__(self, servers: str, name: str, *, group: str, topic: str, partitions: int) -> None:
        self._settings = group_settings(servers, name, group)
        self._client_settings = shared_settings(servers, name) | {"retry_backoff_ms": BACKOFF_MS}
        self._places = [TopicPartition(topic, partition) for partition in range(partitions)]
        self._consumer: AIOKafkaConsumer | None = None

    async def perform(self, request: Request) -> Completion:
        try:
            offsets = await self._committed()
            if request.f == "offset-fetch":
                return Completion(type=OpType.OK, value=offsets)
            async with asyncio.timeout(READ_S_MAX):
                records = await self._rest(offsets)
        except (*TROUBLE, Incomplete) as error:
            return Completion(type=OpType.FAIL, error=told(error))
        return Completion(type=OpType.OK, value={"start": offsets, "records": records})

    async def _committed(self) -> dict[str, int]:
        if self._consumer is None:
            self._consumer = await started(AIOKafkaConsumer(**self._settings), START_S)
            self._consumer.assign(self._places)
        try:
            async with asyncio.timeout(POLL_S_MAX):
                found = [await self._consumer.committed(place) for place in self._places]
        except TROUBLE:
            await self.reconnect()
            raise
        return {str(place.partition): -1 if at is None else at for place, at in zip(self._places, found, strict=True)}

    async def _rest(self, offsets: dict[str, int]) -> dict[str, Json]:
        client = AIOKafkaClient(**self._client_settings)
        records: dict[str, Json] = {}
        try:
            await begun(client.bootstrap())
            await client.add_topic(self._places[0].topic)
            for place in self._places:
                leader = client.cluster.leader_for_partition(place)
                if leader is None or leader < 0:
                    raise Incomplete(f"no leader of {place.topic}/{place.partition} is known")
                end = await high_watermark(client, leader, place)
                position, found = max(offsets[str(place.partition)], 0), []
                while position < end:
                    position, more, _ = await fetch(client, leader, place, position)
                    found += pairs_of(more)
                records[str(place.partition)] = found
        finally:
            await in_time(client.close())
        return records

    async def reconnect(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stopped(consumer)

    async def close(self) -> None:
        await self.reconnect()
