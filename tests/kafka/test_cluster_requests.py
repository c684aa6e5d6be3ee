"""Metadata, FindCoordinator, InitProducerId and DescribeCluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.backend import NotLeader
from seatrial.kafka.codec import message
from seatrial.kafka.context import CloseConnection
from seatrial.kafka.errors import ErrorCode
from seatrial.machines.metadata import MetadataMachine


def ask(broker: FakeBroker, key: ApiKey, version: int, settings: dict[str, Any] | None = None, /, **fields: Any) -> Any:
    async def scenario() -> Any:
        return await Wire(broker, **(settings or {})).ask(key, version, **fields)

    return asyncio.run(scenario())


def named(*names: str | None, topic_id: bytes = bytes(16)) -> list[Any]:
    structure = message("MetadataRequest").structure("MetadataRequestTopic")
    return [structure(name=name, topic_id=topic_id) for name in names]


@pytest.mark.parametrize("version", range(14))
def test_metadata_tells_brokers_and_partitions_in_every_version(version: int) -> None:
    broker = FakeBroker()
    partition = broker.create("t", 2)
    partition.lead(7, leader_id=2, is_leader=False)
    partition.in_sync = (1, 2)
    response = ask(broker, ApiKey.METADATA, version, topics=named("t"))
    assert [(b.node_id, b.host, b.port) for b in response.brokers] == [(n, f"kafka{n}", 9090 + n) for n in (1, 2, 3)]
    (topic,) = response.topics
    assert (topic.error_code, topic.name, topic.is_internal) == (0, "t", False)
    first, second = topic.partitions
    assert (first.error_code, first.partition_index, first.leader_id) == (0, 0, 2)
    assert (first.replica_nodes, first.isr_nodes) == ([1, 2, 3], [1, 2])
    assert (second.partition_index, second.leader_id) == (1, 1)
    if version >= 1:
        assert response.controller_id == 1
        assert response.brokers[0].rack == "rack1"
    if version >= 2:
        assert response.cluster_id == "test"
    if version >= 7:
        assert (first.leader_epoch, second.leader_epoch) == (7, 1)
    if version >= 10:
        assert topic.topic_id == broker.metadata.topics["t"].topic_id


def test_all_topics_are_asked_for_by_null_or_in_version_0_by_nothing() -> None:
    broker = FakeBroker()
    broker.create("b")
    broker.create("a")
    for version, topics, expected in (
        (0, [], ["a", "b"]),
        (1, None, ["a", "b"]),
        (12, None, ["a", "b"]),
        (1, [], []),
        (12, [], []),
    ):
        response = ask(broker, ApiKey.METADATA, version, topics=topics)
        assert [topic.name for topic in response.topics] == expected, version


def test_topics_are_found_by_id() -> None:
    broker = FakeBroker()
    topic_id = broker.create("t").topic_id
    (found,) = ask(broker, ApiKey.METADATA, 12, topics=named(None, topic_id=topic_id)).topics
    assert (found.name, found.error_code) == ("t", 0)
    (missing,) = ask(broker, ApiKey.METADATA, 12, topics=named(None, topic_id=b"?" * 16)).topics
    assert (missing.name, missing.topic_id, missing.error_code) == (None, b"?" * 16, ErrorCode.UNKNOWN_TOPIC_ID)


def test_what_is_not_there_or_cannot_be_has_its_own_error() -> None:
    response = ask(FakeBroker(), ApiKey.METADATA, 9, topics=named("missing", "bad name"))
    assert [topic.error_code for topic in response.topics] == [
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]


def test_a_partition_without_a_leader_says_so_and_dead_nodes_are_offline() -> None:
    broker = FakeBroker()
    broker.create("t").lead(3, leader_id=-1, is_leader=False)
    broker.alive = [1, 2]
    response = ask(broker, ApiKey.METADATA, 9, topics=named("t"))
    (partition,) = response.topics[0].partitions
    assert (partition.error_code, partition.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)
    assert partition.offline_replicas == [3]
    assert [b.node_id for b in response.brokers] == [1, 2]


@pytest.mark.parametrize("leader_id", [-1, 2])
def test_only_an_answer_that_helps_nobody_waits_and_it_tells_what_was_found_meanwhile(leader_id: int) -> None:
    """aiokafka asks again at once, a thousand times a second while an election lasts."""
    broker = FakeBroker()
    partition = broker.create("t")
    partition.lead(3, leader_id=leader_id, is_leader=False)

    async def scenario() -> tuple[bool, int]:
        asked = asyncio.get_running_loop().create_task(Wire(broker).ask(ApiKey.METADATA, 9, topics=named("t")))
        for _ in range(5):  # turns of the loop, in which nothing but the answer could happen
            await asyncio.sleep(0)
        answered_at_once = asked.done()
        partition.lead(4, leader_id=1, is_leader=True)
        return answered_at_once, (await asked).topics[0].partitions[0].leader_id

    assert asyncio.run(scenario()) == ((True, 2) if leader_id == 2 else (False, 1))


def test_a_node_that_has_not_joined_sends_clients_away_instead_of_telling_them_of_no_broker() -> None:
    broker = FakeBroker()
    broker.is_joining = True
    with pytest.raises(CloseConnection, match="not joined"):
        ask(broker, ApiKey.METADATA, 5, topics=None)
    broker.is_joining = False
    assert ask(broker, ApiKey.METADATA, 5, topics=None).brokers


def test_a_node_that_is_cut_off_tells_of_all_brokers() -> None:
    """It hears nobody.  A client that it told of itself alone would ask nobody else, for as long as that lasts."""
    broker = FakeBroker()
    broker.create("t").lead(1, leader_id=-1, is_leader=False)
    broker.alive, broker.controller_id = [1], -1
    response = ask(broker, ApiKey.METADATA, 9, topics=named("t"))
    assert [b.node_id for b in response.brokers] == [1, 2, 3]
    broker.controller_id = 1  # it leads, so a majority hears it: who is silent is down
    response = ask(broker, ApiKey.METADATA, 9, topics=named("t"))
    assert [b.node_id for b in response.brokers] == [1]


@pytest.mark.parametrize("leader", [-1, 4])
def test_while_a_cluster_starts_the_controller_is_a_broker_whose_address_is_told(leader: int) -> None:
    """librdkafka's admin client waits until it knows the controller's address, and does not ask again for minutes."""
    broker = FakeBroker()
    broker.controller_id = leader  # there is none, or it has not registered yet
    assert ask(broker, ApiKey.METADATA, 9, topics=()).controller_id == broker.node_id
    assert ask(broker, ApiKey.DESCRIBE_CLUSTER, 1).controller_id == broker.node_id
    broker.node_id = 5  # nor has this one
    response = ask(broker, ApiKey.METADATA, 9, topics=())
    assert response.controller_id in [b.node_id for b in response.brokers]


@pytest.mark.parametrize("topics", [None, ()])
def test_metadata_of_a_cluster_that_starts_waits_for_the_first_broker(topics: tuple[()] | None) -> None:
    broker = FakeBroker()
    registered, broker.metadata = broker.metadata, MetadataMachine()

    async def scenario() -> Any:
        asked = asyncio.get_running_loop().create_task(Wire(broker).ask(ApiKey.METADATA, 9, topics=topics))
        await asyncio.sleep(0)
        broker.metadata = registered
        return await asked

    assert [b.node_id for b in asyncio.run(scenario()).brokers] == [1, 2, 3]


def test_a_cluster_of_which_no_broker_is_known_sends_clients_away() -> None:
    broker = FakeBroker()
    broker.metadata = MetadataMachine()

    async def scenario() -> None:
        asked = asyncio.get_running_loop().create_task(Wire(broker).ask(ApiKey.METADATA, 9, topics=None))
        while not asked.done():
            broker.clock_us += 500_000
            await asyncio.sleep(0)
        await asked

    with pytest.raises(CloseConnection, match="no broker"):
        asyncio.run(scenario())


def test_a_leader_is_listed_even_if_it_is_thought_to_be_down() -> None:
    broker = FakeBroker()
    broker.create("t").lead(3, leader_id=3, is_leader=False)
    broker.alive = [1, 2]
    assert [b.node_id for b in ask(broker, ApiKey.METADATA, 9, topics=named("t")).brokers] == [1, 2, 3]


@pytest.mark.parametrize(("enabled", "allowed"), [(True, True), (True, False), (False, True)])
def test_a_topic_is_created_by_asking_only_where_broker_and_client_say_so(enabled: bool, allowed: bool) -> None:
    broker = FakeBroker()
    response = ask(
        broker,
        ApiKey.METADATA,
        9,
        {"auto_create_topics": enabled, "default_partitions": 2},
        topics=named("new", "bad name"),
        allow_auto_topic_creation=allowed,
    )
    created, bad = response.topics
    assert bad.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    if enabled and allowed:
        assert (created.error_code, len(created.partitions)) == (0, 2)
    else:
        assert created.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert not broker.metadata.topics


def test_a_topic_that_cannot_be_created_by_asking_yet_is_to_be_asked_for_again() -> None:
    """While nodes register after a start, clients must not take a topic for impossible (seen with kcat)."""
    settings = {"auto_create_topics": True, "default_replication_factor": 5}
    (topic,) = ask(FakeBroker(), ApiKey.METADATA, 4, settings, topics=named("new")).topics
    assert topic.error_code == ErrorCode.LEADER_NOT_AVAILABLE
    broker = FakeBroker()
    broker.refuse_metadata = NotLeader()
    (topic,) = ask(broker, ApiKey.METADATA, 4, {"auto_create_topics": True}, topics=named("new")).topics
    assert topic.error_code == ErrorCode.LEADER_NOT_AVAILABLE


@pytest.mark.parametrize("version", range(6))
def test_producer_ids_are_new_each_time(version: int) -> None:
    broker = FakeBroker()
    ids = [ask(broker, ApiKey.INIT_PRODUCER_ID, version, transactional_id=None) for _ in range(3)]
    assert [(r.error_code, r.producer_id, r.producer_epoch) for r in ids] == [(0, n, 0) for n in range(3)]


def test_no_producer_id_without_a_cluster_or_for_a_transaction() -> None:
    broker = FakeBroker()
    response = ask(broker, ApiKey.INIT_PRODUCER_ID, 4, transactional_id="tx")
    refused = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert (response.error_code, response.producer_id, response.producer_epoch) == (refused, -1, -1)
    broker.refuse_metadata = NotLeader()
    response = ask(broker, ApiKey.INIT_PRODUCER_ID, 4, transactional_id=None)
    assert (response.error_code, response.producer_id) == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, -1)


@pytest.mark.parametrize("version", range(3))
def test_the_cluster_is_described_in_every_version(version: int) -> None:
    broker = FakeBroker()
    broker.alive = [1, 2]
    response = ask(broker, ApiKey.DESCRIBE_CLUSTER, version)
    assert (response.error_code, response.cluster_id, response.controller_id) == (0, "test", 1)
    shown = [(b.broker_id, b.host, b.port, b.rack, b.is_fenced) for b in response.brokers]
    assert shown == [(n, f"kafka{n}", 9090 + n, f"rack{n}", False) for n in (1, 2)]


def test_brokers_that_are_down_are_fenced_and_shown_to_those_who_ask_for_them() -> None:
    broker = FakeBroker()
    broker.alive = [1, 3]
    response = ask(broker, ApiKey.DESCRIBE_CLUSTER, 2, include_fenced_brokers=True)
    assert [(b.broker_id, b.is_fenced) for b in response.brokers] == [(1, False), (2, True), (3, False)]


def test_there_are_no_endpoints_of_controllers() -> None:
    response = ask(FakeBroker(), ApiKey.DESCRIBE_CLUSTER, 1, endpoint_type=2)
    assert (response.error_code, response.brokers) == (ErrorCode.UNSUPPORTED_ENDPOINT_TYPE, [])
