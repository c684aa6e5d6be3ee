"""Changes of members in a whole cluster: what is promised of each, and the known pitfalls by their names.

Reference: Raft §6; dissertation §4; Ongaro, "bug in single-server membership changes" (raft-dev, July 2015).
"""

from __future__ import annotations

import pytest
from raft_network import Disk, Host, Network, entries_of

from seatrial import marks
from seatrial.raft import (
    ADD_LEARNER,
    ADD_VOTER,
    REMOVE,
    ConfigurationChange,
    ConfigurationRefused,
    NotLeader,
    ProposalDropped,
    RaftNode,
    Role,
)
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.membership import encode_configuration
from seatrial.raft.messages import (
    CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshot,
    Message,
    PreVote,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)

ELECTION_US = 300_000


def conf(voters: list[int], outgoing: list[int] | None = None, learners: list[int] | None = None) -> Configuration:
    return Configuration(
        [NodeId(n) for n in voters], [NodeId(n) for n in outgoing or ()], [NodeId(n) for n in learners or ()]
    )


def refused(network: Network, *changes: tuple[int, int], at: int | None = None) -> str:
    """The code of the refusal."""
    before = network.leader().node.last_index
    with pytest.raises(ConfigurationRefused) as caught:
        network.propose_change(*changes, at=at)
    assert network.leader().node.last_index == before, "a refused change was appended"
    return caught.value.code


def voting(host: Host) -> list[int]:
    return list(host.node.configuration.voters)


def cluster(nodes: int = 3, spares: int = 1) -> Network:
    network = Network(nodes, spares=spares)
    network.elect(1)
    return network


# -- what a change does ------------------------------------------------------------------------------------------------


def test_a_node_is_added_as_a_learner_catches_up_and_is_promoted() -> None:
    network = cluster()
    for number in range(5):
        network.propose(b"%d" % number)
    network.deliver()
    network.change((ADD_LEARNER, 4))
    assert network[4].node.configuration == conf([1, 2, 3], learners=[4])
    assert network[4].commands() == network[1].commands()
    network.change((ADD_VOTER, 4))
    assert all(voting(host) == [1, 2, 3, 4] for host in network.hosts.values())


def test_several_changes_at_once_go_through_joint_consensus_which_the_leader_leaves_by_itself() -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.change((ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 2), (REMOVE, 3))
    for node_id in (1, 4, 5):
        assert network[node_id].node.committed_configuration == conf([1, 4, 5])
    kinds = [entry.kind for entry in network[4].applied]
    assert kinds.count(CONFIGURATION) == 3, "learners, joint, left"


@pytest.mark.parametrize("missing", [(4, 5), (2, 3)])
def test_joint_consensus_needs_both_majorities_to_commit(missing: tuple[int, int]) -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.advance(100_000)
    network.isolate(*missing)
    joint = network.propose_change((ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 2), (REMOVE, 3))
    network.advance(200_000)
    assert network[1].node.commit_index < joint.index
    network.heal()
    network.advance(1_000_000)
    assert all(network[n].node.committed_configuration == conf([1, 4, 5]) for n in (1, 4, 5))


def test_explicit_leave_waits_to_be_told_and_any_leader_can_be_told() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    network.change((ADD_VOTER, 4), explicit_leave=True)
    network.advance(1_000_000)
    joint = network[1].node.configuration
    assert (joint.voters, joint.voters_outgoing) == ((1, 2, 3, 4), (1, 2, 3))
    assert refused(network, (REMOVE, 2)) == "pending"
    network.elect(2)
    network[2].node.leave_joint(network.now_us)
    network[2].pump()
    network.deliver()
    assert all(host.node.configuration == conf([1, 2, 3, 4]) for host in network.hosts.values())


def test_what_is_not_joint_cannot_be_left_and_only_a_leader_is_asked() -> None:
    network = cluster()
    with pytest.raises(ConfigurationRefused, match="nothing to leave"):
        network[1].node.leave_joint(network.now_us)
    with pytest.raises(NotLeader):
        network[2].node.leave_joint(network.now_us)
    with pytest.raises(NotLeader):
        network.propose_change((ADD_LEARNER, 4), at=2)


