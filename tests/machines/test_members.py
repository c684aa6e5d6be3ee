"""Membership in the metadata: who may come, what leaving entails, and that no replica comes back too early."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial import marks
from seatrial.machines.metadata import (
    AddNode,
    AssignReplicas,
    CreateTopic,
    ForgetNode,
    MetadataChange,
    MetadataError,
    MetadataMachine,
    MetadataResult,
    Node,
    NodePromoted,
    NodeState,
    Partition,
    PromoteNode,
    RegisterNode,
    RemoveNode,
    ReplicaGone,
    SettleReplicas,
    Topic,
    encode_command,
)
from seatrial.machines.placement import choose_node
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import COMMAND, Entry

ID = bytes(range(16))


class Cluster:
    """A metadata machine with registered nodes and one topic `t`."""

    def __init__(self, *assignments: tuple[int, ...], nodes: int = 3) -> None:
        self.machine = MetadataMachine()
        self.index = 0
        for node in range(1, nodes + 1):
            self.do(RegisterNode(node, f"r{node}:1", f"k{node}", 9092, f"h{node}:1", directory=node))
        if assignments:
            assert self.do(CreateTopic("t", assignments)).error == 0
        self.changes: list[MetadataChange] = []
        self.machine.listeners.append(self.changes.append)

    def do(self, command: Any) -> MetadataResult:
        self.index += 1
        before = self.machine.snapshot()
        result = self.machine.apply(Entry(Term(1), Index(self.index), COMMAND, encode_command(command, request_id=ID)))
        assert result is not None
        if result.error:
            assert result.message
            assert without_digest(self.machine) == without_digest_of(before)
        return result

    @property
    def topic(self) -> Topic:
        return self.machine.topics["t"]

    def partition(self, number: int = 0) -> Partition:
        return self.topic.partitions[number]

    def node(self, node: int) -> Node:
        return self.machine.nodes[NodeId(node)]

    def assign(self, *replicas: int, learners: tuple[int, ...] = (), override: bool = False) -> MetadataError:
        return self.do(AssignReplicas(self.topic.topic_id, 0, replicas, learners, override)).error

    def settle(self, number: int = 0) -> MetadataError:
        return self.do(SettleReplicas(self.topic.topic_id, number, self.partition(number).target_index)).error

    def gone(self, node: int) -> MetadataError:
        return self.do(ReplicaGone(self.topic.topic_id, 0, self.partition().target_index, node)).error

    def add(self, node: int, **more: Any) -> MetadataResult:
        return self.do(AddNode(node, f"r{node}:1", f"k{node}", 9092, f"h{node}:1", **more))


def without_digest(machine: MetadataMachine) -> object:
    return machine.cluster_id, dict(machine.nodes), dict(machine.removed), dict(machine.topics), machine.next_group


def without_digest_of(snapshot: bytes) -> object:
    machine = MetadataMachine()
    machine.restore(snapshot)
    return without_digest(machine)


# ---- nodes ---------------------------------------------------------------------------------------------------------


def test_a_node_is_added_as_a_learner_that_is_promoted_by_itself_or_only_when_told() -> None:
    cluster = Cluster()
    assert cluster.add(4, directory=4).node == cluster.node(4)
    assert (cluster.node(4).state, cluster.node(4).joined) == (NodeState.JOINING, True)
    cluster.add(5, learner=True)
    assert cluster.node(5).state == NodeState.LEARNER
    cluster.do(PromoteNode(5))
    assert cluster.node(5).state == NodeState.JOINING
    cluster.do(NodePromoted(5))
    assert cluster.node(5).state == NodeState.VOTER
    assert cluster.changes == [MetadataChange(nodes=(NodeId(n),)) for n in (4, 5, 5, 5)]


def test_adding_a_node_again_changes_nothing_and_registering_keeps_its_state() -> None:
    cluster = Cluster()
    cluster.add(4, learner=True)
    cluster.do(RegisterNode(4, "r4:1", "k4", 9092, "h4:1", directory=44, founder=False))
    assert (cluster.node(4).state, cluster.node(4).directory, cluster.node(4).joined) == (NodeState.LEARNER, 44, True)
    before = cluster.node(4)
    assert cluster.add(4, directory=44).error == MetadataError.NONE
    assert cluster.node(4) == before


def test_a_node_that_was_never_added_cannot_register_unless_it_is_a_founder() -> None:
    cluster = Cluster()
    assert cluster.do(RegisterNode(4, "r4:1", "k", 1, "h", founder=False)).error == MetadataError.UNKNOWN_NODE
    assert cluster.do(RegisterNode(4, "r4:1", "k", 1, "h", founder=True)).error == MetadataError.NONE


def test_a_node_that_comes_back_with_an_empty_directory_is_refused_with_what_to_do() -> None:
    marks.taken()
    cluster = Cluster()
    refused = cluster.do(RegisterNode(1, "r1:1", "k1", 9092, "h1:1", directory=99))
    assert refused.error == MetadataError.DIRECTORY_DIFFERS
    assert "a node came back with another data directory and was refused" in marks.taken()
    assert "seatrial members replace 1 NEW-ID" in refused.message
    assert cluster.add(1, directory=99).error == MetadataError.DIRECTORY_DIFFERS
    assert cluster.do(RegisterNode(1, "new:1", "k1", 9092, "h1:1", directory=1)).error == MetadataError.NONE
    assert cluster.node(1).raft_address == "new:1"


def test_an_address_of_another_node_is_refused() -> None:
    cluster = Cluster()
    refused = cluster.do(AddNode(4, "r2:1", "k4", 9092, "h4:1"))
    assert (refused.error, "Raft address of node 2" in refused.message) == (MetadataError.INVALID_ASSIGNMENT, True)


@pytest.mark.parametrize("command", [PromoteNode(9), NodePromoted(9), RemoveNode(9), ForgetNode(9), RemoveNode(1, 9)])
def test_an_unknown_node_is_refused(command: Any) -> None:
    assert Cluster().do(command).error == MetadataError.UNKNOWN_NODE


def test_the_last_voter_cannot_be_removed() -> None:
    cluster = Cluster(nodes=1)
    assert cluster.do(RemoveNode(1)).error == MetadataError.NO_VOTER_LEFT
    cluster.add(2, learner=True)
    assert cluster.do(RemoveNode(1)).error == MetadataError.NO_VOTER_LEFT
    cluster.do(PromoteNode(2))
    cluster.do(NodePromoted(2))
    assert cluster.do(RemoveNode(1)).error == MetadataError.NONE
    assert cluster.do(RemoveNode(2)).error == MetadataError.NO_VOTER_LEFT


def test_a_leaving_node_gives_its_replicas_to_the_least_loaded_node_and_a_new_rack_first() -> None:
    cluster = Cluster((1, 2, 3), (2, 3, 4), nodes=5)
    result = cluster.do(RemoveNode(1))
    assert (result.error, result.message) == (MetadataError.NONE, "")
    moved = cluster.partition()
    assert (moved.replicas, moved.settled, moved.leaving) == ((5, 2, 3), False, (1,))
    assert cluster.partition(1).settled, "a partition that the node does not hold stays as it is"
    assert choose_node({NodeId(1): "a", NodeId(2): "b"}, {NodeId(2): 9}, taken=["a"]) == 2


def test_with_too_few_nodes_left_partitions_shrink_and_it_is_said() -> None:
    cluster = Cluster((1, 2, 3))
    result = cluster.do(RemoveNode(1))
    assert "one replica fewer: t/0" in result.message
    assert cluster.partition().replicas == (2, 3)


def test_the_only_replica_moves_and_is_never_dropped() -> None:
    cluster = Cluster((1,))
    assert cluster.do(RemoveNode(1)).error == MetadataError.NONE
    assert cluster.partition().replicas == (2,)
    assert cluster.partition().leaving == (1,)


def test_a_replacement_takes_the_places_of_the_one_that_leaves() -> None:
    cluster = Cluster((1, 2, 3), (3, 1, 2))
    cluster.add(4)
    assert cluster.do(RemoveNode(1, replacement=4)).error == MetadataError.NONE
    assert [p.replicas for p in cluster.topic.partitions] == [(4, 2, 3), (3, 4, 2)]
    assert cluster.node(1).state == NodeState.LEAVING
    assert cluster.do(RemoveNode(2, replacement=1)).error == MetadataError.CHANGE_PENDING


def test_a_node_is_forgotten_only_when_it_holds_nothing_and_its_id_is_used_up() -> None:
    cluster = Cluster((1, 2, 3))
    assert cluster.do(ForgetNode(1)).error == MetadataError.CHANGE_PENDING
    cluster.do(RemoveNode(1))
    held = cluster.do(ForgetNode(1))
    assert (held.error, "still holds t/0" in held.message) == (MetadataError.CHANGE_PENDING, True)
    assert cluster.settle() == MetadataError.NONE
    assert cluster.partition().lingering == (1,)
    assert cluster.do(ForgetNode(1)).error == MetadataError.NONE
    assert 1 not in cluster.machine.nodes
    assert cluster.do(RemoveNode(1)).error == MetadataError.NONE, "asked again"
    assert cluster.machine.removed[NodeId(1)].directory == 1
    assert cluster.partition().lingering == ()
    again = cluster.add(1, directory=77)
    assert (again.error, "never used again" in again.message) == (MetadataError.NODE_REMOVED, True)
    assert cluster.do(RegisterNode(1, "r1:1", "k", 1, "h")).error == MetadataError.NODE_REMOVED


def test_a_founder_that_never_registered_leaves_by_what_is_known_of_it_and_one_that_did_by_what_it_said() -> None:
    cluster = Cluster(nodes=2)
    assert cluster.do(RemoveNode(3)).error == MetadataError.UNKNOWN_NODE
    marks.taken()
    assert cluster.do(RemoveNode(3, founder="r3:1")).error == MetadataError.NONE
    assert marks.taken() == {"a founder that had never come up was removed": 1}
    assert (cluster.node(3).state, cluster.node(3).raft_address) == (NodeState.LEAVING, "r3:1")
    assert cluster.do(ForgetNode(3)).error == MetadataError.NONE
    assert cluster.do(RegisterNode(3, "r3:1", "k3", 9092, "h3:1", founder=True)).error == MetadataError.NODE_REMOVED
    assert cluster.do(RemoveNode(2, founder="r9:1")).error == MetadataError.NONE, "it came up just now"
    assert cluster.node(2).raft_address == "r2:1"


def test_a_topic_is_not_placed_on_a_node_that_leaves() -> None:
    cluster = Cluster()
    cluster.do(RemoveNode(1))
    assert cluster.do(CreateTopic("late", ((1, 2),))).error == MetadataError.UNKNOWN_NODE


# ---- partitions ----------------------------------------------------------------------------------------------------


def test_a_new_target_keeps_the_old_replicas_until_it_is_settled() -> None:
    cluster = Cluster((1, 2, 3), nodes=4)
    assert cluster.assign(2, 3, 4) == MetadataError.NONE
    moving = cluster.partition()
    assert (moving.settled, moving.leaving, moving.hosts) == (False, (1,), (1, 2, 3, 4))
    assert cluster.settle() == MetadataError.NONE
    settled = cluster.partition()
    assert (settled.settled, settled.leaving, settled.hosts, settled.lingering) == (True, (), (2, 3, 4), (1,))


def test_where_a_partition_was_is_known_until_it_is_where_it_shall_be() -> None:
    cluster = Cluster((1, 2, 3), nodes=5)
    cluster.assign(2, 3, 4)
    cluster.assign(2, 3, 5, override=True)
    assert cluster.partition().previous == (1, 2, 3), "of two moves, where it was before the first"
    cluster.settle()
    assert cluster.partition().previous == ()
    cluster.assign(5, 3, 2)
    assert cluster.partition().previous == (), "an order that changes moves nothing"


def test_a_change_is_refused_while_another_is_pending_unless_it_overrides() -> None:
    cluster = Cluster((1, 2, 3), nodes=5)
    cluster.assign(1, 2, 4)
    assert cluster.assign(1, 2, 5) == MetadataError.CHANGE_PENDING
    moving = cluster.partition()
    assert cluster.assign(1, 2, 4) == MetadataError.NONE, "what is under way may be asked for again"
    assert cluster.partition() == moving
    assert cluster.assign(1, 2, 5, override=True) == MetadataError.NONE
    assert cluster.partition().leaving == (3, 4)


@pytest.mark.parametrize(
    ("replicas", "learners", "error"),
    [
        ((), (), MetadataError.NO_VOTER_LEFT),
        ((), (1, 2), MetadataError.NO_VOTER_LEFT),
        ((1, 2, 1), (), MetadataError.INVALID_ASSIGNMENT),
        ((1, 2), (2,), MetadataError.INVALID_ASSIGNMENT),
        ((1, 2, 9), (), MetadataError.UNKNOWN_NODE),
    ],
)
def test_a_target_that_cannot_be_is_refused(
    replicas: tuple[int, ...], learners: tuple[int, ...], error: MetadataError
) -> None:
    assert Cluster((1, 2, 3)).assign(*replicas, learners=learners) == error


def test_an_order_that_changes_moves_nothing() -> None:
    cluster = Cluster((1, 2, 3))
    assert cluster.assign(3, 2, 1) == MetadataError.NONE
    assert (cluster.partition().replicas, cluster.partition().settled) == ((3, 2, 1), True)


def test_a_late_report_of_an_earlier_target_settles_nothing() -> None:
    """The same nodes as now, but of a target that was changed and changed back: members of between may be left."""
    marks.taken()
    cluster = Cluster((1, 2, 3), nodes=4)
    late = SettleReplicas(cluster.topic.topic_id, 0, cluster.partition().target_index)
    cluster.assign(2, 3, 4)
    cluster.assign(1, 2, 3, override=True)
    assert cluster.do(late).error == MetadataError.CHANGE_PENDING
    assert "a partition's leader reported a target that had been changed meanwhile" in marks.taken()
    assert not cluster.partition().settled


def test_a_node_that_left_comes_back_only_when_all_old_replicas_are_gone() -> None:
    marks.taken()
    cluster = Cluster((1, 2, 3), nodes=6)
    cluster.assign(4, 5, 6)
    cluster.settle()
    assert cluster.partition().lingering == (1, 2, 3)
    cluster.gone(1)
    assert cluster.assign(1, 5, 6) == MetadataError.FORMER_REPLICA, "2 and 3 may still think that they lead"
    assert "a replica was refused on a node that had held it, while old replicas lingered" in marks.taken()
    cluster.gone(2)
    cluster.gone(3)
    assert cluster.assign(1, 5, 6) == MetadataError.NONE


def test_a_replica_reported_gone_before_the_target_changed_does_not_count() -> None:
    marks.taken()
    cluster = Cluster((1, 2, 3), nodes=4)
    cluster.assign(2, 3, 4)
    cluster.settle()
    late = ReplicaGone(cluster.topic.topic_id, 0, cluster.partition().target_index, 1)
    cluster.assign(2, 3)
    assert cluster.do(late).error == MetadataError.CHANGE_PENDING
    assert "a replica was reported gone for a target that had been changed meanwhile" in marks.taken()
    assert cluster.partition().lingering == (1,)
    assert cluster.gone(1) == MetadataError.NONE
    assert cluster.partition().lingering == ()


def test_only_founders_that_never_left_begin_with_the_founding_voters() -> None:
    """An empty replica that believed itself a founder could vote for, and with, members of the past."""
    cluster = Cluster((1, 2, 3), nodes=4)
    cluster.assign(2, 3, 4)
    assert cluster.partition().first_configuration(NodeId(1)) == (1, 2, 3)
    cluster.settle()
    cluster.gone(1)
    cluster.assign(1, 2, 3)
    partition = cluster.partition()
    assert [partition.first_configuration(NodeId(n)) for n in (1, 2, 4)] == [(), (1, 2, 3), ()]


def test_membership_survives_a_snapshot() -> None:
    cluster = Cluster((1, 2, 3), nodes=4)
    cluster.assign(2, 3, 4)
    cluster.settle()
    cluster.do(RemoveNode(1))
    cluster.do(ForgetNode(1))
    cluster.add(5, learner=True)
    cluster.assign(2, 3, learners=(5,))
    restored = MetadataMachine()
    restored.restore(cluster.machine.snapshot())
    assert without_digest(restored) == without_digest(cluster.machine)
    assert restored.snapshot() == cluster.machine.snapshot()
