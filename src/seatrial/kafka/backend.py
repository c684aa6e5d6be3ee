"""What the protocol handlers want of a broker; `server/` implements it, tests fake it.

Rule: nothing here blocks.  A call that has to wait returns a future of the running event loop, and says in its
exception whether the operation surely did not happen (`definite`).
Knows nothing of sockets, of Raft messages or of storage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from seatrial.kafka.group_settings import GroupSettings
from seatrial.kafka.preferred_replica import ReplicaView
from seatrial.machines.metadata import MetadataMachine, MetadataResult
from seatrial.machines.partition_log import AppendOutcome, TrimOutcome

if TYPE_CHECKING:
    from seatrial.kafka.group_backend import GroupBackend  # imported when somebody asks for a group

Buffer: TypeAlias = bytes | bytearray | memoryview


class BackendError(Exception):
    """Something outside the protocol went wrong.  `definite`: the operation surely did not and will not happen."""

    definite = True


class NotLeader(BackendError):
    """This node cannot accept the command; nothing was appended.  Ask `leader_id` (-1: unknown)."""

    def __init__(self, leader_id: int = -1) -> None:
        super().__init__(f"not the leader; the leader is {leader_id if leader_id >= 0 else 'unknown'}")
        self.leader_id = leader_id


class ProposalDropped(BackendError):
    """Too much is waiting to be committed; nothing was appended.  Try again later."""


class DiskNearlyFull(BackendError):
    """This node has no room for more records; nothing was appended.  Try again when there is."""


class ProposalLost(BackendError):
    """It was appended here, but another leader's entry was committed in its place: surely not applied."""


class OutcomeUnknown(BackendError):
    """Leadership or the majority was lost, or time ran out, while it was on its way: it may yet be applied."""

    definite = False


class LogUnreadable(BackendError):
    """This node's disk does not give back what was asked for; another replica may have it."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """Who leads a partition as far as this node knows; `leader_id` -1 and `leader_epoch` -1 where it does not."""

    leader_id: int
    leader_epoch: int
    in_sync: Sequence[int]


class PartitionBackend(Protocol):
    """One partition's replica on this node."""

    @property
    def topic(self) -> str: ...

    @property
    def topic_id(self) -> bytes:
        """16 bytes."""

    @property
    def partition(self) -> int: ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def is_established(self) -> bool:
        """It leads and has applied an entry of its own term, so that its high watermark covers all that was ever
        acknowledged.  A follower, and a leader before that, may lag behind what a client has already seen."""

    @property
    def is_catching_up(self) -> bool:
        """It knows of committed entries that it has not applied yet.  So may a leader whose own disk is behind its
        followers': they show records that it does not show yet."""

    @property
    def leader_id(self) -> int:
        """-1 where it is not known."""

    @property
    def leader_epoch(self) -> int:
        """The current Raft term."""

    @property
    def replicas(self) -> Sequence[int]: ...

    @property
    def in_sync(self) -> Sequence[int]: ...

    @property
    def log_start_offset(self) -> int: ...

    @property
    def high_watermark(self) -> int:
        """The offset after the last record applied here."""

    @property
    def size_bytes(self) -> int:
        """Of the records that are kept here."""

    def append(self, command: bytes) -> asyncio.Future[AppendOutcome]:
        """Start to replicate a `machines.partition_log.encode_append` command, at once.

        Raises NotLeader, ProposalDropped or DiskNearlyFull.  The future may fail with ProposalLost or OutcomeUnknown;
        it is not to be cancelled.
        """

    def trim(self, offset: int) -> asyncio.Future[TrimOutcome]:
        """Delete the records before `offset` on every replica; the future gives where the log starts then.

        Raises and fails as `append`.
        """

    def read(self, offset: int, max_bytes: int) -> tuple[list[Buffer], int]:
        """Whole batches from the one that holds `offset`, as buffers ready to send, and their size in bytes.

        At least one batch where there is any, then as many as fit `max_bytes`; nothing beyond the high watermark.
        Base offset and leader epoch are filled in (`kafka.records.patched_batch`).  Raises LogUnreadable; so do those
        that look for an offset by its time.
        """

    def changed(self) -> asyncio.Future[None]:
        """Resolves at the next rise of the high watermark or change of leadership.

        May be shared by all that wait: attach callbacks, never cancel it.
        """

    def offset_for_time(self, timestamp_ms: int) -> tuple[int, int]:
        """(offset, timestamp) of the first committed record at or after the time; (-1, -1) where there is none."""

    def offset_of_max_timestamp(self) -> tuple[int, int]:
        """(offset, timestamp) of the committed record with the greatest timestamp; (-1, -1) in an empty log."""

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the last epoch at or below `epoch`, as `PartitionLog.end_offset_for_epoch`."""

    @property
    def vouched_us(self) -> int:
        """All that was committed by then, on the backend's clock, is shown here; -1 where that is not known."""

    def want_vouched(self, since_us: int, until_us: int) -> None:
        """Have `vouched_us` rise to `since_us`, which is no later than now, if it can by `until_us`; then `changed`."""

    def replica_views(self, client: str) -> Sequence[ReplicaView]:
        """On the leader: all replicas, as far as it knows them; `client` is not counted as a reader."""

    def reader_told(self, client: str, node: int) -> None:
        """The client is to read from that node from now on."""


