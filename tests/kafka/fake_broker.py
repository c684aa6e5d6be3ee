"""A broker in memory for the handlers: real state machines on a plain list of entries, and no Raft.

What is appended is committed at once, or when the test says so (`hold`); leadership is what the test sets.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from fake_groups import FakeGroups

from seatrial.kafka.apis import APIS, ApiKey
from seatrial.kafka.backend import (
    Backend,
    BrokerSettings,
    Buffer,
    Leadership,
    LogUnreadable,
    NotLeader,
    PartitionBackend,
)
from seatrial.kafka.codec import message
from seatrial.kafka.dispatch import ClientContext, Dispatcher
from seatrial.kafka.preferred_replica import ReplicaView
from seatrial.kafka.records import patched_batch, record_times
from seatrial.machines.metadata import (
    CreateTopic,
    MetadataMachine,
    MetadataResult,
    RegisterNode,
    SetClusterId,
    Topic,
    encode_command,
)
from seatrial.machines.partition_log import (
    COMMAND_HEAD,
    AppendOutcome,
    PartitionLog,
    TrimOutcome,
    batch_view,
    encode_trim,
)
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, NOOP, Entry

REQUEST_ID = bytes(16)


class FakePartition:
    """One replica; a leader in term 1 unless told otherwise."""

    def __init__(self, topic: Topic, partition: int, node_id: int) -> None:
        self.topic = topic.name
        self.topic_id = topic.topic_id
        self.partition = partition
        self.replicas: Sequence[int] = topic.partitions[partition].replicas
        self.in_sync: Sequence[int] = self.replicas
        self.is_leader = True
        self.is_catching_up = False
        self.leader_id = node_id
        self.leader_epoch = 1
        self.views: list[ReplicaView] = []
        self.told: list[tuple[str, int]] = []  # clients and where they were sent
        self.vouched_us = 1 << 60  # for ever, unless the test says otherwise
        self.wanted: list[tuple[int, int]] = []
        self.held = False
        self.refuse_with: Exception | None = None
        self.unreadable = False
        self.log = PartitionLog()
        self.entries: list[Entry] = []
        self._waiting: list[tuple[Entry, asyncio.Future[AppendOutcome]]] = []
        self._changed: asyncio.Future[None] | None = None
        self._apply(NOOP, b"")

    @property
    def is_established(self) -> bool:
        return self.is_leader and self.log.last_epoch == self.leader_epoch

    @property
    def log_start_offset(self) -> int:
        return self.log.log_start_offset

    @property
    def high_watermark(self) -> int:
        return self.log.high_watermark

    @property
    def size_bytes(self) -> int:
        return self.log.kept_bytes

    def trim(self, offset: int) -> asyncio.Future[TrimOutcome]:
        if self.refuse_with is not None:
            raise self.refuse_with
        future: asyncio.Future[TrimOutcome] = asyncio.get_running_loop().create_future()
        future.set_result(self.delete_before(offset))
        return future

    def delete_before(self, offset: int) -> TrimOutcome:
        outcome = self._apply(COMMAND, encode_trim(offset))
        assert isinstance(outcome, TrimOutcome)
        return outcome

    def append(self, command: bytes) -> asyncio.Future[AppendOutcome]:
        if self.refuse_with is not None:
            raise self.refuse_with
        if not self.is_leader:
            raise NotLeader(self.leader_id)
        future: asyncio.Future[AppendOutcome] = asyncio.get_running_loop().create_future()
        entry = Entry(Term(self.leader_epoch), Index(0), COMMAND, command)
        self._waiting.append((entry, future))
        if not self.held:
            self.commit()
        return future

    def commit(self) -> None:
        """Commit and apply all that was appended."""
        for entry, future in self._waiting:
            outcome = self._apply(COMMAND, entry.data)
            if not future.done():
                assert isinstance(outcome, AppendOutcome)
                future.set_result(outcome)
        self._waiting.clear()
        self.notify()

    def lose(self, error: Exception) -> None:
        """End all that was appended with an error."""
        for _, future in self._waiting:
            future.set_exception(error)
        self._waiting.clear()

    def lead(self, epoch: int, *, leader_id: int, is_leader: bool, established: bool = True) -> None:
        """Change leadership; an established leader has applied its first entry."""
        self.leader_epoch, self.leader_id, self.is_leader = epoch, leader_id, is_leader
        if established:
            self._apply(NOOP, b"")
        self.notify()

    def _apply(self, kind: int, data: bytes) -> AppendOutcome | TrimOutcome | None:
        entry = Entry(Term(self.leader_epoch), Index(len(self.entries) + 1), kind, data)
        self.entries.append(entry)
        return self.log.apply(entry)

    def _batches(self, offset: int) -> list[tuple[Entry, int, int]]:
        if self.unreadable:
            raise LogUnreadable("entry 2 cannot be read")
        index, base_offset = self.log.locate(offset)
        found = []
        for entry in self.entries[index - 1 :]:
            count = self.log.records_of(entry)
            if count:
                found.append((entry, base_offset, count))
            base_offset += count
        return found

    def read(self, offset: int, max_bytes: int) -> tuple[list[Buffer], int]:
        buffers: list[Buffer] = []
        size = 0
        for entry, base_offset, count in self._batches(offset):
            view = batch_view(entry)
            if base_offset + count <= offset:
                continue
            if buffers and size + len(view) > max_bytes:
                break
            buffers += patched_batch(view, base_offset=base_offset, leader_epoch=entry.term)
            size += len(view)
        return buffers, size

    def changed(self) -> asyncio.Future[None]:
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def notify(self) -> None:
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int]:
        point = self.log.locate_time(timestamp_ms)
        for entry, base_offset, _ in self._batches(point.base_offset) if point else ():
            for position, time in enumerate(record_times(batch_view(entry)) or ()):
                if time >= timestamp_ms:
                    return base_offset + position, time
        return -1, -1

    def offset_of_max_timestamp(self) -> tuple[int, int]:
        found = self.log.locate_max_timestamp()
        for entry, base_offset, count in self._batches(found[0].base_offset) if found else ():
            if found is not None and COMMAND_HEAD.unpack_from(entry.data)[6] == found[1]:
                return base_offset + count - 1, found[1]
        return -1, -1

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        return self.log.end_offset_for_epoch(epoch)

    def want_vouched(self, since_us: int, until_us: int) -> None:
        self.wanted.append((since_us, until_us))

    def vouch(self, at_us: int) -> None:
        """The leader's word that all that was committed by then is here."""
        self.vouched_us = at_us
        self.notify()

    def replica_views(self, client: str) -> list[ReplicaView]:
        return self.views

    def reader_told(self, client: str, node: int) -> None:
        self.told.append((client, node))


