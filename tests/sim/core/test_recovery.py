"""What a healed cluster owes besides its writes: joint consensus is left, and members can be changed again."""

from __future__ import annotations

import pytest

from seatrial.raft.ids import NodeId
from seatrial.raft.membership import ADD_LEARNER, ConfigurationChange
from seatrial.sim.case import Case
from seatrial.sim.core import CoreCluster, NotReached
from seatrial.sim.core.reconfiguring import leaves_by_itself
from seatrial.sim.core.recovery import await_end_of_changes, change_members_again


def in_explicit_joint_consensus() -> CoreCluster:
    cluster = CoreCluster(Case(level="core", seed=1))
    leader = cluster.run_until_leader()
    cluster.run_for(200_000)
    change = ConfigurationChange([(ADD_LEARNER, NodeId(9))], explicit_leave=True)
    leader.call(lambda node, now_us: node.propose_configuration(change, now_us))
    cluster.run_until(lambda: bool(cluster.ledger.configuration.voters_outgoing))
    return cluster


def test_what_was_left_in_joint_consensus_by_its_operator_is_no_bug_and_is_left_when_asked() -> None:
    cluster = in_explicit_joint_consensus()
    assert not leaves_by_itself(cluster.ledger.configuration)
    await_end_of_changes(cluster)
    assert cluster.ledger.configuration.voters_outgoing
    change_members_again(cluster)
    assert not cluster.ledger.configuration.voters_outgoing
    assert cluster.ledger.configuration.learners == (9,)  # what was asked for stays; the stranger came and went
    cluster.check()


def test_a_cluster_that_takes_no_further_change_is_found() -> None:
    cluster = in_explicit_joint_consensus()
    leader = cluster.leader()
    assert leader is not None
    cluster.isolate(leader.node_id)
    for host in cluster.hosts.values():
        if host is not leader:
            host.crash("lost")
    with pytest.raises(NotReached, match="no further change of members is taken"):
        change_members_again(cluster)


def test_a_cluster_that_never_changed_its_members_is_asked_for_no_change() -> None:
    cluster = CoreCluster(Case(level="core", seed=1))
    cluster.run_until_leader()
    change_members_again(cluster)
    assert cluster.ledger.configuration_index == 0
