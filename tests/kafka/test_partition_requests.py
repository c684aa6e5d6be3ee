"""CreatePartitions, DeleteRecords, ElectLeaders."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, FakePartition, Wire
from kafka_records import batch

from seatrial.kafka import partition_requests
from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import NotLeader, OutcomeUnknown, ProposalDropped
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.machines.metadata import CreateTopic, DeleteTopic, MetadataChange
from seatrial.machines.partition_log import encode_append


def ask(broker: FakeBroker, key: ApiKey, version: int, settings: dict[str, Any] | None = None, /, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Wire(broker, **(settings or {})).ask(key, version, **fields)

    return asyncio.run(scenario())


# ---- CreatePartitions ----------------------------------------------------------------------------------------------


def enlarged(name: str, count: int, assignments: list[list[int]] | None = None) -> Any:
    codec = message("CreatePartitionsRequest")
    named = codec.structure("CreatePartitionsAssignment")
    manual = None if assignments is None else [named(broker_ids=replicas) for replicas in assignments]
    return codec.structure("CreatePartitionsTopic")(name=name, count=count, assignments=manual)


def enlarge(broker: FakeBroker, *topics: Any, version: int = 3, validate_only: bool = False, **settings: Any) -> Any:
    fields = {"topics": topics, "timeout_ms": 1000, "validate_only": validate_only}
    return ask(broker, ApiKey.CREATE_PARTITIONS, version, settings, **fields).results


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_with_as_many_replicas_as_the_first_has(version: int) -> None:
    broker = FakeBroker()
    broker.apply(CreateTopic("t", ((1, 2),)))
    (result,) = enlarge(broker, enlarged("t", 4), version=version)
    assert (result.name, result.error_code, result.error_message) == ("t", 0, None)
    partitions = broker.metadata.topics["t"].partitions
    assert [len(partition.replicas) for partition in partitions] == [2] * 4
    assert len({partition.replicas[0] for partition in partitions[1:]}) == 3, "the leaders are spread"


def test_replicas_of_new_partitions_may_be_named() -> None:
    broker = FakeBroker()
    broker.apply(CreateTopic("t", ((1, 2),)))
    assert enlarge(broker, enlarged("t", 3, [[3, 1], [2, 3]]))[0].error_code == 0
    assert [p.replicas for p in broker.metadata.topics["t"].partitions] == [(1, 2), (3, 1), (2, 3)]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (enlarged("missing", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (enlarged("__consumer_offsets", 9), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (enlarged("t", 2), ErrorCode.INVALID_PARTITIONS),
        (enlarged("t", 1), ErrorCode.INVALID_PARTITIONS),
        (enlarged("t", -1), ErrorCode.INVALID_PARTITIONS),
        (enlarged("t", 101), ErrorCode.INVALID_PARTITIONS),
        (enlarged("t", 4, [[1, 2]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (enlarged("t", 3, [[1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (enlarged("t", 3, [[1, 1]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (enlarged("t", 3, [[1, 9]]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
    ],
)
def test_a_topic_that_cannot_grow_so_is_refused_and_stays(wanted: Any, error: ErrorCode) -> None:
    broker = FakeBroker()
    broker.apply(CreateTopic("t", ((1, 2), (2, 3))))
    before = broker.metadata.snapshot()
    for validate_only in (True, False):
        (result,) = enlarge(broker, wanted, validate_only=validate_only, max_partitions=100)
        assert ErrorCode(result.error_code) == error and result.error_message
    assert broker.metadata.snapshot() == before


def test_validation_alone_adds_nothing_and_a_topic_named_twice_is_refused() -> None:
    broker = FakeBroker()
    broker.create("t")
    assert enlarge(broker, enlarged("t", 3), validate_only=True)[0].error_code == 0
    results = enlarge(broker, enlarged("t", 3), enlarged("t", 4))
    assert [result.error_code for result in results] == [ErrorCode.INVALID_REQUEST] * 2
    assert len(broker.metadata.topics["t"].partitions) == 1


def test_two_who_add_partitions_at_once_do_not_add_them_twice() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        broker.create("t")
        wire = Wire(broker)
        both = [wire.ask(ApiKey.CREATE_PARTITIONS, 3, topics=[enlarged("t", 3)], timeout_ms=1000) for _ in range(2)]
        codes = [response.results[0].error_code for response in await asyncio.gather(*both)]
        assert sorted(codes) == [0, ErrorCode.INVALID_PARTITIONS]
        assert len(broker.metadata.topics["t"].partitions) == 3

    asyncio.run(scenario())


# ---- DeleteRecords -------------------------------------------------------------------------------------------------


def with_records(count: int, **configs: str) -> tuple[FakeBroker, FakePartition]:
    broker = FakeBroker()
    partition = broker.create("t", 1, **configs)

    async def fill() -> None:
        for _ in range(count):
            await partition.append(encode_append(batch(), record_count=1))

    asyncio.run(fill())
    return broker, partition


def delete(broker: FakeBroker, offset: int, *, topic: str = "t", index: int = 0, version: int = 2) -> Any:
    codec = message("DeleteRecordsRequest")
    wanted = codec.structure("DeleteRecordsPartition")(partition_index=index, offset=offset)
    topics = [codec.structure("DeleteRecordsTopic")(name=topic, partitions=[wanted])]
    response = ask(broker, ApiKey.DELETE_RECORDS, version, topics=topics, timeout_ms=1000)
    (result,) = response.topics[0].partitions
    assert result.partition_index == index
    return ErrorCode(result.error_code), result.low_watermark


@pytest.mark.parametrize("version", range(3))
def test_records_before_an_offset_are_deleted(version: int) -> None:
    broker, partition = with_records(40)
    assert delete(broker, 33, version=version) == (ErrorCode.NONE, 33)
    assert (partition.log_start_offset, partition.high_watermark) == (33, 40)
    assert delete(broker, 10, version=version) == (ErrorCode.NONE, 33), "those are deleted already"
    assert delete(broker, -1, version=version) == (ErrorCode.NONE, 40), "minus one: all"


@pytest.mark.parametrize(
    ("offset", "topic", "index", "error"),
    [
        (41, "t", 0, ErrorCode.OFFSET_OUT_OF_RANGE),
        (-2, "t", 0, ErrorCode.OFFSET_OUT_OF_RANGE),
        (1, "t", 1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (1, "missing", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (1, "__consumer_offsets", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_records_that_are_not_there_are_not_deleted(offset: int, topic: str, index: int, error: ErrorCode) -> None:
    broker, partition = with_records(40)
    assert delete(broker, offset, topic=topic, index=index) == (error, -1)
    assert partition.log_start_offset == 0


def test_only_an_established_leader_deletes() -> None:
    broker, partition = with_records(3)
    partition.lead(2, leader_id=2, is_leader=False)
    assert delete(broker, 1)[0] == ErrorCode.NOT_LEADER_OR_FOLLOWER
    partition.lead(3, leader_id=1, is_leader=True, established=False)
    assert delete(broker, 1)[0] == ErrorCode.LEADER_NOT_AVAILABLE


def test_a_compacted_topic_keeps_its_records() -> None:
    broker, _ = with_records(3, cleanup_policy="compact")
    assert delete(broker, 1)[0] == ErrorCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (NotLeader(2), ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (ProposalDropped("full"), ErrorCode.NOT_ENOUGH_REPLICAS),
        (OutcomeUnknown("the lead was lost"), ErrorCode.REQUEST_TIMED_OUT),
    ],
)
def test_what_keeps_a_deletion_from_being_known_is_told(refused: Exception, error: ErrorCode) -> None:
    broker, partition = with_records(3)
    partition.refuse_with = refused
    assert delete(broker, 1) == (error, -1)


# ---- ElectLeaders --------------------------------------------------------------------------------------------------


class Electing(FakeBroker):
    """Elections are held by the first of the replicas taking the lead, unless it is told not to."""

    def __init__(self, *, held: bool = True) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        self.metadata.listeners.append(self._changed)
        self._held = held

    def _changed(self, change: MetadataChange) -> None:
        for key in change.elections:
            self.asked.append(key)
            replica = self.replicas[key]
            if self._held:
                replica.lead(replica.leader_epoch + 1, leader_id=replica.replicas[0], is_leader=False)


def elect(
    broker: FakeBroker, *pairs: tuple[str, int], version: int = 2, everything: bool = False, **fields: Any
) -> Any:
    item = message("ElectLeadersRequest").structure("TopicPartitions")
    wanted = None if everything else [item(topic=name, partitions=[index]) for name, index in pairs]
    response = ask(broker, ApiKey.ELECT_LEADERS, version, topic_partitions=wanted, timeout_ms=200, **fields)
    assert response.error_code == 0
    return {
        (topic.topic, partition.partition_id): ErrorCode(partition.error_code)
        for topic in response.replica_election_results
        for partition in topic.partition_result
    }


@pytest.mark.parametrize("version", range(3))
def test_the_preferred_replica_takes_the_lead(version: int) -> None:
    broker = Electing()
    broker.create("t", 2).lead(3, leader_id=2, is_leader=False)
    assert elect(broker, ("t", 0), ("t", 1), version=version) == {
        ("t", 0): ErrorCode.NONE,
        ("t", 1): ErrorCode.ELECTION_NOT_NEEDED,
    }
    assert broker.asked == [("t", 0)]
    assert broker.leadership("t", 0).leader_id == 1


def test_of_all_partitions_only_those_that_were_not_led_as_preferred_are_told() -> None:
    broker = Electing()
    broker.create("t", 3).lead(3, leader_id=2, is_leader=False)
    assert elect(broker, everything=True) == {("t", 0): ErrorCode.NONE}


def test_an_election_that_cannot_be_held_says_why() -> None:
    broker = Electing()
    for name in ("down", "behind"):
        broker.create(name).lead(3, leader_id=2, is_leader=False)
    broker.replicas["behind", 0].in_sync = (2, 3)
    unavailable = ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE
    assert elect(broker, ("behind", 0)) == {("behind", 0): unavailable}
    broker.alive = [2, 3]
    assert elect(broker, ("down", 0)) == {("down", 0): unavailable}
    assert elect(broker, ("missing", 0), ("down", 7)) == {
        ("missing", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("down", 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert broker.asked == []


def test_an_election_that_does_not_come_about_is_a_timeout() -> None:
    broker = Electing(held=False)
    broker.create("t").lead(3, leader_id=2, is_leader=False)
    assert elect(broker, ("t", 0)) == {("t", 0): ErrorCode.REQUEST_TIMED_OUT}
    broker.refuse_metadata = NotLeader()
    assert elect(broker, ("t", 0)) == {("t", 0): ErrorCode.REQUEST_TIMED_OUT}


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_a_partition_that_goes_while_its_election_is_waited_for_is_unknown(is_made_anew: bool) -> None:
    broker = Electing(held=False)
    broker.create("t", 2)
    broker.replicas["t", 1].lead(3, leader_id=2, is_leader=False)

    async def scenario() -> Any:
        pair = message("ElectLeadersRequest").structure("TopicPartitions")(topic="t", partitions=[1])
        wire = Wire(broker)
        answer = asyncio.ensure_future(wire.ask(ApiKey.ELECT_LEADERS, 2, topic_partitions=[pair], timeout_ms=5000))
        while not broker.asked:
            await asyncio.sleep(0)
        broker.apply(DeleteTopic(broker.metadata.topics["t"].topic_id))
        if is_made_anew:
            broker.create("t", 1)
        return await answer

    ((told,),) = [topic.partition_result for topic in asyncio.run(scenario()).replica_election_results]
    assert told.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_there_are_no_unclean_elections() -> None:
    broker = Electing()
    broker.create("led")
    broker.create("lost").lead(3, leader_id=-1, is_leader=False)
    assert elect(broker, ("led", 0), ("lost", 0), election_type=1) == {
        ("led", 0): ErrorCode.ELECTION_NOT_NEEDED,
        ("lost", 0): ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE,
    }


def test_the_wait_for_an_election_is_bounded_whatever_the_client_allows() -> None:
    assert partition_requests.ELECTION_WAIT_S < 10
