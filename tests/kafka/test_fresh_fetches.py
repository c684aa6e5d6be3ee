"""Fetches that demand to be fresh: what a client's id asks for, and a follower that nobody vouches for."""

from __future__ import annotations

import asyncio

import pytest
from fake_broker import FakeBroker, FakePartition, Wire
from test_fetch import LONG_MS, append, append_as_follower, broker_with_topic, fetch, offsets_in

from seatrial import marks
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.read_demands import BadDemand, demanded_age_us


@pytest.mark.parametrize(
    ("client_id", "age_us"),
    [
        (None, None),
        ("", None),
        ("billing", None),
        ("billing?read=linearizable", 0),
        ("?read=linearizable", 0),
        ("billing?read=500ms", 500_000),
        ("billing?read=2s", 2_000_000),
        ("a?read=b?read=1ms", 1_000),
    ],
)
def test_a_client_id_may_carry_a_demand(client_id: str | None, age_us: int | None) -> None:
    assert demanded_age_us(client_id) == age_us


@pytest.mark.parametrize("text", ["", "linearisable", "500", "1.5s", "-1ms", "1h", "99999999ms"])
def test_a_demand_that_makes_no_sense_says_what_to_write(text: str) -> None:
    with pytest.raises(BadDemand, match="linearizable, or an age such as 500ms"):
        demanded_age_us(f"billing?read={text}")


def follower(broker: FakeBroker) -> FakePartition:
    """With one record, of which nobody vouched for yet."""
    partition = broker.replicas["t", 0]
    append(partition, b"a")
    partition.lead(1, leader_id=2, is_leader=False)
    partition.vouched_us = -1
    return partition


def wire_of(broker: FakeBroker, demand: str = "", **settings: int) -> Wire:
    wire = Wire(broker, **settings)
    wire.client_id = f"test{demand}"
    return wire


def test_a_fetch_with_a_demand_that_makes_no_sense_is_refused() -> None:
    async def scenario() -> None:
        (answer,) = await fetch(wire_of(broker_with_topic(), "?read=soon"), (0, 0))
        assert answer.error_code == ErrorCode.INVALID_REQUEST

    asyncio.run(scenario())


def test_a_linearizable_fetch_shows_what_was_committed_before_it_came() -> None:
    """Not what is here when it comes: the leader's word may bring more."""

    async def scenario() -> None:
        broker = broker_with_topic()
        partition = follower(broker)
        partition.vouched_us = broker.clock_us - 1
        task = asyncio.ensure_future(fetch(wire_of(broker, "?read=linearizable"), (0, 0), wait_ms=0))
        await asyncio.sleep(0)
        assert partition.wanted == [(broker.clock_us, broker.clock_us + 1_000_000)]
        append_as_follower(partition, b"b")
        await asyncio.sleep(0)
        assert not task.done()
        partition.vouch(broker.clock_us)
        (answer,) = await asyncio.wait_for(task, 1)
        assert (answer.error_code, offsets_in(answer)) == (0, [(0, 1), (1, 1)])

    asyncio.run(scenario())


def test_a_follower_shows_what_is_no_older_than_its_bound_and_asks_for_the_next_in_time() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = follower(broker)
        wire = wire_of(broker, follower_staleness_max_ms=1000)
        for age_us, asked in ((400_000, 0), (1_000_000, 1)):
            partition.vouched_us = broker.clock_us - age_us
            (answer,) = await fetch(wire, (0, 0))
            assert offsets_in(answer) == [(0, 1)]
            assert len(partition.wanted) == asked

    asyncio.run(scenario())


@pytest.mark.parametrize(("version", "error", "preferred"), [(12, 0, 2), (10, 6, None)])
def test_a_follower_that_nobody_vouches_for_names_the_leader(version: int, error: int, preferred: int | None) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        follower(broker)
        wire = wire_of(broker, leader_patience_ms=20)
        (answer,) = await fetch(wire, (0, 0), version=version, wait_ms=1)
        assert (answer.error_code, answer.records) == (error, b"")
        assert getattr(answer, "preferred_read_replica", None) == preferred or version < 11

    asyncio.run(scenario())


def test_a_follower_without_bound_and_demand_asks_nobody() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = follower(broker)
        (answer,) = await fetch(wire_of(broker, follower_staleness_max_ms=0), (0, 0))
        assert offsets_in(answer) == [(0, 1)]
        assert partition.wanted == []

    asyncio.run(scenario())


def test_a_leader_that_nobody_vouches_for_does_not_say_that_there_is_no_more() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        broker.replicas["t", 0].vouched_us = -1
        wire = wire_of(broker, "?read=linearizable", leader_patience_ms=20)
        marks.taken()
        (answer,) = await fetch(wire, (0, 0), wait_ms=1)
        assert answer.error_code == ErrorCode.OFFSET_NOT_AVAILABLE
        assert marks.taken() == {"a leader that nobody vouched for answered no fetch": 1}

    asyncio.run(scenario())


def test_one_partition_s_records_wait_until_all_are_fresh() -> None:
    """An empty partition in the same answer would say that it has no more."""

    async def scenario() -> None:
        broker = broker_with_topic(2)
        fresh, stale = broker.replicas["t", 0], broker.replicas["t", 1]
        append(fresh, b"a")
        stale.vouched_us = -1
        task = asyncio.ensure_future(fetch(wire_of(broker, "?read=linearizable"), (0, 0), (1, 0), wait_ms=LONG_MS))
        await asyncio.sleep(0)
        assert not task.done()
        append(stale, b"b")
        stale.vouch(broker.clock_us)
        answers = await asyncio.wait_for(task, 1)
        assert [offsets_in(answer) for answer in answers] == [[(0, 1)], [(0, 1)]]

    asyncio.run(scenario())
