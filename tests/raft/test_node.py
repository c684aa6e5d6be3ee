"""The contract between a node and its driver."""

from __future__ import annotations

from typing import Any

import pytest
from raft_network import Host, Network, entries_of

from seatrial.raft import RaftConfig, RaftNode, Ready, Role
from seatrial.raft.describe import describe_entries, describe_message, describe_ready, describe_status
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    COMMAND,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    ForwardProposal,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)
from seatrial.raft.roles import LEGAL

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
META = SnapshotMeta(Index(5), Term(1), Configuration([ONE, TWO], [ONE, THREE], [NodeId(4)]))
EVERY_MESSAGE: dict[type[Message], tuple[Any, ...]] = {  # with what follows sender, receiver and term
    PreVote: (Index(1), Term(1)),
    PreVoteResponse: (True,),
    RequestVote: (Index(1), Term(1), False),
    RequestVoteResponse: (True,),
    AppendEntries: (Index(0), Term(0), Index(0), []),
    AppendEntriesResponse: (True, Index(1), Index(0), Term(0)),
    Heartbeat: (Index(0), 1),
    HeartbeatResponse: (1,),
    InstallSnapshot: (META, 0, 3, b"abc"),
    InstallSnapshotResponse: (Index(5), 3),
    TimeoutNow: (),
    ReadIndexRequest: (7,),
    ReadIndexResponse: (7, Index(1)),
    ForwardProposal: (b"x",),
}


def message_of(kind: type[Message], *, sender: NodeId = TWO, to: NodeId = ONE, term: int = 2) -> Message:
    return kind(sender, to, Term(term), *EVERY_MESSAGE[kind])


def follower(**settings: Any) -> Host:
    """Node 1 of three; nothing of what it saves is durable until the test says so."""
    host = Network(3, **settings)[1]
    host.auto_sync = False
    return host


def append(first: int, terms: list[int], *, commit: int = 0, prev_term: int = 1) -> AppendEntries:
    prev = Term(prev_term if first > 1 else 0)
    return AppendEntries(TWO, ONE, Term(max(terms)), Index(first - 1), prev, Index(commit), entries_of(terms, first))


def now(host: Host) -> int:
    return host.network.now_us


def test_a_fresh_node_has_nothing_to_do() -> None:
    assert not follower().node.has_ready()


def test_each_effect_is_handed_out_once() -> None:
    host = follower()
    host.node.step(append(1, [1, 1], commit=1), now(host))
    ready = host.node.ready()
    assert ready.entries == entries_of([1, 1])
    assert ready.must_sync and ready.hard_state is not None
    assert not host.node.has_ready()
    again = host.node.ready()
    assert not again.entries and not again.must_sync and again.hard_state is None
    assert not again.messages and not again.messages_after_save and again.role_changed is None


def test_more_readys_may_be_taken_while_saves_are_under_way() -> None:
    host = follower()
    taken = []
    for first in (1, 2, 3):
        host.node.step(append(first, [1], commit=3), now(host))
        ready = host.node.ready()
        host.disk.save(ready)
        taken.append(ready)
    assert [r.entries[0].index for r in taken] == [1, 2, 3]
    assert [r.messages_after_save[0].match_index for r in taken] == [1, 2, 3]  # type: ignore[union-attr]
    for count, ready in enumerate(list(taken), 1):
        host.disk.finish_one()
        host.node.advance(ready, now(host))
        following = host.node.ready()
        assert [entry.index for entry in following.committed] == [count]
        taken.append(following)  # it has nothing to save, and is advanced in its turn all the same


def test_readys_are_advanced_in_order_and_once() -> None:
    host = follower()
    host.node.step(append(1, [1]), now(host))
    first = host.node.ready()
    host.node.step(append(2, [1]), now(host))
    second = host.node.ready()
    with pytest.raises(AssertionError, match="in the order"):
        host.node.advance(second, now(host))
    host.node.advance(first, now(host))
    with pytest.raises(AssertionError, match="once each"):
        host.node.advance(first, now(host))


def test_a_commit_index_alone_is_not_worth_a_save() -> None:
    host = follower()
    host.auto_sync = True
    host.node.step(append(1, [1]), now(host))
    host.pump()
    host.node.step(Heartbeat(TWO, ONE, Term(1), Index(1), 1), now(host))
    ready = host.node.ready()
    assert ready.committed == entries_of([1])
    assert ready.hard_state is None and not ready.must_sync


def test_a_change_of_role_term_or_leader_is_told_once() -> None:
    host = follower()
    host.auto_sync = True
    host.node.step(append(1, [1]), now(host))
    host.pump()
    host.node.step(append(2, [1]), now(host))
    host.pump()
    told = [ready.role_changed for ready in host.readys if ready.role_changed is not None]
    assert told == [(Role.FOLLOWER, 1, TWO)]


def test_committed_entries_come_in_bounded_portions() -> None:
    network = Network(3, max_message_bytes=100)
    leader = network.elect(1)
    for _ in range(20):
        leader.node.propose(b"x" * 30, network.now_us)
    leader.pump()
    network.deliver()
    assert len(leader.commands()) == 20
    assert max(len(ready.committed) for ready in leader.readys) == 2


