"""aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
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

NO_CALL: Final = "no such call"
PROFILE: Final = Profile(
    name="aiokafka",
    version=locked_version("aiokafka"),
    rack="client_rack",
    cannot={
        "deletes_groups": NO_CALL,
        "sets_group_offsets": NO_CALL,
        "deletes_group_offsets": NO_CALL,
        "elects_preferred_leaders": NO_CALL,
        "moves_replicas": NO_CALL,
        "describes_log_directories": NO_CALL,
    },
)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, DEADLINE_S))


class AiokafkaClient:
    """As an application in Python would use it, one loop for each thing that is asked of it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def create_topic(self, topic: str, partitions: int) -> None:
        self._administered(lambda admin: admin.create_topics([NewTopic(topic, partitions, 3)]))

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        async def work() -> list[int]:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all" if how.acks < 0 else how.acks,
                enable_idempotence=how.idempotent,
                compression_type=None if how.codec == "none" else how.codec,
            )
            await producer.start()
            try:
                sent = []
                for record in records:
                    sent.append(
                        await producer.send(
                            topic,
                            record.value,
                            record.key,
                            partition=0,
                            timestamp_ms=record.timestamp_ms,
                            headers=list(record.headers),
                        )
                    )
                    await asyncio.sleep(how.pause_s)
                told = [await future for future in sent]
                return [one.offset for one in told] if how.acks else []
            finally:
                await producer.stop()

        offsets: list[int] = _run(work())
        return offsets

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        async def work() -> list[Found]:
            async with self._consumer(client_rack=rack or None) as consumer:
                consumer.assign([TopicPartition(topic, 0)])
                consumer.seek(TopicPartition(topic, 0), offset)
                return [
                    Found(one.offset, one.value, one.key, tuple(one.headers), one.timestamp)
                    for one in await _taken(consumer, count)
                ]

        found: list[Found] = _run(work())
        return found

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        async def work() -> list[int]:
            async with self._consumer(topic, group_id=group) as consumer:
                found = await _taken(consumer, count)
                await consumer.commit({TopicPartition(topic, one.partition): one.offset + 1 for one in found})
                return [int(one.value) for one in found]

        values: list[int] = _run(work())
        return values

    def offset_at(self, topic: str, when: int) -> int:
        wanted = TopicPartition(topic, 0)

        async def work() -> int:
            async with self._consumer() as consumer:
                if when == EARLIEST:
                    return int((await consumer.beginning_offsets([wanted]))[wanted])
                if when == LATEST:
                    return int((await consumer.end_offsets([wanted]))[wanted])
                return int((await consumer.offsets_for_times({wanted: when}))[wanted].offset)

        offset: int = _run(work())
        return offset

    def admin(self, call: str, **arguments: Any) -> Any:
        return getattr(self, f"_{call}")(**arguments)

    def close(self) -> None:
        return None

    @asynccontextmanager
    async def _consumer(self, *topics: str, **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            # When it asks an old leader for offsets, this client does not look for the new one before this has passed.
            metadata_max_age_ms=1000,
            **settings,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    def _administered(self, ask: Any) -> Any:
        async def work() -> Any:
            admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
            await admin.start()
            try:
                answer = await ask(admin)
            finally:
                await admin.close()
            _expect_no_errors(answer)
            return answer

        return _run(work())

    def _list_topics(self) -> list[str]:
        return list(self._administered(lambda admin: admin.list_topics()))

    def _replicas_of(self, topic: str) -> dict[int, list[int]]:
        (found,) = self._administered(lambda admin: admin.describe_topics([topic]))
        return {one["partition"]: sorted(one["replicas"]) for one in found["partitions"]}

    def _delete_topic(self, topic: str) -> None:
        self._administered(lambda admin: admin.delete_topics([topic]))

    def _node_ids(self) -> list[int]:
        found = self._administered(lambda admin: admin.describe_cluster())
        return [broker["node_id"] for broker in found["brokers"]]

    def _config(self, kind: ConfigResourceType, name: str) -> dict[str, str]:
        (found,) = self._administered(lambda admin: admin.describe_configs([ConfigResource(kind, name)]))
        (resource,) = found.to_object()["resources"]
        return {entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]}

    def _topic_config(self, topic: str) -> dict[str, str]:
        return self._config(ConfigResourceType.TOPIC, topic)

    def _broker_config(self, node: int) -> dict[str, str]:
        return self._config(ConfigResourceType.BROKER, str(node))

    def _set_topic_config(self, topic: str, name: str, value: str) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: value})
        self._administered(lambda admin: admin.alter_configs([resource]))

    def _set_partition_count(self, topic: str, count: int) -> None:
        self._administered(lambda admin: admin.create_partitions({topic: NewPartitions(count)}))

    def _delete_records(self, topic: str, before: int) -> None:
        wanted = {TopicPartition(topic, 0): RecordsToDelete(before)}
        self._administered(lambda admin: admin.delete_records(wanted))

    def _list_groups(self) -> list[str]:
        return [group for group, _ in self._administered(lambda admin: admin.list_consumer_groups())]

    def _group_state(self, group: str) -> str:
        (found,) = self._administered(lambda admin: admin.describe_consumer_groups([group]))
        state: str = found.to_object()["groups"][0]["state"]
        return state

    def _group_offsets(self, group: str, topic: str) -> dict[int, int]:
        found = self._administered(lambda admin: admin.list_consumer_group_offsets(group))
        return {one.partition: offset.offset for one, offset in found.items() if one.topic == topic}


def _expect_no_errors(answer: Any) -> None:
    """This client leaves it to the caller to look at what came back."""
    for response in answer if isinstance(answer, list) else [answer]:
        if hasattr(response, "to_object"):
            _look_for_errors(response.to_object())


def _look_for_errors(value: Any) -> None:
    if isinstance(value, dict):
        assert value.get("error_code", 0) == 0, value
        for part in value.values():
            _look_for_errors(part)
    elif isinstance(value, list):
        for part in value:
            _look_for_errors(part)


async def _taken(consumer: AIOKafkaConsumer, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=count - len(found))).values():
            found += records
    return found
