"""The settings of topics and brokers by Kafka's names: which are known, and what this broker does about them.

Rule: a name that Kafka lacks, or a value that would promise what this broker does not do, is refused; a setting that is
safe to keep without effect is kept, and shown as it was given.  What a topic does not say, the broker's own dynamic
settings say, then those of all brokers, then what the broker was started with.
Effective are max.message.bytes, retention.ms and retention.bytes, of a topic and (as message.max.bytes,
log.retention.ms, log.retention.bytes) of brokers.
Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from seatrial.kafka.backend import Backend, BrokerSettings
from seatrial.machines.metadata import Topic


class ConfigType(IntEnum):
    """`config_type` of a DescribeConfigs response."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    LONG = 5
    DOUBLE = 6
    LIST = 7


class ConfigSource(IntEnum):
    """`config_source` of a DescribeConfigs response, those that weigh more first."""

    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5


class Known(NamedTuple):
    """A setting.  `only`: the values that are accepted, where not all are; `low`: the least one of a number."""

    kind: ConfigType
    default: str
    only: tuple[str, ...] = ()
    low: int | None = None


MAX_MESSAGE_BYTES: Final = "max.message.bytes"
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
MIN_INSYNC_REPLICAS: Final = "min.insync.replicas"
FLUSH_MESSAGES: Final = "flush.messages"
NEVER: Final = "9223372036854775807"
_GREATEST: Final = {ConfigType.INT: 2**31 - 1, ConfigType.LONG: 2**63 - 1}
EVERYWHERE: Final = ""  # the name of the settings that all brokers have

TOPIC_CONFIGS: Final[Mapping[str, Known]] = {
    "cleanup.policy": Known(ConfigType.LIST, "delete", ("delete", "compact", "compact,delete", "delete,compact")),
    "compression.type": Known(ConfigType.STRING, "producer", ("producer",)),
    "delete.retention.ms": Known(ConfigType.LONG, "86400000"),
    "file.delete.delay.ms": Known(ConfigType.LONG, "60000"),
    FLUSH_MESSAGES: Known(ConfigType.LONG, "1", low=1),
    "flush.ms": Known(ConfigType.LONG, NEVER),
    "follower.replication.throttled.replicas": Known(ConfigType.LIST, ""),
    "index.interval.bytes": Known(ConfigType.INT, "4096"),
    "leader.replication.throttled.replicas": Known(ConfigType.LIST, ""),
    "max.compaction.lag.ms": Known(ConfigType.LONG, NEVER),
    MAX_MESSAGE_BYTES: Known(ConfigType.INT, "", low=0),
    "message.timestamp.after.max.ms": Known(ConfigType.LONG, NEVER),
    "message.timestamp.before.max.ms": Known(ConfigType.LONG, NEVER),
    "message.timestamp.type": Known(ConfigType.STRING, "CreateTime", ("CreateTime",)),
    "min.cleanable.dirty.ratio": Known(ConfigType.DOUBLE, "0.5"),
    "min.compaction.lag.ms": Known(ConfigType.LONG, "0"),
    MIN_INSYNC_REPLICAS: Known(ConfigType.INT, "1", low=1),
    "preallocate": Known(ConfigType.BOOLEAN, "false", ("true", "false")),
    RETENTION_BYTES: Known(ConfigType.LONG, "-1", low=-1),
    RETENTION_MS: Known(ConfigType.LONG, "-1", low=-1),
    "segment.bytes": Known(ConfigType.INT, "1073741824"),
    "segment.index.bytes": Known(ConfigType.INT, "10485760"),
    "segment.jitter.ms": Known(ConfigType.LONG, "0"),
    "segment.ms": Known(ConfigType.LONG, "604800000"),
    "unclean.leader.election.enable": Known(ConfigType.BOOLEAN, "false", ("false",)),
}

