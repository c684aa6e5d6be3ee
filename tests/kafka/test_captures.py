"""Requests recorded from real clients: each is understood, and cut anywhere it harms nobody."""

from __future__ import annotations

import asyncio

import pytest
from captures import Capture, captures
from fake_broker import FakeBroker, Wire, decode_response

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.dispatch import CloseConnection
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.fetch_codec import decode_request as decode_fetch
from seatrial.kafka.produce_codec import decode_request as decode_produce
from seatrial.kafka.records import check_batch, record_times

ALL = captures()
IDS = [
    f"{capture.client}-{ApiKey(capture.api_key).name}-{capture.version}-{number}" for number, capture in enumerate(ALL)
]


def of(client: str, key: ApiKey) -> list[Capture]:
    return [capture for capture in ALL if capture.client.startswith(client) and capture.api_key == key]


def broker_with_the_topic(capture: Capture) -> FakeBroker:
    broker = FakeBroker()
    if capture.api_key != ApiKey.CREATE_TOPICS:
        broker.create("cap", 2)
    return broker


@pytest.mark.parametrize("capture", ALL, ids=IDS)
def test_a_recorded_request_is_answered_without_an_error(capture: Capture) -> None:
    async def scenario() -> None:
        wire = Wire(broker_with_the_topic(capture))
        for earlier in of(capture.client, ApiKey.PRODUCE):
            if capture.api_key == ApiKey.PRODUCE and earlier is not capture:
                await wire.start_frame(earlier.frame)  # an idempotent producer's batches come in order
            else:
                break
        started = wire.start_frame(capture.frame)
        if capture.api_key == ApiKey.FETCH:
            # Recorded while the topic was empty or of another id: it waits, or asks for what is not here.
            if not isinstance(started, list):
                started.cancel()
            return
        response = started if isinstance(started, list) else await asyncio.wait_for(started, 5)
        correlation = int.from_bytes(capture.frame[4:8], "big")
        decoded = decode_response(ApiKey(capture.api_key), capture.version, response, correlation)
        assert errors_in(decoded) <= {0}, decoded

    asyncio.run(scenario())


def errors_in(decoded: object) -> set[int]:
    """All error codes of a response, however deep."""
    if isinstance(decoded, list):
        return set().union(*(errors_in(item) for item in decoded)) if decoded else set()
    found: set[int] = set()
    for name in getattr(decoded, "__slots__", ()):
        value = getattr(decoded, name)
        found |= {value} if name == "error_code" else errors_in(value)
    return found


@pytest.mark.parametrize("capture", ALL, ids=IDS)
def test_a_recorded_request_cut_at_any_byte_closes_the_connection_or_is_answered(capture: Capture) -> None:
    async def scenario() -> None:
        for length in range(len(capture.frame)):
            wire = Wire(broker_with_the_topic(capture))
            try:
                started = wire.start_frame(capture.frame[:length])
            except CloseConnection as refused:
                assert refused.reason
                continue
            if started is not None and not isinstance(started, list):
                started.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("client", ["librdkafka", "kafka-python", "aiokafka"])
def test_batches_of_real_producers_are_good(client: str) -> None:
    for capture in of(client, ApiKey.PRODUCE):
        header = 10 + int.from_bytes(capture.frame[8:10], "big") + (1 if capture.version >= 9 else 0)
        request = decode_produce(memoryview(capture.frame), header, capture.version)
        assert request.acks == -1
        ((partition, records),) = request.topics[0].partitions
        assert request.topics[0].name == "cap"
        assert records is not None
        info = check_batch(records, 1 << 20)
        times = record_times(records)
        if partition == 0:  # the idempotent one, not compressed
            assert (info.producer_id, info.producer_epoch) == (0, 0)
            assert times == [1700000000000 + info.base_sequence + i for i in range(info.record_count)]
        else:  # gzip
            assert (info.record_count, info.producer_id, times) == (50, -1, None)


@pytest.mark.parametrize("client", ["librdkafka", "kafka-python", "aiokafka"])
def test_fetches_of_real_consumers_are_read(client: str) -> None:
    (capture,) = of(client, ApiKey.FETCH)
    header = 10 + int.from_bytes(capture.frame[8:10], "big") + (1 if capture.version >= 12 else 0)
    request = decode_fetch(memoryview(capture.frame), header, capture.version)
    assert (request.max_wait_ms, request.min_bytes, request.session_id) == (500, 1, 0)
    assert [partition.partition for topic in request.topics for partition in topic.partitions]
    assert all(topic.name == ("cap" if capture.version < 13 else "") for topic in request.topics)


def test_a_recorded_gzip_batch_is_served_back_as_it_came() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        broker.create("cap", 2)
        wire = Wire(broker)
        for capture in of("librdkafka", ApiKey.PRODUCE):
            await wire.start_frame(capture.frame)
        for partition, count in ((0, 3), (1, 50)):
            replica = broker.replicas["cap", partition]
            assert replica.high_watermark == count
            buffers, _ = replica.read(0, 1 << 20)
            assert check_batch(b"".join(buffers), 1 << 20).record_count == count

    asyncio.run(scenario())


def test_a_repeated_request_of_an_idempotent_producer_adds_nothing() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        broker.create("cap", 2)
        wire = Wire(broker)
        frame = of("kafka-python", ApiKey.PRODUCE)[0].frame
        for _ in range(3):
            response = decode_response(
                ApiKey.PRODUCE, 9, await wire.start_frame(frame), int.from_bytes(frame[4:8], "big")
            )
            result = response.responses[0].partition_responses[0]
            assert (result.error_code, result.base_offset) == (ErrorCode.NONE, 0)
        assert broker.replicas["cap", 0].high_watermark == 3

    asyncio.run(scenario())