class FakeBroker:
    """Node 1 of a cluster of three, on which every partition has a replica."""

    def __init__(self) -> None:
        self.node_id = 1
        self.controller_id = 1
        self.alive: list[int] = [1, 2, 3]
        self.refuse_metadata: Exception | None = None
        self.metadata = MetadataMachine()
        self.replicas: dict[tuple[str, int], FakePartition] = {}
        self.clock_us = 1_000_000_000
        self._index = 0
        self._ids = 0
        self._groups: FakeGroups | None = None
        self.apply(SetClusterId("test"))
        for node in (1, 2, 3):
            self.apply(RegisterNode(node, f"raft{node}:1", f"kafka{node}", 9090 + node, f"http{node}:1", f"rack{node}"))

    @property
    def cluster_id(self) -> str:
        return self.metadata.cluster_id

    def apply(self, command: Any) -> MetadataResult:
        return self._apply_bytes(encode_command(command, request_id=REQUEST_ID))

    def _apply_bytes(self, command: bytes) -> MetadataResult:
        self._index += 1
        result = self.metadata.apply(Entry(Term(1), Index(self._index), COMMAND, command))
        assert result is not None
        if result.topic is not None and not result.error and result.topic.name in self.metadata.topics:
            for partition in result.topic.partitions:
                key = (result.topic.name, partition.index)
                self.replicas[key] = FakePartition(result.topic, partition.index, self.node_id)
        return result

    def create(self, name: str, partitions: int = 1, **configs: str) -> FakePartition:
        """A topic on all three nodes; its first partition."""
        renamed = {key.replace("_", "."): value for key, value in configs.items()}
        self.apply(CreateTopic(name, ((1, 2, 3),) * partitions, renamed))
        return self.replicas[name, 0]

    @property
    def groups(self) -> FakeGroups:
        if self._groups is None:
            self._groups = FakeGroups(self.metadata)  # needs the event loop that the request runs in
        return self._groups

    is_joining = False
    log_directory = "/records"

    def partitions(self) -> Sequence[PartitionBackend]:
        return [self.replicas[key] for key in sorted(self.replicas)]

    def now_us(self) -> int:
        return self.clock_us

    def alive_nodes(self) -> Sequence[int]:
        return self.alive

    def leadership(self, topic: str, partition: int) -> Leadership:
        replica = self.replicas.get((topic, partition))
        if replica is None:
            return Leadership(2, 4, (2, 3))
        return Leadership(replica.leader_id, replica.leader_epoch, replica.in_sync)

    def partition(self, topic: str, partition: int) -> PartitionBackend | None:
        return self.replicas.get((topic, partition))

    async def propose_metadata(self, command: bytes, timeout_s: float) -> MetadataResult:
        await asyncio.sleep(0)
        if self.refuse_metadata is not None:
            raise self.refuse_metadata
        return self._apply_bytes(command)

    def new_request_id(self) -> bytes:
        self._ids += 1
        return self._ids.to_bytes(16, "big")