# Where a topic does not say, brokers may: by these names, which can be changed while they run.
_BROKER_NAMES: Final[Mapping[str, str]] = {
    MAX_MESSAGE_BYTES: "message.max.bytes",
    RETENTION_BYTES: "log.retention.bytes",
    RETENTION_MS: "log.retention.ms",
}
DYNAMIC_BROKER_CONFIGS: Final[Mapping[str, Known]] = {
    **{broker: TOPIC_CONFIGS[topic] for topic, broker in _BROKER_NAMES.items()},
    # Of kafka-reassign-partitions, which takes them away at its end whether it had set them or not: without effect.
    "follower.replication.throttled.rate": Known(ConfigType.LONG, NEVER, low=0),
    "leader.replication.throttled.rate": Known(ConfigType.LONG, NEVER, low=0),
    "replica.alter.log.dirs.io.max.bytes.per.second": Known(ConfigType.LONG, NEVER, low=0),
}


class Synonym(NamedTuple):
    """One place that says what a setting is."""

    name: str
    value: str
    source: ConfigSource


class ConfigEntry(NamedTuple):
    """One setting as it is shown; `synonyms`: all places that say what it is, the one that counts first."""

    name: str
    kind: ConfigType
    synonyms: Sequence[Synonym]

    @property
    def value(self) -> str:
        return self.synonyms[0].value

    @property
    def source(self) -> ConfigSource:
        return self.synonyms[0].source


class Inherited(NamedTuple):
    """What one broker's topics have where they do not say otherwise.

    brokers: settings by broker id as text, EVERYWHERE for all (`MetadataMachine.broker_configs`).
    """

    settings: BrokerSettings
    node_id: int
    brokers: Mapping[str, Mapping[str, str]]

    def of_broker(self, name: str) -> list[Synonym]:
        """What was set while the brokers run, by a broker's name of the setting."""
        found = []
        own, everywhere = ConfigSource.DYNAMIC_BROKER_CONFIG, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
        for broker, source in ((str(self.node_id), own), (EVERYWHERE, everywhere)):
            value = self.brokers.get(broker, {}).get(name)
            if value is not None:
                found.append(Synonym(name, value, source))
        return found

    def of_topic(self, name: str, configs: Mapping[str, str]) -> list[Synonym]:
        """All that is said of a topic's setting; never empty."""
        found = []
        if name in configs:
            found.append(Synonym(name, configs[name], ConfigSource.DYNAMIC_TOPIC_CONFIG))
        broker_name = _BROKER_NAMES.get(name)
        if broker_name is not None:
            found += self.of_broker(broker_name)
        return [*found, Synonym(broker_name or name, self._default(name), ConfigSource.DEFAULT_CONFIG)]

    def _default(self, name: str) -> str:
        if name == MAX_MESSAGE_BYTES:
            return str(self.settings.max_message_bytes)
        if name == FLUSH_MESSAGES and not self.settings.syncs:
            return NEVER
        return TOPIC_CONFIGS[name].default


class Retention(NamedTuple):
    """How long records stay, and how many bytes of them; -1: for ever, and all."""

    ms: int
    bytes: int


def inherited(backend: Backend, settings: BrokerSettings) -> Inherited:
    return Inherited(settings, backend.node_id, backend.metadata.broker_configs)


def refuse_config(name: str, value: str | None, known: Mapping[str, Known] = TOPIC_CONFIGS) -> str | None:
    """Why there cannot be this setting, or None."""
    setting = known.get(name)
    if setting is None:
        return f"unknown {'topic' if known is TOPIC_CONFIGS else 'dynamic broker'} config name: {name}"
    if value is None:
        return f"the value of {name} must not be null"
    if setting.only and value not in setting.only:
        return f"{name} can only be {' or '.join(setting.only)} in this broker, not {value!r}"
    number = float if setting.kind == ConfigType.DOUBLE else int
    if setting.kind in (ConfigType.INT, ConfigType.LONG, ConfigType.DOUBLE):
        try:
            read = number(value)
        except ValueError:
            return f"the value of {name} must be a number, not {value!r}"
        if setting.low is not None and read < setting.low:
            return f"{name} must be at least {setting.low}, not {value}"
        if read > _GREATEST.get(setting.kind, read):
            return f"{name} can be at most {_GREATEST[setting.kind]}, not {value}"
    return None


