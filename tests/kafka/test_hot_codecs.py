"""The codecs of Produce and Fetch that are written by hand against the one that is generated."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kafka_python import random_message

from seatrial.kafka import fetch_codec, produce_codec
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.fetch_codec import PartitionData, TopicFetch
from seatrial.kafka.produce_codec import Endpoint, LeaderHint, PartitionResult, TopicResult
from seatrial.kafka.wire import MalformedMessage

SAMPLES = 10
PRODUCE = range(3, 13)
FETCH = range(4, 18)
ENDPOINTS = [Endpoint(3, "host-é", 9092, None), Endpoint(4, "b", 1, "rack")]


@pytest.mark.parametrize("version", PRODUCE)
def test_produce_requests_are_read_as_kafka_defines_them(version: int) -> None:
    codec, rng = message("ProduceRequest"), random.Random(version)
    for _ in range(SAMPLES):
        original = random_message(codec, version, rng)
        encoded = bytes(codec.encode(original, version))
        request = produce_codec.decode_request(memoryview(b"xyz" + encoded), 3, version)
        assert (request.transactional_id, request.acks, request.timeout_ms) == (
            original.transactional_id,
            original.acks,
            original.timeout_ms,
        )
        assert [(t.name, [(p.partition, p.records) for p in t.partitions]) for t in request.topics] == [
            (t.name, [(p.index, p.records) for p in t.partition_data]) for t in original.topic_data
        ]
        for length in range(min(len(encoded), 100)):
            with pytest.raises(MalformedMessage):
                produce_codec.decode_request(memoryview(encoded[:length]), 0, version)


def test_records_of_a_produce_request_are_a_view_of_the_frame() -> None:
    codec = message("ProduceRequest")
    data = codec.structure("PartitionProduceData")(index=0, records=b"records")
    topic = codec.structure("TopicProduceData")(name="t", partition_data=[data])
    frame = bytes(codec.encode(codec.new(acks=-1, topic_data=[topic]), 9))
    (found,) = produce_codec.decode_request(memoryview(frame), 0, 9).topics[0].partitions
    assert found.records is not None
    assert found.records.obj is frame


@pytest.mark.parametrize("version", PRODUCE)
def test_produce_responses_are_written_as_kafka_defines_them(version: int) -> None:
    good = PartitionResult(0, ErrorCode.NONE, 1 << 40, 17)
    moved = PartitionResult(5, ErrorCode.NOT_LEADER_OR_FOLLOWER, message="é" * 200, leader=LeaderHint(3, 9))
    topics = [TopicResult("a", [good, moved]), TopicResult("long" * 60, []), TopicResult("b", [good] * 200)]
    for endpoints in ([], ENDPOINTS):
        encoded = bytes(produce_codec.encode_response(topics, endpoints, version))
        codec = message("ProduceResponse")
        decoded, end = codec.decode(encoded, 0, version)
        assert end == len(encoded)
        assert bytes(codec.encode(decoded, version)) == encoded
        first, second = decoded.responses[0].partition_responses
        assert (first.index, first.error_code, first.base_offset, first.log_append_time_ms) == (0, 0, 1 << 40, -1)
        assert (second.index, second.error_code, second.base_offset) == (5, 6, -1)
        if version >= 5:
            assert (first.log_start_offset, second.log_start_offset) == (17, -1)
        if version >= 8:
            assert (first.error_message, second.error_message) == (None, "é" * 200)
        if version >= 10:
            assert first.current_leader is None
            assert (second.current_leader.leader_id, second.current_leader.leader_epoch) == (3, 9)
            shown = [Endpoint(e.node_id, e.host, e.port, e.rack) for e in decoded.node_endpoints]
            assert shown == endpoints
        assert [t.name for t in decoded.responses] == [t.name for t in topics]


@pytest.mark.parametrize("version", FETCH)
def test_fetch_requests_are_read_as_kafka_defines_them(version: int) -> None:
    codec, rng = message("FetchRequest"), random.Random(version)
    for _ in range(SAMPLES):
        original = random_message(codec, version, rng)
        encoded = bytes(codec.encode(original, version))
        request = fetch_codec.decode_request(memoryview(b"xyz" + encoded), 3, version)
        assert (request.max_wait_ms, request.min_bytes, request.max_bytes, request.rack, request.session_id) == (
            original.max_wait_ms,
            original.min_bytes,
            original.max_bytes,
            original.rack_id,
            original.session_id,
        )
        assert request.read_committed == (original.isolation_level == 1)
        assert flat(request) == [
            (t.topic, t.topic_id, p.partition, p.current_leader_epoch, p.fetch_offset, p.partition_max_bytes)
            for t in original.topics
            for p in t.partitions
        ]
        for length in range(min(len(encoded), 100)):
            with pytest.raises(MalformedMessage):
                fetch_codec.decode_request(memoryview(encoded[:length]), 0, version)


def flat(request: fetch_codec.FetchRequest) -> list[Any]:
    return [
        (t.name, t.topic_id, p.partition, p.leader_epoch, p.offset, p.max_bytes)
        for t in request.topics
        for p in t.partitions
    ]


@pytest.mark.parametrize("version", FETCH)
@pytest.mark.parametrize("read_committed", [False, True])
def test_fetch_responses_are_written_as_kafka_defines_them(version: int, read_committed: bool) -> None:
    data = PartitionData(0, ErrorCode.NONE, 100, 3, 2, [b"head", memoryview(b"body" * 100)], 404)
    empty = PartitionData(7, ErrorCode.FENCED_LEADER_EPOCH, leader=LeaderHint(3, 9))
    by_id = version >= 13
    topics = [
        (TopicFetch("" if by_id else "first", b"\7" * 16 if by_id else bytes(16), []), [data, empty, data]),
        (TopicFetch("" if by_id else "second", b"\x08" * 16 if by_id else bytes(16), []), []),
    ]
    buffers = fetch_codec.encode_response(
        topics, version, read_committed=read_committed, error=ErrorCode.NONE, endpoints=ENDPOINTS
    )
    assert any(buffer is data.records[1] for buffer in buffers)  # not copied
    encoded = b"".join(buffers)
    codec = message("FetchResponse")
    decoded, end = codec.decode(encoded, 0, version)
    assert end == len(encoded)
    assert bytes(codec.encode(decoded, version)) == encoded
    first, second, third = decoded.responses[0].partitions
    assert (first.partition_index, first.error_code, first.high_watermark, first.last_stable_offset) == (0, 0, 100, 100)
    assert first.records == third.records == b"head" + b"body" * 100
    assert first.aborted_transactions == ([] if read_committed else None)
    assert (second.error_code, second.high_watermark, second.records) == (74, -1, b"")
    if version >= 11:
        assert (first.preferred_read_replica, second.preferred_read_replica) == (2, -1)
    if version >= 12:
        assert (second.current_leader.leader_id, second.current_leader.leader_epoch) == (3, 9)
    if version >= 16:
        assert [e.node_id for e in decoded.node_endpoints] == [3, 4]
    assert [t.topic or t.topic_id for t in decoded.responses] == [t.name or t.topic_id for t, _ in topics]


def test_a_fetch_response_tells_a_top_level_error_from_version_7_on() -> None:
    encoded = b"".join(fetch_codec.encode_response([], 7, error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND))
    decoded, _ = message("FetchResponse").decode(encoded, 0, 7)
    assert (decoded.error_code, decoded.session_id) == (70, 0)
