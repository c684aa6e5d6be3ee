"""Fetch: whole batches, long polls with one deadline, and never more than what is committed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fake_broker import FakeBroker, FakePartition, Wire
from kafka_records import batch

from seatrial.kafka.apis import ApiKey
from seatrial.kafka.codec import message
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.records import batches
from seatrial.machines.partition_log import encode_append

LONG_MS = 60_000


def append(partition: FakePartition, *values: bytes) -> None:
    partition.append(encode_append(batch(values), record_count=len(values), max_timestamp=1000))


def append_as_follower(partition: FakePartition, *values: bytes) -> None:
    """What the leader, which is elsewhere, has committed."""
    partition.is_leader = True
    append(partition, *values)
    partition.is_leader = False
    partition.notify()


def wanted(*partitions: tuple[int, int], epoch: int = -1, max_bytes: int = 1 << 20) -> list[Any]:
    """(partition, offset) each."""
    structure = message("FetchRequest").structure("FetchPartition")
    return [
        structure(partition=p, fetch_offset=offset, current_leader_epoch=epoch, partition_max_bytes=max_bytes)
        for p, offset in partitions
    ]


def fields(
    broker: FakeBroker, version: int, partitions: list[Any], *, wait_ms: int = 0, min_bytes: int = 1, **more: Any
) -> dict[str, Any]:
    topic = message("FetchRequest").structure("FetchTopic")
    known = broker.metadata.topics["t"]
    named = (
        topic(topic_id=known.topic_id, partitions=partitions)
        if version >= 13
        else topic(topic="t", partitions=partitions)
    )
    return {"max_wait_ms": wait_ms, "min_bytes": min_bytes, "max_bytes": 1 << 20, "topics": [named]} | more


async def fetch(
    wire: Wire, *partitions: tuple[int, int], version: int = 12, epoch: int = -1, **options: Any
) -> list[Any]:
    """The answers for topic "t"."""
    limit = options.pop("partition_bytes", 1 << 20)
    request = fields(wire.broker, version, wanted(*partitions, epoch=epoch, max_bytes=limit), **options)
    response = await wire.ask(ApiKey.FETCH, version, **request)
    answers: list[Any] = response.responses[0].partitions
    return answers


def broker_with_topic(partitions: int = 1) -> FakeBroker:
    broker = FakeBroker()
    broker.create("t", partitions)
    return broker


def offsets_in(answer: Any) -> list[tuple[int, int]]:
    """(base offset, number of records) of each batch."""
    return [(int.from_bytes(view[:8], "big"), info.record_count) for info, view in batches(answer.records)]


@pytest.mark.parametrize("version", range(4, 18))
def test_batches_come_whole_with_offset_and_epoch_in_every_version(version: int) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        append(partition, b"a", b"b")
        partition.lead(6, leader_id=1, is_leader=True)
        append(partition, b"c")
        (answer,) = await fetch(Wire(broker), (0, 1), version=version)
        assert (answer.error_code, answer.high_watermark, answer.last_stable_offset) == (0, 3, 3)
        assert offsets_in(answer) == [(0, 2), (2, 1)]
        epochs = [int.from_bytes(view[12:16], "big") for _, view in batches(answer.records)]
        assert epochs == [1, 6]

    asyncio.run(scenario())


def test_at_the_end_of_the_log_there_is_an_empty_answer_and_no_error() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        append(broker.replicas["t", 0], b"a")
        (answer,) = await fetch(Wire(broker), (0, 1))
        assert (answer.error_code, answer.high_watermark, answer.records) == (0, 1, b"")

    asyncio.run(scenario())


def test_a_waiting_fetch_is_answered_by_the_next_commit_in_any_of_its_partitions() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(3)
        wire = Wire(broker)
        task = asyncio.ensure_future(fetch(wire, (0, 0), (1, 0), (2, 0), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        assert not task.done()
        append(broker.replicas["t", 1], b"x")
        answers = await asyncio.wait_for(task, 1)
        assert [offsets_in(answer) for answer in answers] == [[], [(0, 1)], []]

    asyncio.run(scenario())


def test_what_the_disk_does_not_give_back_is_a_storage_error_of_its_partition_alone() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(2)
        for number in (0, 1):
            append(broker.replicas["t", number], b"x")
        broker.replicas["t", 0].unreadable = True
        answers = await fetch(Wire(broker), (0, 0), (1, 0))
        assert [answer.error_code for answer in answers] == [ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NONE]
        assert [len(offsets_in(answer)) for answer in answers] == [0, 1]

    asyncio.run(scenario())


def test_a_waiting_fetch_that_meets_an_unreadable_log_is_answered() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        task = asyncio.ensure_future(fetch(Wire(broker), (0, 0), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        partition.unreadable = True
        append(partition, b"x")
        (answer,) = await asyncio.wait_for(task, 1)
        assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR

    asyncio.run(scenario())


def test_what_is_not_committed_wakes_nobody_and_is_not_shown() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        partition.held = True
        append(partition, b"x")
        (answer,) = await fetch(Wire(broker), (0, 0), wait_ms=1)
        assert (answer.records, answer.high_watermark) == (b"", 0)

    asyncio.run(scenario())


def test_a_fetch_waits_for_min_bytes_over_several_commits() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        size = len(batch([b"x"]))
        task = asyncio.ensure_future(fetch(Wire(broker), (0, 0), wait_ms=LONG_MS, min_bytes=3 * size))
        for number in range(3):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not task.done(), number
            append(partition, b"x")
        (answer,) = await asyncio.wait_for(task, 1)
        assert offsets_in(answer) == [(0, 1), (1, 1), (2, 1)]

    asyncio.run(scenario())


def test_the_deadline_answers_with_what_is_there_and_is_one_for_all_partitions() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(20)
        append(broker.replicas["t", 3], b"x")
        began = time.monotonic()
        answers = await fetch(Wire(broker), *((p, 0) for p in range(20)), wait_ms=50, min_bytes=1 << 20)
        assert 0.04 < time.monotonic() - began < 0.9  # and not 20 deadlines
        assert [p for p, answer in enumerate(answers) if answer.records] == [3]

    asyncio.run(scenario())


def test_a_client_that_is_gone_leaves_nothing_waiting() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        started = Wire(broker).start(ApiKey.FETCH, 12, **fields(broker, 12, wanted((0, 0)), wait_ms=LONG_MS))
        started.cancel()
        await asyncio.sleep(0)
        append(partition, b"x")  # would fail on the ended future
        await asyncio.sleep(0)
        timers = [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
        assert timers == []

    asyncio.run(scenario())


def test_the_first_batch_comes_even_over_the_limits_and_only_the_first() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(3)
        for p in (1, 2):
            append(broker.replicas["t", p], b"x" * 500)
            append(broker.replicas["t", p], b"y" * 500)
        answers = await fetch(Wire(broker), (0, 0), (1, 0), (2, 0), partition_bytes=1)
        assert [offsets_in(answer) for answer in answers] == [[], [(0, 1)], []]
        answers = await fetch(Wire(broker), (0, 0), (1, 0), (2, 0), max_bytes=700)
        assert [offsets_in(answer) for answer in answers] == [[], [(0, 1)], []]
        answers = await fetch(Wire(broker, fetch_max_bytes=1300), (1, 0), (2, 0))
        assert [offsets_in(answer) for answer in answers] == [[(0, 1), (1, 1)], []]

    asyncio.run(scenario())


def test_offsets_outside_of_the_log_are_out_of_range() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        for _ in range(40):
            append(partition, b"x")
        partition.delete_before(21)
        wire = Wire(broker)
        for offset in (0, partition.log_start_offset - 1, 41):
            (answer,) = await fetch(wire, (0, offset))
            assert answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE, offset
            assert (answer.log_start_offset, answer.high_watermark) == (partition.log_start_offset, 40)
        assert (await fetch(wire, (0, partition.log_start_offset)))[0].error_code == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("state", ["follower", "new leader", "leader behind its followers"])
def test_an_offset_that_others_may_already_show_is_waited_for_and_not_out_of_range(state: str) -> None:
    """A consumer that comes from a replica that was further ahead must not be told to start again elsewhere."""

    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        append(partition, b"a")
        if state == "follower":
            partition.lead(1, leader_id=2, is_leader=False)
        elif state == "new leader":
            partition.lead(5, leader_id=1, is_leader=True, established=False)
        else:
            partition.is_catching_up = True
        (answer,) = await fetch(Wire(broker), (0, 2), wait_ms=1)
        assert (answer.error_code, answer.records) == (ErrorCode.NONE, b"")

    asyncio.run(scenario())


def test_an_offset_just_ahead_of_a_leader_is_given_until_the_deadline() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        task = asyncio.ensure_future(fetch(Wire(broker), (0, 1), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        append(partition, b"a", b"b", b"c")
        (answer,) = await asyncio.wait_for(task, 1)
        assert offsets_in(answer) == [(0, 3)]

    asyncio.run(scenario())


def test_a_follower_serves_up_to_its_own_high_watermark_where_allowed() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        append(partition, b"a")
        partition.lead(1, leader_id=2, is_leader=False)
        (answer,) = await fetch(Wire(broker), (0, 0))
        assert offsets_in(answer) == [(0, 1)]
        (answer,) = await fetch(Wire(broker, fetch_from_followers=False), (0, 0))
        assert (answer.error_code, answer.records) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, b"")
        assert answer.current_leader.leader_id == 2

    asyncio.run(scenario())


def test_a_follower_without_a_leader_serves_what_it_has_and_then_sends_clients_away() -> None:
    """The records are committed; only that there are no more of them it cannot say."""

    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        append(partition, b"a")
        partition.lead(1, leader_id=-1, is_leader=False)
        wire = Wire(broker, leader_patience_ms=20)
        (answer,) = await fetch(wire, (0, 0))
        assert (answer.error_code, offsets_in(answer)) == (ErrorCode.NONE, [(0, 1)])
        began = time.monotonic()
        (answer,) = await fetch(wire, (0, 1), wait_ms=LONG_MS)
        assert 0.015 < time.monotonic() - began < 0.9
        assert (answer.error_code, answer.records, answer.high_watermark) == (6, b"", 1)
        (answer,) = await fetch(wire, (0, 1), wait_ms=0)
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    asyncio.run(scenario())


def test_a_wait_outlasts_an_election() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        partition.lead(1, leader_id=2, is_leader=False)
        task = asyncio.ensure_future(fetch(Wire(broker), (0, 0), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        partition.lead(2, leader_id=-1, is_leader=False)
        await asyncio.sleep(0)
        partition.lead(2, leader_id=3, is_leader=False)
        append_as_follower(partition, b"x")
        (answer,) = await asyncio.wait_for(task, 1)
        assert (answer.error_code, offsets_in(answer)) == (ErrorCode.NONE, [(0, 1)])

    asyncio.run(scenario())


@pytest.mark.parametrize("leader_id", [-1, 2])
def test_who_came_to_the_leader_is_sent_away_when_it_leads_no_more(leader_id: int) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        task = asyncio.ensure_future(fetch(Wire(broker), (0, 0), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        broker.replicas["t", 0].lead(2, leader_id=leader_id, is_leader=False)
        (answer,) = await asyncio.wait_for(task, 1)
        assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("epoch", "error"),
    [(-1, 0), (3, 0), (2, ErrorCode.FENCED_LEADER_EPOCH), (4, ErrorCode.UNKNOWN_LEADER_EPOCH)],
)
def test_the_client_s_leader_epoch_must_be_the_current_one(epoch: int, error: int) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].lead(3, leader_id=1, is_leader=True)
        (answer,) = await fetch(Wire(broker), (0, 0), epoch=epoch)
        assert answer.error_code == error

    asyncio.run(scenario())


def test_what_does_not_exist_has_kafka_s_own_error() -> None:
    async def scenario() -> None:
        broker = broker_with_topic(2)
        del broker.replicas["t", 1]
        wire = Wire(broker)
        elsewhere, nowhere = await fetch(wire, (1, 0), (9, 0), wait_ms=LONG_MS)
        assert (elsewhere.error_code, elsewhere.current_leader.leader_id) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, 2)
        assert nowhere.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        topic = message("FetchRequest").structure("FetchTopic")
        stranger = [topic(topic_id=b"?" * 16, partitions=wanted((0, 0)))]
        response = await wire.ask(ApiKey.FETCH, 13, max_wait_ms=LONG_MS, min_bytes=1, topics=stranger)
        assert response.responses[0].topic_id == b"?" * 16
        assert response.responses[0].partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID

    asyncio.run(scenario())


def test_a_fetch_of_nothing_is_answered_at_once() -> None:
    async def scenario() -> None:
        response = await Wire(broker_with_topic()).ask(ApiKey.FETCH, 12, max_wait_ms=LONG_MS, min_bytes=1)
        assert response.responses == []

    asyncio.run(scenario())


def test_a_fetch_session_is_unknown_as_none_are_given_out() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        response = await Wire(broker).ask(ApiKey.FETCH, 12, **fields(broker, 12, wanted((0, 0)), session_id=5))
        assert (response.error_code, response.session_id) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, 0)

    asyncio.run(scenario())
