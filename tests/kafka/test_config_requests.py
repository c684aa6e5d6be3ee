"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, and what settings do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import BrokerSettings, NotLeader
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_configs import (
    DYNAMIC_BROKER_CONFIGS,
    TOPIC_CONFIGS,
    Retention,
    inherited,
    max_message_bytes,
    refuse_config,
    retention,
)

TOPIC, BROKER = 2, 4
SET, DELETE, APPEND, SUBTRACT = range(4)


def ask(broker: FakeBroker, key: ApiKey, version: int, settings: dict[str, Any] | None = None, /, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Wire(broker, **(settings or {})).ask(key, version, **fields)

    return asyncio.run(scenario())


def resource(kind: int, name: str, keys: list[str] | None = None) -> Any:
    structure = message("DescribeConfigsRequest").structure("DescribeConfigsResource")
    return structure(resource_type=kind, resource_name=name, configuration_keys=keys)


@pytest.mark.parametrize("version", range(1, 5))
def test_settings_of_topics_and_of_this_broker_are_shown(version: int) -> None:
    broker = FakeBroker()
    broker.create("t", retention_ms="77")
    wanted = [resource(2, "t"), resource(4, "1"), resource(2, "t", ["retention.ms"])]
    response = ask(broker, ApiKey.DESCRIBE_CONFIGS, version, resources=wanted, include_synonyms=True)
    topic, node, one = response.results
    assert [(r.error_code, r.resource_type, r.resource_name) for r in response.results] == [
        (0, 2, "t"),
        (0, 4, "1"),
        (0, 2, "t"),
    ]
    shown = {config.name: config for config in topic.configs}
    assert [name for name, config in shown.items() if config.read_only] == []
    assert (shown["retention.ms"].value, shown["retention.ms"].config_source) == ("77", 1)
    assert (shown["cleanup.policy"].value, shown["cleanup.policy"].config_source) == ("delete", 5)
    assert shown["retention.ms"].synonyms[0].value == "77"
    assert {config.name: config.value for config in node.configs}["broker.id"] == "1"
    assert [config.name for config in one.configs] == ["retention.ms"]


@pytest.mark.parametrize(
    ("kind", "name", "error"),
    [
        (2, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (4, "2", ErrorCode.INVALID_REQUEST),
        (8, "x", ErrorCode.INVALID_REQUEST),
    ],
)
def test_settings_of_what_is_not_here_are_refused(kind: int, name: str, error: ErrorCode) -> None:
    (result,) = ask(FakeBroker(), ApiKey.DESCRIBE_CONFIGS, 4, resources=[resource(kind, name)]).results
    assert (result.error_code, result.configs) == (error, [])
    assert result.error_message


def describe(broker: FakeBroker, kind: int, name: str, **settings: Any) -> dict[str, Any]:
    wanted = [resource(kind, name)]
    response = ask(broker, ApiKey.DESCRIBE_CONFIGS, 4, settings, resources=wanted, include_synonyms=True)
    return {config.name: config for config in response.results[0].configs}


def alter(
    broker: FakeBroker,
    kind: int,
    name: str,
    *changes: tuple[str, int, str | None],
    version: int = 1,
    validate_only: bool = False,
    **settings: Any,
) -> Any:
    """The one result of an IncrementalAlterConfigs request."""
    codec = message("IncrementalAlterConfigsRequest")
    configs = [
        codec.structure("AlterableConfig")(name=key, config_operation=operation, value=value)
        for key, operation, value in changes
    ]
    wanted = codec.structure("AlterConfigsResource")(resource_type=kind, resource_name=name, configs=configs)
    fields = {"resources": [wanted], "validate_only": validate_only}
    (result,) = ask(broker, ApiKey.INCREMENTAL_ALTER_CONFIGS, version, settings, **fields).responses
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


@pytest.mark.parametrize("version", range(2))
def test_settings_are_changed_one_by_one(version: int) -> None:
    broker = FakeBroker()
    broker.create("t", retention_ms="77", retention_bytes="88")
    changes = [("retention.ms", DELETE, None), ("max.message.bytes", SET, "1000")]
    assert alter(broker, TOPIC, "t", *changes, version=version).error_code == 0
    assert broker.metadata.topics["t"].configs == {"retention.bytes": "88", "max.message.bytes": "1000"}


def test_lists_are_added_to_and_taken_from() -> None:
    broker = FakeBroker()
    broker.create("t")
    throttled = "leader.replication.throttled.replicas"
    for change, after in (
        ((throttled, APPEND, "0:1,0:2"), "0:1,0:2"),
        ((throttled, APPEND, "0:2,0:3"), "0:1,0:2,0:3"),
        ((throttled, SUBTRACT, "0:1,0:9"), "0:2,0:3"),
    ):
        assert alter(broker, TOPIC, "t", change).error_code == 0
        assert broker.metadata.topics["t"].configs == {throttled: after}
    assert alter(broker, TOPIC, "t", ("cleanup.policy", APPEND, "compact")).error_code == 0
    assert broker.metadata.topics["t"].configs["cleanup.policy"] == "delete,compact"


@pytest.mark.parametrize("version", range(3))
def test_settings_that_are_not_named_go_back_to_their_defaults(version: int) -> None:
    broker = FakeBroker()
    broker.create("t", retention_ms="77", retention_bytes="88")
    codec = message("AlterConfigsRequest")
    config = codec.structure("AlterableConfig")(name="retention.ms", value="99")
    wanted = codec.structure("AlterConfigsResource")(resource_type=TOPIC, resource_name="t", configs=[config])
    (result,) = ask(broker, ApiKey.ALTER_CONFIGS, version, resources=[wanted]).responses
    assert result.error_code == 0
    assert broker.metadata.topics["t"].configs == {"retention.ms": "99"}


@pytest.mark.parametrize(
    ("kind", "name", "change", "error"),
    [
        (TOPIC, "missing", ("retention.ms", SET, "1"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "__consumer_offsets", ("retention.ms", SET, "1"), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC, "t", ("no.such.setting", SET, "1"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("no.such.setting", DELETE, None), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", SET, "soon"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", SET, "-2"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", SET, None), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", SET, "9223372036854775808"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("max.message.bytes", SET, "2147483648"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", APPEND, "1"), ErrorCode.INVALID_CONFIG),
        (TOPIC, "t", ("retention.ms", 4, "1"), ErrorCode.INVALID_REQUEST),
        (TOPIC, "t", ("min.insync.replicas", SET, "3"), ErrorCode.INVALID_CONFIG),
        (BROKER, "9", ("message.max.bytes", SET, "1"), ErrorCode.INVALID_REQUEST),
        (BROKER, "1", ("num.partitions", SET, "1"), ErrorCode.INVALID_REQUEST),
        (BROKER, "1", ("retention.ms", SET, "1"), ErrorCode.INVALID_CONFIG),
        (8, "1", ("kafka", SET, "DEBUG"), ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    kind: int, name: str, change: tuple[str, int, str | None], error: ErrorCode
) -> None:
    broker = FakeBroker()
    broker.create("t")
    before = broker.metadata.snapshot()
    for validate_only in (True, False):
        result = alter(broker, kind, name, change, validate_only=validate_only)
        assert ErrorCode(result.error_code) == error and result.error_message
    assert broker.metadata.snapshot() == before


def test_a_setting_or_a_resource_named_twice_is_refused() -> None:
    broker = FakeBroker()
    broker.create("t")
    twice = [("retention.ms", SET, "1"), ("retention.ms", SET, "2")]
    assert alter(broker, TOPIC, "t", *twice).error_code == ErrorCode.INVALID_REQUEST
    codec = message("AlterConfigsRequest")
    wanted = [codec.structure("AlterConfigsResource")(resource_type=TOPIC, resource_name="t", configs=[])] * 2
    results = ask(broker, ApiKey.ALTER_CONFIGS, 2, resources=wanted).responses
    assert [result.error_code for result in results] == [ErrorCode.INVALID_REQUEST] * 2


def test_validation_alone_changes_nothing_and_no_controller_is_told() -> None:
    broker = FakeBroker()
    broker.create("t")
    assert alter(broker, TOPIC, "t", ("retention.ms", SET, "1"), validate_only=True).error_code == 0
    assert broker.metadata.topics["t"].configs == {}
    broker.refuse_metadata = NotLeader()
    assert alter(broker, TOPIC, "t", ("retention.ms", SET, "1")).error_code == ErrorCode.NOT_CONTROLLER


def test_what_a_topic_does_not_say_its_broker_says_and_then_all_brokers() -> None:
    broker = FakeBroker()
    broker.create("t")
    topic = broker.metadata.topics["t"]
    seen = [max_message_bytes(topic, broker, BrokerSettings(max_message_bytes=1))]
    for kind, name, key, value in (
        (BROKER, "", "message.max.bytes", "2"),
        (BROKER, "1", "message.max.bytes", "3"),
        (BROKER, "2", "message.max.bytes", "99"),
        (TOPIC, "t", "max.message.bytes", "4"),
    ):
        assert alter(broker, kind, name, (key, SET, value)).error_code == 0
        topic = broker.metadata.topics["t"]
        seen.append(max_message_bytes(topic, broker, BrokerSettings(max_message_bytes=1)))
    assert seen == [1, 2, 3, 3, 4]
    shown = describe(broker, TOPIC, "t", max_message_bytes=1)["max.message.bytes"]
    synonyms = [(s.name, s.value, s.source) for s in shown.synonyms]
    assert synonyms == [
        ("max.message.bytes", "4", 1),
        ("message.max.bytes", "3", 2),
        ("message.max.bytes", "2", 3),
        ("message.max.bytes", "1", 5),
    ]
    node = describe(broker, BROKER, "1", max_message_bytes=1)
    assert (node["message.max.bytes"].value, node["message.max.bytes"].config_source) == ("3", 2)
    assert (node["broker.id"].read_only, node["message.max.bytes"].read_only) == (True, False)
    assert {name: config.value for name, config in describe(broker, BROKER, "").items()} == {"message.max.bytes": "2"}


def test_retention_is_the_topic_s_or_the_brokers() -> None:
    broker = FakeBroker()
    broker.create("t", retention_bytes="5")
    configs = broker.metadata.topics["t"].configs
    assert retention(configs, inherited(broker, BrokerSettings())) == Retention(-1, 5)
    alter(broker, BROKER, "", ("log.retention.ms", SET, "7"), ("log.retention.bytes", SET, "8"))
    assert retention(configs, inherited(broker, BrokerSettings())) == Retention(7, 5)


def test_a_flush_that_the_brokers_would_not_do_is_refused() -> None:
    broker = FakeBroker()
    broker.create("t")
    assert describe(broker, TOPIC, "t")["flush.messages"].value == "1"
    assert describe(broker, TOPIC, "t", syncs=False)["flush.messages"].value == "9223372036854775807"
    assert alter(broker, TOPIC, "t", ("flush.messages", SET, "1")).error_code == 0
    refused = alter(broker, TOPIC, "t", ("flush.messages", SET, "1"), syncs=False)
    assert refused.error_code == ErrorCode.INVALID_CONFIG
    assert "--durability fsync" in refused.error_message


def test_every_default_is_a_value_that_may_be_set() -> None:
    for known in (TOPIC_CONFIGS, DYNAMIC_BROKER_CONFIGS):
        for name, setting in known.items():
            if setting.default:
                assert refuse_config(name, setting.default, known) is None, name