@pytest.mark.parametrize("kind", EVERY_MESSAGE)
@pytest.mark.parametrize(("sender", "to"), [(TWO, THREE), (ONE, ONE)])
def test_a_message_for_another_node_or_from_itself_is_ignored(kind: type[Message], sender: NodeId, to: NodeId) -> None:
    host = follower()
    before = host.node.status()
    host.node.step(message_of(kind, sender=sender, to=to), now(host))
    assert host.node.status() == before and not host.node.has_ready()


@pytest.mark.parametrize("kind", EVERY_MESSAGE)
@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("term", [0, 1, 2, 3])
def test_every_message_is_survived_in_every_role_and_term(kind: type[Message], role: Role, term: int) -> None:
    network = Network(3, logs={1: [1], 2: [1], 3: [1]}, pre_vote=role == Role.PRE_CANDIDATE)
    if role == Role.LEADER:
        network.elect(1)
    elif role != Role.FOLLOWER:
        network[1].node.campaign(network.now_us)
        network[1].pump()
    before = network[1].node.term
    stranger = NodeId(9)  # is in no configuration
    for sender in (TWO, stranger):
        if kind in (AppendEntries, Heartbeat, InstallSnapshot) and term == before:
            continue  # two leaders in one term: what elections rule out
        network[1]._restore = lambda snapshot: None  # type: ignore[method-assign]
        network.deliver_one(message_of(kind, sender=sender, term=term))
        assert network[1].node.term >= before


def test_two_leaders_in_one_term_are_a_bug_that_stops_the_node() -> None:
    network = Network(3)
    network.elect(1)
    with pytest.raises(AssertionError, match="both lead term 1"):
        network.deliver_one(Heartbeat(TWO, ONE, Term(1), Index(0), 1))


def test_the_planted_bug_votes_twice_and_survives_two_leaders() -> None:
    network = Network(3, unsafe=frozenset({"forget-vote"}))
    for candidate in (TWO, THREE):
        network.deliver_one(RequestVote(candidate, ONE, Term(1), Index(0), Term(0), False))
    assert [m.vote_granted for m in network.drop() if isinstance(m, RequestVoteResponse)] == [True, True]
    network.now_us += network[1].config.election_timeout_us
    network.elect(1)
    network.deliver_one(Heartbeat(TWO, ONE, network[1].node.term, Index(0), 1))
    assert network[1].node.is_leader


def test_the_next_deadline_is_always_ahead_after_a_tick() -> None:
    network = Network(1)
    node = network[1].node
    for _ in range(5):
        network.now_us = node.next_deadline()
        node.tick(network.now_us)
        network[1].pump()
        assert node.next_deadline() > network.now_us
    assert node.is_leader


def test_a_node_ticked_at_a_fixed_interval_behaves_like_one_ticked_at_its_deadlines() -> None:
    network = Network(3)
    for _ in range(200):
        network.now_us += 10_000
        for host in network.hosts.values():
            host.node.tick(network.now_us)
            host.pump()
        network.deliver()
    assert network.has_leader()
    assert {host.node.leader for host in network.hosts.values()} == {network.leader().node.node_id}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"node_id": 0}, "node_id must be 1 or more"),
        ({"heartbeat_us": 300_000}, "must be positive and below election_timeout_us"),
        ({"heartbeat_us": 0}, "must be positive"),
        ({"max_message_bytes": 0}, "max_message_bytes must be positive"),
        ({"snapshot_chunk_bytes": 0}, "snapshot_chunk_bytes must be positive"),
        ({"lease_drift_ppm": 1_000_000}, "lease_drift_ppm must be in"),
        ({"unsafe": frozenset({"typo"})}, "unknown unsafe switch typo; there are: forget-vote"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RaftConfig(**{"node_id": ONE, **settings})


def test_only_legal_changes_of_role_are_made() -> None:
    assert set(LEGAL) == set(Role)
    node: RaftNode = Network(3)[1].node
    with pytest.raises(AssertionError, match="cannot become"):
        node._core._change_role(Role.LEADER)


# -- descriptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY_MESSAGE)
def test_every_message_has_a_line(kind: type[Message]) -> None:
    line = describe_message(message_of(kind))
    assert line.startswith(f"2->1 {kind.__name__} term=2")
    assert "\n" not in line


def test_descriptions_are_short_whatever_they_describe() -> None:
    many = [Entry(Term(1), Index(index), COMMAND, b"x" * 1000) for index in range(1, 1000)]
    assert describe_entries(many) == "[1/1 (1000 bytes) … 1/999 (1000 bytes): 999 entries]"
    assert describe_message(message_of(InstallSnapshot)).endswith(
        "snapshot=1/5 of (1 2)&(1 3) learners (4) until told to leave bytes 0-3 of 3"
    )
    assert describe_ready(Ready(None, [], None, [], [], [], [], None)) == ""
    assert len(describe_status(Network(3).elect(1).node.status())) == 3