def test_a_demoted_voter_becomes_a_learner_that_goes_on_following() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 3))
    assert network[1].node.configuration == conf([1, 2], learners=[3])
    network.propose(b"x")
    network.deliver()
    assert network[3].commands() == [b"x"]
    network.advance(2_000_000)
    assert network[3].node.role == Role.FOLLOWER


def test_a_new_leader_leaves_the_joint_consensus_that_its_predecessor_entered() -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.propose_change((ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 3))
    network.deliver(lambda m: isinstance(m, AppendEntries))
    network[1].crash()
    network.drop()
    network.run_until(network.has_leader)
    network.advance(1_000_000)
    assert network.leader().node.committed_configuration == conf([1, 2, 4, 5])


def test_the_driver_is_told_of_each_configuration_once() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    for node_id in (1, 4):
        told = [r.configuration_changed for r in network[node_id].readys if r.configuration_changed is not None]
        assert told == [conf([1, 2, 3], learners=[4])]


# -- in effect as soon as it is in the log, and as long as it is ------------------------------------------------------


def test_a_configuration_is_in_effect_before_it_is_committed() -> None:
    network = cluster()
    network.isolate(1)
    network.propose_change((REMOVE, 2))
    assert voting(network[1]) == [1, 3]
    assert network[1].node.committed_configuration == conf([1, 2, 3])


def test_a_configuration_that_the_log_loses_is_in_effect_no_more() -> None:
    network = cluster()
    network.isolate(1)
    network.propose_change((REMOVE, 2))
    network.elect(3)
    network.propose(b"x", at=3)
    network.deliver()
    network.heal()
    network.advance(1_000_000)
    assert voting(network[1]) == [1, 2, 3]
    told = [r.configuration_changed for r in network[1].readys if r.configuration_changed is not None]
    assert told == [conf([1, 3]), conf([1, 2, 3])]


def test_a_restarted_node_finds_its_configuration_in_its_log_behind_the_snapshot() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    for host in network.hosts.values():
        host.make_snapshot()
    network.change((ADD_VOTER, 4))
    for host in network.hosts.values():
        host.crash()
        host.start()
        assert host.node.configuration == conf([1, 2, 3, 4])
        assert host.node.configuration_at(Index(2)) == conf([1, 2, 3], learners=[4])


def test_a_start_reads_no_entries_but_those_that_changed_the_members() -> None:
    class Watched(Disk):
        def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
            self.read.append((first, last))
            return super().entries(first, last, max_bytes)

        read: list[tuple[int, int]]

    disk = Watched()
    disk.read = []
    log = entries_of([1] * 1000)
    log[499] = Entry(Term(1), Index(500), CONFIGURATION, encode_configuration(conf([1, 2])))
    for contents in (disk.durable, disk.visible):
        contents.entries = log
    config = Network(1)[1].config
    node = RaftNode(config, disk, configuration=conf([1, 2, 3]), random=lambda: 0.5, now_us=0)
    assert node.configuration == conf([1, 2])
    assert disk.read == [(500, 500)]


def test_a_snapshot_carries_the_configuration_of_its_index_not_the_latest() -> None:
    network = cluster()
    network.propose(b"x")
    network.deliver()
    network.isolate(1)
    network.propose_change((REMOVE, 2))
    network[1].make_snapshot()
    meta = network[1].disk.snapshot_meta
    assert meta is not None and meta.configuration == conf([1, 2, 3])


def test_a_node_that_was_just_added_gets_a_snapshot_with_its_configuration() -> None:
    network = cluster()
    for number in range(5):
        network.propose(b"%d" % number)
    network.deliver()
    network[1].make_snapshot()
    network.propose_change((ADD_LEARNER, 4))
    installed: list[Message] = []
    network.watch = installed.append
    network.deliver()
    assert any(isinstance(m, InstallSnapshot) and m.to == 4 for m in installed)
    assert network[4].node.configuration == conf([1, 2, 3], learners=[4])
    assert network[4].commands() == network[1].commands()


