"""AlterPartitionReassignments, ListPartitionReassignments, DescribeTopicPartitions, DescribeLogDirs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire
from kafka_records import batch

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.machines.metadata import CreateTopic, RegisterNode, SettleReplicas
from seatrial.machines.partition_log import encode_append


def ask(broker: FakeBroker, key: ApiKey, version: int, /, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Wire(broker).ask(key, version, **fields)

    return asyncio.run(scenario())


def five_nodes() -> FakeBroker:
    broker = FakeBroker()
    for node in (4, 5):
        broker.apply(RegisterNode(node, f"raft{node}:1", f"kafka{node}", 9090 + node, f"http{node}:1"))
    broker.create("t", 2)
    return broker


def move(
    broker: FakeBroker,
    replicas: list[int] | None,
    *,
    topic: str = "t",
    index: int = 0,
    version: int = 1,
    may_change_factor: bool = True,
) -> ErrorCode:
    codec = message("AlterPartitionReassignmentsRequest")
    wanted = codec.structure("ReassignablePartition")(partition_index=index, replicas=replicas)
    topics = [codec.structure("ReassignableTopic")(name=topic, partitions=[wanted])]
    fields = {"topics": topics, "timeout_ms": 1000, "allow_replication_factor_change": may_change_factor}
    response = ask(broker, ApiKey.ALTER_PARTITION_REASSIGNMENTS, version, **fields)
    assert response.error_code == 0
    (result,) = response.responses[0].partitions
    assert result.partition_index == index
    assert (result.error_message is None) == (result.error_code == 0)
    return ErrorCode(result.error_code)


def moving(broker: FakeBroker, topics: dict[str, list[int]] | None = None) -> dict[tuple[str, int], Any]:
    item = message("ListPartitionReassignmentsRequest").structure("ListPartitionReassignmentsTopics")
    wanted = None if topics is None else [item(name=name, partition_indexes=ids) for name, ids in topics.items()]
    response = ask(broker, ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, topics=wanted, timeout_ms=1000)
    assert response.error_code == 0
    return {
        (topic.name, p.partition_index): (p.replicas, p.adding_replicas, p.removing_replicas)
        for topic in response.topics
        for p in topic.partitions
    }


def settle(broker: FakeBroker) -> None:
    topic = broker.metadata.topics["t"]
    broker.apply(SettleReplicas(topic.topic_id, 0, topic.partitions[0].target_index))


@pytest.mark.parametrize("version", range(2))
def test_a_move_is_shown_until_it_is_done(version: int) -> None:
    broker = five_nodes()
    assert moving(broker) == {}
    assert move(broker, [4, 2, 5], version=version) == ErrorCode.NONE
    shown = {("t", 0): ([4, 2, 5, 1, 3], [4, 5], [1, 3])}
    assert moving(broker) == moving(broker, {"t": [0, 1, 7], "missing": [0]}) == shown
    assert moving(broker, {"t": [1]}) == {}
    settle(broker)
    assert moving(broker) == {}
    assert broker.metadata.topics["t"].partitions[0].replicas == (4, 2, 5)


def test_a_move_is_called_off_or_replaced_by_another() -> None:
    broker = five_nodes()
    assert move(broker, None) == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    move(broker, [4, 2, 3])
    assert move(broker, [5, 2, 3]) == ErrorCode.NONE
    assert moving(broker) == {("t", 0): ([5, 2, 3, 1], [5], [1])}
    assert move(broker, None) == ErrorCode.NONE
    assert broker.metadata.topics["t"].partitions[0].replicas == (1, 2, 3)
    settle(broker)
    assert moving(broker) == {}


@pytest.mark.parametrize(
    ("replicas", "topic", "index", "error"),
    [
        ([], "t", 0, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ([1, 1, 2], "t", 0, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ([1, 2, 9], "t", 0, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ([1, -1], "t", 0, ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        ([1, 2, 3], "t", 2, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ([1, 2, 3], "t", -1, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ([1, 2, 3], "missing", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (None, "__consumer_offsets", 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
def test_a_move_that_cannot_be_is_refused(replicas: list[int] | None, topic: str, index: int, error: ErrorCode) -> None:
    broker = five_nodes()
    assert move(broker, replicas, topic=topic, index=index) == error
    assert moving(broker) == {}


def test_the_number_of_replicas_changes_only_where_it_may() -> None:
    broker = five_nodes()
    assert move(broker, [1, 2], may_change_factor=False) == ErrorCode.INVALID_REPLICATION_FACTOR
    assert move(broker, [1, 2, 4], may_change_factor=False) == ErrorCode.NONE
    assert move(broker, [1, 2], index=1) == ErrorCode.NONE
    broker.apply(CreateTopic("two", ((1, 2, 3),), {"min.insync.replicas": "2"}))
    assert move(broker, [1], topic="two") == ErrorCode.INVALID_REPLICATION_FACTOR, "a majority of one is one"
    assert move(broker, [1, 4], topic="two") == ErrorCode.NONE


# ---- DescribeTopicPartitions ---------------------------------------------------------------------------------------


def describe(broker: FakeBroker, *names: str, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Any:
    codec = message("DescribeTopicPartitionsRequest")
    at = None if cursor is None else codec.structure("Cursor")(topic_name=cursor[0], partition_index=cursor[1])
    topics = [codec.structure("TopicRequest")(name=name) for name in names]
    fields = {"topics": topics, "response_partition_limit": limit, "cursor": at}
    return ask(broker, ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, **fields)


def test_topics_are_described_with_their_partitions() -> None:
    broker = FakeBroker()
    partition = broker.create("t", 2)
    partition.lead(7, leader_id=2, is_leader=False)
    partition.in_sync = (1, 2)
    response = describe(broker, "t", "missing", "bad name")
    assert [(topic.name, topic.error_code) for topic in response.topics] == [
        ("bad name", ErrorCode.INVALID_TOPIC_EXCEPTION),
        ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("t", 0),
    ]
    topic = response.topics[-1]
    assert topic.topic_id == broker.metadata.topics["t"].topic_id
    first = topic.partitions[0]
    assert (first.leader_id, first.leader_epoch, first.replica_nodes, first.isr_nodes) == (2, 7, [1, 2, 3], [1, 2])
    assert (first.eligible_leader_replicas, first.last_known_elr) == ([], []), "kafka-topics takes no null"
    assert response.next_cursor is None


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_a_long_description_goes_on_where_it_was_cut(limit: int) -> None:
    broker = FakeBroker()
    for name, partitions in (("a", 3), ("b", 1), ("c", 4)):
        broker.create(name, partitions)
    seen: list[tuple[str, int]] = []
    cursor: tuple[str, int] | None = None
    for _ in range(9):
        response = describe(broker, limit=limit, cursor=cursor)
        part = [(topic.name, p.partition_index) for topic in response.topics for p in topic.partitions]
        assert len(part) <= limit
        seen += part
        if response.next_cursor is None:
            break
        cursor = (response.next_cursor.topic_name, response.next_cursor.partition_index)
    assert seen == [(name, index) for name, count in (("a", 3), ("b", 1), ("c", 4)) for index in range(count)]


# ---- DescribeLogDirs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 6))
def test_the_bytes_of_each_partition_are_told(version: int) -> None:
    broker = FakeBroker()
    broker.create("b", 2)
    broker.create("a")
    command = encode_append(batch(), record_count=1)

    async def fill() -> None:
        for _ in range(3):
            await broker.replicas["b", 1].append(command)

    asyncio.run(fill())
    (directory,) = ask(broker, ApiKey.DESCRIBE_LOG_DIRS, version, topics=None).results
    assert (directory.error_code, directory.log_dir) == (0, "/records")
    sizes = {(topic.name, p.partition_index): p.partition_size for topic in directory.topics for p in topic.partitions}
    assert sizes == {("a", 0): 0, ("b", 0): 0, ("b", 1): 3 * len(command)}
    item = message("DescribeLogDirsRequest").structure("DescribableLogDirTopic")
    (one,) = ask(broker, ApiKey.DESCRIBE_LOG_DIRS, version, topics=[item(topic="b", partitions=[0, 9])]).results
    assert [(topic.name, [p.partition_index for p in topic.partitions]) for topic in one.topics] == [("b", [0])]
