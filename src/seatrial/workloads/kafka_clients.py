"""The clients of the log workload: one appends through a librdkafka producer, one polls through a consumer.

Rule: librdkafka blocks, so each client has one thread of its own and the event loop only waits for it.  An append is
`fail` only where it surely was not and never will be appended.
Knows nothing of which operations are asked for, or why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.kafka_settings import OPERATION_MS, POLL_S, consumer_settings, producer_settings, split_key

T = TypeVar("T")
POLL_MESSAGES_MAX = 1000
APPEND_S_MAX = OPERATION_MS / 1000 + 0.7  # librdkafka reports a timed-out message at its next scan

# A broker answers these before it appends anything, whatever else goes on.  Not among them: NOT_LEADER_OR_FOLLOWER
# and NOT_ENOUGH_REPLICAS_AFTER_APPEND, which Kafka also answers when leadership is lost *after* the append, whose
# record may survive; nor any time-out or lost connection.
REFUSED_BEFORE_APPEND = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.POLICY_VIOLATION,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)


class OwnThread:
    """Runs one blocking call at a time, off the event loop."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, job)

    async def close(self) -> None:
        """Wait for the call under way, then end the thread."""
        await asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)


class AppendClient:
    """Appends one record at a time and waits for its acknowledgement by all replicas (`acks=all`).

    Idempotent: librdkafka retries and the broker removes duplicates.  Plain: one attempt, no retry.
    """

    def __init__(self, servers: str, name: str, *, idempotent: bool) -> None:
        self._settings = producer_settings(servers, name, idempotent=idempotent)
        self._idempotent = idempotent
        self._producer: Producer | None = None
        self._thread = OwnThread(name)

    async def perform(self, request: Request) -> Completion:
        return await self._thread.run(lambda: self._append(request))

    async def reconnect(self) -> None:
        """A new producer: it learns the leaders afresh, and nothing of the old one is sent any more."""
        await self._thread.run(self._drop)

    async def close(self) -> None:
        await self._thread.run(self._drop)
        await self._thread.close()

    def _append(self, request: Request) -> Completion:
        topic, partition = split_key(request.key)
        if self._producer is None:
            self._producer = Producer(self._settings)
        reports: list[tuple[KafkaError | None, Message]] = []

        def reported(error: KafkaError | None, message: Message) -> None:
            reports.append((error, message))

        try:
            self._producer.produce(topic, str(request.value).encode(), partition=partition, on_delivery=reported)
        except (BufferError, KafkaException) as error:
            self._drop()  # a producer that failed for good refuses everything from then on
            return Completion(type=OpType.FAIL, error=f"not sent: {error}")
        deadline = time.monotonic() + APPEND_S_MAX
        try:
            while not reports and (left := deadline - time.monotonic()) > 0:
                self._producer.poll(left)
        except KafkaException as error:
            # An idempotent producer found that the broker forgot what it had acknowledged, for example.
            self._drop()
            return Completion(type=OpType.INFO, error=f"the producer failed for good: {error}")
        if not reports:
            return Completion(type=OpType.INFO, error=f"no report within {APPEND_S_MAX:g} s")
        failed, message = reports[0]
        if failed is None:
            return Completion(type=OpType.OK, value=[message.offset(), request.value])
        # With retries the last error says nothing of the attempts before it.
        definite = not self._idempotent and failed.code() in REFUSED_BEFORE_APPEND
        return Completion(type=OpType.FAIL if definite else OpType.INFO, error=f"{failed.name()}: {failed.str()}")

    def _drop(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            with suppress(KafkaException):  # it says once more that it failed for good
                producer.purge(blocking=False)
                producer.poll(0)


class PollClient:
    """Reads one assigned partition at a time, in order, each partition from where this client left it.

    `assign` moves to a partition (ok value: the offset it starts from); `poll` gives the next records as
    [offset, value] pairs, none when there is nothing new.  rack: of the replica to read from, where there is one.
    """

    def __init__(self, servers: str, name: str, *, rack: str | None = None) -> None:
        self._settings = consumer_settings(servers, name, rack=rack)
        self._consumer: Consumer | None = None
        self._next: dict[str, int] = {}  # the next offset to read, by key
        self._thread = OwnThread(name)

    async def perform(self, request: Request) -> Completion:
        if request.f == "assign":
            return await self._thread.run(lambda: self._assign(request.key))
        return await self._thread.run(lambda: self._poll(request.key))

    async def reconnect(self) -> None:
        await self._thread.run(self._drop)

    async def close(self) -> None:
        await self._thread.run(self._drop)
        await self._thread.close()

    def _assign(self, key: str | None) -> Completion:
        topic, partition = split_key(key)
        if self._consumer is None:
            self._consumer = Consumer(self._settings)
        offset = self._next.get(f"{topic}/{partition}", 0)
        try:
            self._consumer.assign([TopicPartition(topic, partition, offset)])
        except KafkaException as error:
            return Completion(type=OpType.FAIL, error=str(error))
        return Completion(type=OpType.OK, value=offset)

    def _poll(self, key: str | None) -> Completion:
        topic, partition = split_key(key)
        if self._consumer is None and (assigned := self._assign(key)).type is not OpType.OK:
            return assigned
        assert self._consumer is not None, "assigning makes the consumer"
        records: list[Json] = []
        failed: KafkaError | None = None
        try:
            # `consume` waits until it has as many as asked for; so wait for one, then take what is there.
            first = self._consumer.poll(POLL_S)
            rest = self._consumer.consume(POLL_MESSAGES_MAX, 0.0) if first is not None else []
            for message in [first, *rest] if first is not None else []:
                error = message.error()
                if error is None and (message.topic(), message.partition()) == (topic, partition):
                    records.append(record_of(message))
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    failed = error
        except KafkaException as raised:
            failed = raised.args[0]
        if records:
            self._next[f"{topic}/{partition}"] = records[-1][0] + 1
        if failed is not None and failed.code() not in TRANSIENT:
            # librdkafka stops fetching after such an error; begin again where this client left off.
            self._assign(key)
        if failed is not None and not records:
            return Completion(type=OpType.FAIL, error=f"{failed.name()}: {failed.str()}")
        return Completion(type=OpType.OK, value=records)

    def _drop(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


TRANSIENT = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})


def record_of(message: Message) -> Json:
    """[offset, value]; a value that no client of ours wrote is kept as text, for the checker to wonder at."""
    text = (message.value() or b"").decode("utf-8", "replace")
    return [message.offset(), int(text) if text.isdigit() else text]
