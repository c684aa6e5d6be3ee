"""Rare events of the server that a night's search seldom gets to, or never: each is brought about here.

`sim.coverage.OWNED_BY_TESTS` names these tests as the owners of the marks.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from group_cluster import eventually
from test_hosting import GROUP, KEY, Scene

from seatrial import marks
from seatrial.machines.metadata import CreateTopic
from seatrial.machines.sessions import MAX_ANSWERS
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import ForwardProposal, Heartbeat
from seatrial.raft.reads import ReadState
from seatrial.server.campaigns import CAMPAIGNS_MAX
from seatrial.server.errors import NoLeader, OutcomeUnknown, StartError
from seatrial.server.key_value import KeyValueService
from seatrial.server.proposals import OpenProposals
from seatrial.server.quiet import _HEAD, BEAT_WITH_LIST, QuietGroups
from seatrial.server.read_barriers import READ_PATIENCE_US, ReadBarriers
from seatrial.server.standing import Standing
from seatrial.transport.handshake import Refusal, Rejected

Run = Callable[..., None]


@contextmanager
def reaching(mark: str) -> Iterator[None]:
    """The code in it must come to the mark."""
    marks.taken()
    yield
    assert mark in marks.taken()


def test_a_snapshot_over_an_open_proposal_hides_its_fate_and_leaves_later_ones_open() -> None:
    async def scenario() -> None:
        proposals = OpenProposals("g", None)
        hidden, open_still = (asyncio.get_running_loop().create_future() for _ in range(2))
        proposals.appended(Term(1), Index(5), hidden)
        proposals.appended(Term(1), Index(6), open_still)
        with reaching("a snapshot was installed over an open proposal"):
            proposals.skipped_to(Index(5))
        with pytest.raises(OutcomeUnknown, match="hides the entry's fate"):
            await hidden
        assert not open_still.done()

    asyncio.run(scenario())


def test_a_proposal_that_is_open_when_its_group_is_closed_has_an_unknown_fate() -> None:
    async def scenario() -> None:
        proposals = OpenProposals("g", None)
        future = asyncio.get_running_loop().create_future()
        proposals.appended(Term(1), Index(5), future)
        with reaching("a group was closed with a proposal open"):
            proposals.close()
        with pytest.raises(OutcomeUnknown, match="closed on this node"):
            await future

    asyncio.run(scenario())


class SilentRaft:
    """A Raft node whose leader answers no read index."""

    def read_index(self, context: int, now_us: int) -> None: ...


def reads_of_which_the_first_was_given_up() -> tuple[ReadBarriers, asyncio.Future[None], asyncio.Future[None]]:
    raft: Any = SilentRaft()
    reads = ReadBarriers("g")
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    reads.join(first, 0)
    reads.ask(raft, 0)
    reads.join(second, READ_PATIENCE_US)
    reads.ask(raft, READ_PATIENCE_US)
    return reads, first, second


def test_a_read_index_that_nobody_answers_is_given_up_when_the_next_is_asked_for() -> None:
    async def scenario() -> None:
        with reaching("a read index was never answered, and was given up"):
            _, first, second = reads_of_which_the_first_was_given_up()
        with pytest.raises(NoLeader, match="no answer from the leader"):
            await first
        assert not second.done()

    asyncio.run(scenario())


def test_an_answer_to_a_read_that_was_given_up_ends_no_other_read() -> None:
    async def scenario() -> None:
        reads, first, second = reads_of_which_the_first_was_given_up()
        with reaching("a read index was answered after it had been given up"):
            reads.answered([ReadState(1, Index(7))], Index(9))
        assert not second.done()
        reads.answered([ReadState(2, Index(9))], Index(9))
        assert second.done() and first.exception() is not None

    asyncio.run(scenario())


def test_a_node_whose_directory_is_another_ends_and_is_told_what_to_do() -> None:
    ended: list[StartError] = []
    config: Any = type("Config", (), {"node_id": NodeId(1)})
    nothing: Any = None
    standing = Standing(
        config, nothing, nothing, nothing, nothing, on_fatal=ended.append, on_removed=lambda reason: None
    )
    with reaching("a node was told that it had lost its data directory"):
        standing.rejected(NodeId(2), Rejected("another directory", Refusal.DIRECTORY))
    assert ended[0].status == 16 and "seatrial members replace 1 NEW-ID" in str(ended[0])


class FollowingRaft:
    leader, term, commit_index = NodeId(2), Term(3), Index(4)


class QuietFollower:
    """A replica that follows node 2 in term 3, and has committed to 4."""

    group, node = GroupId(16), FollowingRaft()


def test_a_quiet_follower_is_told_of_a_commit_that_it_missed_by_its_own_leader_alone() -> None:
    replicas: Any = {QuietFollower.group: QuietFollower()}
    quiet = QuietGroups(NodeId(1), lambda: (), replicas, lambda group, messages: None, election_timeout_us=100_000)

    def told(leader: int, term: int, commit: int) -> list[Any]:
        data = _HEAD.pack(BEAT_WITH_LIST, 1) + array("Q", (QuietFollower.group, term, commit)).tobytes()
        return [message for _, message in quiet.receive(ForwardProposal(NodeId(leader), NodeId(1), Term(0), data), 0)]

    with reaching("a quiet group's follower was told of a commit that it had missed"):
        (beat,) = told(2, 3, 5)
    assert isinstance(beat, Heartbeat) and (beat.term, beat.leader_commit) == (3, 5)
    assert told(2, 3, 4) == told(2, 4, 5) == told(3, 3, 5) == []


@pytest.mark.slow
def test_a_write_of_a_session_that_is_too_old_is_not_told_as_failed(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        machine = next(m for n, m in cluster.machines.items() if cluster.replicas[n] is leader)
        ids = iter(range(1, 1_000))
        store = KeyValueService(leader, machine, new_request_id=lambda: next(ids).to_bytes(16, "big"))
        for sequence in range(1, MAX_ANSWERS + 2):
            assert (await store.put(b"k", b"v", None, (b"client", sequence), 5)).applied
        with (
            reaching("a session was so old that its answer was forgotten"),
            pytest.raises(OutcomeUnknown, match="use a higher sequence"),
        ):
            await store.put(b"k", b"v", None, (b"client", 1), 5)

    run_cluster(scenario)


@pytest.mark.slow
def test_no_more_groups_stand_for_election_at_once_than_a_node_can_bear(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        node = cluster.members[0]
        cluster.wires.isolate(node)
        host = cluster.hosts[node]
        with reaching("an election was postponed because too many were under way"):
            for number in range(CAMPAIGNS_MAX + 8):
                host.open(GroupId(100 + number), f"g{number}", cluster.machines[node], cluster.members, cluster.options)
            await eventually(
                lambda: "an election was postponed because too many were under way" in marks.counts,
                lambda: len(host._campaigns),
            )
        assert len(host._campaigns) <= CAMPAIGNS_MAX

    run_cluster(scenario)


@pytest.mark.slow
def test_a_replica_that_is_wanted_while_its_files_are_deleted_is_opened_afterwards(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        scene = Scene(cluster.hosts[NodeId(1)])
        scene.hosting.up_to_date()
        scene.do(CreateTopic("t", ((1, 2),)))
        await scene.becomes(True)
        scene.hosting.partitions.pop(KEY)
        with reaching("a replica was wanted while its old files were still being deleted"):
            scene.multiraft.remove_group(GROUP)
            scene.hosting.topics_changed(["t"])
            await scene.becomes(True)

    run_cluster(scenario)