def test_a_learner_that_got_everything_by_a_snapshot_may_vote_though_nothing_is_appended_any_more() -> None:
    """It once counted as behind until the next entry: in an idle group, for ever."""
    network = cluster()
    network.isolate(4)
    network.propose_change((ADD_LEARNER, 4))
    network.deliver()
    network[1].make_snapshot()
    network.heal()
    network.advance(300_000)
    assert network[4].node.status().snapshot_index == network[1].node.last_index
    network.propose_change((ADD_VOTER, 4))
    network.deliver()
    assert network[4].node.committed_configuration == conf([1, 2, 3, 4])


def test_a_snapshot_made_in_joint_consensus_lets_its_receiver_lead_out_of_it() -> None:
    """Also of nodes that know the joint configuration from a snapshot alone."""
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.isolate(3)
    network.change((ADD_VOTER, 4), explicit_leave=True)
    network[1].make_snapshot()
    network[2].make_snapshot()
    network.heal()
    network.advance(300_000)
    assert network[3].node.status().snapshot_index > 0
    assert network[3].node.configuration.voters_outgoing == (1, 2, 3)
    network.elect(3)
    network[3].node.leave_joint(network.now_us)
    network[3].pump()
    network.deliver()
    assert network[1].node.committed_configuration == conf([1, 2, 3, 4], learners=[5])


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_change_is_refused_while_another_is_pending() -> None:
    network = cluster()
    network.isolate(1)
    network.propose_change((REMOVE, 2))
    assert refused(network, (REMOVE, 3), at=1) == "pending"


def test_a_learner_is_promoted_only_when_it_has_caught_up() -> None:
    network = cluster()
    assert refused(network, (ADD_VOTER, 4)) == "not-a-learner"
    network[4].crash()
    network.change((ADD_LEARNER, 4))
    assert refused(network, (ADD_VOTER, 4)) == "not-caught-up"
    network[4].start()
    network.advance(200_000)
    network.change((ADD_VOTER, 4))
    assert voting(network[4]) == [1, 2, 3, 4]


def test_a_learner_that_is_on_its_way_has_not_caught_up() -> None:
    network = Network(3, spares=1, max_message_bytes=20, max_inflight_messages=1)
    network.elect(1)
    for number in range(10):
        network.propose(b"%d" % number)
    network.deliver()
    network.propose_change((ADD_LEARNER, 4))
    network.deliver(lambda m: 4 not in (m.sender, m.to))
    learner = NodeId(4)
    while network[1].node.status().peers[learner].match_index < 3:
        network.deliver_one(network.under_way.pop(0))
    assert network[1].node.status().peers[learner].state == "replicate"
    assert refused(network, (ADD_VOTER, 4)) == "not-caught-up"
    network.deliver()
    network.change((ADD_VOTER, 4))


def test_a_learner_that_fell_silent_has_not_caught_up() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    network.advance(100_000)
    network[4].crash()
    network.advance(400_000)
    assert refused(network, (ADD_VOTER, 4)) == "not-caught-up"


def test_no_change_is_taken_during_a_transfer() -> None:
    network = cluster()
    network.isolate(2)
    network.propose(b"x")
    network[1].node.transfer_leadership(NodeId(2), network.now_us)
    with pytest.raises(ProposalDropped):
        network.propose_change((REMOVE, 3))


@pytest.mark.parametrize(("change", "code"), [((REMOVE, 9), "unknown-node"), ((ADD_VOTER, 2), "already")])
def test_a_change_that_makes_no_sense_is_refused(change: tuple[int, int], code: str) -> None:
    assert refused(cluster(), change) == code


def test_the_last_voter_cannot_be_removed() -> None:
    network = Network(1)
    network.elect(1)
    assert refused(network, (REMOVE, 1)) == "no-voter"


# -- the bug of single-server changes, 2015 ---------------------------------------------------------------------------


