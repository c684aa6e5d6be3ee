"""Handing leadership over, and when it goes wrong."""

from __future__ import annotations

import pytest
from raft_network import Network

from seatrial import marks
from seatrial.raft import NotLeader, ProposalDropped, Role
from seatrial.raft.ids import NodeId, Term
from seatrial.raft.messages import Configuration, RequestVote, TimeoutNow

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def led(**settings: object) -> Network:
    network = Network(3, **settings)  # type: ignore[arg-type]
    network.elect(1)
    return network


def transfer(network: Network, to: int) -> None:
    network[1].node.transfer_leadership(NodeId(to), network.now_us)
    network[1].pump()


def test_a_target_that_is_up_to_date_leads_at_once() -> None:
    network = led()
    transfer(network, 2)
    network.deliver()
    assert [host.node.leader for host in network.hosts.values()] == [TWO] * 3


def test_no_time_passes_without_a_leader_that_takes_proposals_longer_than_it_must() -> None:
    network = led()
    transfer(network, 2)
    with pytest.raises(ProposalDropped, match="handed over to node 2"):
        network.propose(b"x", at=1)
    network.deliver()
    network.propose(b"x", at=2)


def test_a_transfer_that_fails_is_given_up_after_an_election_timeout() -> None:
    network = led()
    network.isolate(2)
    transfer(network, 2)
    config = network[1].config
    network.advance(config.election_timeout_us + config.heartbeat_us)
    assert network[1].node.is_leader
    network.propose(b"x")
    network.deliver()
    assert network[1].commands() == [b"x"]


def test_a_lost_timeout_now_is_sent_again() -> None:
    network = led()
    transfer(network, 2)
    network.drop(lambda m: isinstance(m, TimeoutNow))
    network.advance(2 * network[1].config.heartbeat_us)
    assert network[2].node.is_leader


def test_a_second_transfer_takes_the_place_of_the_first() -> None:
    network = led()
    network.isolate(2)
    transfer(network, 2)
    transfer(network, 3)
    network.deliver()
    assert network[3].node.is_leader


def test_a_transfer_to_the_leader_itself_ends_one_that_is_under_way() -> None:
    network = led()
    network.isolate(2)
    transfer(network, 2)
    transfer(network, 1)
    network.propose(b"x")


def test_only_a_voter_can_be_a_target_and_only_a_leader_transfers() -> None:
    network = Network(3, configuration=Configuration([ONE, TWO], (), [THREE]))
    network.elect(1)
    for to in (3, 9):
        with pytest.raises(ValueError, match="the voters are"):
            transfer(network, to)
    with pytest.raises(NotLeader):
        network[2].node.transfer_leadership(ONE, network.now_us)


def test_voters_ignore_stickiness_for_a_transfer() -> None:
    network = led()
    transfer(network, 2)
    network.deliver(lambda m: isinstance(m, TimeoutNow))
    requests = [m for m in network.under_way if isinstance(m, RequestVote)]
    assert [m.leadership_transfer for m in requests] == [True, True]
    network.deliver(lambda m: THREE in (m.to, m.sender))
    assert network[2].node.is_leader, "node 3 heard from node 1 a moment ago, and voted nevertheless"


@pytest.mark.parametrize("role", [Role.CANDIDATE, Role.LEADER])
def test_a_timeout_now_is_ignored_where_it_makes_no_sense(role: Role) -> None:
    marks.taken()
    network = Network(3, pre_vote=False)
    if role == Role.LEADER:
        network.elect(1)
    else:
        network[1].node.campaign(network.now_us)
        network[1].pump()
    network.drop()
    network.deliver_one(TimeoutNow(TWO, ONE, network[1].node.term))
    assert (network[1].node.role, network.under_way) == (role, [])
    assert "an order to campaign was ignored" in marks.taken()


def test_a_learner_never_campaigns_not_even_by_order() -> None:
    network = Network(3, configuration=Configuration([ONE, TWO], (), [THREE]))
    network.elect(1)
    network.deliver_one(TimeoutNow(ONE, THREE, Term(1)))
    assert network[3].node.role == Role.FOLLOWER
