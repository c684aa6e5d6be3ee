"""The shell around groups: answers wait for commits, decisions keep their order, time is the loop's, leads end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "kafka"))
from fake_groups import FakeShard, reaching

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupView, NewOffset
from seatrial.kafka.group_messages import GroupState, Identity, JoinRequest, JoinResult, SyncRequest
from seatrial.kafka.group_settings import GROUPS_TOPIC, GroupLimits, GroupSettings
from seatrial.machines.groups import (
    NEVER,
    CommitOffsets,
    DeleteGroup,
    ForgetOffsets,
    GroupPhase,
    GroupRecord,
    MemberRecord,
    OffsetRecord,
    SaveGroup,
    StoredGroup,
    decode_command,
)
from seatrial.machines.metadata import Partition, Topic
from seatrial.raft.errors import ProposalDropped
from seatrial.raft.ids import GroupId, NodeId
from seatrial.server.errors import OutcomeUnknown
from seatrial.server.groups.coordinator import Coordinator
from seatrial.server.groups.expiry import expired
from seatrial.server.groups.service import Groups
from seatrial.server.groups.shard import HostedShard

E = ErrorCode
TOPIC_ID = b"t" * 16
LIMITS = GroupLimits(initial_rebalance_delay_ms=0, min_session_timeout_ms=1)


def run(scenario: Callable[[FakeShard], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scenario(FakeShard(LIMITS)), 20)

    asyncio.run(main())


def asking(member_id: str = "", session_ms: int = 10_000, topics: bytes = b"t") -> JoinRequest:
    return JoinRequest(
        identity=Identity(member_id),
        client_id="c",
        client_host="/h",
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=session_ms,
        protocol_type="consumer",
        protocols=(("range", topics),),
    )


def assigning(joined: JoinResult) -> SyncRequest:
    assignments = {joined.member_id: b"all"} if joined.members else {}
    return SyncRequest(identity=Identity(joined.member_id), generation=joined.generation, assignments=assignments)


async def stable(coordinator: Coordinator, group: str = "g", session_ms: int = 10_000) -> str:
    """A stable group of one; the member's id."""
    joined = await coordinator.join(group, asking(session_ms=session_ms))
    assert (await coordinator.sync(group, assigning(joined))).error == E.NONE
    return joined.member_id


def new_offset(value: int, partition: int = 0) -> NewOffset:
    return NewOffset("t", partition, value, 1, "", TOPIC_ID)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_nobody_hears_of_a_generation_or_an_assignment_before_it_is_committed() -> None:
    async def scenario(shard: FakeShard) -> None:
        shard.log.held = True
        joining = shard.coordinator.join("g", asking())
        await turns()
        assert not joining.done()
        shard.log.commit()
        joined = await joining
        syncing = shard.coordinator.sync("g", assigning(joined))
        again = shard.coordinator.sync("g", assigning(joined))
        await turns()
        assert not syncing.done() and not again.done()
        assert shard.machine.groups["g"].record.phase == GroupPhase.AWAITING_ASSIGNMENT
        shard.log.commit()
        assert (await again).assignment == b"all"
        assert shard.machine.groups["g"].record.phase == GroupPhase.STABLE

    run(scenario)


def test_an_offset_is_acknowledged_when_it_is_committed_and_heartbeats_wait_for_nothing() -> None:
    async def scenario(shard: FakeShard) -> None:
        member = await stable(shard.coordinator)
        shard.log.held = True
        committing = shard.coordinator.commit("g", Identity(member), 1, [new_offset(5)])
        await turns()
        assert not committing.done()
        assert shard.coordinator.heartbeat("g", Identity(member), 1) == E.NONE
        shard.log.commit()
        assert await committing == E.NONE
        assert shard.machine.groups["g"].offsets["t", 0] == OffsetRecord(5, 1, "", shard.wall_ms, TOPIC_ID)

    run(scenario)


@pytest.mark.parametrize("retention_ms", [NEVER, 60_000])
def test_a_client_may_say_itself_how_long_its_offsets_are_kept(retention_ms: int) -> None:
    async def scenario(shard: FakeShard) -> None:
        await shard.coordinator.commit("g", Identity(""), -1, [new_offset(5)], retention_ms)
        expires_ms = NEVER if retention_ms == NEVER else shard.wall_ms + 60_000
        assert shard.machine.groups["g"].offsets["t", 0].expires_ms == expires_ms

    run(scenario)