def test_the_single_server_bug_of_2015_no_change_before_the_own_term_has_a_commit() -> None:
    """Two leaders, each with a single-server change of the same configuration: majorities that do not overlap.

    Leader 1 of {1,2,3,4} appends the removal of 4... nobody gets it.  Node 2 leads next; its change would build on the
    old configuration.  Were it allowed at once, 1 could come back, win by its own configuration, and commit.
    """
    network = cluster(4, spares=0)
    network.isolate(1)
    network.propose_change((REMOVE, 4))
    network.now_us += ELECTION_US
    network[2].node.campaign(network.now_us)
    network[2].pump()
    network.deliver(lambda m: not isinstance(m, AppendEntriesResponse))
    assert network[2].node.is_leader
    with pytest.raises(ConfigurationRefused) as caught:
        network.propose_change((REMOVE, 3), at=2)
    assert caught.value.code == "no-own-commit"
    network.deliver()
    network.propose_change((REMOVE, 3), at=2)
    network.deliver()
    network.heal()
    network.advance(1_000_000)
    assert all(voting(network[n]) == [1, 2, 4] for n in (1, 2, 4)), "the change that was lost is gone for good"


# -- removal of the leader ---------------------------------------------------------------------------------------------


def test_a_leader_that_removes_itself_hands_over_and_steps_down_once_that_is_committed() -> None:
    network = cluster()
    network.propose_change((REMOVE, 1))
    assert network[1].node.is_leader, "it manages the change"
    sent: list[Message] = []
    network.watch = sent.append
    network.deliver()
    assert any(isinstance(m, TimeoutNow) for m in sent)
    assert network.leader().node.node_id in (2, 3)
    assert voting(network.leader()) == [2, 3]
    assert network[1].node.role == Role.FOLLOWER


def test_a_leader_that_removes_itself_does_not_count_itself() -> None:
    network = cluster()
    removal = network.propose_change((REMOVE, 1))
    network.deliver(lambda m: {m.sender, m.to} <= {1, 2})
    assert network[1].node.commit_index < removal.index, "itself and one of two are no majority of {2, 3}"
    network.deliver()
    assert network[2].node.commit_index >= removal.index


def test_a_leader_outside_of_the_configuration_goes_on_replicating_until_its_removal_commits() -> None:
    network = cluster()
    network.isolate(3)
    network.propose_change((REMOVE, 1))
    network.propose(b"later", at=1)
    network.deliver()
    assert network[1].node.is_leader
    network.heal()
    network.advance(1_000_000)
    assert network[2].commands() == network[3].commands() == [b"later"]
    assert network.leader().node.node_id != 1


def test_a_removed_leader_answers_for_all_that_it_took_before_it_goes() -> None:
    network = cluster()
    network.propose_change((REMOVE, 1))
    ids = [network.propose(b"%d" % number, at=1) for number in range(3)]
    network.deliver()
    network.advance(100_000)
    assert not network[1].node.is_leader
    applied = {(entry.term, entry.index) for entry in network[1].applied}
    assert all(tuple(entry_id) in applied for entry_id in ids)


def test_a_removed_leader_takes_nothing_new_while_it_hands_over() -> None:
    network = cluster()
    removal = network.propose_change((REMOVE, 1))
    network.propose(b"x", at=1)
    network.drop(lambda m: isinstance(m, AppendEntries) and m.prev_log_index >= removal.index)
    network.deliver(lambda m: isinstance(m, AppendEntries))
    network.deliver(lambda m: isinstance(m, AppendEntriesResponse))
    assert network[1].node.commit_index == removal.index
    with pytest.raises(ProposalDropped):
        network.propose(b"y", at=1)


def test_a_removed_leader_without_an_heir_steps_down_after_an_election_timeout() -> None:
    marks.taken()
    network = cluster()
    removal = network.propose_change((REMOVE, 1))
    network.propose(b"x", at=1)
    network.drop(lambda m: isinstance(m, AppendEntries) and m.prev_log_index >= removal.index)
    network.deliver(lambda m: isinstance(m, AppendEntries))
    network.deliver(lambda m: isinstance(m, AppendEntriesResponse))
    network.isolate(1)
    network.advance(ELECTION_US - 50_000)
    assert network[1].node.is_leader
    network.advance(100_000)
    assert not network[1].node.is_leader
    assert "a removed leader stepped down without an heir" in marks.taken()


