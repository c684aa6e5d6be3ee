"""ListOffsets and OffsetForLeaderEpoch: never an offset that may be too low."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, FakePartition, Wire
from kafka_records import batch

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.machines.partition_log import encode_append


def list_one(
    broker: FakeBroker, timestamp: int, *, version: int = 9, epoch: int = -1, replica_id: int = -1, **names: Any
) -> Any:
    async def scenario() -> Any:
        codec = message("ListOffsetsRequest")
        partition = codec.structure("ListOffsetsPartition")(
            partition_index=names.get("partition", 0), timestamp=timestamp, current_leader_epoch=epoch
        )
        topic = codec.structure("ListOffsetsTopic")(name=names.get("topic", "t"), partitions=[partition])
        response = await Wire(broker).ask(ApiKey.LIST_OFFSETS, version, replica_id=replica_id, topics=[topic])
        return response.topics[0].partitions[0]

    return asyncio.run(scenario())


async def _append(partition: FakePartition, times: list[int]) -> None:
    data = batch([b"x"] * len(times), times=times)
    await partition.append(encode_append(data, record_count=len(times), max_timestamp=max(times)))


def broker_with_records() -> FakeBroker:
    """Offsets 0 to 4 at 100, 300, 200, 500, 400 ms in two batches, led in term 1; then term 4 begins."""
    broker = FakeBroker()
    partition = broker.create("t")
    for times in ([100, 300, 200], [500, 400]):
        asyncio.run(_append(partition, times))
    partition.lead(4, leader_id=1, is_leader=True)
    return broker


@pytest.mark.parametrize("version", range(1, 11))
def test_both_ends_of_the_log_in_every_version(version: int) -> None:
    broker = broker_with_records()
    latest, earliest = (list_one(broker, timestamp, version=version) for timestamp in (-1, -2))
    assert (latest.error_code, latest.offset, latest.timestamp) == (0, 5, -1)
    assert (earliest.error_code, earliest.offset) == (0, 0)
    if version >= 4:
        assert latest.leader_epoch == 4


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [(0, (0, 100)), (100, (0, 100)), (101, (1, 300)), (301, (3, 500)), (500, (3, 500)), (501, (-1, -1))],
)
def test_a_time_gives_the_first_record_that_reaches_it(timestamp: int, expected: tuple[int, int]) -> None:
    result = list_one(broker_with_records(), timestamp)
    assert (result.error_code, result.offset, result.timestamp) == (0, *expected)


@pytest.mark.parametrize(
    ("timestamp", "since", "expected"), [(-3, 7, (4, 500)), (-4, 8, (0, -1)), (-5, 9, (-1, -1)), (-6, 99, None)]
)
def test_special_times_are_known_from_their_version_on(timestamp: int, since: int, expected: Any) -> None:
    for version in range(1, 11):
        result = list_one(broker_with_records(), timestamp, version=version)
        if version < since:
            assert result.error_code == ErrorCode.UNSUPPORTED_VERSION
        else:
            assert (result.error_code, result.offset, result.timestamp) == (0, *expected)


def test_a_time_that_the_disk_does_not_let_find_is_a_storage_error() -> None:
    broker = broker_with_records()
    assert list_one(broker, 250).error_code == ErrorCode.NONE
    broker.replicas["t", 0].unreadable = True
    assert list_one(broker, 250).error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert list_one(broker, -1).error_code == ErrorCode.NONE


def test_an_empty_log_has_no_times() -> None:
    broker = FakeBroker()
    broker.create("t")
    for timestamp in (0, -3):
        result = list_one(broker, timestamp)
        assert (result.error_code, result.offset, result.timestamp) == (0, -1, -1)


def test_the_earliest_offset_is_where_the_log_starts() -> None:
    broker = FakeBroker()
    partition = broker.create("t")
    for _ in range(40):
        asyncio.run(_append(partition, [1]))
    partition.delete_before(21)
    assert list_one(broker, -2).offset == partition.log_start_offset == 21


def test_a_new_leader_does_not_tell_an_end_that_may_be_too_low() -> None:
    broker = broker_with_records()
    broker.replicas["t", 0].lead(5, leader_id=1, is_leader=True, established=False)
    for version, error in ((4, ErrorCode.LEADER_NOT_AVAILABLE), (5, ErrorCode.OFFSET_NOT_AVAILABLE)):
        assert list_one(broker, -1, version=version).error_code == error
        assert list_one(broker, 100, version=version).error_code == error
    assert list_one(broker, -2).error_code == 0  # the start is never too low


def test_a_follower_answers_debugging_consumers_alone() -> None:
    broker = broker_with_records()
    broker.replicas["t", 0].lead(4, leader_id=2, is_leader=False)
    assert list_one(broker, -1).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    debugging = list_one(broker, -1, replica_id=-2)
    assert (debugging.error_code, debugging.offset) == (0, 5)


@pytest.mark.parametrize(
    ("epoch", "error"), [(4, 0), (3, ErrorCode.FENCED_LEADER_EPOCH), (5, ErrorCode.UNKNOWN_LEADER_EPOCH)]
)
def test_the_client_s_leader_epoch_must_be_the_current_one(epoch: int, error: int) -> None:
    assert list_one(broker_with_records(), -1, epoch=epoch).error_code == error
    assert epoch_end(broker_with_records(), 1, current=epoch).error_code == error


def test_what_does_not_exist_is_unknown_and_what_is_elsewhere_is_not_led_here() -> None:
    broker = broker_with_records()
    assert list_one(broker, -1, topic="other").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert list_one(broker, -1, partition=1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert epoch_end(broker, 1, topic="other").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    del broker.replicas["t", 0]
    assert list_one(broker, -1).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert epoch_end(broker, 1).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def epoch_end(broker: FakeBroker, epoch: int, *, version: int = 4, current: int = -1, topic: str = "t") -> Any:
    async def scenario() -> Any:
        codec = message("OffsetForLeaderEpochRequest")
        partition = codec.structure("OffsetForLeaderPartition")(
            partition=0, current_leader_epoch=current, leader_epoch=epoch
        )
        named = codec.structure("OffsetForLeaderTopic")(topic=topic, partitions=[partition])
        response = await Wire(broker).ask(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, replica_id=-1, topics=[named])
        return response.topics[0].partitions[0]

    return asyncio.run(scenario())


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_end_of_an_epoch_is_where_the_next_began(version: int) -> None:
    broker = broker_with_records()
    asyncio.run(_append(broker.replicas["t", 0], [600]))
    for epoch, expected in ((1, (1, 5)), (2, (1, 5)), (4, (4, 6)), (9, (-1, -1))):
        result = epoch_end(broker, epoch, version=version)
        assert (result.error_code, result.partition, result.leader_epoch, result.end_offset) == (0, 0, *expected)


@pytest.mark.parametrize("state", ["follower", "new", "behind"])
def test_only_a_leader_that_shows_everything_tells_where_an_epoch_ended(state: str) -> None:
    broker = broker_with_records()
    partition = broker.replicas["t", 0]
    error = ErrorCode.LEADER_NOT_AVAILABLE
    if state == "follower":
        partition.lead(4, leader_id=2, is_leader=False)
        error = ErrorCode.NOT_LEADER_OR_FOLLOWER
    elif state == "new":
        partition.lead(5, leader_id=1, is_leader=True, established=False)
    else:
        partition.is_catching_up = True
    assert epoch_end(broker, 1).error_code == error
