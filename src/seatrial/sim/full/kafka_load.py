"""What Kafka clients do in a run: aiokafka, unmodified, appends unique numbers to every partition and polls them back.

Every producer is idempotent: one that is not sends again after a lost answer, and a record that is there twice would be
no bug.  After an error the producer is replaced: nobody can say what became of what it still holds.
Rule: an operation is recorded before it begins and after it is known; whatever is not surely acknowledged is `info`.
Knows nothing of faults and of what is made of the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import (
    InvalidRequestError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAlreadyExistsError,
    UnknownError,
    UnsupportedVersionError,
)

from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.sim.case import Load
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.payload import Payload
from seatrial.workloads.recorder import Recorder

WRITERS: Final = 4
# What a server says of requests that are wrong in themselves, or that it does not understand, or fails over.
BLAMING: Final = (
    InvalidRequestError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    UnknownError,
    UnsupportedVersionError,
)
REQUEST_MS: Final = 2_500
BACKOFF_MS: Final = 60
POLL_MS: Final = 250
PAUSE_S: Final = 0.3  # at most, between two polls: a consumer does something with what it was given
BURST_MAX: Final = 4  # records that a writer sends together, as a batch of several where the client makes it one
RETRY_S: Final = 0.2
STOP_S: Final = 1.0
TRY_S: Final = 4.0  # one attempt at something that has no time limit of its own


def settings(servers: Sequence[str], name: str) -> dict[str, Any]:
    """What all aiokafka clients here are told."""
    return {
        "bootstrap_servers": list(servers),
        "client_id": name,
        "request_timeout_ms": REQUEST_MS,
        "retry_backoff_ms": BACKOFF_MS,
        "metadata_max_age_ms": 5_000,
    }


class KafkaLoad:
    """Topics, writers and readers of one run, on one client host.

    stop: no operation begins after it is set.  ready: the topics are there.  blamed: answers that find fault with a
    record, which were all right.
    """

    def __init__(
        self,
        load: Load,
        servers: Sequence[str],
        record: Recorder,
        rng: Rng,
        payload: Payload,
        *,
        replication: int,
    ) -> None:
        self.keys = [f"t{topic}/{part}" for topic in range(load.topics) for part in range(load.partitions)]
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.last_error = ""
        self.blamed: list[str] = []
        self._load = load
        self._servers = list(servers)
        self._record = record
        self._rng = rng
        self._payload = payload
        self._replication = replication
        self._values = 0
        self._ends = dict.fromkeys(self.keys, 0)  # behind the last record that was acknowledged
        self._producer: AIOKafkaProducer | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Create the topics, then load them until `stop`, then let what is in flight end."""
        if not await self._create_topics():
            return
        self.ready.set()
        if self._load.kafka_rate <= 0:
            return
        writers = [self._write(number) for number in range(WRITERS)]
        await asyncio.gather(*writers, self._poll(), *([self._delete()] if self._load.deletions > 0 else ()))
        self._replace_producer(self._producer)

    def new_client(self) -> int:
        return self._record.new_client()

    # ---- topics ----------------------------------------------------------------------------------------------------

    async def _create_topics(self) -> bool:
        """As often as it takes; False if that was too late."""
        configs = _retention(self._load)
        wanted = [
            NewTopic(f"t{topic}", self._load.partitions, self._replication, topic_configs=configs)
            for topic in range(self._load.topics)
        ]
        while wanted and not self.stop.is_set():
            admin = AIOKafkaAdminClient(**settings(self._servers, "admin"))
            try:
                async with asyncio.timeout(TRY_S):
                    await admin.start()
                    answer = await admin.create_topics(wanted)
                wanted = self._not_created(wanted, answer)
            except (KafkaError, TimeoutError, OSError, AttributeError) as error:
                # AttributeError is aiokafka's, where the nodes that it asked know no controller yet.
                self.last_error = f"create topics: {error!r}"
            self._leave(admin.close())
            if wanted:
                await asyncio.sleep(RETRY_S)
        return not wanted

    def _not_created(self, wanted: list[NewTopic], answer: Any) -> list[NewTopic]:
        there = {entry[0] for entry in answer.topic_errors if entry[1] in (0, TopicAlreadyExistsError.errno)}
        failed = [entry for entry in answer.topic_errors if entry[0] not in there]
        if failed:
            self.last_error = f"create topics: {failed}"
        return [topic for topic in wanted if topic.name not in there]

    # ---- appending -------------------------------------------------------------------------------------------------

    async def _write(self, number: int) -> None:
        loop, rng = asyncio.get_running_loop(), self._rng.child(f"writer {number}")
        interval_s = WRITERS / self._load.kafka_rate
        clients = [self._record.new_client() for _ in range(BURST_MAX)]
        due = loop.time() + interval_s * rng.random()
        while not self.stop.is_set():
            await asyncio.sleep(max(0.0, due - loop.time()))
            burst = min(rng.integer(1, BURST_MAX), self._load.operations_max - self._values)
            due = max(due + interval_s * burst, loop.time())
            if self.stop.is_set() or burst <= 0:
                return
            key = rng.choice(self.keys)
            unknown = await self.append(clients[:burst], key)
            clients = [self._record.new_client() if client in unknown else client for client in clients]

    async def append(self, clients: Sequence[int], key: str) -> set[int]:
        """A record of each client, sent together, once; those clients of whose record nobody knows what became."""
        producer = await self._started_producer()
        if producer is None:
            return set()
        topic, _, partition = key.rpartition("/")
        values: dict[int, int] = {}
        sent: dict[int, asyncio.Future[Any]] = {}
        told = "cut off: the run ended"
        try:
            async with asyncio.timeout(TRY_S):
                for client in clients:
                    self._values += 1
                    values[client] = self._values
                    self._record.invoke(client, Request(f="append", key=key, value=self._values))
                for client, value in values.items():
                    written = self._payload.written(value)
                    sent[client] = await producer.send(topic, written, partition=int(partition))
                    sent[client].add_done_callback(_heard)  # also of an error that comes when nobody waits any more
                await asyncio.wait(sent.values())
        except (KafkaError, TimeoutError, OSError, RuntimeError, AssertionError) as error:
            told = repr(error)
        finally:
            completions = {client: _completion(value, sent.get(client), told) for client, value in values.items()}
            for client, completion in completions.items():
                self._record.complete(client, completion)
                if (future := sent.get(client)) is not None and _is_blamed(future):
                    self.blamed.append(f"append to {key}: {completion.error}")
                if completion.type is OpType.OK:
                    self._ends[key] = max(self._ends[key], completion.value[0] + 1)
        unknown = {client for client, completion in completions.items() if completion.type is not OpType.OK}
        if unknown:
            self.last_error = f"append to {key}: {completions[min(unknown)].error}"
            self._replace_producer(producer)
        return unknown

    async def _started_producer(self) -> AIOKafkaProducer | None:
        """The one that is shared, started if need be; None where it could not be, after a pause."""
        async with self._starting:
            if self._producer is not None:
                return self._producer
            producer = AIOKafkaProducer(
                **settings(self._servers, "producer"), enable_idempotence=True, acks="all", linger_ms=2
            )
            try:
                async with asyncio.timeout(TRY_S):
                    await producer.start()
            except (KafkaError, TimeoutError, OSError) as error:
                self.last_error = f"start a producer: {error!r}"
                self._leave(producer.stop())
                await asyncio.sleep(RETRY_S)
                return None
            self._producer = producer
            return producer

    def _replace_producer(self, failed: AIOKafkaProducer | None) -> None:
        if failed is not None and failed is self._producer:
            stopping: Any = failed
            self._producer = None
            self._leave(stopping.stop())

    def _leave(self, closing: Coroutine[Any, Any, Any]) -> None:
        """Close something in the background, for as long as that is worth."""

        async def closed() -> None:
            try:
                async with asyncio.timeout(STOP_S):
                    await closing
            except (KafkaError, TimeoutError, OSError, RuntimeError, AssertionError) as error:
                self.last_error = f"close: {error!r}"

        task = asyncio.get_running_loop().create_task(closed())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    # ---- deleting --------------------------------------------------------------------------------------------------

    async def _delete(self) -> None:
        """Ask now and then for some of a partition's records to be deleted."""
        rng = self._rng.child("deletions")
        client = self._record.new_client()
        while not self.stop.is_set():
            await asyncio.sleep(2 * rng.random() / self._load.deletions)
            key = rng.choice(self.keys)
            offset = rng.integer(0, self._ends[key])
            if self.stop.is_set() or offset == 0:
                continue
            if not await self._delete_before(client, key, offset):
                client = self._record.new_client()

    async def _delete_before(self, client: int, key: str, offset: int) -> bool:
        """Once; False where nobody knows what became of it."""
        admin = AIOKafkaAdminClient(**settings(self._servers, "deleter"))
        completion = Completion(type=OpType.INFO, error="cut off: the run ended")
        self._record.invoke(client, Request(f="delete-records", key=key, value=offset))
        try:
            async with asyncio.timeout(TRY_S):
                await admin.start()
                answer = await admin.delete_records({_place(key): RecordsToDelete(offset)}, timeout_ms=REQUEST_MS)
            completion = Completion(type=OpType.OK, value=answer[_place(key)])
        except (KafkaError, TimeoutError, OSError, AttributeError) as error:
            self.last_error = f"delete records of {key}: {error!r}"
            completion = Completion(type=OpType.INFO, error=self.last_error)
        finally:
            self._record.complete(client, completion)
            self._leave(admin.close())
        return completion.type is OpType.OK

    # ---- polling ---------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """One consumer that reads all partitions in order, and begins anew after an error where it left off."""
        following = dict.fromkeys(self.keys, 0)
        while not self.stop.is_set():
            consumer = self._consumer("poller")
            try:
                async with asyncio.timeout(TRY_S):
                    await consumer.start()
                self._seek(consumer, following)
                await self._poll_until_error(consumer, following)
            except (KafkaError, TimeoutError, OSError) as error:
                self.last_error = f"poll: {error!r}"
                await asyncio.sleep(RETRY_S)
            self._leave(consumer.stop())

    def _consumer(self, name: str) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **settings(self._servers, name), group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=POLL_MS
        )

    def _seek(self, consumer: AIOKafkaConsumer, following: dict[str, int]) -> None:
        consumer.assign([_place(key) for key in following])
        for key, offset in following.items():
            consumer.seek(_place(key), offset)

    async def _poll_until_error(self, consumer: AIOKafkaConsumer, following: dict[str, int]) -> None:
        clients = {key: self._record.new_client() for key in self.keys}
        pauses = self._rng.child("pauses")
        while not self.stop.is_set():
            await asyncio.sleep(PAUSE_S * pauses.random())
            for key, client in clients.items():
                self._record.invoke(client, Request(f="poll", key=key))
            found: dict[str, list[list[Any]]] = {}
            outcome = OpType.FAIL
            try:
                async with asyncio.timeout(TRY_S):
                    answer = await consumer.getmany(timeout_ms=POLL_MS)
                found = {f"{place.topic}/{place.partition}": self._pairs(records) for place, records in answer.items()}
                outcome = OpType.OK
            finally:
                for key, client in clients.items():
                    pairs = found.get(key, [])
                    self._record.complete(client, Completion(type=outcome, value=pairs))
                    if pairs:
                        following[key] = pairs[-1][0] + 1

    async def read_whole(self, key: str, timeout_s: float) -> bool:
        """Everything that the partition's leader has, as a final read; whether it was complete."""
        place = _place(key)
        client, teller = self._record.new_client(), self._record.new_client()
        consumer = self._consumer("final")
        self._record.invoke(client, Request(f="final-read", key=key))
        completion = Completion(type=OpType.FAIL, error="incomplete")
        try:
            async with asyncio.timeout(timeout_s):
                await consumer.start()
                consumer.assign([place])
                consumer.seek(place, 0)
                end = (await consumer.end_offsets([place]))[place]
                pairs: list[list[Any]] = []
                while await consumer.position(place) < end:
                    answer = await consumer.getmany(place, timeout_ms=POLL_MS)
                    pairs += self._pairs(answer.get(place, []))
                # Asked last: what is read is all that was kept as long as the reading took.
                start = (await consumer.beginning_offsets([place]))[place]
            self._record.invoke(teller, Request(f="log-start", key=key))
            self._record.complete(teller, Completion(type=OpType.OK, value=start))
            completion = Completion(type=OpType.OK, value=pairs)
        except (KafkaError, TimeoutError, OSError) as error:
            self.last_error = f"final read of {key}: {error!r}"
            completion = Completion(type=OpType.FAIL, error=self.last_error)
        finally:
            self._record.complete(client, completion)
            self._leave(consumer.stop())
        return completion.type is OpType.OK

    def _pairs(self, records: Sequence[Any]) -> list[list[Any]]:
        """[offset, value] of each."""
        return [[record.offset, self._payload.read(record.value or b"")] for record in records]


def _retention(load: Load) -> dict[str, str]:
    """The topics' settings."""
    wanted = {"retention.bytes": load.retention_bytes, "retention.ms": load.retention_ms}
    return {name: str(value) for name, value in wanted.items() if value >= 0}


def _place(key: str) -> TopicPartition:
    topic, _, partition = key.rpartition("/")
    return TopicPartition(topic, int(partition))


def _heard(future: asyncio.Future[Any]) -> None:
    """Or asyncio says that the exception was never retrieved."""
    if not future.cancelled():
        future.exception()


def _is_blamed(sent: asyncio.Future[Any]) -> bool:
    return sent.done() and not sent.cancelled() and isinstance(sent.exception(), BLAMING)


def _completion(value: int, sent: asyncio.Future[Any] | None, told: str) -> Completion:
    """What became of a record: `sent` is the client library's word on it, and `told` what there is to say without."""
    if sent is None or not sent.done() or sent.cancelled():
        return Completion(type=OpType.INFO, error=told)
    if (error := sent.exception()) is not None:
        return Completion(type=OpType.INFO, error=repr(error))
    return Completion(type=OpType.OK, value=[sent.result().offset, value])