def refuse_promise(configs: Mapping[str, str], factor: int, settings: BrokerSettings) -> str | None:
    """What a topic with so many replicas, on brokers started so, would be promised by its settings and not get."""
    majority = factor // 2 + 1
    wanted = int(configs.get(MIN_INSYNC_REPLICAS, "1"))
    if wanted > majority:
        return (
            f"{MIN_INSYNC_REPLICAS} can be at most {majority} of {factor} replicas: a record is acknowledged as soon "
            f"as a majority has it, not when {wanted} replicas have"
        )
    if not settings.syncs and configs.get(FLUSH_MESSAGES, NEVER) != NEVER:
        return f"{FLUSH_MESSAGES} has no effect with --durability os: start the brokers with --durability fsync"
    return None


def max_message_bytes(topic: Topic | None, backend: Backend, settings: BrokerSettings) -> int:
    """The largest record batch that a topic takes."""
    configs = topic.configs if topic is not None else {}
    own = configs.get(MAX_MESSAGE_BYTES)
    if own is not None:
        return int(own)
    if not backend.metadata.broker_configs:
        return settings.max_message_bytes
    return int(inherited(backend, settings).of_topic(MAX_MESSAGE_BYTES, configs)[0].value)


def retention(configs: Mapping[str, str], defaults: Inherited) -> Retention:
    """Of a topic with these settings."""
    ms, size = (int(defaults.of_topic(name, configs)[0].value) for name in (RETENTION_MS, RETENTION_BYTES))
    return Retention(ms, size)


def topic_entries(configs: Mapping[str, str], defaults: Inherited) -> list[ConfigEntry]:
    """All settings of a topic, by name."""
    return [ConfigEntry(name, known.kind, defaults.of_topic(name, configs)) for name, known in TOPIC_CONFIGS.items()]


def default_broker_entries(brokers: Mapping[str, Mapping[str, str]]) -> list[ConfigEntry]:
    """The dynamic settings that all brokers have."""
    source = ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    return [
        ConfigEntry(name, DYNAMIC_BROKER_CONFIGS[name].kind, [Synonym(name, value, source)])
        for name, value in sorted(brokers.get(EVERYWHERE, {}).items())
    ]


def broker_entries(defaults: Inherited) -> list[ConfigEntry]:
    """The settings of this broker that have a name in Kafka."""
    settings = defaults.settings
    auto_create = "true" if settings.auto_create_topics else "false"
    static: dict[str, tuple[str, ConfigType]] = {
        "auto.create.topics.enable": (auto_create, ConfigType.BOOLEAN),
        "broker.id": (str(defaults.node_id), ConfigType.INT),
        "default.replication.factor": (str(settings.default_replication_factor), ConfigType.INT),
        "fetch.max.bytes": (str(settings.fetch_max_bytes), ConfigType.INT),
        "message.max.bytes": (str(settings.max_message_bytes), ConfigType.INT),
        "num.partitions": (str(settings.default_partitions), ConfigType.INT),
    }
    entries = []
    for name in sorted({*static, *DYNAMIC_BROKER_CONFIGS}):
        synonyms = defaults.of_broker(name)
        if name in static:
            value, kind = static[name]
            synonyms.append(Synonym(name, value, ConfigSource.STATIC_BROKER_CONFIG))
        else:
            kind = DYNAMIC_BROKER_CONFIGS[name].kind
            synonyms.append(Synonym(name, DYNAMIC_BROKER_CONFIGS[name].default, ConfigSource.DEFAULT_CONFIG))
        entries.append(ConfigEntry(name, kind, synonyms))
    return entries