def test_a_demoted_leader_becomes_a_learner_that_does_not_lead() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 1))
    network.advance(1_000_000)
    assert network.leader().node.configuration == conf([2, 3], learners=[1])
    assert network.leader().node.node_id != 1
    assert network[1].node.leader == network.leader().node.node_id


# -- removed nodes -----------------------------------------------------------------------------------------------------


def test_a_removed_node_learns_that_it_was_and_never_campaigns() -> None:
    network = cluster()
    network.change((REMOVE, 3))
    assert network[3].node.committed_configuration == conf([1, 2])
    term = network[1].node.term
    network.isolate(3)
    network.advance(3_000_000)
    assert (network[3].node.role, network[3].node.term) == (Role.FOLLOWER, term)
    network[3].node.campaign(network.now_us)
    assert network[3].node.role == Role.FOLLOWER


def test_a_removed_node_is_told_for_a_while_and_then_left_alone() -> None:
    network = cluster()
    network[3].crash()
    network.change((REMOVE, 3))
    assert NodeId(3) not in network[1].node.status().peers, "it takes no part any more"
    to_removed: list[Message] = []
    network.watch = lambda m: to_removed.append(m) if m.to == 3 else None
    network.advance(500_000)
    assert to_removed, "it is still being told"
    network.advance(2_000_000)
    to_removed.clear()
    network.advance(1_000_000)
    assert not to_removed


def test_disruptive_removed_servers_disturb_nobody() -> None:
    """§6, last paragraph: a removed node that never heard of it times out, and must not depose the leader."""
    network = cluster()
    network.isolate(3)
    network.change((REMOVE, 3))
    network.advance(3_000_000)
    term = network[1].node.term
    network.heal()
    seen: list[Message] = []
    network.watch = seen.append
    network.advance(3_000_000)
    assert any(isinstance(m, PreVote) and m.sender == 3 for m in seen), "it did try"
    assert (network[1].node.is_leader, network[1].node.term) == (True, term)


def test_disruptive_removed_servers_disturb_nobody_without_pre_vote_either() -> None:
    network = Network(3, pre_vote=False)
    network.elect(1)
    network.isolate(3)
    network.change((REMOVE, 3))
    network.advance(3_000_000)
    term = network[1].node.term
    assert network[3].node.term > term, "it campaigned in vain"
    network.heal()
    network.advance(3_000_000)
    assert (network[1].node.is_leader, network[1].node.term) == (True, term)


def test_a_node_whose_removal_is_not_committed_may_still_have_to_win() -> None:
    """Dissertation §4.2.2: the leader loses the removal in a crash, the removed node alone has it durable."""
    network = Network(2)
    network.elect(1)
    network[1].auto_sync = False
    network.propose_change((REMOVE, 2))
    network.deliver()
    network[1].crash()
    network.drop()
    assert network[2].node.configuration == conf([1])
    network[1].auto_sync = True
    network[1].start()
    assert network[1].node.configuration == conf([1, 2])
    network.advance(3_000_000)
    assert network.leader().node.node_id == 1, "2 won, led, committed its own removal and handed over"
    assert network[1].node.committed_configuration == conf([1])


# -- learners ----------------------------------------------------------------------------------------------------------


def test_learners_are_never_counted() -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.isolate(1, 4, 5)
    entry = network.propose(b"x", at=1)
    network.deliver()
    assert network[1].node.commit_index < entry.index
    network.advance(1_000_000)
    assert not network[1].node.is_leader, "two learners are no contact with a quorum"


def test_a_learner_never_campaigns_not_even_when_told_to() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    learner = network[4].node
    term = learner.term
    network.isolate(4)
    network.advance(2_000_000)
    learner.campaign(network.now_us)
    learner.step(TimeoutNow(NodeId(1), NodeId(4), term), network.now_us)
    assert (learner.role, learner.term) == (Role.FOLLOWER, term)


def test_leadership_goes_to_voters_only() -> None:
    network = cluster()
    network.change((ADD_LEARNER, 4))
    with pytest.raises(ValueError, match="leadership cannot go to node 4"):
        network[1].node.transfer_leadership(NodeId(4), network.now_us)


