"""The bytes of a segment file: entry frames and batch frames, packed and read back.

A frame is a 28-byte header (CRC32C, data length, kind, term, index) and its data; the CRC covers all but itself and
is seeded with the group and the segment's sequence number, so that a frame that strayed from another file never
passes.  Kind 0 is the zero that preallocated space reads as: it ends the log.

Every write of a group begins with one *batch frame*.  It carries
- the group's HardState, so that one sync covers votes and entries (as in etcd's WAL);
- how far the log was known durable when the batch was written: a later batch proves an earlier one (see recovery);
- its own position, and the index that the log expects next: a stale or misplaced batch is not taken for a real one.

Rule: reading never raises on any bytes; it yields what is whole and says where and why it stopped.
Knows nothing of files, of groups' states or of what is to be done about damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from seatrial.env import Buffer
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import Entry, HardState
from seatrial.storage.checksum import extend

FRAME: Final = struct.Struct("<IIBxxxQQ")  # crc, data length, kind, term, index
_CHECKED: Final = struct.Struct("<IBxxxQQ")  # the part of it that the crc covers
_CRC: Final = struct.Struct("<I")
_BATCH: Final = struct.Struct("<8sBxxxIQIQIQQQQ")
_SEED: Final = struct.Struct("<QQ")
BATCH_MAGIC: Final = b"\x93SeaBat\n"
FORMAT_VERSION: Final = 1
BATCH_KIND: Final = 0xB7
_FIRST_ENTRY_KIND: Final = 1  # on disk an entry's kind is one more, so that zeros are no frame
_LAST_ENTRY_KIND: Final = 127
BATCH_SIZE: Final = FRAME.size + _BATCH.size
_ZEROS: Final = bytes(FRAME.size)


class Place(NamedTuple):
    """A position in a group's chain of segments; compares in the order of writing."""

    sequence: int  # of the segment, from 1
    offset: int  # bytes


NOWHERE: Final = Place(0, 0)  # before every place


@dataclass(slots=True, kw_only=True)  # one for each save: frozen, it takes half as long again to make
class Batch:
    """What a batch frame says."""

    group: GroupId
    place: Place  # of this frame itself
    durable: Place  # everything before it survived a power cut when this was written
    previous_end: int  # in a segment's first batch: where the segment before it ended
    resets: bool  # the log begins anew here, behind a snapshot; earlier segments mean nothing
    next_index: Index  # the log's last index + 1 before this batch
    hard_state: HardState

    def packed(self) -> bytes:
        data = _BATCH.pack(
            BATCH_MAGIC,
            FORMAT_VERSION,
            int(self.resets),
            self.group,
            self.place.sequence,
            self.place.offset,
            self.durable.sequence,
            self.durable.offset,
            self.previous_end,
            self.hard_state.voted_for or 0,
            self.hard_state.commit_index,
        )
        checked = _CHECKED.pack(len(data), BATCH_KIND, self.hard_state.term, self.next_index)
        crc = extend(extend(seed_of(self.group, self.place.sequence), checked), data)
        return b"".join((_CRC.pack(crc), checked, data))


class Frame(NamedTuple):
    """One whole frame of a segment; `kind` is an entry's kind, or BATCH_KIND with `batch`."""

    offset: int
    length: int  # header and data, bytes
    kind: int
    term: int
    log_index: int
    batch: Batch | None


def seed_of(group: GroupId, sequence: int) -> int:
    """The checksum that frames of this segment start from."""
    return extend(0, _SEED.pack(group, sequence))


def pack_entries(entries: Sequence[Entry], seed: int, into: list[Buffer]) -> list[int]:
    """Append the frames' buffers to `into`, payloads as they are (not copied); returns each frame's length."""
    pack, pack_crc, header_size = _CHECKED.pack, _CRC.pack, FRAME.size
    append = into.append
    lengths: list[int] = []
    for entry in entries:
        data = entry.data
        checked = pack(len(data), entry.kind + _FIRST_ENTRY_KIND, entry.term, entry.index)
        append(pack_crc(extend(extend(seed, checked), data)) + checked)
        if data:
            append(data)
        lengths.append(header_size + len(data))
    return lengths


