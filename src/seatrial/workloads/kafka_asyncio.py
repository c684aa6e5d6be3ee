"""The clients of the log workload on aiokafka: all on one event loop and without a thread, so that they run in the
simulator as they run outside.  They promise what those on librdkafka promise (`kafka_clients`).

    appends    idempotent ones are sent again by the library for as long as this client waits; plain ones go out once,
               because the library's back-off outlasts the client's patience
    abandoned  a producer whose record's fate is unknown is closed without sending what it still holds

Rule: an append is `fail` only where it surely was not and never will be appended.
Knows nothing of which operations are asked for, or why.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    InvalidRequiredAcksError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.kafka_settings import OPERATION_MS, POLL_S, split_key

# Every lost connection is worth a warning to the library; errors reach us through each operation instead.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

APPEND_S: Final = OPERATION_MS / 1000
START_S: Final = 1.5
STOP_S: Final = 0.5
POLL_S_MAX: Final = 2.0
POLL_MESSAGES_MAX: Final = 1000
BACKOFF_MS: Final = 20
NO_RETRY_MS: Final = 60_000  # longer than any append is waited for
# Of a consumer's coordinator and fetcher.
BACKGROUND_TASKS: Final = (
    "_coordination_task",
    "_heartbeat_task",
    "_commit_refresh_task",
    "_reset_committed_task",
    "_fetch_task",
)

# As in `kafka_clients`: a broker answers these before it appends anything, whatever else goes on.
REFUSED_BEFORE_APPEND: Final = (
    InvalidRequiredAcksError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
# What the library raises when a node cannot be reached or answers in a way that it does not expect.
TROUBLE: Final = (KafkaError, OSError, TimeoutError)


def shared_settings(servers: str, client_id: str) -> dict[str, Any]:
    """Of every client: as patient as those on librdkafka (`kafka_settings`)."""
    return {
        "bootstrap_servers": servers,
        "client_id": client_id,
        "request_timeout_ms": 1000,
        # A paused leader closes no connection: only asking again tells that another one was elected.
        "metadata_max_age_ms": 1000,
    }


class AbandonableProducer(AIOKafkaProducer):  # type: ignore[misc]
    """A producer that can be closed without waiting until what it holds is delivered."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self._txn_manager is not None:
            # When an idempotent producer fails for good, the library tells a waiter that only transactions have.
            waiter = self._txn_manager._transaction_waiter = asyncio.get_running_loop().create_future()
            waiter.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def abandon(self) -> None:
        """Send nothing any more, and hang up; what was not acknowledged never will be."""
        self._closed = True
        sending = self._sender.sender_task
        if sending is not None:
            sending.cancel()  # it then waits for the request under way
        await self.client.close()  # which fails that one
        if sending is not None and not sending.done():
            await asyncio.wait([sending], timeout=2 * BACKOFF_MS / 1000)
            sending.cancel()  # out of a long back-off
            await asyncio.wait([sending], timeout=STOP_S)
            await self.client.close()  # what it had begun to open meanwhile