def test_a_voter_that_does_not_know_of_its_promotion_votes_when_asked() -> None:
    """Otherwise {1,2,3,4} could not elect anyone once 1 is gone and 3 is out of reach: 2 needs the vote of 4."""
    network = cluster()
    network.change((ADD_LEARNER, 4))
    network.cut.add((NodeId(1), NodeId(4)))
    network.advance(100_000)
    network.propose_change((ADD_VOTER, 4))
    network.deliver()
    assert voting(network[4]) == [1, 2, 3]
    network[1].crash()
    network.advance(ELECTION_US)
    network.elect(2)
    assert voting(network[4]) == [1, 2, 3, 4]


def test_a_learner_elected_by_a_stale_configuration_is_no_danger() -> None:
    """A node that was demoted without hearing of it asks for votes; whoever has the demotion has the better log."""
    network = cluster()
    network.isolate(3)
    network.change((ADD_LEARNER, 3))
    network.now_us += ELECTION_US
    network.heal()
    network[3].node.campaign(network.now_us)
    network[3].pump()
    network.deliver(lambda m: m.sender == 3 or m.to == 3)
    assert network[3].node.role != Role.LEADER
    network.advance(1_000_000)
    assert network[3].node.configuration == conf([1, 2], learners=[3])


def test_votes_of_learners_and_strangers_elect_nobody() -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4))
    network.isolate(2)
    network.advance(ELECTION_US)
    host = network[2]
    host.node.campaign(network.now_us)
    host.pump()
    for stranger in (4, 5):
        vote = RequestVoteResponse(NodeId(stranger), NodeId(2), Term(host.node.term + 1), vote_granted=True)
        host.node.step(vote, network.now_us)
        host.pump()
    assert host.node.role != Role.LEADER


# -- wiped disks -------------------------------------------------------------------------------------------------------


def test_a_disk_wiped_in_place_loses_an_acknowledged_write() -> None:
    """Why a wiped node must be removed and added again: this is what happens otherwise."""
    network = cluster(spares=0)
    network.isolate(3)
    network.propose(b"acknowledged")
    network.deliver()
    assert network[1].commands() == [b"acknowledged"]
    network[2].wipe()
    network[2].configuration = conf([1, 2, 3])  # the mistake: it comes back as if it had never been there
    network[2].start()
    network.heal()
    network.isolate(1)
    with pytest.raises(AssertionError, match=r"state machine safety: .*12 bytes.* were both applied"):
        network.elect(3)
    assert network[3].node.is_leader, "2 forgot what it had promised, and voted for a log without it"


def test_a_wiped_node_rejoins_by_removal_and_addition() -> None:
    network = cluster(spares=0)
    network.propose(b"x")
    network.deliver()
    network.change((REMOVE, 2))
    network[2].wipe()
    network[2].start()
    network.add_voter(2)
    assert voting(network[2]) == [1, 2, 3]
    assert network[2].commands() == [b"x"]


def test_a_new_node_votes_for_nobody_before_it_has_caught_up() -> None:
    """It may be one whose disk was replaced: a request for the vote that it gave before could still be under way."""
    network = cluster(5, spares=0)
    network.isolate(2)
    network.advance(ELECTION_US)
    network[2].node.campaign(network.now_us)
    network[2].pump()
    network.drop()
    stale = RequestVote(NodeId(2), NodeId(5), network[1].node.term, Index(9), Term(9), leadership_transfer=False)
    network.change((REMOVE, 5))
    network[5].wipe()
    network[5].start()
    network.deliver_one(stale)
    network.deliver_one(PreVote(NodeId(2), NodeId(5), Term(9), Index(9), Term(9)))
    answers = [m for ready in network[5].readys for m in (*ready.messages, *ready.messages_after_save)]
    assert [getattr(m, "vote_granted", None) for m in answers[-2:]] == [False, False]
    network.heal()
    network.add_voter(5)
    network.isolate(1, 2)
    network.advance(ELECTION_US)
    network.elect(3)
    assert network[5].node.leader == 3, "now it votes"


