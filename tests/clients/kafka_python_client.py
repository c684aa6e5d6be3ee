"""kafka-python."""

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
from kafka.admin import ConfigResource, OffsetSpec
from kafka.structs import OffsetAndMetadata

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

PROFILE: Final = Profile(
    name="kafka-python",
    version=locked_version("kafka-python"),
    rack="client_rack",
)


class KafkaPythonClient:
    """As an application in Python would use it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def create_topic(self, topic: str, partitions: int) -> None:
        self._admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 3}})

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        producer = KafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks=how.acks,
            enable_idempotence=how.idempotent,
            compression_type=None if how.codec == "none" else how.codec,
            linger_ms=2,
        )
        try:
            sent = []
            for record in records:
                sent.append(
                    producer.send(
                        topic,
                        record.value,
                        record.key,
                        headers=list(record.headers),
                        partition=0,
                        timestamp_ms=record.timestamp_ms,
                    )
                )
                time.sleep(how.pause_s)
            offsets = [future.get(DEADLINE_S).offset for future in sent]
        finally:
            producer.close(DEADLINE_S)
        return offsets if how.acks else []

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, client_rack=rack, auto_offset_reset="earliest")
        try:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            consumer.seek(partition, offset)
            return [
                Found(found.offset, found.value, found.key, tuple(found.headers), found.timestamp)
                for found in _polled(consumer, count)
            ]
        finally:
            consumer.close()

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        consumer = KafkaConsumer(
            topic,
            bootstrap_servers=self._bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        try:
            found = _polled(consumer, count)
            consumer.commit(
                {TopicPartition(topic, one.partition): OffsetAndMetadata(one.offset + 1, "", -1) for one in found}
            )
            return [int(one.value) for one in found]
        finally:
            consumer.close()

    def offset_at(self, topic: str, when: int) -> int:
        wanted = TopicPartition(topic, 0)
        named = {EARLIEST: OffsetSpec.EARLIEST, LATEST: OffsetSpec.LATEST}
        found = self._admin.list_partition_offsets({wanted: named.get(when, when)})
        offset: int = found[wanted].offset
        return offset

    def admin(self, call: str, **arguments: Any) -> Any:
        return getattr(self, f"_{call}")(**arguments)

    def close(self) -> None:
        self._admin.close()

    def _list_topics(self) -> list[str]:
        return list(self._admin.list_topics())

    def _replicas_of(self, topic: str) -> dict[int, list[int]]:
        (found,) = self._admin.describe_topics([topic])
        return {one["partition_index"]: sorted(one["replica_nodes"]) for one in found["partitions"]}

    def _delete_topic(self, topic: str) -> None:
        self._admin.delete_topics([topic])

    def _node_ids(self) -> list[int]:
        return [broker["broker_id"] for broker in self._admin.describe_cluster()["brokers"]]

    def _config(self, kind: str, name: str) -> dict[str, str]:
        found = self._admin.describe_configs([ConfigResource(kind, name)], config_filter="all")
        return {key: entry["value"] for key, entry in found[kind.lower()][name].items()}

    def _topic_config(self, topic: str) -> dict[str, str]:
        return self._config("TOPIC", topic)

    def _broker_config(self, node: int) -> dict[str, str]:
        return self._config("BROKER", str(node))

    def _set_topic_config(self, topic: str, name: str, value: str) -> None:
        self._admin.alter_configs([ConfigResource("TOPIC", topic, {name: value})])

    def _set_partition_count(self, topic: str, count: int) -> None:
        self._admin.create_partitions({topic: count})

    def _delete_records(self, topic: str, before: int) -> None:
        self._admin.delete_records({TopicPartition(topic, 0): before})

    def _list_groups(self) -> list[str]:
        return [group["group_id"] for group in self._admin.list_groups()]

    def _group_state(self, group: str) -> str:
        state: str = self._admin.describe_groups([group])[group]["group_state"]
        return state

    def _group_offsets(self, group: str, topic: str) -> dict[int, int]:
        found = self._admin.list_group_offsets({group: None})[group]
        return {one.partition: offset.offset for one, offset in found.items() if one.topic == topic}

    def _delete_group(self, group: str) -> None:
        _expect_no_errors(self._admin.delete_groups([group]))

    def _set_group_offset(self, group: str, topic: str, offset: int) -> None:
        wanted = {TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)}
        _expect_no_errors(self._admin.alter_group_offsets(group, wanted))

    def _delete_group_offset(self, group: str, topic: str) -> None:
        _expect_no_errors(self._admin.delete_group_offsets(group, [TopicPartition(topic, 0)]))

    def _elect_preferred_leader(self, topic: str) -> None:
        self._admin.elect_leaders(0, {topic: [0]}, raise_errors=False)

    def _reassign(self, topic: str, replicas: list[int]) -> None:
        answer = self._admin.alter_partition_reassignments({TopicPartition(topic, 0): replicas})
        assert list(answer.values()) == [None], answer

    def _partition_sizes(self, topic: str) -> dict[int, int]:
        return {
            broker["broker"]: partition["partition_size"]
            for broker in self._admin.describe_log_dirs({topic: [0]})
            for directory in broker["log_dirs"]
            for found in directory["topics"]
            for partition in found["partitions"]
        }


def _expect_no_errors(answer: Any) -> None:
    """This client leaves it to the caller to look at what came back."""
    text = str(answer)
    assert "Error" not in text.replace("NoError", ""), text


def _polled(consumer: KafkaConsumer, count: int) -> list[Any]:
    end = time.monotonic() + DEADLINE_S
    found: list[Any] = []
    while len(found) < count:
        assert time.monotonic() < end, f"{len(found)} of {count} records within {DEADLINE_S} s"
        for records in consumer.poll(timeout_ms=2000, max_records=count - len(found)).values():
            found += records
    return found