def test_records_that_raft_is_too_full_for_keep_their_order() -> None:
    async def scenario(shard: FakeShard) -> None:
        shard.log.refuse_with = ProposalDropped("full")
        with reaching("a group's record had to wait until Raft could take it"):
            joinings = [shard.coordinator.join(group, asking()) for group in ("a", "b", "c")]
        await asyncio.sleep(0.05)
        assert not any(joining.done() for joining in joinings)
        shard.log.refuse_with = None
        await asyncio.gather(*joinings)
        commands = [decode_command(entry.data) for entry in shard.log.entries]
        assert [c.group_id for c in commands if isinstance(c, SaveGroup)] == ["a", "b", "c"]

    run(scenario)


@pytest.mark.slow
def test_a_session_ends_by_the_loops_clock() -> None:
    async def scenario(shard: FakeShard) -> None:
        member = await stable(shard.coordinator, session_ms=400)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while shard.machine.groups["g"].record.members:
            await asyncio.sleep(0.005)
        assert loop.time() - begun >= 0.39
        assert shard.coordinator.heartbeat("g", Identity(member), 1) == E.UNKNOWN_MEMBER_ID
        assert shard.machine.groups["g"].record == GroupRecord(GroupPhase.EMPTY, 2, "consumer")

    run(scenario)


def test_whoever_waits_is_told_when_the_lead_is_lost_and_the_next_coordinator_goes_on() -> None:
    async def scenario(shard: FakeShard) -> None:
        old = shard.coordinator
        member = await stable(old)
        await old.commit("g", Identity(member), 1, [new_offset(5)])
        shard.log.held = True
        waiting = (
            old.join("g", asking()),
            old.commit("g", Identity(member), 1, [new_offset(9)]),
            old.commit("other", Identity(""), -1, [new_offset(9)]),
            old.join("third", asking()),
        )
        with reaching("a coordinator lost its lead while somebody waited for it"):
            old.close()
        await turns()
        assert [getattr(answer.result(), "error", answer.result()) for answer in waiting] == [E.NOT_COORDINATOR] * 4
        shard.log.lose(OutcomeUnknown("x"))
        shard.log.held = False
        assert old.heartbeat("g", Identity(member), 1) == E.NOT_COORDINATOR
        assert await old.read("g") == E.NOT_COORDINATOR
        assert (await old.join("g", asking())).error == E.NOT_COORDINATOR
        assert await old.commit("g", Identity(member), 1, [new_offset(9)]) == E.NOT_COORDINATOR
        assert await old.delete("g") == E.NOT_COORDINATOR
        assert await old.leave("g", [Identity(member)]) == (E.NOT_COORDINATOR,)
        new = shard.elected()
        assert new.heartbeat("g", Identity(member), 1) == E.NONE
        view = await new.read("g")
        assert isinstance(view, GroupView)
        assert (view.state, view.offsets["t", 0].offset) == (GroupState.STABLE, 5)

    run(scenario)


def test_a_client_that_gives_up_does_not_disturb_the_rest() -> None:
    async def scenario(shard: FakeShard) -> None:
        member = await stable(shard.coordinator)
        gone = shard.coordinator.join("g", asking())
        gone.cancel()
        again = shard.coordinator.join("g", asking(member))
        assert len((await again).members) == 2
        shard.log.held = True
        committing = shard.coordinator.commit("other", Identity(""), -1, [new_offset(1)])
        committing.cancel()
        await turns()
        shard.log.commit()
        await turns()
        assert shard.machine.groups["other"].offsets["t", 0].offset == 1

    run(scenario)


def test_a_deleted_group_is_dead_until_that_is_committed_and_can_then_begin_anew() -> None:
    async def scenario(shard: FakeShard) -> None:
        await shard.coordinator.commit("g", Identity(""), -1, [new_offset(1)])
        shard.log.held = True
        deleting = shard.coordinator.delete("g")
        assert await shard.coordinator.read("g") == E.GROUP_ID_NOT_FOUND
        assert await shard.coordinator.delete("g") == E.GROUP_ID_NOT_FOUND
        assert await shard.coordinator.commit("g", Identity(""), -1, [new_offset(1)]) == E.COORDINATOR_NOT_AVAILABLE
        assert shard.coordinator.listed() == []
        shard.log.commit()
        assert await deleting == E.NONE
        assert shard.machine.groups == {}
        shard.log.held = False
        await stable(shard.coordinator)

    run(scenario)


def test_groups_without_members_take_no_memory_but_their_record() -> None:
    async def scenario(shard: FakeShard) -> None:
        for number in range(50):
            member = await stable(shard.coordinator, f"g{number}")
            await shard.coordinator.leave(f"g{number}", [Identity(member)])
        await turns()
        assert not shard.coordinator._groups
        assert len(shard.coordinator.listed()) == 50

    run(scenario)


# ---- expiry --------------------------------------------------------------------------------------------------------

