"""Produce: when it is answered, with what, and what is never acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire
from kafka_records import batch

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import NotLeader, OutcomeUnknown, ProposalDropped, ProposalLost
from seatrial.kafka.codec import message
from seatrial.kafka.dispatch import CloseConnection
from seatrial.kafka.errors import ErrorCode


def topic_data(name: str, *partitions: tuple[int, bytes | None]) -> Any:
    codec = message("ProduceRequest")
    data = codec.structure("PartitionProduceData")
    return codec.structure("TopicProduceData")(
        name=name, partition_data=[data(index=index, records=records) for index, records in partitions]
    )


def fields(*topics: Any, acks: int = -1, timeout_ms: int = 5000, transactional_id: str | None = None) -> dict[str, Any]:
    return {"acks": acks, "timeout_ms": timeout_ms, "topic_data": topics, "transactional_id": transactional_id}


async def produce(wire: Wire, *partitions: tuple[int, bytes | None], version: int = 10, **options: Any) -> list[Any]:
    """The results for topic "t"."""
    response = await wire.ask(ApiKey.PRODUCE, version, **fields(topic_data("t", *partitions), **options))
    results: list[Any] = response.responses[0].partition_responses
    return results


def broker_with_topic(partitions: int = 1, **configs: str) -> FakeBroker:
    broker = FakeBroker()
    broker.create("t", partitions, **configs)
    return broker


@pytest.mark.parametrize("version", range(3, 13))
@pytest.mark.parametrize("acks", [1, -1])
def test_records_get_their_offsets_in_every_version(version: int, acks: int) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        wire = Wire(broker)
        for base in (0, 2):
            (result,) = await produce(wire, (0, batch([b"a", b"b"])), version=version, acks=acks)
            assert (result.index, result.error_code, result.base_offset) == (0, 0, base)
        assert broker.replicas["t", 0].high_watermark == 4

    asyncio.run(scenario())


@pytest.mark.parametrize("acks", [1, -1])
def test_nothing_is_acknowledged_before_it_is_committed(acks: int) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        partition.held = True
        started = Wire(broker).start(ApiKey.PRODUCE, 9, **fields(topic_data("t", (0, batch())), acks=acks))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not started.done()
        partition.commit()
        await asyncio.wait_for(started, 1)

    asyncio.run(scenario())


def test_work_starts_when_the_request_is_parsed_and_in_the_order_of_requests() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].held = True
        wire = Wire(broker)
        started = [wire.start(ApiKey.PRODUCE, 9, **fields(topic_data("t", (0, batch([b"x"] * n))))) for n in (1, 2, 3)]
        broker.replicas["t", 0].commit()  # before any of the futures was awaited
        await asyncio.gather(*started)
        assert broker.replicas["t", 0].high_watermark == 6

    asyncio.run(scenario())


def test_a_request_for_several_partitions_is_answered_when_all_are_there() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(3)
        slow = broker.replicas["t", 2]
        slow.held = True
        task = asyncio.ensure_future(produce(Wire(broker), (0, batch()), (2, batch()), (1, b"junk"), (7, batch())))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        slow.commit()
        results = await task
        assert [(r.index, r.error_code) for r in results] == [(0, 0), (2, 0), (1, 2), (7, 3)]

    asyncio.run(scenario())


def test_acks_0_is_never_answered_and_still_appended() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        assert Wire(broker).start(ApiKey.PRODUCE, 9, **fields(topic_data("t", (0, batch())), acks=0)) is None
        assert broker.replicas["t", 0].high_watermark == 1

    asyncio.run(scenario())


def test_acks_0_that_fails_closes_the_connection() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].lead(2, leader_id=3, is_leader=False)
        with pytest.raises(CloseConnection, match=r"acks=0 to t/0 failed: NOT_LEADER_OR_FOLLOWER"):
            Wire(broker).start(ApiKey.PRODUCE, 9, **fields(topic_data("t", (0, batch())), acks=0))

    asyncio.run(scenario())


def test_a_follower_refuses_and_names_the_leader_and_its_address() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].lead(4, leader_id=3, is_leader=False)
        wire = Wire(broker)
        response = await wire.ask(ApiKey.PRODUCE, 10, **fields(topic_data("t", (0, batch()))))
        result = response.responses[0].partition_responses[0]
        assert result.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (result.current_leader.leader_id, result.current_leader.leader_epoch) == (3, 4)
        assert [(e.node_id, e.host, e.port, e.rack) for e in response.node_endpoints] == [(3, "kafka3", 9093, "rack3")]
        assert broker.replicas["t", 0].high_watermark == 0

    asyncio.run(scenario())


def test_a_partition_that_is_elsewhere_is_not_led_here_and_one_that_is_nowhere_is_unknown() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(2)
        del broker.replicas["t", 1]
        elsewhere, nowhere = await produce(Wire(broker), (1, batch()), (2, batch()))
        assert elsewhere.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert elsewhere.current_leader.leader_id == 2
        assert nowhere.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (None, ErrorCode.INVALID_RECORD),
        (b"", ErrorCode.INVALID_RECORD),
        (batch()[:-1], ErrorCode.CORRUPT_MESSAGE),
        (batch()[:-1] + b"\xff", ErrorCode.CORRUPT_MESSAGE),
        (batch(magic=1), ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (batch([b"x" * 3000]), ErrorCode.MESSAGE_TOO_LARGE),
    ],
    ids=["null", "empty", "cut", "crc", "magic", "large"],
)
def test_bad_records_are_refused_with_a_message_and_nothing_is_appended(
    records: bytes | None, error: ErrorCode
) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        (result,) = await produce(Wire(broker, max_message_bytes=2000), (0, records))
        assert result.error_code == error
        assert result.error_message
        assert broker.replicas["t", 0].high_watermark == 0

    asyncio.run(scenario())


def test_a_topic_s_own_max_message_bytes_counts() -> None:
    async def scenario() -> None:
        wire = Wire(broker_with_topic(max_message_bytes="100"))
        codes = [(await produce(wire, (0, batch([b"x" * size]))))[0].error_code for size in (1, 100)]
        assert codes == [ErrorCode.NONE, ErrorCode.MESSAGE_TOO_LARGE]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(NotLeader(2), ErrorCode.NOT_LEADER_OR_FOLLOWER), (ProposalDropped("too much"), ErrorCode.NOT_ENOUGH_REPLICAS)],
)
def test_an_append_that_is_refused_says_that_nothing_was_written(refusal: Exception, error: ErrorCode) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].refuse_with = refusal
        (result,) = await produce(Wire(broker), (0, batch()))
        assert (result.error_code, result.base_offset) == (error, -1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (ProposalLost("overwritten"), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (OutcomeUnknown("leadership lost"), ErrorCode.REQUEST_TIMED_OUT),
        (RuntimeError("a bug"), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_an_append_that_is_lost_says_whether_it_may_be_there(end: Exception, error: ErrorCode) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        partition.held = True
        task = asyncio.ensure_future(produce(Wire(broker), (0, batch())))
        await asyncio.sleep(0)
        partition.lose(end)
        (result,) = await task
        assert (result.error_code, result.base_offset) == (error, -1)

    asyncio.run(scenario())


def test_a_timeout_answers_what_is_there_and_times_out_the_rest() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(2)
        slow = broker.replicas["t", 1]
        slow.held = True
        done, late = await produce(Wire(broker), (0, batch()), (1, batch()), timeout_ms=1)
        assert (done.error_code, late.error_code) == (ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT)
        slow.commit()  # too late for the answer, and no harm
        await asyncio.sleep(0)
        assert slow.high_watermark == 1

    asyncio.run(scenario())


def test_a_client_that_is_gone_does_not_stop_its_records() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        partition.held = True
        started = Wire(broker).start(ApiKey.PRODUCE, 9, **fields(topic_data("t", (0, batch()))))
        started.cancel()
        partition.commit()
        await asyncio.sleep(0)
        assert partition.high_watermark == 1

    asyncio.run(scenario())


def test_idempotent_batches_are_written_once_in_order_and_fenced_by_epoch() -> None:
    async def scenario() -> None:
        wire = Wire(broker_with_topic())

        async def send(sequence: int, epoch: int = 1) -> tuple[int, int]:
            (result,) = await produce(wire, (0, batch(producer_id=9, epoch=epoch, sequence=sequence)))
            return result.error_code, result.base_offset

        assert await send(0) == (0, 0)
        assert await send(2) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
        assert await send(1) == (0, 1)
        assert await send(0) == (0, 0)
        assert await send(2, epoch=0) == (ErrorCode.INVALID_PRODUCER_EPOCH, -1)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"acks": 2}, ErrorCode.INVALID_REQUIRED_ACKS),
        ({"acks": -2}, ErrorCode.INVALID_REQUIRED_ACKS),
        ({"transactional_id": "tx"}, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    ],
)
def test_what_is_not_supported_is_refused_for_every_partition(options: dict[str, Any], error: ErrorCode) -> None:
    async def scenario() -> None:
        broker = broker_with_topic(2)
        results = await produce(Wire(broker), (0, batch()), (1, batch()), **options)
        assert [result.error_code for result in results] == [error, error]
        assert all(result.error_message for result in results)
        assert broker.replicas["t", 0].high_watermark == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("version", [0, 1, 2])
def test_versions_that_are_advertised_for_old_clients_alone_are_not_served(version: int) -> None:
    with pytest.raises(CloseConnection, match="Produce version"):
        Wire(FakeBroker()).start_frame(b"\0\0" + version.to_bytes(2, "big") + b"\0\0\0\1\xff\xff" + bytes(20))
