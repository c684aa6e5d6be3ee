"""CreateTopics, DeleteTopics and topics made by being asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import NotLeader, OutcomeUnknown
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_configs import TOPIC_CONFIGS, refuse_config
from seatrial.kafka.topic_requests import refuse_name


def topic(name: str = "t", partitions: int = 1, factor: int = 3, manual: Any = (), **configs: str | None) -> Any:
    codec = message("CreateTopicsRequest")
    return codec.structure("CreatableTopic")(
        name=name,
        num_partitions=partitions,
        replication_factor=factor,
        assignments=[
            codec.structure("CreatableReplicaAssignment")(partition_index=index, broker_ids=nodes)
            for index, nodes in manual
        ],
        configs=[
            codec.structure("CreatableTopicConfig")(name=key.replace("_", "."), value=value)
            for key, value in configs.items()
        ],
    )


def create(
    broker: FakeBroker, *topics: Any, version: int = 7, validate_only: bool = False, **settings: Any
) -> list[Any]:
    async def scenario() -> list[Any]:
        response = await Wire(broker, **settings).ask(
            ApiKey.CREATE_TOPICS, version, topics=topics, timeout_ms=1000, validate_only=validate_only
        )
        results: list[Any] = response.topics
        return results

    return asyncio.run(scenario())


@pytest.mark.parametrize("version", range(2, 8))
def test_a_topic_is_created_in_every_version(version: int) -> None:
    broker = FakeBroker()
    (result,) = create(broker, topic("events", 4, 2, retention_ms="1000"), version=version)
    assert (result.name, result.error_code, result.error_message) == ("events", 0, None)
    made = broker.metadata.topics["events"]
    assert [len(partition.replicas) for partition in made.partitions] == [2, 2, 2, 2]
    assert dict(made.configs) == {"retention.ms": "1000"}
    if version >= 5:
        assert (result.num_partitions, result.replication_factor) == (4, 2)
        shown = {config.name: (config.value, config.config_source) for config in result.configs}
        assert shown["retention.ms"] == ("1000", 1)
        assert shown["cleanup.policy"] == ("delete", 5)
    if version >= 7:
        assert result.topic_id == made.topic_id


def test_leaders_of_a_topic_are_spread_over_the_nodes() -> None:
    broker = FakeBroker()
    create(broker, topic("a", 3), topic("b", 3))
    for name in ("a", "b"):
        assert {partition.replicas[0] for partition in broker.metadata.topics[name].partitions} == {1, 2, 3}


def test_minus_one_means_the_broker_s_defaults() -> None:
    broker = FakeBroker()
    create(broker, topic("t", -1, -1), default_partitions=5, default_replication_factor=2)
    assert [len(partition.replicas) for partition in broker.metadata.topics["t"].partitions] == [2] * 5


def test_replicas_may_be_named_by_hand() -> None:
    broker = FakeBroker()
    (result,) = create(broker, topic("t", -1, -1, manual=[(1, [3, 1]), (0, [2, 3])]))
    assert result.error_code == 0
    assert [partition.replicas for partition in broker.metadata.topics["t"].partitions] == [(2, 3), (3, 1)]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (topic(""), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic(".."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (topic("taken"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (topic(partitions=0), ErrorCode.INVALID_PARTITIONS),
        (topic(partitions=-2), ErrorCode.INVALID_PARTITIONS),
        (topic(partitions=101), ErrorCode.INVALID_PARTITIONS),
        (topic(factor=0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(factor=4), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(factor=-2), ErrorCode.INVALID_REPLICATION_FACTOR),
        (topic(manual=[(0, [1])]), ErrorCode.INVALID_REQUEST),
        (topic(partitions=-1, factor=-1, manual=[(1, [1])]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic(partitions=-1, factor=-1, manual=[(0, [])]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic(partitions=-1, factor=-1, manual=[(0, [1, 1])]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic(partitions=-1, factor=-1, manual=[(0, [9])]), ErrorCode.INVALID_REPLICA_ASSIGNMENT),
        (topic(no_such_setting="1"), ErrorCode.INVALID_CONFIG),
        (topic(retention_ms="soon"), ErrorCode.INVALID_CONFIG),
        (topic(retention_ms=None), ErrorCode.INVALID_CONFIG),
        (topic(max_message_bytes="-1"), ErrorCode.INVALID_CONFIG),
        (topic(message_timestamp_type="LogAppendTime"), ErrorCode.INVALID_CONFIG),
    ],
)
def test_what_cannot_be_is_refused_with_kafka_s_error_and_a_message(wanted: Any, error: ErrorCode) -> None:
    broker = FakeBroker()
    broker.create("taken")
    before = broker.metadata.snapshot()
    for validate_only in (False, True):
        (result,) = create(broker, wanted, validate_only=validate_only, max_partitions=100)
        assert ErrorCode(result.error_code) == error
        assert result.error_message
    assert broker.metadata.snapshot() == before


def test_one_bad_topic_does_not_stop_the_others() -> None:
    broker = FakeBroker()
    results = create(broker, topic("good"), topic("bad name"), topic("twice"), topic("twice"))
    assert [result.error_code for result in results] == [0, 17, ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST]
    assert set(broker.metadata.topics) == {"good"}


def test_validation_alone_creates_nothing() -> None:
    broker = FakeBroker()
    (result,) = create(broker, topic("t", 3), validate_only=True)
    assert (result.error_code, result.num_partitions) == (0, 3)
    assert not broker.metadata.topics


def test_a_node_that_is_down_takes_no_replicas_unless_it_must() -> None:
    broker = FakeBroker()
    broker.alive = [1, 3]
    create(broker, topic("two", 4, 2), topic("three", 1, 3))
    assert {node for p in broker.metadata.topics["two"].partitions for node in p.replicas} == {1, 3}
    assert set(broker.metadata.topics["three"].partitions[0].replicas) == {1, 2, 3}


def test_a_name_taken_meanwhile_is_told_as_such() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        wire = Wire(broker)
        both = [wire.ask(ApiKey.CREATE_TOPICS, 7, topics=[topic("t")], timeout_ms=1000) for _ in range(2)]
        codes = [response.topics[0].error_code for response in await asyncio.gather(*both)]
        assert sorted(codes) == [0, ErrorCode.TOPIC_ALREADY_EXISTS]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("refusal", "error"),
    [(NotLeader(), ErrorCode.NOT_CONTROLLER), (OutcomeUnknown("time is up"), ErrorCode.REQUEST_TIMED_OUT)],
)
def test_a_cluster_that_cannot_say_yes_says_whether_it_may_still_happen(refusal: Exception, error: ErrorCode) -> None:
    broker = FakeBroker()
    broker.create("old")
    broker.refuse_metadata = refusal
    assert create(broker, topic("t"))[0].error_code == error
    assert delete(broker, "old")[0].error_code == error
    assert set(broker.metadata.topics) == {"old"}


def delete(broker: FakeBroker, *names: str, version: int = 5) -> list[Any]:
    async def scenario() -> list[Any]:
        response = await Wire(broker).ask(ApiKey.DELETE_TOPICS, version, topic_names=names, timeout_ms=1000)
        results: list[Any] = response.responses
        return results

    return asyncio.run(scenario())


@pytest.mark.parametrize("version", range(1, 6))
def test_topics_are_deleted_by_name(version: int) -> None:
    broker = FakeBroker()
    broker.create("a")
    broker.create("b")
    results = delete(broker, "a", "missing", version=version)
    assert [(r.name, r.error_code) for r in results] == [("a", 0), ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)]
    assert set(broker.metadata.topics) == {"b"}


def test_topics_are_deleted_by_id() -> None:
    async def scenario() -> None:
        broker = FakeBroker()
        broker.create("a")
        broker.create("b")
        state = message("DeleteTopicsRequest").structure("DeleteTopicState")
        topic_id = broker.metadata.topics["a"].topic_id
        wanted = [
            state(name=None, topic_id=topic_id),
            state(name=None, topic_id=b"?" * 16),
            state(name="b", topic_id=b"?" * 16),
            state(name="b"),
        ]
        response = await Wire(broker).ask(ApiKey.DELETE_TOPICS, 6, topics=wanted, timeout_ms=1000)
        assert [(r.name, r.error_code) for r in response.responses] == [
            ("a", 0),
            (None, ErrorCode.UNKNOWN_TOPIC_ID),
            ("b", ErrorCode.INVALID_REQUEST),
            ("b", 0),
        ]
        assert response.responses[0].topic_id == topic_id
        assert not broker.metadata.topics

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("name", "is_good"),
    [("a", True), ("A.b_c-9", True), ("x" * 249, True), ("x" * 250, False), (".", False), ("é", False), ("a\n", False)],
)
def test_names_follow_kafka_s_rules(name: str, is_good: bool) -> None:
    assert (refuse_name(name) is None) == is_good


def test_every_known_setting_takes_its_own_default() -> None:
    for name, known in TOPIC_CONFIGS.items():
        if known.default:
            assert refuse_config(name, known.default) is None
