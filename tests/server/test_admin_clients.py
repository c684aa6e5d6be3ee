"""Admin calls of unmodified clients on three nodes as processes: what they ask for comes about, on every node."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import ElectionType, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic
from server_processes import Servers, servers, until

with warnings.catch_warnings():
    # kafka-python reads its definitions, at import, in a way that Python deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.admin import ConfigResource as PythonResource
    from kafka.admin import KafkaAdminClient

    from kafka import TopicPartition as PythonPartition

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
_topics = itertools.count()
PATIENCE_S = 60.0
# Nobody dies here, so a machine that is short of time need not hold elections.
UNHURRIED = ("--heartbeat-ms", "200", "--election-timeout-ms", "3000")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("admin"), 3, *UNHURRIED) as started:
        yield started


@pytest.fixture(scope="module")
def confluent(cluster: Servers) -> AdminClient:
    return AdminClient({"bootstrap.servers": cluster.bootstrap})


@pytest.fixture(scope="module")
def python(cluster: Servers) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    yield client
    client.close()


def new_topic(admin: AdminClient, *assignments: list[int], **configs: str) -> str:
    """With the replicas of each partition named, and led by some of them."""
    name = f"admin{next(_topics)}"
    named = {key.replace("_", "."): value for key, value in configs.items()}
    made = NewTopic(name, len(assignments), replica_assignment=list(assignments), config=named)
    admin.create_topics([made])[name].result(PATIENCE_S)
    until(lambda: leaders(admin, name), lambda: described(admin, name), PATIENCE_S)
    return name


def described(admin: AdminClient, name: str) -> Any:
    return admin.describe_topics(TopicCollection([name]))[name].result(PATIENCE_S)


def leaders(admin: AdminClient, name: str) -> list[int] | None:
    """None while one is not known."""
    found = [partition.leader for partition in described(admin, name).partitions]
    return [leader.id for leader in found] if all(leader is not None and leader.id >= 0 for leader in found) else None


def fill(cluster: Servers, name: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for number in range(count):
        producer.produce(name, b"%d" % number, partition=0)
    assert producer.flush(PATIENCE_S) == 0


LEADER_ELSEWHERE = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError._NOENT)
SPECS: Any = OffsetSpec  # which has no types


def offset_at(admin: AdminClient, name: str, spec: Any) -> int:
    """Asked again where the client went to who led before: it does not look again by itself."""
    partition = TopicPartition(name, 0)

    def asked() -> list[int]:
        try:
            return [admin.list_offsets({partition: spec})[partition].result(PATIENCE_S).offset]
        except KafkaException as error:
            assert error.args[0].code() in LEADER_ELSEWHERE, error
            return []

    (offset,) = until(asked, lambda: described(admin, name), PATIENCE_S)
    return int(offset)


def test_a_topic_grows_by_either_client(cluster: Servers, confluent: AdminClient, python: Any) -> None:
    name = new_topic(confluent, [1, 2, 3])
    confluent.create_partitions([NewPartitions(name, 3)])[name].result(PATIENCE_S)
    python.create_partitions({name: 5})
    until(lambda: len(leaders(confluent, name) or ()) == 5, lambda: described(confluent, name), PATIENCE_S)
    fill(cluster, name, 1)


def test_settings_are_changed_and_read_back_by_either_client(confluent: AdminClient, python: Any) -> None:
    name = new_topic(confluent, [1, 2, 3], retention_ms="1000000")
    changes = [
        ConfigEntry("max.message.bytes", "5000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE),
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=changes)
    confluent.incremental_alter_configs([resource])[resource].result(PATIENCE_S)

    def settings() -> Any:
        return confluent.describe_configs([resource])[resource].result(PATIENCE_S)

    # Any node may be asked, also one that has not heard of the change yet.
    def values() -> tuple[str, str]:
        found = settings()
        return found["max.message.bytes"].value, found["retention.ms"].value

    until(lambda: values() == ("5000", "-1"), values, PATIENCE_S)
    found = settings()
    assert found["max.message.bytes"].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value

    def told() -> Any:
        return python.describe_configs([PythonResource("TOPIC", name)])["topic"][name]["max.message.bytes"]["value"]

    until(lambda: told() == "5000", told, PATIENCE_S)
    python.alter_configs([PythonResource("TOPIC", name, {"retention.ms": "7"})])
    until(lambda: values()[1] == "7", values, PATIENCE_S)


def test_records_are_deleted_by_either_client(cluster: Servers, confluent: AdminClient, python: Any) -> None:
    name = new_topic(confluent, [1, 2, 3])
    fill(cluster, name, 30)
    partition = TopicPartition(name, 0, 10)
    deleted = confluent.delete_records([partition])[partition].result(PATIENCE_S)
    assert deleted.low_watermark == offset_at(confluent, name, SPECS.earliest()) == 10
    python.delete_records({PythonPartition(name, 0): 20})
    assert offset_at(confluent, name, SPECS.earliest()) == 20


def test_a_partition_moves_with_its_records(cluster: Servers, confluent: AdminClient, python: Any) -> None:
    name = new_topic(confluent, [1, 2])
    fill(cluster, name, 20)
    python.alter_partition_reassignments({PythonPartition(name, 0): [3, 2]})

    def moved() -> bool:
        replicas = [node.id for node in described(confluent, name).partitions[0].replicas]
        return (
            replicas == [3, 2] and not python.list_partition_reassignments() and not cluster.nodes[1].group(f"{name}/0")
        )

    until(moved, lambda: (described(confluent, name), python.list_partition_reassignments()), PATIENCE_S)
    assert offset_at(confluent, name, SPECS.latest()) == 20
    states = [cluster.nodes[number].group(f"{name}/0") for number in (2, 3)]
    assert all(state is not None and state["voters"] == [2, 3] for state in states)


def test_the_preferred_replica_takes_the_lead_when_it_is_asked_to(
    cluster: Servers, confluent: AdminClient, python: Any
) -> None:
    name = new_topic(confluent, [1, 2, 3])
    python.alter_partition_reassignments({PythonPartition(name, 0): [2, 3, 1]})
    until(lambda: not python.list_partition_reassignments(), python.list_partition_reassignments, PATIENCE_S)

    def elected() -> bool:
        partition = TopicPartition(name, 0)
        asked = confluent.elect_leaders(ElectionType.PREFERRED, [partition]).result(PATIENCE_S)
        return list(asked.values()) != [] and leaders(confluent, name) == [2]

    until(elected, lambda: described(confluent, name), PATIENCE_S)


def test_the_cluster_and_its_disks_are_described(cluster: Servers, confluent: AdminClient, python: Any) -> None:
    name = new_topic(confluent, [1, 2, 3])
    fill(cluster, name, 10)
    found = confluent.describe_cluster().result(PATIENCE_S)
    assert [node.id for node in found.nodes] == [1, 2, 3]
    assert {broker["broker_id"] for broker in python.describe_cluster()["brokers"]} == {1, 2, 3}
    assert name in str(python.describe_log_dirs())
    assert name in str(python.describe_topic_partitions([name]))
