"""The settings of topics and brokers by Kafka's names: which are known, and what this broker does about them.

Rule: a name that Kafka lacks, or a value that would promise what this broker does not do, is refused when a topic is
created; a setting that is safe to keep without effect is kept, and shown as it was given.
Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from seatrial.kafka.backend import BrokerSettings


class ConfigType(IntEnum):
    """`config_type` of a DescribeConfigs response."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


class ConfigSource(IntEnum):
    """`config_source` of a DescribeConfigs response."""

    DYNAMIC_TOPIC_CONFIG = 1
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5


class TopicConfig(NamedTuple):
    """A setting that a topic may have.  `only`: the values that are accepted, where not all are."""

    kind: ConfigType
    default: str
    only: tuple[str, ...] = ()


MAX_MESSAGE_BYTES: Final = "max.message.bytes"

TOPIC_CONFIGS: Final[Mapping[str, TopicConfig]] = {
    "cleanup.policy": TopicConfig(ConfigType.LIST, "delete", ("delete", "compact", "compact,delete", "delete,compact")),
    "compression.type": TopicConfig(ConfigType.STRING, "producer", ("producer",)),
    "delete.retention.ms": TopicConfig(ConfigType.LONG, "86400000"),
    "file.delete.delay.ms": TopicConfig(ConfigType.LONG, "60000"),
    "flush.messages": TopicConfig(ConfigType.LONG, "1"),
    "flush.ms": TopicConfig(ConfigType.LONG, "0"),
    "index.interval.bytes": TopicConfig(ConfigType.INT, "4096"),
    "max.compaction.lag.ms": TopicConfig(ConfigType.LONG, "9223372036854775807"),
    MAX_MESSAGE_BYTES: TopicConfig(ConfigType.INT, ""),
    "message.timestamp.after.max.ms": TopicConfig(ConfigType.LONG, "9223372036854775807"),
    "message.timestamp.before.max.ms": TopicConfig(ConfigType.LONG, "9223372036854775807"),
    "message.timestamp.type": TopicConfig(ConfigType.STRING, "CreateTime", ("CreateTime",)),
    "min.cleanable.dirty.ratio": TopicConfig(ConfigType.DOUBLE, "0.5"),
    "min.compaction.lag.ms": TopicConfig(ConfigType.LONG, "0"),
    "min.insync.replicas": TopicConfig(ConfigType.INT, "1"),
    "preallocate": TopicConfig(ConfigType.BOOLEAN, "false", ("true", "false")),
    "retention.bytes": TopicConfig(ConfigType.LONG, "-1"),
    "retention.ms": TopicConfig(ConfigType.LONG, "-1"),
    "segment.bytes": TopicConfig(ConfigType.INT, "1073741824"),
    "segment.index.bytes": TopicConfig(ConfigType.INT, "10485760"),
    "segment.jitter.ms": TopicConfig(ConfigType.LONG, "0"),
    "segment.ms": TopicConfig(ConfigType.LONG, "604800000"),
    "unclean.leader.election.enable": TopicConfig(ConfigType.BOOLEAN, "false", ("false",)),
}


class ConfigEntry(NamedTuple):
    """One setting as it is shown."""

    name: str
    value: str
    kind: ConfigType
    source: ConfigSource


def refuse_config(name: str, value: str | None) -> str | None:
    """Why a topic cannot have this setting, or None."""
    known = TOPIC_CONFIGS.get(name)
    if known is None:
        return f"unknown topic config name: {name}"
    if value is None:
        return f"the value of {name} must not be null"
    if known.only and value not in known.only:
        return f"{name} can only be {' or '.join(known.only)} in this broker, not {value!r}"
    number = float if known.kind == ConfigType.DOUBLE else int
    if known.kind in (ConfigType.INT, ConfigType.LONG, ConfigType.DOUBLE):
        try:
            number(value)
        except ValueError:
            return f"the value of {name} must be a number, not {value!r}"
    if name == MAX_MESSAGE_BYTES and int(value) < 0:
        return f"{name} must not be negative"
    return None


def max_message_bytes(configs: Mapping[str, str], settings: BrokerSettings) -> int:
    """The largest record batch that a topic takes."""
    own = configs.get(MAX_MESSAGE_BYTES)
    return settings.max_message_bytes if own is None else int(own)


def topic_entries(configs: Mapping[str, str], settings: BrokerSettings) -> list[ConfigEntry]:
    """All settings of a topic, by name."""
    entries: list[ConfigEntry] = []
    for name, known in TOPIC_CONFIGS.items():
        default = str(settings.max_message_bytes) if name == MAX_MESSAGE_BYTES else known.default
        source = ConfigSource.DYNAMIC_TOPIC_CONFIG if name in configs else ConfigSource.DEFAULT_CONFIG
        entries.append(ConfigEntry(name, configs.get(name, default), known.kind, source))
    return entries


def broker_entries(node_id: int, settings: BrokerSettings) -> list[ConfigEntry]:
    """The settings of this broker that have a name in Kafka."""
    static = ConfigSource.STATIC_BROKER_CONFIG
    auto_create = "true" if settings.auto_create_topics else "false"
    return [
        ConfigEntry("auto.create.topics.enable", auto_create, ConfigType.BOOLEAN, static),
        ConfigEntry("broker.id", str(node_id), ConfigType.INT, static),
        ConfigEntry("default.replication.factor", str(settings.default_replication_factor), ConfigType.INT, static),
        ConfigEntry("fetch.max.bytes", str(settings.fetch_max_bytes), ConfigType.INT, static),
        ConfigEntry("message.max.bytes", str(settings.max_message_bytes), ConfigType.INT, static),
        ConfigEntry("num.partitions", str(settings.default_partitions), ConfigType.INT, static),
    ]
