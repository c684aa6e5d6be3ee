"""One partition as a state machine: which committed entry holds which offsets.

Rule: an offset is a function of the log's prefix alone.  Record batches stay opaque in their entries; this machine
keeps only what finds them: the next offset, a sparse index-to-offset map, the entries that were refused, the last
batches of each idempotent producer, and where each term began.  Entries without records take no offsets.
Knows nothing of where entries are stored, and of the inside of a batch.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from seatrial.machines.commands import MalformedCommand
from seatrial.machines.digest import AppliedDigest, Fingerprinted
from seatrial.machines.producers import AppendError, ProducerTable
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, Entry

__all__ = ["AppendError", "AppendOutcome", "CommandKind", "LogPoint", "PartitionLog", "batch_view", "encode_append"]

# kind, format version, producer epoch, record count, producer id, base sequence, max timestamp
COMMAND_HEAD: Final = struct.Struct(">BBhiqiq")
FORMAT_VERSION: Final = 1
POINT_ENTRIES: Final = 16  # a reader walks at most this many entries from a point of the sparse map ...
POINT_BYTES: Final = 256 << 10  # ... or about this many bytes
NO_TIMESTAMP: Final = -1


class CommandKind(IntEnum):
    """The first byte of a command."""

    APPEND = 1


class AppendOutcome(NamedTuple):
    """What became of a batch.  `base_offset` is that of its first record, -1 where it was refused."""

    base_offset: int
    error: AppendError
    duplicate: bool


class LogPoint(NamedTuple):
    """An entry whose offset is known: the records from that entry on begin at `base_offset`."""

    entry_index: Index
    base_offset: int


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


def batch_view(entry: Entry) -> memoryview:
    """The record batch of an entry that holds records, without a copy."""
    return memoryview(entry.data)[COMMAND_HEAD.size :]


class PartitionLog(Fingerprinted):
    """The state machine of one partition (a `StateMachine`).

    Offsets are 0-based; `high_watermark` is the next offset after the last applied record.
    """

    __slots__ = (
        "_bytes_since_point",
        "_entries_since_point",
        "_epoch_starts",
        "_epochs",
        "_log_start_offset",
        "_next_offset",
        "_point_indexes",
        "_point_offsets",
        "_point_times",
        "_producers",
        "_refused",
    )

    _SNAPSHOT = struct.Struct(">Bq8sqqqqIII")  # version, index, chain, next, start, since point (2), three counts
    _SNAPSHOT_VERSION = 1

    def __init__(self) -> None:
        super().__init__()
        self._next_offset = 0
        self._log_start_offset = 0
        # The sparse map: for each point the entry, its first offset, and the greatest timestamp up to the next point.
        self._point_indexes = array("q")
        self._point_offsets = array("q")
        self._point_times = array("q")
        self._entries_since_point = 0
        self._bytes_since_point = 0
        self._refused: set[int] = set()
        self._epochs = array("q")
        self._epoch_starts = array("q")
        self._producers = ProducerTable()

    @property
    def high_watermark(self) -> int:
        return self._next_offset

    @property
    def log_start_offset(self) -> int:
        """The first offset that is kept on this replica."""
        return self._log_start_offset

    @property
    def last_epoch(self) -> Term:
        """Term of the last applied entry; 0 before the first."""
        return Term(self._epochs[-1]) if self._epochs else Term(0)

    def apply(self, entry: Entry) -> AppendOutcome | None:
        """Apply the next committed entry; None for an entry that is no command.

        Raises MalformedCommand for bytes that no version of this machine wrote.
        """
        self._digest.absorb(entry)
        if not self._epochs or entry.term > self._epochs[-1]:
            self._epochs.append(entry.term)
            self._epoch_starts.append(self._next_offset)
        if entry.kind != COMMAND:
            return None
        data = entry.data
        epoch, count, producer_id, sequence, timestamp = self._unpack(data)
        if producer_id >= 0:
            error, duplicate_of = self._producers.check(producer_id, epoch, sequence, count)
            if error or duplicate_of >= 0:
                self._refused.add(entry.index)
                return AppendOutcome(duplicate_of, error, duplicate_of >= 0)
            self._producers.remember(producer_id, epoch, sequence, count, self._next_offset)
        base_offset = self._next_offset
        self._next_offset = base_offset + count
        self._note_point(entry.index, base_offset, timestamp, len(data))
        return AppendOutcome(base_offset, AppendError.NONE, False)

    @staticmethod
    def _unpack(data: bytes) -> tuple[int, int, int, int, int]:
        if len(data) < COMMAND_HEAD.size or data[0] != CommandKind.APPEND or data[1] != FORMAT_VERSION:
            raise MalformedCommand(
                f"{len(data)} bytes that begin with {data[:2].hex()!r} are not a command of a partition log"
            )
        _, _, epoch, count, producer_id, sequence, timestamp = COMMAND_HEAD.unpack_from(data)
        return epoch, count, producer_id, sequence, timestamp

    def _note_point(self, index: int, base_offset: int, timestamp: int, size: int) -> None:
        """Count an entry with records, and make it a point of the sparse map when the last one is far enough back."""
        times = self._point_times
        if not times or self._entries_since_point >= POINT_ENTRIES or self._bytes_since_point >= POINT_BYTES:
            self._point_indexes.append(index)
            self._point_offsets.append(base_offset)
            times.append(timestamp)
            self._entries_since_point = 1
            self._bytes_since_point = size
            return
        self._entries_since_point += 1
        self._bytes_since_point += size
        if timestamp > times[-1]:
            times[-1] = timestamp

    def records_of(self, entry: Entry) -> int:
        """How many offsets an applied entry takes: 0 for no-ops, duplicates and refused batches."""
        assert entry.index <= self._digest.index, f"entry {entry.index} is not applied yet"
        if entry.kind != COMMAND or entry.index in self._refused:
            return 0
        count: int = COMMAND_HEAD.unpack_from(entry.data)[3]
        return count

    def locate(self, offset: int) -> LogPoint:
        """A point at or before `offset`, from which a reader walks entries forward by `records_of`.

        For an offset before the first kept one it is the first point; in an empty log the place of the next entry.
        """
        position = max(bisect_right(self._point_offsets, offset) - 1, 0)
        return self._point(position)

    def locate_time(self, timestamp: int) -> LogPoint | None:
        """A point from which the first batch with a maximum timestamp ≥ `timestamp` (ms) is reached by walking on."""
        for position, latest in enumerate(self._point_times):
            if latest >= timestamp:
                return self._point(position)
        return None

    def locate_max_timestamp(self) -> tuple[LogPoint, int] | None:
        """A point from which the batch with the greatest timestamp is reached, and that timestamp (ms)."""
        if not self._point_times:
            return None
        latest = max(self._point_times)
        return self._point(self._point_times.index(latest)), latest

    def _point(self, position: int) -> LogPoint:
        if position < len(self._point_indexes):
            return LogPoint(Index(self._point_indexes[position]), self._point_offsets[position])
        return LogPoint(Index(self._digest.index + 1), self._next_offset)

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

    def forget_before(self, first_kept: Index) -> None:
        """The entries before `first_kept` are gone from this replica: the log starts at the next point after them.

        For the owner of the entries to call after compaction, and after `restore` with the first index it holds.
        """
        cut = bisect_left(self._point_indexes, first_kept)
        if cut == 0:
            return
        del self._point_indexes[:cut], self._point_offsets[:cut], self._point_times[:cut]
        start = self._point_offsets[0] if self._point_offsets else self._next_offset
        self._log_start_offset = max(self._log_start_offset, start)
        self._refused = {index for index in self._refused if index >= first_kept}

    def snapshot(self) -> bytes:
        """The whole state, without any record; equal states give equal bytes."""
        refused = sorted(self._refused)
        head = self._SNAPSHOT.pack(
            self._SNAPSHOT_VERSION,
            self._digest.index,
            self._digest.chain,
            self._next_offset,
            self._log_start_offset,
            self._entries_since_point,
            self._bytes_since_point,
            len(self._point_indexes),
            len(refused),
            len(self._epochs),
        )
        columns: Sequence[Sequence[int]] = (
            self._point_indexes,
            self._point_offsets,
            self._point_times,
            refused,
            self._epochs,
            self._epoch_starts,
        )
        return b"".join((head, *(struct.pack(f">{len(c)}q", *c) for c in columns), self._producers.pack()))

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises MalformedCommand on a snapshot of an unknown version."""
        if len(data) < self._SNAPSHOT.size or data[0] != self._SNAPSHOT_VERSION:
            raise MalformedCommand(f"{len(data)} bytes are not a partition log's snapshot, version 1")
        _, index, chain, next_offset, start, entries, size, points, refused, epochs = self._SNAPSHOT.unpack_from(data)
        position = self._SNAPSHOT.size
        columns: list[array[int]] = []
        for length in (points, points, points, refused, epochs, epochs):
            columns.append(array("q", struct.unpack_from(f">{length}q", data, position)))
            position += 8 * length
        self._digest = AppliedDigest(index, chain)
        self._next_offset, self._log_start_offset = next_offset, start
        self._entries_since_point, self._bytes_since_point = entries, size
        self._point_indexes, self._point_offsets, self._point_times = columns[:3]
        self._refused, self._epochs, self._epoch_starts = set(columns[3]), columns[4], columns[5]
        producers = ProducerTable()
        producers.unpack(data, position)
        self._producers = producers
