"""`cluster.log("t")`: a topic as a test uses it, created when it is first used; every operation is in the history.

An append is tried until its deadline, at whichever node leads, each time under the same producer id and sequence, so
that it is applied once; with `retries=False`, or without a producer id, exactly once.

Rule: what is raised says whether the record surely was not appended; the history says the same.  A read ends at the
high watermark: of the leader, or of the node that was asked for.
Knows nothing of how nodes are started or broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NoError, NotEnoughReplicasError, for_code
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from seatrial.history import OpType
from seatrial.scenario import brokers
from seatrial.scenario.attempts import NoAnswer, until_done
from seatrial.scenario.brokers import Brokers
from seatrial.scenario.errors import Refused, Unavailable
from seatrial.scenario.patience import TIMEOUT_S
from seatrial.scenario.records import RecordedOperation, Records, recorded
from seatrial.workloads.base import Endpoint, Request, SetupFailed
from seatrial.workloads.kafka_asyncio import REFUSED_BEFORE_APPEND, TROUBLE, told
from seatrial.workloads.kafka_asyncio_final import Incomplete, create_topic, fetch, high_watermark
from seatrial.workloads.kafka_fetching import FETCH_BYTES, Fetched, fetch_request, fetched

Value: TypeAlias = int | str | bytes
ATTEMPT_S: Final = 1.5
READ_ATTEMPT_S: Final = 3.0
SECONDS_A_MEGABYTE: Final = 1.0  # more, for large records
PLAIN: Final = (-1, -1)  # no producer id: the broker removes no duplicates
TYPE: Final = "seatrial-type"  # header of a record whose value is no number
REFUSED: Final = tuple(error for error in REFUSED_BEFORE_APPEND if error is not NotEnoughReplicasError)


class Plant(brokers.Plant, Protocol):
    """What the clients of a cluster need of it."""

    records: Records

    @property
    def nodes(self) -> tuple[int, ...]: ...


@dataclass(slots=True)
class _Appender:
    """One logical client: its numbers in the history, its producer id, and where its sequences are."""

    numbers: list[int] = field(default_factory=list)  # one for each record that it sends at a time
    producer: tuple[int, int] | None = None  # id and epoch
    sequences: dict[int, int] = field(default_factory=dict)  # by partition: the next


class Log:
    """One topic.  Values are numbers, text or bytes, and are read as what they were; give each append another one.

    via: ask this node, whoever leads; timeout: seconds for all attempts together.
    Every operation raises Unavailable or Refused; `definite` says whether it surely did not happen.
    """

    def __init__(self, plant: Plant, topic: str, *, partitions: int, replication: int | None) -> None:
        self.topic = topic
        self.partitions = partitions
        self._replication = replication
        self._plant = plant
        self._created = False
        self._creating = asyncio.Lock()
        self._idle: list[_Appender] = []
        self._idle_readers: list[str] = []  # client ids of those that wait for no answer
        self._reader_numbers = itertools.count()
        self._brokers = Brokers(plant, topic)

    async def create(self, *, timeout: float = TIMEOUT_S) -> None:
        """Create the topic now, unless it is there; returns once each partition has a leader."""
        async with self._creating:
            if self._created:
                return
            endpoints = [Endpoint(node=node, kafka=self._brokers.address(node)) for node in self._plant.running()]
            if not endpoints:
                raise Unavailable(f"topic {self.topic} cannot be created: no node runs", definite=True)
            replication = self._replication or len(self._plant.nodes)
            try:
                await create_topic(
                    endpoints, self.topic, partitions=self.partitions, replication=replication, timeout=timeout
                )
            except SetupFailed as error:
                raise Unavailable(str(error), definite=False) from error
            self._created = True

    async def append(
        self,
        value: Value,
        *,
        partition: int = 0,
        via: int | None = None,
        key: str | bytes | None = None,
        timeout: float = TIMEOUT_S,
        retries: bool = True,
    ) -> int:
        """Append one record and wait until all in-sync replicas have it (`acks=all`); its offset."""
        raw_key = key.encode() if isinstance(key, str) else key
        return await self._append([value], raw_key, partition=partition, via=via, timeout=timeout, retries=retries)

    async def append_batch(
        self,
        values: Sequence[Value],
        *,
        partition: int = 0,
        via: int | None = None,
        timeout: float = TIMEOUT_S,
        retries: bool = True,
    ) -> list[int]:
        """Append these records as one batch; their offsets.  In the history each is an operation of its own."""
        first = await self._append(values, None, partition=partition, via=via, timeout=timeout, retries=retries)
        return list(range(first, first + len(values)))

    async def _append(
        self,
        values: Sequence[Value],
        key: bytes | None,
        *,
        partition: int,
        via: int | None,
        timeout: float,
        retries: bool,
    ) -> int:
        """The offset of the first."""
        await self.create(timeout=timeout)
        appender = self._idle.pop() if self._idle else _Appender()
        encoded = [_encoded(value) for value in values]
        size = sum(len(data) for data, _ in encoded)

        async def attempt(turn: int, seconds: float) -> tuple[int, int]:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + seconds
            node = via
            if node is None:
                node = await self._brokers.leader(await self._brokers.client(renew=turn > 0), partition)
            producer = await self._producer(appender) if retries else PLAIN
            sequence = appender.sequences.get(partition, 0) if retries else -1
            builder = DefaultRecordBatchBuilder(2, 0, 0, *producer, sequence, size + 1024 * len(encoded))
            for position, (data, headers) in enumerate(encoded):
                builder.append(position, None, key, data, headers)
            left = max(0.001, deadline - loop.time())
            return await self._produce(node, partition, bytes(builder.build()), left), node

        what = f"append to {self.topic}/{partition}"
        operations = self._appends(appender, values, partition, via)
        try:
            with contextlib.ExitStack() as under_way:
                for operation in operations:
                    under_way.enter_context(operation)
                patience_s = ATTEMPT_S + SECONDS_A_MEGABYTE * size / 1e6
                offset, node = await until_done(
                    what, attempt, timeout=timeout, attempt_s=patience_s, retries=retries, again=True
                )
                for position, (operation, value) in enumerate(zip(operations, values, strict=True)):
                    operation.ok([offset + position, recorded(value)], node=node)
                return offset
        finally:
            ended = operations[0].completion.type
            if ended is OpType.OK and retries:
                appender.sequences[partition] = appender.sequences.get(partition, 0) + len(values)
            if ended is not OpType.INFO:  # else neither its numbers nor its producer id are used again
                self._idle.append(appender)

    def _appends(
        self, appender: _Appender, values: Sequence[Value], partition: int, via: int | None
    ) -> list[RecordedOperation]:
        """An operation for each value, each of a client of its own: one does one at a time."""
        records = self._plant.records
        while len(appender.numbers) < len(values):
            appender.numbers.append(records.recorder.new_client())
        return [
            records.operation(
                number, Request(f="append", key=f"{self.topic}/{partition}", value=recorded(value), node=via)
            )
            for number, value in zip(appender.numbers, values, strict=False)
        ]

    async def read(
        self, partition: int = 0, *, from_offset: int = 0, via: int | None = None, timeout: float = TIMEOUT_S
    ) -> list[tuple[int, Value]]:
        """All committed records from an offset on, each with its offset, as the leader has them (or the node `via`)."""
        await self.create(timeout=timeout)
        return await self._read("poll", partition, from_offset, via, timeout, from_leader=via is None)

    async def fetch(
        self,
        offset: int,
        *,
        via: int,
        partition: int = 0,
        rack: str = "",
        demand: str = "",
        wait_ms: int = 0,
        min_bytes: int = 1,
        max_bytes: int = FETCH_BYTES,
        timeout: float = TIMEOUT_S,
    ) -> Fetched:
        """One Fetch request to the node `via`, and what it answered: refusals and redirections too, nothing repeated.

        rack: the client's own (KIP-392).  demand: "?read=linearizable" and the like, which a client's id ends with.
        wait_ms, min_bytes: how long the node may wait for how much.  Raises Unavailable where nothing was answered.
        """
        await self.create(timeout=timeout)
        records, place = self._plant.records, TopicPartition(self.topic, partition)
        request = fetch_request(place, offset, wait_ms=wait_ms, min_bytes=min_bytes, max_bytes=max_bytes, rack=rack)
        poll = Request(f="poll", key=f"{self.topic}/{partition}", node=via)
        # A node answers in the order of a connection: none is shared with what is still waited for.
        reader = (
            self._idle_readers.pop()
            if self._idle_readers
            else f"{brokers.CLIENT_ID}-reader-{next(self._reader_numbers)}"
        )
        with records.operation(records.recorder.new_client(), poll) as operation:
            try:
                answer = await self._brokers.send(via, request, timeout, client_id=reader + demand)
            except NoAnswer as error:
                raise Unavailable(f"fetch of {poll.key} from {offset} at node {via}: {error}", definite=True) from error
            finally:
                self._idle_readers.append(reader)
            found = fetched(answer, node=via, offset=offset)
            if found.error_code or found.preferred >= 0:
                operation.fail(found.describe(), node=via)
            else:
                operation.ok([[record.offset, recorded(_decoded(record))] for record in found.records], node=via)
            return found

    async def read_everywhere(self, *, timeout: float = TIMEOUT_S) -> None:
        """Read every partition to the leader's end from each node that has it, for the checkers (`final-read`)."""
        await self.create(timeout=timeout)
        for partition in range(self.partitions):
            for node in await self.replicas(partition, timeout=timeout):
                await self._read("final-read", partition, 0, node, timeout, from_leader=True)

    async def leader(self, partition: int = 0, *, via: int | None = None, timeout: float = TIMEOUT_S) -> int:
        """The node that leads the partition, by the brokers' metadata; -1 where the node `via` knows of none."""
        await self.create(timeout=timeout)
        if via is not None:
            try:
                answer = await self._brokers.send(via, MetadataRequest([self.topic]), timeout)
            except NoAnswer as error:
                raise Unavailable(
                    f"leader of {self.topic}/{partition} by node {via}: {error}", definite=True
                ) from error
            return next(int(leader) for _, number, leader, *_ in answer.topics[0][3] if number == partition)
        client = await self._connected(f"leader of {self.topic}/{partition}", partition, timeout)
        return await self._brokers.leader(client, partition)

    async def replicas(self, partition: int = 0, *, timeout: float = TIMEOUT_S) -> list[int]:
        """The nodes that hold the partition, by the brokers' metadata."""
        await self.create(timeout=timeout)
        client = await self._connected(f"replicas of {self.topic}/{partition}", partition, timeout)
        return sorted(client.cluster._partitions[self.topic][partition].replicas)

    async def _connected(self, what: str, partition: int, timeout: float) -> AIOKafkaClient:
        """A client that knows now who leads the partition."""

        async def attempt(turn: int, seconds: float) -> AIOKafkaClient:
            client = await self._brokers.client(renew=True)
            await self._brokers.leader(client, partition)
            return client

        return await until_done(what, attempt, timeout=timeout, attempt_s=ATTEMPT_S, retries=True, again=True)

    async def close(self) -> None:
        """Hang up."""
        await self._brokers.close()

    # -- reading

    async def _read(
        self, f: str, partition: int, start: int, via: int | None, timeout: float, *, from_leader: bool
    ) -> list[tuple[int, Value]]:
        records = self._plant.records
        number = records.recorder.new_client()  # it has no position of its own
        key = f"{self.topic}/{partition}"

        async def attempt(turn: int, seconds: float) -> tuple[list[tuple[int, Value]], int]:
            client = await self._brokers.client(None if from_leader else via, renew=turn > 0)
            try:
                async with asyncio.timeout(seconds):
                    return await self._read_once(client, partition, start, via, from_leader=from_leader)
            except (Incomplete, *TROUBLE) as error:
                raise NoAnswer(told(error), definite=True) from error

        with records.operation(number, Request(f=f, key=key, node=via)) as operation:
            found, node = await until_done(
                f"{f} of {key}", attempt, timeout=timeout, attempt_s=READ_ATTEMPT_S, retries=True, again=True
            )
            operation.ok([[offset, recorded(value)] for offset, value in found], node=node)
            return found

    async def _read_once(
        self, client: AIOKafkaClient, partition: int, start: int, via: int | None, *, from_leader: bool
    ) -> tuple[list[tuple[int, Value]], int]:
        """from_leader: up to what the leader says is the end, whoever is read."""
        place = TopicPartition(self.topic, partition)
        end: int | None = None
        server = via
        if from_leader:
            leader = await self._brokers.leader(client, partition)
            end = await high_watermark(client, leader, place)
            server = leader if via is None else via
        assert server is not None, "a read that is not from the leader names its node"
        found: list[Any] = []
        position = start
        while end is None or position < end:
            position, more, watermark = await fetch(client, server, place, position)
            found += more
            end = watermark if end is None else end
        return [(record.offset, _decoded(record)) for record in found if record.offset >= start], server

    # -- one attempt

    async def _produce(self, node: int, partition: int, batch: bytes, seconds: float) -> int:
        """The offset.  Raises NoAnswer, Refused."""
        request = ProduceRequest(None, -1, max(1, int(seconds * 1000)), [(self.topic, [(partition, batch)])])
        answer = await self._brokers.send(node, request, seconds)
        _, error_code, offset, *_ = answer.topics[0][1][0]
        found = for_code(error_code)
        if found in REFUSED:
            raise Refused(f"node {node} refused it: {found.__name__}")
        if found is not NoError:
            raise NoAnswer(f"node {node} answered {found.__name__}", definite=found is NotEnoughReplicasError)
        return int(offset)

    async def _producer(self, appender: _Appender) -> tuple[int, int]:
        if appender.producer is None:
            node = (await self._brokers.client()).get_random_node()
            try:
                answer = await self._brokers.send(node, InitProducerIdRequest(None, 0), ATTEMPT_S)
            except NoAnswer as error:  # no record was sent yet
                raise NoAnswer(f"no producer id: {error}", definite=True) from error
            if answer.error_code:
                code = for_code(answer.error_code).__name__
                raise NoAnswer(f"no producer id: node {node} answered {code}", definite=True)
            appender.producer = answer.producer_id, answer.producer_epoch
        return appender.producer


def _encoded(value: Value) -> tuple[bytes, list[tuple[str, bytes | None]]]:
    if isinstance(value, bytes):
        return value, [(TYPE, b"bytes")]
    if isinstance(value, str):
        return value.encode(), [(TYPE, b"str")]
    return str(value).encode(), []


def _decoded(record: Any) -> Value:
    """What was appended; a record that no test of ours wrote is a number or text where it looks like one."""
    data = bytes(record.value or b"")
    types = [value for name, value in record.headers if name == TYPE]
    if types == [b"bytes"]:
        return data
    text = data.decode("utf-8", "replace")
    return text if types or not text.isdigit() else int(text)