def unpack_entry(content: bytes, start: int, length: int, seed: int) -> Entry | None:
    """The entry in a frame of exactly `length` bytes that begins at `start`; None where its checksum does not hold."""
    begin, end = start + FRAME.size, start + length
    if length < FRAME.size or end > len(content):
        return None
    crc, data_length, kind, term, index = FRAME.unpack_from(content, start)
    if data_length != end - begin or not _FIRST_ENTRY_KIND <= kind <= _LAST_ENTRY_KIND:
        return None
    data = content[begin:end]
    if extend(extend(seed, content[start + _CRC.size : begin]), data) != crc:
        return None
    return Entry(Term(term), Index(index), kind - _FIRST_ENTRY_KIND, data)


class FrameScan:
    """Iterates over the whole frames of a segment; afterwards `end` is where they stopped and `problem` why.

    `problem` is None when the segment ends with the file or with nothing but zeros.
    """

    def __init__(self, content: bytes, group: GroupId, sequence: int) -> None:
        self._content = content
        self._group = group
        self._sequence = sequence
        self._seed = seed_of(group, sequence)
        self.end = 0
        self.problem: str | None = None

    def __iter__(self) -> Iterator[Frame]:
        content, size, header_size = self._content, len(self._content), FRAME.size
        while self.end < size:
            offset = self.end
            header = content[offset : offset + header_size]
            if len(header) < header_size or header == _ZEROS:
                if content[offset:].strip(b"\0"):
                    self.problem = "bytes that are no frame after the last frame"
                return
            crc, length, kind, term, index = FRAME.unpack(header)
            data = content[offset + header_size : offset + header_size + length]
            if len(data) < length:
                self.problem = f"a frame of {length} data bytes goes beyond the end of the file"
                return
            if extend(extend(self._seed, header[4:]), data) != crc:
                self.problem = "a frame's checksum does not hold"
                return
            batch = None
            if kind == BATCH_KIND:
                batch = _unpack_batch(data, term, index)
                if batch is None or batch.place != (self._sequence, offset) or batch.group != self._group:
                    self.problem = "a batch frame that belongs elsewhere, or of another format version"
                    return
            elif not _FIRST_ENTRY_KIND <= kind <= _LAST_ENTRY_KIND:
                self.problem = f"a frame of the unknown kind {kind}"
                return
            else:
                kind -= _FIRST_ENTRY_KIND
            yield Frame(offset, header_size + length, kind, term, index, batch)
            self.end = offset + header_size + length


def whole_batches(content: bytes, group: GroupId, sequence: int, start: int) -> Iterator[Batch]:
    """Batch frames at or after `start`, found by their magic: what can still be read behind damage."""
    seed = seed_of(group, sequence)
    at = content.find(BATCH_MAGIC, start + FRAME.size)
    while at >= 0:
        offset = at - FRAME.size
        frame = content[offset : offset + BATCH_SIZE]
        if len(frame) == BATCH_SIZE:
            crc, length, kind, term, index = FRAME.unpack_from(frame)
            data = frame[FRAME.size :]
            if kind == BATCH_KIND and length == len(data):
                batch = _unpack_batch(data, term, index)
                checks = extend(extend(seed, frame[4 : FRAME.size]), data) == crc
                if batch is not None and checks and batch.place == (sequence, offset) and batch.group == group:
                    yield batch
        at = content.find(BATCH_MAGIC, at + 1)


def first_batch(content: bytes, group: GroupId, sequence: int) -> Batch | None:
    """The batch frame that a segment begins with, or None where there is no whole one."""
    for frame in FrameScan(content[:BATCH_SIZE], group, sequence):
        return frame.batch
    return None


def _unpack_batch(data: bytes, term: int, next_index: int) -> Batch | None:
    if len(data) != _BATCH.size:
        return None
    (magic, version, resets, group, sequence, offset, durable_sequence, durable_offset, previous_end, vote, commit) = (
        _BATCH.unpack(data)
    )
    if magic != BATCH_MAGIC or version != FORMAT_VERSION:
        return None
    return Batch(
        group=GroupId(group),
        place=Place(sequence, offset),
        durable=Place(durable_sequence, durable_offset),
        previous_end=previous_end,
        resets=bool(resets),
        next_index=Index(next_index),
        hard_state=HardState(Term(term), NodeId(vote) if vote else None, Index(commit)),
    )
