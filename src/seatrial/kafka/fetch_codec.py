"""Fetch requests and responses by hand, because they are the hot path (versions 4 to 17).

Rule: records are never copied or joined: a response is a list of buffers for `writelines`.  Checked against Kafka's
definition by a test that encodes and decodes every version with the generated codec.
Knows nothing of what is read.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from seatrial.kafka.backend import Buffer
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.produce_codec import Endpoint, LeaderHint, encode_endpoints
from seatrial.kafka.wire import (
    MalformedMessage,
    counted,
    read_string,
    read_uvarint,
    skip_tagged_fields,
    taken,
    uvarint,
)

FLEXIBLE_FROM: Final = 12
TOPIC_IDS_FROM: Final = 13
ENDPOINTS_FROM: Final = 16
NO_TOPIC_ID: Final = bytes(16)

_SHORT: Final = struct.Struct(">h")
_INT: Final = struct.Struct(">i")
_REPLICA_WAIT: Final = struct.Struct(">iiiib")  # replica id, max wait, min bytes, max bytes, isolation level
_WAIT: Final = struct.Struct(">iiib")
_SESSION: Final = struct.Struct(">ii")  # session id, session epoch


class PartitionFetch(NamedTuple):
    """What to read of one partition; `leader_epoch` -1: the client knows none."""

    partition: int
    leader_epoch: int
    offset: int
    max_bytes: int


class TopicFetch(NamedTuple):
    """By name before version 13, by id from then on; the other one is empty."""

    name: str
    topic_id: bytes
    partitions: Sequence[PartitionFetch]


class FetchRequest(NamedTuple):
    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    read_committed: bool
    session_id: int
    topics: Sequence[TopicFetch]
    rack: str


class PartitionData(NamedTuple):
    """The answer for one partition; `records` are whole batches, `size` their bytes."""

    partition: int
    error: ErrorCode
    high_watermark: int = -1
    log_start_offset: int = -1
    preferred_read_replica: int = -1
    records: Sequence[Buffer] = ()
    size: int = 0
    leader: LeaderHint | None = None


def decode_request(data: memoryview, position: int, version: int) -> FetchRequest:
    """The request body that begins at `position`.  Raises MalformedMessage."""
    try:
        return _Reader(data, position, version).request()
    except struct.error as error:
        raise MalformedMessage(f"FetchRequest version {version} ends too early: {error}") from error


def _partition_struct(version: int) -> struct.Struct:
    """Index, leader epoch (9+), offset, last fetched epoch (12+), log start offset (5+), max bytes."""
    epoch, last_epoch = ("i" if version >= 9 else ""), ("i" if version >= 12 else "")
    return struct.Struct(f">i{epoch}q{last_epoch}{'q' if version >= 5 else ''}i")


_PARTITIONS: Final = {version: _partition_struct(version) for version in range(4, 18)}


class _Reader:
    """Walks one request."""

    __slots__ = ("data", "flexible", "position", "version")

    def __init__(self, data: memoryview, position: int, version: int) -> None:
        self.data = data
        self.position = position
        self.version = version
        self.flexible = version >= FLEXIBLE_FROM

    def request(self) -> FetchRequest:
        layout = _REPLICA_WAIT if self.version < 15 else _WAIT
        max_wait_ms, min_bytes, max_bytes, isolation = layout.unpack_from(self.data, self.position)[-4:]
        self.position += layout.size
        session_id = 0
        if self.version >= 7:
            session_id, _ = _SESSION.unpack_from(self.data, self.position)
            self.position += _SESSION.size
        topics = [self.topic() for _ in range(self.count())]
        rack = ""
        if self.version >= 7:
            self.skip_forgotten()
        if self.version >= 11:
            rack = self.string()
        if self.flexible:
            self.skip_tags()
        return FetchRequest(max_wait_ms, min_bytes, max_bytes, isolation == 1, session_id, topics, rack)

    def topic(self) -> TopicFetch:
        name, topic_id = self.topic_key()
        layout, version = _PARTITIONS[self.version], self.version
        partitions: list[PartitionFetch] = []
        for _ in range(self.count()):
            fields = layout.unpack_from(self.data, self.position)
            self.position += layout.size
            if version >= 9:
                partitions.append(PartitionFetch(fields[0], fields[1], fields[2], fields[-1]))
            else:
                partitions.append(PartitionFetch(fields[0], -1, fields[1], fields[-1]))
            if self.flexible:
                self.skip_tags()
        if self.flexible:
            self.skip_tags()
        return TopicFetch(name, topic_id, partitions)

    def topic_key(self) -> tuple[str, bytes]:
        if self.version < TOPIC_IDS_FROM:
            return self.string(), NO_TOPIC_ID
        end = taken(self.data, self.position, 16)
        topic_id = bytes(self.data[self.position : end])
        self.position = end
        return "", topic_id

    def skip_forgotten(self) -> None:
        """Partitions to drop from a fetch session; there are no sessions here (KIP-227)."""
        for _ in range(self.count()):
            self.topic_key()
            count = self.count()
            self.position = taken(self.data, self.position, 4 * count)
            if self.flexible:
                self.skip_tags()

    def count(self) -> int:
        if self.flexible:
            value, self.position = read_uvarint(self.data, self.position)
            return counted(self.data, self.position, value - 1)
        (count,) = _INT.unpack_from(self.data, self.position)
        self.position += 4
        return counted(self.data, self.position, count)

    def string(self) -> str:
        if self.flexible:
            value, self.position = read_uvarint(self.data, self.position)
            length = value - 1
        else:
            (length,) = _SHORT.unpack_from(self.data, self.position)
            self.position += 2
        text, self.position = read_string(self.data, self.position, length)
        return text

    def skip_tags(self) -> None:
        self.position = skip_tagged_fields(self.data, self.position)


def encode_response(
    topics: Sequence[tuple[TopicFetch, Sequence[PartitionData]]],
    version: int,
    *,
    read_committed: bool = False,
    error: ErrorCode = ErrorCode.NONE,
    endpoints: Sequence[Endpoint] = (),
) -> list[Buffer]:
    """The response body as buffers.  `error` is the top-level one; the session id is always 0."""
    flexible = version >= FLEXIBLE_FROM
    out = bytearray(4)  # throttle time
    if version >= 7:
        out += _SHORT.pack(error) + b"\0\0\0\0"
    out += uvarint(len(topics) + 1) if flexible else _INT.pack(len(topics))
    buffers: list[Buffer] = [out]
    for topic, answers in topics:
        if version >= TOPIC_IDS_FROM:
            out += topic.topic_id
        else:
            name = topic.name.encode()
            out += (uvarint(len(name) + 1) if flexible else _SHORT.pack(len(name))) + name
        out += uvarint(len(answers) + 1) if flexible else _INT.pack(len(answers))
        for answer in answers:
            _encode_head(out, answer, version, read_committed)
            if answer.records:
                buffers.extend(answer.records)
                out = bytearray()
                buffers.append(out)
            if flexible:
                _encode_leader(out, answer.leader)
        if flexible:
            out += b"\0"
    if flexible:
        out += encode_endpoints(endpoints) if version >= ENDPOINTS_FROM and endpoints else b"\0"
    return buffers


def _encode_head(out: bytearray, answer: PartitionData, version: int, read_committed: bool) -> None:
    """All of a partition's answer that comes before its records' bytes."""
    # Nothing is transactional here, so the last stable offset is the high watermark.
    out += struct.pack(">ihqq", answer.partition, answer.error, answer.high_watermark, answer.high_watermark)
    if version >= 5:
        out += struct.pack(">q", answer.log_start_offset)
    if version >= FLEXIBLE_FROM:
        out += b"\x01" if read_committed else b"\x00"  # aborted transactions: none, or null where not asked for
    else:
        out += b"\0\0\0\0" if read_committed else b"\xff\xff\xff\xff"
    if version >= 11:
        out += _INT.pack(answer.preferred_read_replica)
    out += uvarint(answer.size + 1) if version >= FLEXIBLE_FROM else _INT.pack(answer.size)


def _encode_leader(out: bytearray, leader: LeaderHint | None) -> None:
    """The partition's tagged fields: CurrentLeader (tag 1) where there is one to tell."""
    if leader is None:
        out += b"\0"
    else:
        out += struct.pack(">BBBiiB", 1, 1, 9, *leader, 0)
