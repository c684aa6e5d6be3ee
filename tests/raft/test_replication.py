"""A leader's side: batches, windows, recovery from loss, limits, and peers that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from raft_network import Host, Network

from seatrial.raft import NotLeader, ProposalDropped, Role
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.log import ENTRY_OVERHEAD_BYTES
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    ForwardProposal,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshotResponse,
    Message,
)

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)


def appends(network: Network, to: NodeId) -> list[AppendEntries]:
    return [m for m in network.under_way if isinstance(m, AppendEntries) and m.to == to]


def proposed(network: Network, count: int, *, at_once: bool = True) -> Host:
    leader = network.leader()
    for number in range(count):
        leader.node.propose(b"%03d" % number, network.now_us)
        if not at_once:
            leader.pump()
    leader.pump()
    return leader


ONE_ENTRY = 3 + ENTRY_OVERHEAD_BYTES


def test_proposals_that_come_together_leave_in_one_message() -> None:
    network = Network(3)
    network.elect(1)
    proposed(network, 20)
    (message,) = appends(network, TWO)
    assert len(message.entries) == 20


def test_a_message_carries_no_more_bytes_than_allowed_but_at_least_one_entry() -> None:
    for allowed, expected in ((3 * ONE_ENTRY, [3, 3, 2]), (1, [1] * 8)):
        network = Network(3, max_message_bytes=allowed)
        network.elect(1)
        proposed(network, 8)
        assert [len(m.entries) for m in appends(network, TWO)] == expected


def test_messages_follow_each_other_without_waiting_for_answers_up_to_the_window() -> None:
    network = Network(3, max_inflight_messages=4)
    leader = network.elect(1)
    proposed(network, 10, at_once=False)
    assert [m.prev_log_index for m in appends(network, TWO)] == [1, 2, 3, 4]
    network.deliver()
    assert leader.node.commit_index == 11
    assert all(host.commands() == leader.commands() for host in network.hosts.values())


def test_the_window_is_bounded_in_bytes() -> None:
    network = Network(3, max_inflight_bytes=2 * ONE_ENTRY)
    network.elect(1)
    proposed(network, 10, at_once=False)
    assert len(appends(network, TWO)) == 2
    network.deliver()
    assert len(network[2].commands()) == 10


def test_a_window_that_was_lost_whole_is_sent_again() -> None:
    network = Network(3, max_inflight_messages=2)
    leader = network.elect(1)
    proposed(network, 10, at_once=False)
    network.drop(lambda m: m.to == TWO)
    network.deliver()
    network.advance(4 * leader.config.heartbeat_us)
    assert network[2].commands() == leader.commands() and len(leader.commands()) == 10


def test_acknowledgements_that_were_lost_are_asked_for_again() -> None:
    network = Network(3, max_inflight_messages=2)
    leader = network.elect(1)
    proposed(network, 2, at_once=False)
    network.deliver(lambda m: m.to == TWO)
    network.drop()
    assert leader.node.status().peers[TWO].inflight_messages == 2
    network.advance(4 * leader.config.heartbeat_us)
    assert leader.node.status().peers[TWO].inflight_messages == 0
    assert leader.node.commit_index == 3


def test_a_commit_index_that_was_lost_comes_with_the_next_heartbeat() -> None:
    network = Network(3)
    leader = network.elect(1)
    proposed(network, 1)
    network.deliver(lambda m: isinstance(m, AppendEntries | AppendEntriesResponse))
    network.drop()
    assert network[2].commands() == []
    network.advance(2 * leader.config.heartbeat_us)
    assert network[2].commands() == [b"000"]


def test_a_heartbeat_never_commits_what_the_peer_may_not_have() -> None:
    network = Network(3)
    leader = network.elect(1)
    proposed(network, 3)
    network.drop(lambda m: m.to == TWO)
    network.deliver()
    assert leader.node.commit_index == 4
    network.now_us = leader.node.next_deadline()
    leader.node.tick(network.now_us)
    leader.pump()
    beats = {m.to: m.leader_commit for m in network.under_way if isinstance(m, Heartbeat)}
    assert beats == {TWO: 1, THREE: 4}


def test_an_unreachable_peer_is_probed_before_more_is_sent() -> None:
    network = Network(3)
    leader = network.elect(1)
    leader.node.report_unreachable(TWO)
    proposed(network, 5, at_once=False)
    assert appends(network, TWO) == []
    network.advance(2 * leader.config.heartbeat_us)
    assert leader.node.status().peers[TWO].state == "replicate"
    assert len(network[2].commands()) == 5


class FullDisk(Network):
    """Node 2 takes no entries while it is `full`; it answers heartbeats."""

    full, dropped = True, 0

    def send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if self.full and isinstance(message, AppendEntries) and message.to == TWO and message.entries:
                self.dropped += 1
            else:
                super().send([message])

    def dropped_in(self, beats: int) -> int:
        before = self.dropped
        for _ in range(beats):
            self.advance(self[1].config.heartbeat_us)
        return self.dropped - before


def test_a_peer_that_takes_no_entries_is_probed_as_often_as_the_driver_lets_and_then_gets_all() -> None:
    network = FullDisk(3)
    leader = network.elect(1)
    proposed(network, 3)
    assert network.dropped_in(20) >= 10, "at each heartbeat that it answers"
    leader.node.hold(TWO, 1)
    assert network.dropped_in(20) == 1
    leader.node.hold(TWO, 0)
    assert network.dropped_in(20) == 0
    assert leader.node.is_leader and len(network[3].commands()) == 3
    network.full = False
    leader.node.hold(TWO, -1)
    network.dropped_in(5)
    assert len(network[2].commands()) == 3


def test_what_a_node_does_not_lead_and_whom_it_does_not_know_it_does_not_hold() -> None:
    network = Network(3)
    leader = network.elect(1)
    network[2].node.hold(THREE, 0)
    leader.node.hold(NodeId(99), 0)
    proposed(network, 1)
    network.advance(leader.config.heartbeat_us)
    assert [len(network[number].commands()) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_follower_without_a_leadership_ignores_reports_of_unreachable_peers() -> None:
    network = Network(3)
    network.elect(1)
    network[2].node.report_unreachable(THREE)
    network[1].node.report_unreachable(NodeId(99))
    assert network[1].node.is_leader


def test_a_leader_counts_itself_only_as_far_as_its_own_disk_has_come() -> None:
    network = Network(3)
    leader = network.elect(1)
    leader.auto_sync = False
    for data in (b"x", b"y"):
        network.propose(data)
    network.drop(lambda m: m.to == THREE)
    network.deliver()
    assert leader.node.status().peers[TWO].match_index == 3
    assert leader.node.commit_index == 1
    leader.finish_one_save()
    assert leader.node.commit_index == 2
    leader.finish_one_save()
    assert leader.node.commit_index == 3


# -- limits ------------------------------------------------------------------------------------------------------------


def test_proposals_are_dropped_while_too_much_is_uncommitted() -> None:
    network = Network(3, max_uncommitted_bytes=10)
    leader = network.elect(1)
    network.propose(b"12345678")
    with pytest.raises(ProposalDropped, match="8 bytes are not yet committed"):
        network.propose(b"123")
    assert leader.node.last_index == 2
    network.deliver()
    network.propose(b"123")
    network.deliver()
    assert leader.commands() == [b"12345678", b"123"]
    assert leader.node.status().uncommitted_bytes == 0


def test_one_proposal_is_taken_however_large() -> None:
    network = Network(3, max_uncommitted_bytes=10)
    network.elect(1)
    network.propose(b"x" * 1000)
    network.deliver()
    assert network[3].commands() == [b"x" * 1000]


def test_what_an_earlier_leadership_left_uncommitted_does_not_count() -> None:
    network = Network(3, max_uncommitted_bytes=10)
    network.elect(1)
    network.propose(b"12345678")
    network.deliver(lambda m: isinstance(m, AppendEntries))
    network.drop()
    leader = network.elect(2)
    assert leader.commands() == [b"12345678"]
    assert leader.node.status().uncommitted_bytes == 0


def test_only_a_leader_takes_proposals_and_others_name_it() -> None:
    network = Network(3)
    with pytest.raises(NotLeader) as refused:
        network.propose(b"x", at=1)
    assert refused.value.leader is None
    network.elect(1)
    with pytest.raises(NotLeader) as refused:
        network.propose(b"x", at=2)
    assert refused.value.leader == ONE
    assert refused.value.definite


def test_a_forwarded_proposal_that_cannot_be_taken_is_lost_silently() -> None:
    network = Network(3, max_uncommitted_bytes=1)
    leader = network.elect(1)
    network.propose(b"x")
    for node, term in ((1, leader.node.term), (2, leader.node.term), (1, Term(0))):
        network.deliver_one(ForwardProposal(THREE, NodeId(node), term, b"more"))
    assert leader.node.last_index == 2


# -- peers that are not as they should be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        AppendEntriesResponse(NodeId(9), ONE, Term(1), True, Index(2), Index(0), Term(0)),
        HeartbeatResponse(NodeId(9), ONE, Term(1), 1),
        InstallSnapshotResponse(NodeId(9), ONE, Term(1), Index(2), 0),
        AppendEntriesResponse(TWO, ONE, Term(1), True, Index(99), Index(0), Term(0)),
        AppendEntriesResponse(TWO, ONE, Term(1), False, Index(99), Index(98), Term(1)),
        InstallSnapshotResponse(TWO, ONE, Term(1), Index(2), 0),
        AppendEntriesResponse(ONE, ONE, Term(1), True, Index(2), Index(0), Term(0)),
        AppendEntriesResponse(TWO, THREE, Term(1), True, Index(2), Index(0), Term(0)),
    ],
)
def test_an_answer_from_the_wrong_node_or_about_the_wrong_thing_changes_nothing(message: Message) -> None:
    network = Network(3)
    leader = network.elect(1)
    network.propose(b"x")
    network.drop()
    before = leader.node.status()
    leader.node.step(message, before.peers[TWO].last_response_us)
    leader.pump()
    assert leader.node.status() == before
    assert network.under_way == []


def test_a_leader_that_is_not_in_the_configuration_is_followed() -> None:
    """The configuration may be what is out of date (§6)."""
    network = Network(3)
    network.deliver_one(Heartbeat(NodeId(9), ONE, Term(3), Index(0), 1))
    assert (network[1].node.leader, network[1].node.term) == (9, 3)


def test_learners_get_entries_but_neither_count_nor_campaign() -> None:
    configuration = Configuration([ONE, TWO], (), [THREE])
    network = Network(3, configuration=configuration)
    leader = network.elect(1)
    assert network[3].node.commit_index == 1
    network.propose(b"x")
    network.deliver(lambda m: TWO not in (m.to, m.sender))
    assert leader.commands() == [], "the learner's acknowledgement alone commits nothing"
    network.drop()
    network.isolate(3)
    network.now_us = network[3].node.next_deadline()
    network[3].node.tick(network.now_us)
    network[3].node.campaign(network.now_us)
    assert network[3].node.role == Role.FOLLOWER
    assert network[3].node.next_deadline() > network.now_us


def test_during_joint_consensus_both_majorities_must_have_an_entry() -> None:
    configuration = Configuration([ONE, TWO, THREE], [ONE, NodeId(4), NodeId(5)])
    network = Network(5, configuration=configuration)
    leader = network.elect(1)
    network.propose(b"x")
    network.deliver(lambda m: m.to in (ONE, TWO, THREE) and m.sender in (ONE, TWO, THREE))
    assert leader.commands() == []
    network.deliver(lambda m: NodeId(4) in (m.to, m.sender))
    assert leader.commands() == [b"x"]


# -- check quorum ------------------------------------------------------------------------------------------------------


def test_a_leader_that_is_heard_but_does_not_hear_steps_down() -> None:
    """One way cut: its heartbeats would keep everyone from electing a leader that can commit."""
    network = Network(3)
    leader = network.elect(1)
    network.cut = {(TWO, ONE), (THREE, ONE)}
    network.advance(leader.config.election_timeout_us + 2 * leader.config.heartbeat_us)
    assert not leader.node.is_leader
    network.run_until(lambda: network[2].node.is_leader or network[3].node.is_leader)


def test_a_leader_in_touch_with_a_bare_majority_stays() -> None:
    network = Network(5)
    leader = network.elect(1)
    network.isolate(4, 5)
    network.advance(5_000_000)
    assert leader.node.is_leader and leader.node.term == 1


def test_a_node_whose_term_ran_ahead_is_brought_back_without_being_stuck() -> None:
    """Without PreVote an isolated node raises its term; the leader must learn of it, or neither would ever follow."""
    network = Network(3, pre_vote=False)
    network.elect(1)
    network.isolate(3)
    network.advance(3_000_000)
    ahead = network[3].node.term
    assert ahead > network[1].node.term
    network.heal()
    network.advance(2_000_000)
    network.propose(b"x")
    network.deliver()
    assert [host.commands() for host in network.hosts.values()] == [[b"x"]] * 3
    assert {host.node.term for host in network.hosts.values()} == {network.leader().node.term}
    assert network.leader().node.term >= ahead


def test_a_leader_that_slept_past_its_timeout_steps_down_when_it_wakes() -> None:
    network = Network(3)
    leader = network.elect(1)
    network.now_us += 10_000_000
    leader.node.tick(network.now_us)
    assert leader.node.role == Role.FOLLOWER