class AsyncAppendClient:
    """Appends one record at a time and waits for its acknowledgement by all replicas (`acks=all`).

    Idempotent: the library retries and the broker removes duplicates.  Plain: one attempt, no retry.
    """

    def __init__(self, servers: str, name: str, *, idempotent: bool) -> None:
        self._settings = shared_settings(servers, name) | {
            "acks": "all",
            "linger_ms": 0,
            "enable_idempotence": idempotent,
            "retry_backoff_ms": BACKOFF_MS if idempotent else NO_RETRY_MS,
        }
        self._idempotent = idempotent
        self._producer: AbandonableProducer | None = None

    async def perform(self, request: Request) -> Completion:
        topic, partition = split_key(request.key)
        try:
            producer = await self._started()
        except TROUBLE as error:
            return Completion(type=OpType.FAIL, error=f"not sent: {told(error)}")
        handed_over = False
        try:
            async with asyncio.timeout(APPEND_S):
                acknowledged = await producer.send(topic, str(request.value).encode(), partition=partition)
                handed_over = True
                answer = await acknowledged
        except TROUBLE as error:
            return self._failed(error, handed_over=handed_over)
        except (AssertionError, TypeError) as error:
            if handed_over:
                raise
            # What the library says to a partition that its metadata, fetched amid an election, does not have.
            return Completion(type=OpType.FAIL, error=f"not sent: no partition {request.key} is known: {error!r}")
        return Completion(type=OpType.OK, value=[answer.offset, request.value])

    def _failed(self, error: Exception, *, handed_over: bool) -> Completion:
        if not handed_over and isinstance(error, KafkaError):
            return Completion(type=OpType.FAIL, error=f"not sent: {told(error)}")
        # With retries the last error says nothing of the attempts before it.
        definite = not self._idempotent and isinstance(error, REFUSED_BEFORE_APPEND)
        return Completion(type=OpType.FAIL if definite else OpType.INFO, error=told(error))

    async def _started(self) -> AbandonableProducer:
        if self._producer is None:
            self._producer = AbandonableProducer(**self._settings)
            try:
                async with asyncio.timeout(START_S):
                    await begun(self._producer.start())
            except BaseException:
                await self.reconnect()
                raise
        return self._producer

    async def reconnect(self) -> None:
        """A new producer: it learns the leaders afresh, and nothing of the old one is sent any more."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await in_time(producer.abandon())

    async def close(self) -> None:
        await self.reconnect()


class AsyncPollClient:
    """Reads one assigned partition at a time, in order, each partition from where this client left it.

    `assign` moves to a partition (ok value: the offset it starts from); `poll` gives the next records as
    [offset, value] pairs, none when there is nothing new.  rack: of the replica to read from, where there is one.
    """

    def __init__(self, servers: str, name: str, *, rack: str | None = None) -> None:
        self._settings = shared_settings(servers, name) | {
            "client_rack": rack,
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "fetch_max_wait_ms": 250,
            "retry_backoff_ms": BACKOFF_MS,
        }
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned: TopicPartition | None = None
        self._next: dict[str, int] = {}  # the next offset to read, by key

    async def perform(self, request: Request) -> Completion:
        if request.f == "assign":
            return await self._assign(request.key)
        return await self._poll(request.key)

    async def reconnect(self) -> None:
        self._assigned = None
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stopped(consumer)

    async def close(self) -> None:
        await self.reconnect()

    async def _assign(self, key: str | None) -> Completion:
        topic, partition = split_key(key)
        offset = self._next.get(f"{topic}/{partition}", 0)
        place = TopicPartition(topic, partition)
        try:
            consumer = await self._started()
            if self._assigned != place:
                consumer.assign([place])
                self._assigned = place
            consumer.seek(place, offset)
        except TROUBLE as error:
            return Completion(type=OpType.FAIL, error=told(error))
        return Completion(type=OpType.OK, value=offset)

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await started(AIOKafkaConsumer(**self._settings), START_S)
        return self._consumer

    async def _poll(self, key: str | None) -> Completion:
        place = TopicPartition(*split_key(key))
        if self._assigned != place and (assigned := await self._assign(key)).type is not OpType.OK:
            return assigned
        assert self._consumer is not None, "assigning makes the consumer"
        try:
            async with asyncio.timeout(POLL_S_MAX):
                found = await self._consumer.getmany(
                    place, timeout_ms=int(POLL_S * 1000), max_records=POLL_MESSAGES_MAX
                )
        except TROUBLE as error:
            await self._assign(key)  # begin again where this client left off
            return Completion(type=OpType.FAIL, error=told(error))
        records = pairs_of(found.get(place, ()))
        if records:
            self._next[f"{place.topic}/{place.partition}"] = records[-1][0] + 1
        return Completion(type=OpType.OK, value=records)


async def started(consumer: AIOKafkaConsumer, within_s: float) -> AIOKafkaConsumer:
    """Start it, or stop what was begun and raise."""
    try:
        async with asyncio.timeout(within_s):
            await begun(consumer.start())
    except BaseException:
        await stopped(consumer)
        raise
    return consumer


async def stopped(consumer: AIOKafkaConsumer) -> None:
    """Stop it; where that waits for a node that is gone, hang up on all of them."""
    await in_time(consumer.stop())
    # Cut off, it would leave its tasks with open connections, of which nobody knows any more.
    owners = (consumer._coordinator, consumer._fetcher)
    tasks = [getattr(owner, name, None) for owner in owners for name in BACKGROUND_TASKS]
    left = [task for task in tasks if task is not None and not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=STOP_S)
    await in_time(consumer._client.close())


async def begun(starting: Awaitable[Any]) -> None:
    """Await the start of a client; where it is cut off, close the connection that the library then forgets.

    Of the one on which it asks a first node for metadata nothing but a variable of `AIOKafkaClient.bootstrap` knows
    (aiokafka 0.14): it would be told as "Unclosed AIOKafkaConnection".
    """
    try:
        await starting
    except BaseException as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            connection = frame.f_locals.get("bootstrap_conn")
            if isinstance(connection, AIOKafkaConnection):
                connection.close()
        raise


def pairs_of(records: Sequence[Any]) -> list[Json]:
    """[offset, value] of each; a value that no client of ours wrote is kept as text, for the checker to wonder at."""
    pairs: list[Json] = []
    for record in records:
        text = (record.value or b"").decode("utf-8", "replace")
        pairs.append([record.offset, int(text) if text.isdigit() else text])
    return pairs


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


async def in_time(closing: Awaitable[Any]) -> None:
    """Close something that may be waiting for a node that is gone, for as long as that is worth."""
    try:
        async with asyncio.timeout(2 * STOP_S):
            await closing
    except TROUBLE:
        return  # it is given up: what it held open closes with its connections
