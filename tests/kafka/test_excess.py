"""Requests that ask for too much: each is refused, says so, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_broker import FakeBroker, Wire, request_frame

from seatrial.kafka.apis import APIS, ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.context import CloseConnection
from seatrial.kafka.dispatch import NAMES_BYTES_MAX
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.wire import ELEMENTS_MAX

HUNDRED_THOUSAND = 100_000


def naming(key: ApiKey, count: int) -> bytes:
    """The frame of a request that names so many topics."""
    api = APIS[key]
    codec = message(f"{api.message}Request")
    field = next(field for field in codec.schema.fields if field.is_array)
    version = api.max_served
    if field.is_structure:
        structure = codec.structure(field.type_name)
        blank = {f.name: [] if f.is_array else f.default for f in field.fields}
        items: list[Any] = [structure(**{**blank, "name": "t"} if "name" in blank else blank)] * count
    else:
        items = ["t"] * count
    return request_frame(key, version, codec.encode(codec.new(**{field.name: items}), version))


@pytest.mark.parametrize(
    "key",
    [
        ApiKey.METADATA,
        ApiKey.CREATE_TOPICS,
        ApiKey.DELETE_TOPICS,
        ApiKey.CREATE_PARTITIONS,
        ApiKey.LIST_OFFSETS,
        ApiKey.DELETE_RECORDS,
        ApiKey.FETCH,
        ApiKey.OFFSET_COMMIT,
        ApiKey.DESCRIBE_GROUPS,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS,
    ],
)
def test_a_hundred_thousand_topics_in_one_request_are_refused_before_any_is_served(key: ApiKey) -> None:
    broker = FakeBroker()
    before = broker.metadata.snapshot()
    with pytest.raises(CloseConnection) as caught:
        Wire(broker).start_frame(naming(key, HUNDRED_THOUSAND))
    assert f"{HUNDRED_THOUSAND} elements" in caught.value.reason
    assert f"at most {ELEMENTS_MAX}" in caught.value.reason
    assert broker.metadata.snapshot() == before


def test_as_many_topics_as_may_be_are_served() -> None:
    async def scenario() -> None:
        structure = message("MetadataRequest").structure("MetadataRequestTopic")
        topics = [structure(name=f"t{number}") for number in range(ELEMENTS_MAX)]
        response = await Wire(FakeBroker()).ask(ApiKey.METADATA, 9, topics=topics)
        assert len(response.topics) == ELEMENTS_MAX

    asyncio.run(scenario())


def test_a_request_that_only_names_things_may_not_be_as_large_as_one_with_records() -> None:
    large = bytes(NAMES_BYTES_MAX)
    with pytest.raises(CloseConnection, match=f"at most {NAMES_BYTES_MAX}"):
        Wire(FakeBroker()).start_frame(request_frame(ApiKey.METADATA, 9, large))
    with pytest.raises(CloseConnection, match="malformed"):  # it is read, and holds nothing that could be
        Wire(FakeBroker()).start_frame(request_frame(ApiKey.PRODUCE, 9, b"\xff" * NAMES_BYTES_MAX))


def create(broker: FakeBroker, *partitions: int) -> list[int]:
    codec = message("CreateTopicsRequest")
    topics = [
        codec.structure("CreatableTopic")(
            name=f"t{n}", num_partitions=count, replication_factor=1, assignments=[], configs=[]
        )
        for n, count in enumerate(partitions)
    ]

    async def scenario() -> list[int]:
        response = await Wire(broker, max_partitions=1000).ask(ApiKey.CREATE_TOPICS, 7, topics=topics, timeout_ms=1000)
        return [topic.error_code for topic in response.topics]

    return asyncio.run(scenario())


def test_more_partitions_than_one_topic_may_have_are_not_created_at_once_either() -> None:
    broker = FakeBroker()
    assert create(broker, 600, 401) == [ErrorCode.POLICY_VIOLATION] * 2
    assert not broker.metadata.topics
    assert create(broker, 600, 400) == [0, 0]


def test_many_topics_are_created_a_few_at_a_time() -> None:
    broker = FakeBroker()
    under_way = most = 0
    propose = broker.propose_metadata

    async def counting(command: bytes, timeout_s: float) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await propose(command, timeout_s)

    broker.propose_metadata = counting  # type: ignore[method-assign]
    assert create(broker, *[1] * 300) == [0] * 300
    assert 1 < most <= 64


@pytest.mark.parametrize("version", range(10, 14))
def test_an_unknown_topic_id_is_told_in_every_version_that_has_them(version: int) -> None:
    """Before version 12 an answer may not leave a name out: the codec broke off, and with it the connection."""

    async def scenario() -> None:
        structure = message("MetadataRequest").structure("MetadataRequestTopic")
        wanted = [structure(name=None, topic_id=b"?" * 16)]
        response = await Wire(FakeBroker()).ask(ApiKey.METADATA, version, topics=wanted)
        (topic,) = response.topics
        assert (topic.error_code, topic.topic_id) == (ErrorCode.UNKNOWN_TOPIC_ID, b"?" * 16)
        assert not topic.name

    asyncio.run(scenario())
