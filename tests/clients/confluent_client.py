"""confluent-kafka (librdkafka)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from client_under_test import (
    DEADLINE_S,
    EARLIEST,
    LATEST,
    Found,
    Producing,
    Profile,
    Record,
    locked_version,
)
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    ElectionType,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

PROFILE: Final = Profile(
    name="confluent-kafka",
    version=locked_version("confluent-kafka"),
    rack="client.rack",
    cannot={
        "deletes_group_offsets": "no such call in its Python API",
        "moves_replicas": "no such call",
        "describes_log_directories": "no such call",
    },
)


class ConfluentClient:
    """As an application in Python would use it."""

    def __init__(self, bootstrap: str) -> None:
        # Logs of connections that break when a broker is killed belong to nobody here.
        self._settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._admin = AdminClient(self._settings)

    def create_topic(self, topic: str, partitions: int) -> None:
        self._admin.create_topics([NewTopic(topic, partitions, 3)])[topic].result(DEADLINE_S)

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        producer = Producer(
            self._settings
            | {"acks": how.acks, "enable.idempotence": how.idempotent, "compression.type": how.codec, "linger.ms": 2}
        )
        offsets: list[int] = []
        failed: list[Any] = []

        def delivered(error: Any, message: Message) -> None:
            if error is not None:
                failed.append(error)
            else:
                offsets.append(message.offset() or 0)

        for record in records:
            extra: dict[str, Any] = {} if record.timestamp_ms is None else {"timestamp": record.timestamp_ms}
            producer.produce(
                topic,
                record.value,
                record.key,
                partition=0,
                headers=list(record.headers),
                on_delivery=delivered,
                **extra,
            )
            producer.poll(how.pause_s)
        assert producer.flush(DEADLINE_S) == 0
        assert not failed, failed
        return offsets if how.acks else []

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        consumer = Consumer(self._settings | {"group.id": "none", "enable.auto.commit": False, "client.rack": rack})
        try:
            consumer.assign([TopicPartition(topic, 0, offset)])
            return [_found(message) for message in _consumed(consumer, count)]
        finally:
            consumer.close()

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        consumer = Consumer(
            self._settings | {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        try:
            consumer.subscribe([topic])
            messages = _consumed(consumer, count)
            following = {(m.partition() or 0): (m.offset() or 0) + 1 for m in messages}
            consumer.commit(
                offsets=[TopicPartition(topic, partition, offset) for partition, offset in following.items()],
                asynchronous=False,
            )
            return [int(message.value() or b"") for message in messages]
        finally:
            consumer.close()

    def offset_at(self, topic: str, when: int) -> int:
        named = {EARLIEST: OffsetSpec.earliest(), LATEST: OffsetSpec.latest()}
        wanted = TopicPartition(topic, 0)
        found = self._admin.list_offsets({wanted: named.get(when) or OffsetSpec.for_timestamp(when)})
        offset: int = found[wanted].result(DEADLINE_S).offset
        return offset

    def admin(self, call: str, **arguments: Any) -> Any:
        return getattr(self, f"_{call}")(**arguments)

    def close(self) -> None:
        return None

    def _list_topics(self) -> list[str]:
        return list(self._admin.list_topics(timeout=DEADLINE_S).topics)

    def _replicas_of(self, topic: str) -> dict[int, list[int]]:
        found = self._admin.describe_topics(TopicCollection([topic]))[topic].result(DEADLINE_S)
        return {partition.id: sorted(node.id for node in partition.replicas) for partition in found.partitions}

    def _delete_topic(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(DEADLINE_S)

    def _node_ids(self) -> list[int]:
        return [node.id for node in self._admin.describe_cluster().result(DEADLINE_S).nodes]

    def _config(self, resource: ConfigResource) -> dict[str, str]:
        found = self._admin.describe_configs([resource])[resource].result(DEADLINE_S)
        return {name: entry.value for name, entry in found.items()}

    def _topic_config(self, topic: str) -> dict[str, str]:
        return self._config(ConfigResource(ResourceType.TOPIC, topic))

    def _broker_config(self, node: int) -> dict[str, str]:
        return self._config(ConfigResource(ResourceType.BROKER, str(node)))

    def _set_topic_config(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self._admin.incremental_alter_configs([resource])[resource].result(DEADLINE_S)

    def _set_partition_count(self, topic: str, count: int) -> None:
        self._admin.create_partitions([NewPartitions(topic, count)])[topic].result(DEADLINE_S)

    def _delete_records(self, topic: str, before: int) -> None:
        wanted = TopicPartition(topic, 0, before)
        self._admin.delete_records([wanted])[wanted].result(DEADLINE_S)

    def _list_groups(self) -> list[str]:
        found = self._admin.list_consumer_groups().result(DEADLINE_S)
        assert not found.errors
        return [group.group_id for group in found.valid]

    def _group_state(self, group: str) -> str:
        state: str = self._admin.describe_consumer_groups([group])[group].result(DEADLINE_S).state.name
        return state

    def _group_offsets(self, group: str, topic: str) -> dict[int, int]:
        wanted = ConsumerGroupTopicPartitions(group)
        found = self._admin.list_consumer_group_offsets([wanted])[group].result(DEADLINE_S)
        return {tp.partition: tp.offset for tp in found.topic_partitions if tp.topic == topic and tp.offset >= 0}

    def _delete_group(self, group: str) -> None:
        self._admin.delete_consumer_groups([group])[group].result(DEADLINE_S)

    def _set_group_offset(self, group: str, topic: str, offset: int) -> None:
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, offset)])
        self._admin.alter_consumer_group_offsets([wanted])[group].result(DEADLINE_S)

    def _elect_preferred_leader(self, topic: str) -> None:
        wanted = TopicPartition(topic, 0)
        for error in self._admin.elect_leaders(ElectionType.PREFERRED, [wanted]).result(DEADLINE_S).values():
            if error is not None and error.name() != "ELECTION_NOT_NEEDED":
                raise KafkaException(error)


def _consumed(consumer: Consumer, count: int) -> list[Message]:
    end = time.monotonic() + DEADLINE_S
    messages: list[Message] = []
    while len(messages) < count:
        assert time.monotonic() < end, f"{len(messages)} of {count} records within {DEADLINE_S} s"
        for message in consumer.consume(count - len(messages), 0.2):
            if message.error() is None:
                messages.append(message)
    return messages


def _found(message: Message) -> Found:
    headers = tuple((name, value if isinstance(value, bytes) else b"") for name, value in message.headers() or ())
    key, value = message.key(), message.value()
    assert isinstance(value, bytes) and not isinstance(key, str)
    return Found(message.offset() or 0, value, key, headers, message.timestamp()[1])