class Backend(Protocol):
    """This node's view of the cluster."""

    @property
    def node_id(self) -> int: ...

    @property
    def cluster_id(self) -> str: ...

    @property
    def controller_id(self) -> int:
        """The leader of the metadata group; -1 where it is not known."""

    @property
    def metadata(self) -> MetadataMachine:
        """To read only; it changes when entries are applied."""

    @property
    def groups(self) -> GroupBackend:
        """Where consumer groups are."""

    @property
    def is_joining(self) -> bool:
        """This node is to join a cluster, and knows of no broker yet, not even that it is one."""

    def now_us(self) -> int:
        """A clock that never goes back, in microseconds."""

    def alive_nodes(self) -> Sequence[int]:
        """Ids of the nodes that are thought to be up, this one included; sorted."""

    def leadership(self, topic: str, partition: int) -> Leadership:
        """Also for partitions that have no replica here."""

    @property
    def log_directory(self) -> str:
        """Where this node keeps its records, as its operator named it."""

    def partitions(self) -> Sequence[PartitionBackend]:
        """All replicas on this node, in order of topic and number."""

    def partition(self, topic: str, partition: int) -> PartitionBackend | None:
        """The replica on this node; None where there is none (yet)."""

    async def propose_metadata(self, command: bytes, timeout_s: float) -> MetadataResult:
        """Replicate a `machines.metadata.encode_command` and return its result, once applied here.

        Any node may be asked: it forwards.  Raises NotLeader (no leader known), ProposalDropped, ProposalLost or
        OutcomeUnknown (`timeout_s` passed).
        """

    def new_request_id(self) -> bytes:
        """16 bytes that no other command of the cluster carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """How this broker answers; the same for all its connections."""

    auto_create_topics: bool = False
    default_partitions: int = 1
    default_replication_factor: int = 3
    max_partitions: int = 10_000  # of one topic
    max_message_bytes: int = 1 << 20  # of one record batch, as Kafka's message.max.bytes
    fetch_max_bytes: int = 55 << 20  # of one Fetch response, as Kafka's fetch.max.bytes
    fetch_from_followers: bool = True  # KIP-392
    follower_staleness_max_ms: int = 10_000  # of what a follower shows; 0: as old as it is
    spread_readers: bool = False  # also those without a rack, over all replicas
    leader_patience_ms: int = 1_000  # how long a fetch waits for a leader to be there, and to vouch
    syncs: bool = True  # a record is on disk, and not only in a page cache, before it is acknowledged
    metadata_timeout_ms: int = 15_000  # for a command of ours, where the client names no timeout
    groups: GroupSettings = field(default_factory=GroupSettings)