def test_acknowledgements_of_a_former_life_are_not_counted() -> None:
    """5 acknowledges, is removed, wiped and added again by the same leader; then its old answers arrive."""
    network = cluster(spares=0)
    for number in range(4):
        network.propose(b"%d" % number)
    network.deliver(lambda m: m.to != 1)
    held = [m for m in network.under_way if m.sender == 3]
    network.drop(lambda m: m.sender == 3)
    network.deliver()
    network.change((REMOVE, 3))
    network.advance(2_000_000)
    network[3].wipe()
    network[3].start()
    network.propose_change((ADD_LEARNER, 3))
    network.drop()
    for message in held:
        network.deliver_one(message)
    network.drop()
    status = network[1].node.status()
    assert isinstance(held[0], AppendEntriesResponse)
    assert status.peers[NodeId(3)].match_index == 0, "what it acknowledged went with its disk"
    network.advance(1_000_000)
    assert network[3].commands() == network[1].commands()
    network.change((ADD_VOTER, 3))


def test_a_node_that_comes_back_under_the_same_leader_catches_up_from_a_snapshot_as_well() -> None:
    network = cluster(spares=0)
    for number in range(5):
        network.propose(b"%d" % number)
    network.deliver()
    network[1].make_snapshot()
    network.change((REMOVE, 3))
    network.advance(2_000_000)
    network[3].wipe()
    network[3].start()
    network.add_voter(3)
    assert network[3].node.status().snapshot_index > 0
    assert network[3].commands() == network[1].commands()


# -- PreVote and CheckQuorum -------------------------------------------------------------------------------------------


def test_pre_vote_with_check_quorum_a_node_whose_term_ran_ahead_is_let_in_again() -> None:
    """etcd's pitfall: its term is ahead, so it ignores the leader; PreVote lets nobody follow it: stuck for ever."""
    network = Network(3)
    network.elect(1)
    network.isolate(3)
    network[3].crash()
    network[3].disk.durable.hard_state.term = Term(network[1].node.term + 5)
    network[3].disk.visible.hard_state.term = Term(network[1].node.term + 5)
    network[3].start()
    network.propose(b"x")
    network.deliver()
    network.heal()
    network.advance(3_000_000)
    assert network[3].commands() == [b"x"]


def test_pre_vote_with_check_quorum_elects_after_all_members_changed() -> None:
    network = cluster(spares=3)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5), (ADD_LEARNER, 6))
    network.change(*[(ADD_VOTER, n) for n in (4, 5, 6)], *[(REMOVE, n) for n in (1, 2, 3)])
    network.advance(1_000_000)
    assert network.leader().node.node_id in (4, 5, 6)
    for node_id in (1, 2, 3):
        network[node_id].crash()
    leader = network.leader()
    leader.crash()
    network.run_until(network.has_leader)
    network.propose(b"x")
    network.deliver()
    assert network.leader().commands() == [b"x"]


# -- reads and leases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [(4, 5), (2, 3)])
def test_reads_in_joint_consensus_need_both_majorities(missing: tuple[int, int]) -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.change((ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 2), (REMOVE, 3), explicit_leave=True)
    network.isolate(*missing)
    network[1].node.read_index(7, network.now_us)
    network[1].pump()
    network.advance(120_000)
    assert network[1].reads == []
    network.heal()
    network.advance(60_000)
    assert [read.context for read in network[1].reads] == [7]


def test_a_leader_without_a_quorum_of_either_half_steps_down() -> None:
    network = cluster(spares=2)
    network.change((ADD_LEARNER, 4), (ADD_LEARNER, 5))
    network.change((ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 2), (REMOVE, 3), explicit_leave=True)
    network.isolate(4, 5)
    network.advance(1_000_000)
    assert not network.has_leader(), "1, 2 and 3 are one majority of two"
    network.heal()
    network.run_until(network.has_leader)


def test_a_change_object_is_plain_data() -> None:
    change = ConfigurationChange([(ADD_LEARNER, NodeId(4))])
    assert change.changes == ((ADD_LEARNER, 4),) and not change.explicit_leave