MEMBER = MemberRecord("m", None, "c", "/h", 1, 1, ())
EMPTY, IN_USE = GroupRecord(), GroupRecord(GroupPhase.STABLE, 1, "consumer", "range", "m", (MEMBER,))


@pytest.mark.parametrize(
    ("record", "changed_ms", "committed_ms", "expires_ms", "topic_id", "is_expired"),
    [
        (EMPTY, NEVER, 900, NEVER, TOPIC_ID, True),  # a consumer without a group: its commit counts
        (EMPTY, NEVER, 901, NEVER, TOPIC_ID, False),
        (EMPTY, 900, 100, NEVER, TOPIC_ID, True),
        (EMPTY, 901, 100, NEVER, TOPIC_ID, False),  # its last member left later than that
        (EMPTY, NEVER, 100, 1_001, TOPIC_ID, False),  # the client said itself how long
        (EMPTY, NEVER, 999, 1_000, TOPIC_ID, True),
        (IN_USE, 100, 100, NEVER, TOPIC_ID, False),
        (IN_USE, 100, 100, 200, TOPIC_ID, False),
        (IN_USE, 999, 999, NEVER, b"gone" * 4, True),  # the topic is gone
    ],
)
def test_offsets_expire_with_the_last_member_the_client_or_the_topic(
    record: GroupRecord, changed_ms: int, committed_ms: int, expires_ms: int, topic_id: bytes, is_expired: bool
) -> None:
    offset = OffsetRecord(5, 1, "", committed_ms, topic_id, expires_ms)
    stored = StoredGroup(record, changed_ms, {("t", 0): offset})
    found = list(expired(stored, 1_000, 100, {TOPIC_ID}))
    assert found == ([("t", 0, committed_ms)] if is_expired else [])


def test_a_group_goes_with_its_last_offset_but_not_under_a_member_that_just_joins() -> None:
    async def scenario(shard: FakeShard) -> None:
        for group in ("idle", "joining", "used"):
            await shard.coordinator.commit(group, Identity(""), -1, [new_offset(1)])
        member = await stable(shard.coordinator, "used")
        shard.log.held = True
        shard.coordinator.join("joining", asking())
        gone = [("t", 0, shard.wall_ms)]
        with reaching("offsets that nobody needs any more were forgotten"):
            asked = [shard.coordinator.expire(group, gone) for group in ("idle", "joining", "used")]
        shard.log.commit()
        assert [await answer for answer in asked] == [E.NONE, E.NON_EMPTY_GROUP, E.NONE]
        assert "idle" not in shard.machine.groups
        assert shard.machine.groups["joining"].offsets
        assert not shard.machine.groups["used"].offsets
        assert shard.coordinator.heartbeat("used", Identity(member), 1) == E.NONE

    run(scenario)


def test_what_is_replicated_is_what_was_decided() -> None:
    async def scenario(shard: FakeShard) -> None:
        member = await stable(shard.coordinator)
        await shard.coordinator.commit("g", Identity(member), 1, [new_offset(5)])
        await shard.coordinator.delete_offsets("g", [("t", 0)])
        assert await shard.coordinator.delete_offsets("g", []) == E.NONE
        await shard.coordinator.leave("g", [Identity(member)])
        await shard.coordinator.delete("g")
        kinds = [type(decode_command(entry.data)) for entry in shard.log.entries]
        assert kinds == [SaveGroup, SaveGroup, CommitOffsets, ForgetOffsets, SaveGroup, DeleteGroup]

    run(scenario)


# ---- leads ---------------------------------------------------------------------------------------------------------


class FakeReplica:
    """As much of a replica as a shard looks at."""

    def __init__(self) -> None:
        self.node = SimpleNamespace(is_leader=False, term=1, leader=2)
        self.applied_term = 1
        self.closed = False
        self._change: asyncio.Future[None] | None = None

    def changed(self) -> asyncio.Future[None]:
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    async def becomes(self, *, term: int, leads: bool, applied_term: int) -> None:
        self.node.term, self.node.is_leader, self.applied_term = term, leads, applied_term
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)
        await turns()


