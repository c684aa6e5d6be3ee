"""One topic-partition on this node: its replica as the Kafka handlers see it (`kafka.backend.PartitionBackend`).

Rule: what is read is what is applied here: never beyond the high watermark, never an entry that was refused, always
whole batches with their offset and epoch filled in.
Knows nothing of requests and of how entries are replicated or stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from seatrial.env import Buffer
from seatrial.kafka import backend
from seatrial.kafka.preferred_replica import ReplicaView
from seatrial.kafka.records import patched_batch, record_times
from seatrial.machines.metadata import Partition as Placement
from seatrial.machines.metadata import Topic
from seatrial.machines.partition_log import (
    COMMAND_HEAD,
    POINT_ENTRIES,
    AppendError,
    AppendOutcome,
    CommandKind,
    LogPoint,
    PartitionLog,
    TrimOutcome,
    batch_view,
    encode_trim,
)
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import Entry
from seatrial.server.freshness import Freshness
from seatrial.server.hosted import HostedReplica
from seatrial.server.lag import Lag, LagMemory
from seatrial.server.readers import Readers
from seatrial.server.replica import Replica
from seatrial.storage.errors import StorageError

WALK_BYTES = 1 << 20  # read from storage at a time while looking for an offset


class HostedPartition(HostedReplica):
    """A partition that has a replica here."""

    def __init__(
        self,
        topic: Topic,
        placement: Placement,
        replica: Replica,
        machine: PartitionLog,
        *,
        rack_of: Callable[[NodeId], str],
        alive: Callable[[], Sequence[int]],
        readers: Readers,
        refusal: Callable[[int], str | None],
    ) -> None:
        super().__init__(topic, placement, replica, alive=alive)
        self._refusal = refusal  # why so many bytes of records cannot be taken
        self.machine = machine
        self.appended_bytes = 0
        self.freed_bytes, self.freed_s = 0, 0.0  # what was deleted when the disk was last freed of it, and when
        self._trimming: asyncio.Future[TrimOutcome] | None = None
        self.read_bytes = 0
        self._past = LagMemory()
        self._rack_of = rack_of
        self._readers = readers
        self._freshness = Freshness(replica)

    # ---- who reads where, and how fresh what they see is -------------------------------------------------------------

    @property
    def vouched_us(self) -> int:
        return self._freshness.vouched_us

    def want_vouched(self, since_us: int, until_us: int) -> None:
        self._freshness.want(since_us, until_us)

    def replica_views(self, client: str) -> list[ReplicaView]:
        me = int(self.replica.node.node_id)
        reader = (client, self.topic, self.partition)
        lags = {me: Lag(0, 0.0), **self.follower_lag(self.replica.host.now_us())}
        up = set(self._alive())
        return [
            ReplicaView(
                node=node,
                rack=self._rack_of(NodeId(node)),
                is_up=node in up,
                start_offset=self.log_start_offset,
                end_offset=self.high_watermark - lags[node].offsets,
                lag_s=lags[node].seconds,
                readers=self._readers.count(node, besides=reader),
            )
            for node in self.replicas
            if node in lags
        ]

    def reader_told(self, client: str, node: int) -> None:
        self._readers.told((client, self.topic, self.partition), node, self.replica.host.now_us())

    def remember_for_lag(self, now_us: int) -> None:
        if self.is_leader:
            self._past.remember(self.replica.last_applied, self.machine.high_watermark, now_us)
        else:
            self._past.forget()  # what others commit meanwhile would seem to be as old as the last look

    def follower_lag(self, now_us: int) -> Mapping[int, Lag]:
        """On the leader: how far each follower is behind."""
        applied, watermark = self.replica.last_applied, self.machine.high_watermark
        followers = self.replica.node.followers()
        return {peer: self._past.of(Index(match), applied, watermark, now_us) for peer, match, *_ in followers}

    # ---- appending -------------------------------------------------------------------------------------------------

    def append(self, command: bytes) -> asyncio.Future[AppendOutcome]:
        if not self._past:
            self.remember_for_lag(self.replica.now_us())
        if (refusal := self._refusal(len(command))) is not None:
            raise backend.DiskNearlyFull(refusal)
        future: asyncio.Future[AppendOutcome] = self._propose(command)
        self.appended_bytes += len(command)
        return future

    def _propose(self, command: bytes) -> asyncio.Future[Any]:
        try:
            return self.replica.propose(command)
        except NotLeader as error:
            raise backend.NotLeader(error.leader or -1) from None
        except ProposalDropped as error:
            raise backend.ProposalDropped(error.reason) from None

    def trim(self, offset: int) -> asyncio.Future[TrimOutcome]:
        self._trimming = future = self._propose(encode_trim(offset))
        return future

    @property
    def is_trimming(self) -> bool:
        """A move of the log's start is on its way."""
        return self._trimming is not None and not self._trimming.done()

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def log_start_offset(self) -> int:
        return self.machine.log_start_offset

    @property
    def high_watermark(self) -> int:
        return self.machine.high_watermark

    @property
    def size_bytes(self) -> int:
        return self.machine.kept_bytes

    def changed(self) -> asyncio.Future[None]:
        return self.replica.changed()

    def read(self, offset: int, max_bytes: int) -> tuple[list[Buffer], int]:
        buffers: list[Buffer] = []
        size = 0
        if offset < self.machine.high_watermark:
            point = self.machine.locate(offset)
            for entry, base_offset, count in self._batches(point[0], point.base_offset):
                if base_offset + count <= offset:
                    continue
                batch = batch_view(entry)
                if buffers and size + len(batch) > max_bytes:
                    break
                buffers += patched_batch(batch, base_offset=base_offset, leader_epoch=entry.term)
                size += len(batch)
                if size >= max_bytes:
                    break
        self.read_bytes += size
        return buffers, size

    def _batches(self, index: Index, base_offset: int) -> Iterator[tuple[Entry, int, int]]:
        """(entry, its first offset, its number of records) from a known point on, as far as it is applied here.

        Raises backend.LogUnreadable.
        """
        machine, storage = self.machine, self.replica.storage
        last = machine.applied_index
        while index <= last:
            try:
                entries = storage.entries(index, last, WALK_BYTES)
            except StorageError as error:
                raise backend.LogUnreadable(str(error)) from error
            for entry in entries:
                count = machine.records_of(entry)
                if count:
                    yield entry, base_offset, count
                    base_offset += count
            index = Index(entries[-1].index + 1)

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int]:
        """Exact where records can be seen; in a compressed batch, which stays closed, the batch's first offset."""
        point, start = self.machine.locate_time(timestamp_ms), self.machine.log_start_offset
        if point is not None:
            for entry, base_offset, count in self._batches(point[0], point.base_offset):
                latest = max_timestamp(entry)
                if latest < timestamp_ms or base_offset + count <= start:
                    continue
                times = record_times(batch_view(entry))
                if times is None:
                    return max(base_offset, start), latest
                for offset, time in enumerate(times, base_offset):
                    if time >= timestamp_ms and offset >= start:
                        return offset, time
        return -1, -1

    def offset_of_max_timestamp(self) -> tuple[int, int]:
        best = (-1, -1)
        for first in (0, 1):  # what the first point tells may be of a record that is deleted
            found = self.machine.locate_max_timestamp(first=first)
            if found is None or found[1] <= best[1]:
                break
            best = max(best, self._latest(*found), key=lambda one: one[1])
            if best[1] == found[1]:
                break
        return best

    def _latest(self, point: LogPoint, latest: int) -> tuple[int, int]:
        """(offset, timestamp) of the latest record of a point; `latest` is as late as any of them."""
        best = (-1, -1)
        for entry, base_offset, count in islice(self._batches(point[0], point.base_offset), POINT_ENTRIES):
            time = max_timestamp(entry)
            if base_offset + count > self.machine.log_start_offset and time > best[1]:
                best = (base_offset + count - 1, time)
                if time == latest:
                    break
        return best

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        return self.machine.end_offset_for_epoch(epoch)


def max_timestamp(entry: Entry) -> int:
    """Milliseconds; of an entry that holds records."""
    latest: int = COMMAND_HEAD.unpack_from(entry.data)[6]
    return latest


def predict_outcome(machine: PartitionLog) -> Callable[[bytes, Term, Index], AppendOutcome | TrimOutcome]:
    """For the planted bug `ack-before-commit`: the offset that the batch would get if all before it were committed."""
    next_offset, in_term = 0, Term(0)

    def predict(command: bytes, term: Term, index: Index) -> AppendOutcome | TrimOutcome:
        nonlocal next_offset, in_term
        if term != in_term:
            next_offset, in_term = 0, term
        base_offset = max(next_offset, machine.high_watermark)
        if command[0] != CommandKind.APPEND:
            return TrimOutcome(machine.log_start_offset)
        count: int = COMMAND_HEAD.unpack_from(command)[3]
        next_offset = base_offset + count
        return AppendOutcome(base_offset, AppendError.NONE, False)

    return predict
