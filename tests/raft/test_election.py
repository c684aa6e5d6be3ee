"""Elections at the edges: terms that differ, answers that come late, restarts, and regimes that are mixed."""

from __future__ import annotations

import pytest
from raft_network import Network

from seatrial.raft import Role
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
)

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
META = SnapshotMeta(Index(5), Term(1), Configuration([ONE, TWO, THREE]))


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AppendEntries(TWO, ONE, Term(2), Index(0), Term(0), Index(0), []), AppendEntriesResponse),
        (Heartbeat(TWO, ONE, Term(2), Index(0), 1), AppendEntriesResponse),
        (InstallSnapshot(TWO, ONE, Term(2), META, 0, 0, b""), AppendEntriesResponse),
        (RequestVote(TWO, ONE, Term(2), Index(9), Term(2), False), RequestVoteResponse),
        (PreVote(TWO, ONE, Term(2), Index(9), Term(2)), PreVoteResponse),
        (ReadIndexRequest(TWO, ONE, Term(2), 7), ReadIndexResponse),
    ],
)
def test_whoever_asks_in_an_earlier_term_learns_the_current_one(message: Message, answer: type) -> None:
    network = Network(3, terms={1: 5})
    network.deliver_one(message)
    (told,) = network.drop()
    assert type(told) is answer
    assert told.term == 5
    assert network[1].node.last_index == 0


def test_answers_from_an_earlier_term_are_ignored() -> None:
    network = Network(3, terms={1: 5, 2: 5, 3: 5}, pre_vote=False)
    network[1].node.campaign(network.now_us)
    network[1].pump()
    network.deliver_one(RequestVoteResponse(TWO, ONE, Term(5), vote_granted=True))
    assert network[1].node.role == Role.CANDIDATE


def test_a_pre_vote_granted_for_an_earlier_attempt_does_not_count() -> None:
    network = Network(5, terms=dict.fromkeys(range(1, 6), 5))
    network[1].node.campaign(network.now_us)
    network[1].pump()
    for term in (5, 7):
        for voter in (TWO, THREE):
            network.deliver_one(PreVoteResponse(voter, ONE, Term(term), vote_granted=True))
    assert (network[1].node.role, network[1].node.term) == (Role.PRE_CANDIDATE, 5)
    for voter in (TWO, THREE):
        network.deliver_one(PreVoteResponse(voter, ONE, Term(6), vote_granted=True))
    assert (network[1].node.role, network[1].node.term) == (Role.CANDIDATE, 6)


def test_one_voter_that_answers_twice_has_one_vote() -> None:
    network = Network(5, pre_vote=False)
    network[1].node.campaign(network.now_us)
    network[1].pump()
    for _ in range(3):
        network.deliver_one(RequestVoteResponse(TWO, ONE, Term(1), vote_granted=True))
    assert network[1].node.role == Role.CANDIDATE


def test_votes_of_nodes_that_are_no_voters_do_not_count() -> None:
    network = Network(3, pre_vote=False)
    network[1].node.campaign(network.now_us)
    network[1].pump()
    for stranger in (7, 8, 9):
        network.deliver_one(RequestVoteResponse(NodeId(stranger), ONE, Term(1), vote_granted=True))
    assert network[1].node.role == Role.CANDIDATE


def test_a_pre_candidate_that_a_majority_refuses_goes_back_to_following() -> None:
    network = Network(3, logs={1: [1], 2: [1, 1], 3: [1, 1]})
    network[1].node.campaign(network.now_us)
    network[1].pump()
    network.deliver()
    assert (network[1].node.role, network[1].node.term) == (Role.FOLLOWER, 1)


def test_a_refusal_with_a_later_term_is_believed() -> None:
    network = Network(3, terms={1: 1, 2: 4, 3: 4})
    network[1].node.campaign(network.now_us)
    network[1].pump()
    network.deliver()
    assert network[1].node.term == 4


def test_a_pre_vote_in_the_voters_own_term_is_granted_only_if_it_could_still_vote() -> None:
    network = Network(3, terms={1: 5}, check_quorum=False)
    ask = PreVote(TWO, ONE, Term(5), Index(0), Term(0))
    network.deliver_one(ask)
    assert [m.vote_granted for m in network.drop() if isinstance(m, PreVoteResponse)] == [True]
    network.deliver_one(RequestVote(THREE, ONE, Term(5), Index(0), Term(0), False))
    network.drop()
    network.deliver_one(ask)
    assert [m.vote_granted for m in network.drop() if isinstance(m, PreVoteResponse)] == [False]


def test_a_granted_vote_postpones_the_voters_own_candidacy_and_a_refused_one_does_not() -> None:
    network = Network(3, logs={1: [1, 1]}, check_quorum=False)
    deadline = network[1].node.next_deadline()
    network.now_us += 100_000
    network.deliver_one(RequestVote(TWO, ONE, Term(2), Index(0), Term(0), False))
    assert network[1].node.next_deadline() == deadline, "refused: its log is behind"
    network.deliver_one(RequestVote(THREE, ONE, Term(2), Index(2), Term(1), False))
    assert network[1].node.next_deadline() > deadline


def test_an_election_needs_both_majorities_during_joint_consensus() -> None:
    configuration = Configuration([ONE, TWO, THREE], [ONE, NodeId(4), NodeId(5)])
    network = Network(5, configuration=configuration, pre_vote=False)
    network[1].node.campaign(network.now_us)
    network[1].pump()
    for voter in (TWO, THREE):
        network.deliver_one(RequestVoteResponse(voter, ONE, Term(1), vote_granted=True))
    assert network[1].node.role == Role.CANDIDATE
    network.deliver_one(RequestVoteResponse(NodeId(4), ONE, Term(1), vote_granted=True))
    assert network[1].node.is_leader


@pytest.mark.parametrize("pre_vote", [True, False])
@pytest.mark.parametrize("check_quorum", [True, False])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 7])
def test_every_regime_elects_one_leader_and_survives_its_loss(pre_vote: bool, check_quorum: bool, nodes: int) -> None:
    network = Network(nodes, pre_vote=pre_vote, check_quorum=check_quorum)
    network.run_until(network.has_leader)
    network.propose(b"before")
    network.advance(200_000)
    old = network.leader()
    old.crash()
    if nodes <= 2:  # no majority is left
        old.start()
    network.run_until(network.has_leader)
    network.propose(b"after")
    network.advance(200_000)
    assert all(host.commands() == [b"before", b"after"] for host in network.hosts.values() if host.up)


def test_leaders_are_found_soon_after_a_crash() -> None:
    """In 20 clusters, of which the leader crashes: in virtual time, with the default timers."""
    waits = []
    for seed in range(20):
        network = Network(3, seed=seed)
        network.run_until(network.has_leader)
        network.advance(500_000)
        network.leader().crash()
        began = network.now_us
        network.run_until(network.has_leader)
        waits.append(network.now_us - began)
    waits.sort()
    assert waits[10] < 500_000
    assert waits[-1] < 1_500_000