def as_backend(broker: FakeBroker) -> Backend:
    """For the type checker to compare the fake with the contract."""
    return broker


class Wire:
    """A client's end: requests as frames through a real dispatcher, responses decoded by the generated codec."""

    def __init__(self, broker: FakeBroker, **settings: Any) -> None:
        self.broker = broker
        self.client = ClientContext("test")
        self.dispatcher = Dispatcher(as_backend(broker), BrokerSettings(**settings))
        self.client_id = "test"
        self._correlation = 0

    def start(self, key: ApiKey, version: int, /, **fields: Any) -> Any:
        """What the dispatcher gives for a request."""
        api = APIS[key]
        codec = message(f"{api.message}Request")
        body = codec.encode(codec.new(**fields), version)
        return self.start_frame(request_frame(key, version, body, client_id=self.client_id))

    def start_frame(self, frame: bytes) -> Any:
        return self.dispatcher.handle(frame, self.client)

    async def ask(self, key: ApiKey, version: int, /, **fields: Any) -> Any:
        """The decoded response."""
        started = self.start(key, version, **fields)
        return decode_response(key, version, started if isinstance(started, list) else await started)


def request_frame(
    key: int, version: int, body: bytes | bytearray, correlation_id: int = 77, client_id: str = "test"
) -> bytes:
    flexible = key in APIS and version >= APIS[key].flexible_from
    name = client_id.encode()
    head = struct.pack(">hhih", key, version, correlation_id, len(name)) + name
    return head + (b"\0" if flexible else b"") + bytes(body)


def decode_response(key: ApiKey, version: int, buffers: Sequence[Buffer], correlation_id: int = 77) -> Any:
    """Checks length, header and that nothing is left over."""
    data = b"".join(buffers)
    length, correlation = struct.unpack_from(">ii", data)
    assert (length, correlation) == (len(data) - 4, correlation_id)
    position = 8
    if version >= APIS[key].flexible_from and key != ApiKey.API_VERSIONS:
        assert data[position] == 0
        position += 1
    decoded, end = message(f"{APIS[key].message}Response").decode(data, position, version)
    assert end == len(data)
    return decoded