def test_a_coordinator_begins_when_its_lead_is_established_and_ends_with_its_term() -> None:
    async def scenario(shard: FakeShard) -> None:
        replica: Any = FakeReplica()
        partition = Partition(0, GroupId(16), (NodeId(1),))
        topic = Topic(GROUPS_TOPIC, TOPIC_ID, (partition,), {})
        hosted = HostedShard(topic, partition, replica, shard.elected, alive=lambda: [1])
        assert hosted.coordinator == E.NOT_COORDINATOR
        await replica.becomes(term=2, leads=True, applied_term=1)
        assert hosted.coordinator == E.COORDINATOR_LOAD_IN_PROGRESS
        await replica.becomes(term=2, leads=True, applied_term=2)
        first = hosted.coordinator
        assert isinstance(first, Coordinator)
        await replica.becomes(term=2, leads=True, applied_term=2)
        assert hosted.coordinator is first
        with reaching("a coordinator of consumer groups ended with its lead"):
            await replica.becomes(term=4, leads=True, applied_term=4)  # lost and won again in between
        assert first.is_closed
        second = hosted.coordinator
        assert isinstance(second, Coordinator) and second is not first
        await replica.becomes(term=5, leads=False, applied_term=4)
        assert (second.is_closed, hosted.coordinator) == (True, E.NOT_COORDINATOR)
        await replica.becomes(term=6, leads=True, applied_term=6)
        third = hosted.coordinator
        hosted.close()
        assert isinstance(third, Coordinator) and third.is_closed
        await replica.becomes(term=7, leads=True, applied_term=7)
        assert isinstance(hosted.coordinator, ErrorCode)

    run(scenario)


def test_a_coordinator_ends_with_its_replica() -> None:
    async def scenario(shard: FakeShard) -> None:
        replica: Any = FakeReplica()
        partition = Partition(0, GroupId(16), (NodeId(1),))
        topic = Topic(GROUPS_TOPIC, TOPIC_ID, (partition,), {})
        hosted = HostedShard(topic, partition, replica, shard.elected, alive=lambda: [1])
        await replica.becomes(term=2, leads=True, applied_term=2)
        coordinator = hosted.coordinator
        assert isinstance(coordinator, Coordinator) and not coordinator.is_closed
        replica.closed = True
        await replica.becomes(term=2, leads=True, applied_term=2)
        assert coordinator.is_closed

    run(scenario)


def test_a_node_without_a_replica_believes_what_a_shards_leader_said_last() -> None:
    async def scenario(shard: FakeShard) -> None:
        partition = Partition(0, GroupId(16), (NodeId(1), NodeId(2), NodeId(3)))
        metadata = SimpleNamespace(topics={GROUPS_TOPIC: Topic(GROUPS_TOPIC, TOPIC_ID, (partition,), {})}, nodes={})
        cluster: Any = SimpleNamespace(metadata=metadata, alive_nodes=lambda: [1, 2, 3, 4], node_id=4)
        hosting: Any = SimpleNamespace(shards={})
        groups = Groups(cluster, hosting, GroupSettings(), asyncio.get_running_loop(), wall_ms=lambda: 0)
        assert groups.leader_of("g") == 1  # a guess
        groups.heard_of_leader(NodeId(3), 0, 5)
        groups.heard_of_leader(NodeId(2), 0, 4)  # late
        assert groups.leader_of("g") == 3
        cluster.alive_nodes = lambda: [2, 4]
        assert groups.leader_of("g") == 2
        assert groups.coordinator_of("g") == E.NOT_COORDINATOR
        cluster.node_id = 2
        assert groups.leader_of("g") == -1  # it shall have a replica, and will know in a moment

    run(scenario)


def test_a_leader_tells_of_its_shards_only_where_somebody_has_no_replica() -> None:
    async def scenario(shard: FakeShard) -> None:
        replica: Any = FakeReplica()
        partition = Partition(0, GroupId(16), (NodeId(1), NodeId(2)))
        topic = Topic(GROUPS_TOPIC, TOPIC_ID, (partition,), {})
        hosted = HostedShard(topic, partition, replica, shard.elected, alive=lambda: [1])
        metadata = SimpleNamespace(topics={GROUPS_TOPIC: topic}, nodes={1: None, 2: None})
        cluster: Any = SimpleNamespace(metadata=metadata)
        hosting: Any = SimpleNamespace(shards={(GROUPS_TOPIC, 0): hosted})
        groups = Groups(cluster, hosting, GroupSettings(), asyncio.get_running_loop(), wall_ms=lambda: 0)
        await replica.becomes(term=2, leads=True, applied_term=2)
        assert groups.led_unknown_to_others() == []
        metadata.nodes[3] = None
        assert groups.led_unknown_to_others() == [(0, 2)]
        await replica.becomes(term=3, leads=False, applied_term=2)
        assert groups.led_unknown_to_others() == []
        hosted.close()

    run(scenario)


@pytest.mark.slow
def test_a_node_imports_nothing_of_groups_before_somebody_asks_for_one() -> None:
    """It would take ten milliseconds of its start."""
    program = "import sys, seatrial.server.node; print(*(name for name in sys.modules if 'seatrial' in name))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    modules = set(ended.stdout.split())
    assert "seatrial.server.groups.service" in modules
    assert not modules & {"seatrial.kafka.group_requests", "seatrial.kafka.classic_group", "seatrial.machines.groups"}
