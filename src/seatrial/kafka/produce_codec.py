"""Produce requests and responses by hand, because they are the hot path (versions 3 to 12).

Rule: records are views of the frame; nothing here copies them.  Checked against Kafka's definition by a test that
encodes and decodes every version with the generated codec.  Knows nothing of what is done with records.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.wire import (
    MalformedMessage,
    counted,
    encode_uvarint,
    read_string,
    read_uvarint,
    skip_tagged_fields,
    taken,
    uvarint,
)

FLEXIBLE_FROM: Final = 9
LEADER_HINTS_FROM: Final = 10  # CurrentLeader and NodeEndpoints (KIP-951)
NO_OFFSET: Final = -1

_SHORT: Final = struct.Struct(">h")
_INT: Final = struct.Struct(">i")
_ACKS_TIMEOUT: Final = struct.Struct(">hi")
_RESULT: Final = struct.Struct(">ihqqq")  # index, error, base offset, log append time, log start offset
_RESULT_BEFORE_5: Final = struct.Struct(">ihqq")
_LEADER: Final = struct.Struct(">BBBiiB")  # one tag, number 0, size 9, leader id, leader epoch, no tags


class PartitionRecords(NamedTuple):
    """What to append to one partition; `records` is a view of the frame, None where the request has null."""

    partition: int
    records: memoryview | None


class TopicRecords(NamedTuple):
    name: str
    partitions: Sequence[PartitionRecords]


class ProduceRequest(NamedTuple):
    transactional_id: str | None
    acks: int
    timeout_ms: int
    topics: Sequence[TopicRecords]


class LeaderHint(NamedTuple):
    """The leader that the client should turn to."""

    leader_id: int
    leader_epoch: int


class Endpoint(NamedTuple):
    node_id: int
    host: str
    port: int
    rack: str | None


class PartitionResult(NamedTuple):
    partition: int
    error: ErrorCode
    base_offset: int = NO_OFFSET
    log_start_offset: int = NO_OFFSET
    message: str | None = None
    leader: LeaderHint | None = None


class TopicResult(NamedTuple):
    name: str
    partitions: Sequence[PartitionResult]


def decode_request(data: memoryview, position: int, version: int) -> ProduceRequest:
    """The request body that begins at `position`.  Raises MalformedMessage."""
    try:
        return _decode(data, position, flexible=version >= FLEXIBLE_FROM)
    except struct.error as error:
        raise MalformedMessage(f"ProduceRequest version {version} ends too early: {error}") from error


def _decode(data: memoryview, position: int, *, flexible: bool) -> ProduceRequest:
    length, position = _length(data, position, flexible, _SHORT)
    transactional_id: str | None = None
    if length >= 0:
        transactional_id, position = read_string(data, position, length)
    acks, timeout_ms = _ACKS_TIMEOUT.unpack_from(data, position)
    count, position = _length(data, position + _ACKS_TIMEOUT.size, flexible, _INT)
    topics: list[TopicRecords] = []
    for _ in range(counted(data, position, count)):
        length, position = _length(data, position, flexible, _SHORT)
        name, position = read_string(data, position, length)
        partition_count, position = _length(data, position, flexible, _INT)
        partitions: list[PartitionRecords] = []
        for _ in range(counted(data, position, partition_count)):
            (index,) = _INT.unpack_from(data, position)
            length, position = _length(data, position + 4, flexible, _INT)
            if length < 0:
                partitions.append(PartitionRecords(index, None))
            else:
                end = taken(data, position, length)
                partitions.append(PartitionRecords(index, data[position:end]))
                position = end
            if flexible:
                position = skip_tagged_fields(data, position)
        if flexible:
            position = skip_tagged_fields(data, position)
        topics.append(TopicRecords(name, partitions))
    if flexible:
        skip_tagged_fields(data, position)
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def _length(data: memoryview, position: int, flexible: bool, fixed: struct.Struct) -> tuple[int, int]:
    """(length, position after it); -1 for null."""
    if flexible:
        value, position = read_uvarint(data, position)
        return value - 1, position
    (value,) = fixed.unpack_from(data, position)
    return value, position + fixed.size


def encode_response(results: Sequence[TopicResult], endpoints: Sequence[Endpoint], version: int) -> bytearray:
    """The response body.  `endpoints` of the leaders hinted at are sent where the version has a place for them."""
    flexible = version >= FLEXIBLE_FROM
    out = bytearray(uvarint(len(results) + 1) if flexible else _INT.pack(len(results)))
    for topic in results:
        name = topic.name.encode()
        if flexible:
            out += uvarint(len(name) + 1) + name + uvarint(len(topic.partitions) + 1)
        else:
            out += _SHORT.pack(len(name)) + name + _INT.pack(len(topic.partitions))
        for result in topic.partitions:
            _encode_result(out, result, version)
        if flexible:
            out += b"\0"
    out += b"\0\0\0\0"  # throttle time
    if flexible:
        out += encode_endpoints(endpoints) if version >= LEADER_HINTS_FROM and endpoints else b"\0"
    return out


def _encode_result(out: bytearray, result: PartitionResult, version: int) -> None:
    if version < 5:
        out += _RESULT_BEFORE_5.pack(result.partition, result.error, result.base_offset, -1)
        return
    out += _RESULT.pack(result.partition, result.error, result.base_offset, -1, result.log_start_offset)
    if version < 8:
        return
    text = None if result.message is None else result.message.encode()
    if version < FLEXIBLE_FROM:
        out += b"\0\0\0\0" + (b"\xff\xff" if text is None else _SHORT.pack(len(text)) + text)
        return
    out += b"\x01" + (b"\0" if text is None else uvarint(len(text) + 1) + text)
    if version >= LEADER_HINTS_FROM and result.leader is not None:
        out += _LEADER.pack(1, 0, 9, *result.leader, 0)
    else:
        out += b"\0"


def encode_endpoints(endpoints: Sequence[Endpoint]) -> bytes:
    """The response's tagged-field section with NodeEndpoints (tag 0)."""
    body = bytearray(uvarint(len(endpoints) + 1))
    for endpoint in endpoints:
        host = endpoint.host.encode()
        rack = None if endpoint.rack is None else endpoint.rack.encode()
        body += _INT.pack(endpoint.node_id) + uvarint(len(host) + 1) + host + _INT.pack(endpoint.port)
        body += (b"\0" if rack is None else uvarint(len(rack) + 1) + rack) + b"\0"
    return b"\x01\x00" + encode_uvarint(len(body)) + body
