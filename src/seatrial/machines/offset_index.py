"""The sparse map of one partition: which entry holds which offsets, how late and how large what follows it is.

A point is made of every so many entries with records, or so many bytes; of each it is known where it is, the digest of
all before it, the bytes before it, and the greatest timestamp up to the next point.
Rule: a function of the log's prefix alone, so that every replica has the same points and finds the same records due.
Knows nothing of what is committed, and of the inside of a batch.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from seatrial.raft.ids import Index

POINT_ENTRIES: Final = 16  # a reader walks at most this many entries from a point ...
POINT_BYTES: Final = 256 << 10  # ... or about this many bytes
NO_TIMESTAMP: Final = -1


class LogPoint(NamedTuple):
    """An entry whose offset is known: the records from that entry on begin at `base_offset`."""

    entry_index: Index
    base_offset: int


class OffsetIndex:
    """Points in the order of the log."""

    __slots__ = (
        "_bytes_since_point",
        "_chains",
        "_entries_since_point",
        "_indexes",
        "_offsets",
        "_sizes",
        "_times",
        "total_bytes",
    )

    _HEAD = struct.Struct(">QIII")  # all bytes ever, since the last point entries and bytes, number of points

    def __init__(self) -> None:
        self._indexes = array("q")
        self._offsets = array("q")
        self._times = array("q")
        self._sizes = array("q")  # bytes of all entries with records before the point, those that are gone included
        self._chains = array("Q")  # the digest up to the entry before the point
        self._entries_since_point = 0
        self._bytes_since_point = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._indexes)

    @property
    def kept_bytes(self) -> int:
        """Of the entries with records from the first point on."""
        return self.total_bytes - self._sizes[0] if self._sizes else 0

    @property
    def dropped_bytes(self) -> int:
        """Of those before the first point."""
        return self.total_bytes - self.kept_bytes

    def note(self, index: int, base_offset: int, timestamp: int, size: int, chain: bytes) -> None:
        """Count an entry with records, and make it a point when the last one is far enough back.

        chain: of the digest before the entry.
        """
        times = self._times
        if not times or self._entries_since_point >= POINT_ENTRIES or self._bytes_since_point >= POINT_BYTES:
            self._indexes.append(index)
            self._offsets.append(base_offset)
            times.append(timestamp)
            self._sizes.append(self.total_bytes)
            self._chains.append(int.from_bytes(chain, "big"))
            self._entries_since_point = self._bytes_since_point = 0
        elif timestamp > times[-1]:
            times[-1] = timestamp
        self._entries_since_point += 1
        self._bytes_since_point += size
        self.total_bytes += size

    def at(self, position: int) -> LogPoint | None:
        """The point at a position; None behind the last one."""
        if position >= len(self._indexes):
            return None
        return LogPoint(Index(self._indexes[position]), self._offsets[position])

    @property
    def first_chain(self) -> bytes:
        """The digest before the first point, of which there must be one."""
        return self._chains[0].to_bytes(8, "big")

    def position_of(self, offset: int) -> int:
        """Of the last point at or before `offset`, or the first one."""
        return max(bisect_right(self._offsets, offset) - 1, 0)

    def position_of_time(self, timestamp: int, first: int) -> int | None:
        """Of the first point, from position `first` on, whose entries reach `timestamp` (ms)."""
        for position in range(first, len(self._times)):
            if self._times[position] >= timestamp:
                return position
        return None

    def latest(self, first: int) -> tuple[int, int] | None:
        """(position, timestamp) of the point, from position `first` on, with the greatest timestamp in ms."""
        times = self._times[first:]
        if not times:
            return None
        latest = max(times)
        return first + times.index(latest), latest

    def expired(self, before_ms: int) -> int:
        """How many points, from the first on, hold nothing as late as `before_ms`; one without a time stays."""
        for position, latest in enumerate(self._times):
            if latest == NO_TIMESTAMP or latest >= before_ms:
                return position
        return len(self._times)

    def beyond(self, bytes_max: int) -> int:
        """How many points, from the first on, can go with `bytes_max` bytes still there behind them."""
        if bytes_max <= 0:
            return len(self._sizes)
        return max(bisect_right(self._sizes, self.total_bytes - bytes_max) - 1, 0)

    def drop(self, count: int) -> None:
        """Forget the first so many points."""
        for column in (self._indexes, self._offsets, self._times, self._sizes, self._chains):
            del column[:count]

    def pack(self, *, with_points: bool = True) -> bytes:
        """All of it; or, without points, as it was before the first of them."""
        if not with_points and self._sizes:
            return self._HEAD.pack(self._sizes[0], 0, 0, 0)
        columns = (self._indexes, self._offsets, self._times, self._sizes)
        count = len(self._indexes)
        head = self._HEAD.pack(self.total_bytes, self._entries_since_point, self._bytes_since_point, count)
        chains = struct.pack(f">{count}Q", *self._chains)
        return b"".join((head, *(struct.pack(f">{count}q", *column) for column in columns), chains))

    def unpack(self, data: bytes, position: int) -> int:
        """Replace it by a packed one that begins at `position`; returns the position after it."""
        self.total_bytes, entries, size, count = self._HEAD.unpack_from(data, position)
        self._entries_since_point, self._bytes_since_point = entries, size
        position += self._HEAD.size
        columns: list[array[int]] = []
        for code in "qqqqQ":
            columns.append(array(code, struct.unpack_from(f">{count}{code}", data, position)))
            position += 8 * count
        self._indexes, self._offsets, self._times, self._sizes, self._chains = columns
        return position
