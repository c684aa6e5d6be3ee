"""One partition as a state machine: which committed entry holds which offsets, and where the log starts.

Rule: an offset is a function of the log's prefix alone.  Record batches stay opaque in their entries; this machine
keeps only what finds them: the next offset, a sparse index-to-offset map, the entries that were refused, the last
batches of each idempotent producer, and where each term began.  Entries without records take no offsets.
The start of the log moves by an entry as well (`encode_trim`), so at the same place on every replica.

**A snapshot holds no records**, so that one which stands for entries that are still needed would lose them on the
replica that installs it.  What a replica is sent is therefore the state just before the first entry that is kept
(`base`), together with all that is known of the entries from there on: which were refused, and what the producers
have written up to `known_to`.  It applies those entries by that knowledge, because the producers of that earlier moment
are not remembered by anybody.
Knows nothing of where entries are stored, and of the inside of a batch.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from enum import IntEnum
from typing import Final, NamedTuple

from seatrial.machines.commands import MalformedCommand
from seatrial.machines.digest import AppliedDigest, Fingerprinted
from seatrial.machines.offset_index import NO_TIMESTAMP, POINT_BYTES, POINT_ENTRIES, LogPoint, OffsetIndex
from seatrial.machines.producers import AppendError, ProducerTable
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, CONFIGURATION, Entry

__all__ = [
    "POINT_BYTES",
    "POINT_ENTRIES",
    "AppendError",
    "AppendOutcome",
    "CommandKind",
    "LogBase",
    "LogPoint",
    "PartitionLog",
    "TrimOutcome",
    "batch_view",
    "encode_append",
    "encode_trim",
    "holds_records",
]

# kind, format version, producer epoch, record count, producer id, base sequence, max timestamp
COMMAND_HEAD: Final = struct.Struct(">BBhiqiq")
TRIM: Final = struct.Struct(">BBq")  # kind, format version, offset
FORMAT_VERSION: Final = 1


class CommandKind(IntEnum):
    """The first byte of a command."""

    APPEND = 1
    TRIM = 2


_TRIMS: Final = bytes([CommandKind.TRIM])
_APPENDS: Final = bytes([CommandKind.APPEND])


def holds_records(command: bytes) -> bool:
    """Whether a command brings records; others only move where the log starts, and help a disk that is full."""
    return command[:1] == _APPENDS


class AppendOutcome(NamedTuple):
    """What became of a batch.  `base_offset` is that of its first record, -1 where it was refused."""

    base_offset: int
    error: AppendError
    duplicate: bool


class TrimOutcome(NamedTuple):
    """Where the log starts after an entry that moves its start."""

    log_start_offset: int


class LogBase(NamedTuple):
    """What the first entry that is kept follows: index and term of the entry before it, and the members then.

    configuration: as the last entry that changed them has it; None where none had by then.
    """

    entry_index: Index
    term: Term
    configuration: bytes | None


def encode_append(
    batch: bytes | bytearray | memoryview,
    *,
    record_count: int,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    max_timestamp: int = NO_TIMESTAMP,
) -> bytes:
    """The command that appends one record batch; the batch's bytes are copied once, into it.

    `producer_id` -1: not idempotent.  `max_timestamp` in milliseconds since 1970.
    """
    head = COMMAND_HEAD.pack(
        CommandKind.APPEND, FORMAT_VERSION, producer_epoch, record_count, producer_id, base_sequence, max_timestamp
    )
    return b"".join((head, batch))


def encode_trim(offset: int) -> bytes:
    """The command that moves the start of the log up to `offset`, or to its end where that is before."""
    return TRIM.pack(CommandKind.TRIM, FORMAT_VERSION, offset)


def batch_view(entry: Entry) -> memoryview:
    """The record batch of an entry that holds records, without a copy."""
    return memoryview(entry.data)[COMMAND_HEAD.size :]


class PartitionLog(Fingerprinted):
    """The state machine of one partition (a `StateMachine`).

    Offsets are 0-based; `high_watermark` is the next offset after the last applied record.
    """

    __slots__ = (
        "_configurations",
        "_epoch_indexes",
        "_epoch_starts",
        "_epochs",
        "_known_to",
        "_log_start_offset",
        "_next_offset",
        "_points",
        "_producers",
        "_refused",
        "_trimmed_at",
    )

    # version, index, chain, next offset, start, known to; counts of refused entries, terms and configurations
    _SNAPSHOT = struct.Struct(">Bq8sqqqIII")
    _CONFIGURATION = struct.Struct(">qI")  # index, bytes
    _SNAPSHOT_VERSION = 2

    def __init__(self) -> None:
        super().__init__()
        self._next_offset = 0
        self._log_start_offset = 0
        self._trimmed_at = Index(0)
        self._points = OffsetIndex()
        self._refused: set[int] = set()  # batches that were; where `_known_to` is ahead, also later ones
        self._known_to = 0  # what is known of entries up to there came with a snapshot; 0: all up to the last one
        self._epochs = array("q")
        self._epoch_starts = array("q")  # offsets
        self._epoch_indexes = array("q")
        self._configurations: list[tuple[int, bytes]] = []
        self._producers = ProducerTable()

    @property
    def high_watermark(self) -> int:
        return self._next_offset

    @property
    def log_start_offset(self) -> int:
        """The first offset that is kept."""
        return self._log_start_offset

    @property
    def kept_bytes(self) -> int:
        """Of the entries that hold the records that are kept."""
        return self._points.kept_bytes

    @property
    def deleted_bytes(self) -> int:
        """Of the entries that held records that are not kept."""
        return self._points.dropped_bytes

    @property
    def last_epoch(self) -> Term:
        """Term of the last applied entry; 0 before the first."""
        return Term(self._epochs[-1]) if self._epochs else Term(0)

    def apply(self, entry: Entry) -> AppendOutcome | TrimOutcome | None:
        """Apply the next committed entry; None for an entry that is no command.

        Raises MalformedCommand for bytes that no version of this machine wrote.
        """
        chain = self._digest.chain
        self._digest.absorb(entry)
        if not self._epochs or entry.term > self._epochs[-1]:
            self._epochs.append(entry.term)
            self._epoch_starts.append(self._next_offset)
            self._epoch_indexes.append(entry.index)
        if entry.kind == CONFIGURATION:
            self._configurations.append((entry.index, entry.data))
        if entry.kind != COMMAND:
            return None
        data = entry.data
        if data.startswith(_TRIMS):
            return self._trim(data)
        epoch, count, producer_id, sequence, timestamp = self._unpack(data)
        if self._known_to >= entry.index:
            if entry.index in self._refused:
                return AppendOutcome(-1, AppendError.NONE, True)
        elif producer_id >= 0:
            error, duplicate_of = self._producers.check(producer_id, epoch, sequence, count)
            if error or duplicate_of >= 0:
                self._refused.add(entry.index)
                return AppendOutcome(duplicate_of, error, duplicate_of >= 0)
            self._producers.remember(producer_id, epoch, sequence, count, self._next_offset)
        base_offset = self._next_offset
        self._next_offset = base_offset + count
        self._points.note(entry.index, base_offset, timestamp, len(data), chain)
        return AppendOutcome(base_offset, AppendError.NONE, False)

    @staticmethod
    def _unpack(data: bytes) -> tuple[int, int, int, int, int]:
        if len(data) < COMMAND_HEAD.size or data[0] != CommandKind.APPEND or data[1] != FORMAT_VERSION:
            raise MalformedCommand(
                f"{len(data)} bytes that begin with {data[:2].hex()!r} are not a command of a partition log"
            )
        _, _, epoch, count, producer_id, sequence, timestamp = COMMAND_HEAD.unpack_from(data)
        return epoch, count, producer_id, sequence, timestamp

    # ---- where the log starts --------------------------------------------------------------------------------------

    def _trim(self, data: bytes) -> TrimOutcome:
        if len(data) != TRIM.size or data[1] != FORMAT_VERSION:
            raise MalformedCommand(f"{len(data)} bytes that begin with {data[:2].hex()!r} do not trim a partition log")
        _, _, offset = TRIM.unpack(data)
        start = min(offset, self._next_offset)
        if start > self._log_start_offset:
            self._log_start_offset = start
            self._trimmed_at = self.applied_index
            self._forget()
        return TrimOutcome(self._log_start_offset)

    def _forget(self) -> None:
        """Drop what is known of entries that nobody needs any more."""
        points, start = self._points, self._log_start_offset
        points.drop(len(points) if start == self._next_offset else points.position_of(start))
        base = self.base()
        self._refused = {index for index in self._refused if index > base.entry_index}
        older = [at for at, (index, _) in enumerate(self._configurations) if index <= base.entry_index]
        del self._configurations[: max(len(older) - 1, 0)]

    @property
    def trimmed_at(self) -> Index:
        """The entry by which the start moved last; 0 where a snapshot that was restored says where it is."""
        return self._trimmed_at

    def base(self) -> LogBase:
        """What the first entry that is needed follows: all up to there may go, from disks as well."""
        first = self._points.at(0)
        index = self.applied_index if first is None else Index(first.entry_index - 1)
        term = bisect_right(self._epoch_indexes, index)
        members = [data for at, data in self._configurations if at <= index]
        return LogBase(index, Term(self._epochs[term - 1] if term else 0), members[-1] if members else None)

    def due(self, *, before_ms: int | None, bytes_max: int | None) -> int:
        """Where the log should start: behind what is older than a time, and what is more than so many bytes.

        In steps of the sparse map, so that as much stays as is allowed, or a little more.  None: for ever, and all.
        """
        points, drop = self._points, 0
        if before_ms is not None:
            drop = points.expired(before_ms)
        if bytes_max is not None:
            drop = max(drop, points.beyond(bytes_max))
        kept = points.at(drop)
        return max(self._next_offset if kept is None else kept.base_offset, self._log_start_offset)

    # ---- finding records -------------------------------------------------------------------------------------------

    def records_of(self, entry: Entry) -> int:
        """How many offsets an applied entry, that is kept, takes: 0 for no-ops, duplicates, refused batches, trims."""
        assert entry.index <= self._digest.index, f"entry {entry.index} is not applied yet"
        if entry.kind != COMMAND or entry.index in self._refused:
            return 0
        if entry.data.startswith(_TRIMS):
            return 0
        count: int = COMMAND_HEAD.unpack_from(entry.data)[3]
        return count

    def locate(self, offset: int) -> LogPoint:
        """A point at or before `offset`, from which a reader walks entries forward by `records_of`.

        For an offset before the first kept one it is the first point; in an empty log the place of the next entry.
        """
        return self._point(self._points.position_of(offset))

    def locate_time(self, timestamp: int) -> LogPoint | None:
        """A point from which the first batch with a maximum timestamp ≥ `timestamp` (ms) is reached by walking on."""
        position = self._points.position_of_time(timestamp, 0)
        return None if position is None else self._point(position)

    def locate_max_timestamp(self, *, first: int = 0) -> tuple[LogPoint, int] | None:
        """A point from which the batch with the greatest timestamp is reached, and that timestamp (ms).

        first: how many points to leave out.  That batch is one of the point's `POINT_ENTRIES`; of the first point's,
        some may be deleted.
        """
        found = self._points.latest(first)
        return None if found is None else (self._point(found[0]), found[1])

    def _point(self, position: int) -> LogPoint:
        return self._points.at(position) or LogPoint(Index(self._digest.index + 1), self._next_offset)

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) of the last term at or below `epoch`, or (-1, -1) (KIP-101, KIP-320).

        For the newest term applied here it is the high watermark; for one that is newer still, (-1, -1); for one
        before the first, (`epoch`, start of the first term), as Kafka's LeaderEpochFileCache answers.
        """
        if not self._epochs or epoch > self._epochs[-1] or epoch < 0:
            return -1, -1
        if epoch == self._epochs[-1]:
            return epoch, self._next_offset
        after = bisect_right(self._epochs, epoch)
        found = self._epochs[after - 1] if after > 0 else epoch
        return found, self._epoch_starts[after]

    # ---- snapshots -------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state, without any record; equal states give equal bytes."""
        return self._packed(self._digest.index, self._digest.chain, self._next_offset, at_base=False)

    def snapshot_at_base(self) -> bytes:
        """For a replica that has no entry after `base` yet: the state there, and what is known of the entries since."""
        first = self._points.at(0)
        if first is None:
            return self.snapshot()
        return self._packed(first.entry_index - 1, self._points.first_chain, first.base_offset, at_base=True)

    def _packed(self, index: int, chain: bytes, next_offset: int, *, at_base: bool) -> bytes:
        known_to = max(self._known_to, self._digest.index)
        refused = sorted(self._refused)
        terms = bisect_right(self._epoch_indexes, index)
        configurations = [known for known in self._configurations if known[0] <= index]
        head = self._SNAPSHOT.pack(
            self._SNAPSHOT_VERSION,
            index,
            chain,
            next_offset,
            self._log_start_offset,
            known_to if known_to > index else 0,
            len(refused),
            terms,
            len(configurations),
        )
        columns = (refused, self._epochs[:terms], self._epoch_starts[:terms], self._epoch_indexes[:terms])
        members = b"".join(self._CONFIGURATION.pack(at, len(data)) + data for at, data in configurations)
        tail = (members, self._points.pack(with_points=not at_base))
        return b"".join((head, *tail, *(struct.pack(f">{len(c)}q", *c) for c in columns), self._producers.pack()))

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises MalformedCommand on a snapshot of an unknown version."""
        if len(data) < self._SNAPSHOT.size or data[0] != self._SNAPSHOT_VERSION:
            raise MalformedCommand(
                f"{len(data)} bytes are not a partition log's snapshot, version {self._SNAPSHOT_VERSION}"
            )
        _, index, chain, next_offset, start, known_to, refused, terms, members = self._SNAPSHOT.unpack_from(data)
        position = self._SNAPSHOT.size
        self._digest = AppliedDigest(index, chain)
        self._next_offset, self._log_start_offset, self._known_to = next_offset, start, known_to
        self._trimmed_at = Index(0)
        self._configurations = []
        for _ in range(members):
            at, size = self._CONFIGURATION.unpack_from(data, position)
            position += self._CONFIGURATION.size
            self._configurations.append((at, data[position : position + size]))
            position += size
        self._points = OffsetIndex()
        position = self._points.unpack(data, position)
        columns: list[array[int]] = []
        for length in (refused, terms, terms, terms):
            columns.append(array("q", struct.unpack_from(f">{length}q", data, position)))
            position += 8 * length
        self._refused, self._epochs, self._epoch_starts, self._epoch_indexes = set(columns[0]), *columns[1:]
        producers = ProducerTable()
        producers.unpack(data, position)
        self._producers = producers
