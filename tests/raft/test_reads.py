"""Reads: rounds, leases and what breaks them, reads of followers, and that none hangs."""

from __future__ import annotations

import pytest
from raft_network import Host, Network

from seatrial.raft import NotLeader, RaftConfig
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def beat(network: Network, leader: Host) -> None:
    """Go on to the leader's next heartbeat, and send it."""
    network.now_us = leader.node.next_deadline()
    leader.node.tick(network.now_us)
    leader.pump()


def leased() -> Network:
    """Node 1 leads and holds a lease from now on."""
    network = Network(3, lease_reads=True)
    beat(network, network.elect(1))
    network.deliver()
    return network


def reads_at_once(network: Network, node_id: int = 1) -> bool:
    host = network[node_id]
    before = len(host.reads)
    host.node.read_index(1000 + before, network.now_us)
    host.pump()
    return len(host.reads) > before


def test_one_round_confirms_all_reads_that_came_before_it() -> None:
    network = Network(3)
    leader = network.elect(1)
    for context in range(50):
        leader.node.read_index(context, network.now_us)
    leader.pump()
    assert len([m for m in network.under_way if isinstance(m, Heartbeat)]) == 2
    network.deliver()
    assert [state.context for state in leader.reads] == list(range(50))


def test_an_answer_to_an_earlier_round_confirms_nothing() -> None:
    network = Network(3)
    leader = network.elect(1)
    beat(network, leader)
    network.deliver(lambda m: isinstance(m, Heartbeat))
    earlier = network.drop(lambda m: isinstance(m, HeartbeatResponse))
    leader.node.read_index(7, network.now_us)
    leader.pump()
    network.drop()
    for message in earlier:
        network.deliver_one(message)
    assert leader.reads == []


def test_a_read_sees_what_was_committed_before_it() -> None:
    network = Network(3)
    leader = network.elect(1)
    entry_id = network.propose(b"x")
    network.deliver()
    leader.node.read_index(7, network.now_us)
    leader.pump()
    network.deliver()
    assert leader.reads == [(7, entry_id.index)]


def test_a_followers_read_waits_until_the_follower_has_applied_the_index() -> None:
    network = Network(3)
    network.elect(1)
    network.propose(b"x")
    network.drop(lambda m: m.to == TWO)
    network.deliver()
    follower = network[2]
    follower.node.read_index(7, network.now_us)
    follower.pump()
    network.deliver()
    assert follower.reads == [], "index 2 is not here yet"
    network.advance(200_000)
    assert follower.reads == [(7, 2)]


def test_an_answer_that_comes_twice_is_given_once() -> None:
    network = Network(3)
    network.elect(1)
    network[2].node.read_index(7, network.now_us)
    network[2].pump()
    network.deliver(lambda m: not isinstance(m, ReadIndexResponse))
    (answer,) = network.drop()
    network.deliver_one(answer)
    network.deliver_one(answer)
    assert network[2].reads == [(7, 1)]


@pytest.mark.parametrize("loses", [True, False])
def test_reads_that_a_lost_leadership_leaves_behind_are_refused(loses: bool) -> None:
    network = Network(3)
    leader = network.elect(1)
    leader.node.read_index(7, network.now_us)
    leader.pump()
    network[2].node.read_index(8, network.now_us)
    network[2].pump()
    network.deliver(lambda m: isinstance(m, ReadIndexRequest))
    network.drop()
    network.deliver_one(Heartbeat(THREE, ONE, Term(9), Index(0), 1))
    assert leader.reads == [(7, 0)]
    if loses:
        network.drop()
        network.advance(1_000_000)
    else:
        network.deliver()
    assert network[2].reads == [(8, 0)]


def test_a_request_to_a_node_that_does_not_lead_is_refused() -> None:
    network = Network(3)
    network.elect(1)
    network.deliver_one(ReadIndexRequest(THREE, TWO, network[2].node.term, 7))
    (answer,) = network.drop()
    assert isinstance(answer, ReadIndexResponse)
    assert answer.index == 0


def test_without_a_leader_a_read_is_refused_at_once() -> None:
    with pytest.raises(NotLeader) as refused:
        Network(3)[1].node.read_index(7, 1_000_000)
    assert refused.value.leader is None


# -- leases ------------------------------------------------------------------------------------------------------------


def test_a_lease_ends_before_any_follower_may_help_to_elect_another() -> None:
    network = leased()
    config = network[1].config
    began = network.now_us
    assert reads_at_once(network)
    network.now_us = began + config.lease_us - 1
    assert reads_at_once(network)
    network.now_us = began + config.lease_us
    assert not reads_at_once(network)
    assert config.lease_us < config.election_timeout_us


def test_a_lease_counts_from_the_heartbeats_sending_not_from_its_answer() -> None:
    network = Network(3, lease_reads=True)
    leader = network.elect(1)
    beat(network, leader)
    network.now_us += leader.config.lease_us
    network.deliver()
    assert not reads_at_once(network)


def test_a_new_leader_has_no_lease_before_a_round_and_an_entry_of_its_own() -> None:
    network = Network(3, lease_reads=True)
    network.elect(1)
    assert not reads_at_once(network)


def test_a_timeout_now_that_was_sent_ends_the_lease_for_good() -> None:
    """It may arrive after the transfer was given up, and its receiver is elected in spite of every promise."""
    network = leased()
    leader = network[1]
    leader.node.transfer_leadership(TWO, network.now_us)
    leader.pump()
    (late,) = network.drop(lambda m: isinstance(m, TimeoutNow))
    network.isolate(2)
    network.advance(2 * leader.config.election_timeout_us)
    assert leader.node.is_leader and leader.node.status().transfer_to is None
    assert not reads_at_once(network)
    network.drop()
    network.heal()
    network.deliver_one(late)
    network.deliver()
    assert network[2].node.is_leader


def test_a_node_that_restarts_keeps_the_promise_it_may_have_given() -> None:
    network = leased()
    network[2].crash()
    network[2].start()
    network.deliver_one(RequestVote(THREE, TWO, Term(9), Index(9), Term(9), False))
    assert network.drop() == []
    network.now_us += network[2].config.election_timeout_us
    network.deliver_one(RequestVote(THREE, TWO, Term(9), Index(9), Term(9), False))
    (vote,) = network.drop()
    assert isinstance(vote, RequestVoteResponse) and vote.vote_granted


def test_a_promise_outlives_the_term_it_was_given_in() -> None:
    """A node that is carried into a later term by some stray message still may not vote until the lease is over."""
    network = leased()
    network.deliver_one(RequestVoteResponse(THREE, TWO, Term(5), vote_granted=False))
    assert network[2].node.term == 5
    network.deliver_one(RequestVote(THREE, TWO, Term(5), Index(9), Term(5), False))
    refused = [m for m in network.drop() if isinstance(m, RequestVoteResponse)]
    assert [m.vote_granted for m in refused] == [False]


def test_a_campaign_by_order_does_not_break_a_lease() -> None:
    network = leased()
    network[2].node.campaign(network.now_us)
    network[2].pump()
    assert not any(isinstance(m, PreVoteResponse | RequestVote) for m in network.under_way)
    assert network[2].node.leader == ONE


def test_leases_need_check_quorum() -> None:
    with pytest.raises(ValueError, match="lease_reads needs check_quorum"):
        RaftConfig(node_id=ONE, lease_reads=True, check_quorum=False)
