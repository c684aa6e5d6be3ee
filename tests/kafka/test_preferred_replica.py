"""Where a consumer is told to read: the choice as a pure function, and the field that it becomes on the wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_broker import FakePartition, Wire
from test_fetch import LONG_MS, append, broker_with_topic, fetch

from seatrial.kafka.preferred_replica import NEVER_S, Limits, ReplicaView, preferred_replica

LIMITS = Limits(lag_s=10.0, moment_s=0.5)
LEADER = ReplicaView(node=1, rack="a", end_offset=100)
NEAR = ReplicaView(node=2, rack="b", end_offset=100)
FAR = ReplicaView(node=3, rack="c", end_offset=100)
ALL = (LEADER, NEAR, FAR)


def asked_of_leader(*replicas: ReplicaView, rack: str = "", offset: int = 50, spread: bool = False) -> int:
    return preferred_replica(
        asked=1, leader=1, replicas=replicas, offset=offset, rack=rack, spread=spread, limits=LIMITS
    )


def asked_of_follower(own: ReplicaView, leader: int = 1) -> int:
    return preferred_replica(asked=own.node, leader=leader, replicas=[own], offset=50, rack="c", limits=LIMITS)


def test_a_leader_names_itself_to_a_client_without_a_rack() -> None:
    assert asked_of_leader(*ALL) == 1


def test_a_leader_names_the_replica_in_the_client_s_rack() -> None:
    assert asked_of_leader(*ALL, rack="b") == 2
    assert asked_of_leader(*ALL, rack="c") == 3


def test_a_leader_names_itself_to_its_own_rack_and_to_one_where_nobody_is() -> None:
    assert asked_of_leader(*ALL, rack="a") == 1
    assert asked_of_leader(*ALL, rack="z") == 1
    also_near = replace(NEAR, rack="a")
    assert asked_of_leader(LEADER, also_near, rack="a") == 1


def test_a_stable_follower_names_itself_whatever_the_client_s_rack() -> None:
    assert asked_of_follower(NEAR) == 2
    assert asked_of_follower(replace(NEAR, lag_s=10.0)) == 2


def test_a_follower_past_the_lag_threshold_names_the_leader() -> None:
    assert asked_of_follower(replace(NEAR, lag_s=10.1)) == 1
    assert asked_of_follower(replace(NEAR, lag_s=NEVER_S)) == 1
    assert asked_of_follower(replace(NEAR, lag_s=NEVER_S), leader=-1) == -1


@pytest.mark.parametrize(
    "follower",
    [
        replace(NEAR, is_up=False),
        replace(NEAR, lag_s=10.1),
        replace(NEAR, end_offset=49, lag_s=0.6),
        replace(NEAR, start_offset=51),
    ],
    ids=["offline", "too far behind", "offset not there yet", "offset no longer there"],
)
def test_a_leader_names_itself_where_the_follower_cannot_serve(follower: ReplicaView) -> None:
    assert asked_of_leader(LEADER, follower, FAR, rack="b") == 1


def test_a_follower_that_is_a_moment_behind_can_be_asked_for_the_end_of_the_log() -> None:
    assert asked_of_leader(LEADER, replace(NEAR, end_offset=98, lag_s=0.2), rack="b", offset=100) == 2


def test_among_replicas_of_one_rack_the_one_with_the_fewest_readers_serves_then_the_freshest() -> None:
    busy, idle = replace(NEAR, readers=3), replace(FAR, rack="b", readers=1)
    assert asked_of_leader(LEADER, busy, idle, rack="b") == 3
    late, fresh = replace(NEAR, lag_s=2.0), replace(FAR, rack="b")
    assert asked_of_leader(LEADER, late, fresh, rack="b") == 3


def test_spread_readers_go_where_the_fewest_are_and_stay_at_the_leader_where_it_is_equal() -> None:
    assert asked_of_leader(*ALL, spread=True) == 1
    assert asked_of_leader(replace(LEADER, readers=1), NEAR, FAR, spread=True) == 2
    assert asked_of_leader(replace(LEADER, readers=1), replace(NEAR, readers=1), FAR, spread=True) == 3
    assert asked_of_leader(replace(LEADER, readers=9), replace(NEAR, lag_s=11.0), spread=True) == 1


def test_spread_readers_with_a_rack_stay_in_it() -> None:
    assert asked_of_leader(LEADER, replace(NEAR, readers=5), FAR, rack="b", spread=True) == 2


# ---- on the wire -----------------------------------------------------------------------------------------------------


def leading(partition: FakePartition) -> None:
    append(partition, b"a")
    partition.views = [replace(view, end_offset=1) for view in ALL]


def test_the_better_replica_is_named_at_once_and_without_records() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        leading(partition)
        (answer,) = await fetch(Wire(broker), (0, 0), rack_id="b", wait_ms=LONG_MS)
        assert (answer.error_code, answer.preferred_read_replica, answer.records) == (0, 2, b"")
        assert partition.told == [("test", 2)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("version", "rack", "settings"),
    [(12, "", {}), (10, "b", {}), (12, "a", {}), (12, "b", {"fetch_from_followers": False})],
    ids=["no rack", "a version without the field", "the leader's own rack", "leaders only"],
)
def test_stay_here_is_said_by_no_replica_and_by_records(version: int, rack: str, settings: dict[str, bool]) -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        leading(broker.replicas["t", 0])
        (answer,) = await fetch(Wire(broker, **settings), (0, 0), rack_id=rack, version=version)
        assert answer.records
        if version >= 11:
            assert answer.preferred_read_replica == -1

    asyncio.run(scenario())


def test_readers_are_spread_without_a_rack_where_the_broker_is_told_to() -> None:
    async def scenario() -> None:
        broker = broker_with_topic()
        partition = broker.replicas["t", 0]
        leading(partition)
        partition.views[0] = replace(partition.views[0], readers=1)
        (answer,) = await fetch(Wire(broker, spread_readers=True), (0, 0))
        assert answer.preferred_read_replica == 2

    asyncio.run(scenario())
