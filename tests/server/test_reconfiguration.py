"""From the members that there are to those that there shall be: each step sound, and never more of them than needed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.machines.cluster_model import Node, NodeState
from seatrial.raft.ids import NodeId
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, enter, leave
from seatrial.raft.messages import Configuration
from seatrial.server.reconfiguration import Target, cluster_target, next_step, takes_part


def configuration(voters: Any, outgoing: Any = (), learners: Any = ()) -> Configuration:
    return Configuration(voters, outgoing, learners)


def target(voters: Any, learners: Any = ()) -> Target:
    return Target(frozenset(voters), frozenset(learners))


@pytest.mark.parametrize(
    ("now", "wanted", "caught_up", "changes"),
    [
        (configuration((1, 2, 3)), target((1, 2, 3)), (), None),
        (configuration((1, 2, 3)), target((1, 2, 3, 4)), (), [(ADD_LEARNER, 4)]),
        (configuration((1, 2, 3), (), (4,)), target((1, 2, 3, 4)), (4,), [(ADD_VOTER, 4)]),
        (configuration((1, 2, 3), (), (4,)), target((2, 3, 4)), (4,), [(ADD_VOTER, 4), (REMOVE, 1)]),
        (configuration((1, 2, 3)), target((2, 3)), (), [(REMOVE, 1)]),
        (configuration((1, 2, 3)), target((1, 2), (3,)), (), [(ADD_LEARNER, 3)]),
        (configuration((1, 2, 3), (), (4,)), target((1, 2, 3)), (), [(REMOVE, 4)]),
        (configuration((1,)), target((2, 3), (4,)), (), [(ADD_LEARNER, 2), (ADD_LEARNER, 3), (ADD_LEARNER, 4)]),
    ],
)
def test_the_next_step(now: Configuration, wanted: Target, caught_up: Any, changes: Any) -> None:
    step = next_step(now, wanted, caught_up)
    assert step.waiting_for == ""
    assert (None if step.change is None else list(step.change.changes)) == changes


def test_nobody_goes_before_who_comes_has_caught_up() -> None:
    step = next_step(configuration((1, 2, 3), (), (4, 5)), target((3, 4, 5)), (NodeId(5),))
    assert (step.change, step.waiting_for) == (None, "node 4 to catch up")


def test_a_change_that_is_not_completed_is_waited_for() -> None:
    step = next_step(configuration((1, 2, 4), (1, 2, 3)), target((1, 2, 3)), (NodeId(4),))
    assert step.change is None
    assert "joint" in step.waiting_for


NODES = st.sets(st.integers(1, 7), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(NODES, NODES, NODES, NODES)
def test_every_target_is_reached_and_voters_are_always_caught_up_learners_first(
    voters: set[int], learners: set[int], wanted: set[int], wanted_learners: set[int]
) -> None:
    now = configuration(sorted(voters), (), sorted(learners - voters))
    goal = target(wanted, wanted_learners - wanted)
    for _ in range(6):
        step = next_step(now, goal, now.learners)
        if step.change is None and not step.waiting_for:
            break
        if step.change is None:
            now = leave(now)
            continue
        for operation, node in step.change.changes:
            assert operation != ADD_VOTER or node in now.learners
        now = enter(now, step.change)
    assert (set(now.voters), set(now.learners), now.voters_outgoing) == (set(goal.voters), set(goal.learners), ())


def node(node_id: int, state: NodeState = NodeState.VOTER) -> Node:
    return Node(NodeId(node_id), f"r{node_id}:1", "k", 1, "h", state=state)


def test_members_that_have_not_registered_yet_stay() -> None:
    assert cluster_target(configuration((1, 2, 3)), [node(1)], ()) == target((1, 2, 3))


def test_joining_nodes_shall_vote_and_learners_shall_not() -> None:
    nodes = [node(1), node(2, NodeState.JOINING), node(3, NodeState.LEARNER)]
    assert cluster_target(configuration((1,)), nodes, ()) == target((1, 2), (3,))


def test_leaving_nodes_go_when_their_turn_has_come_and_removed_ones_always() -> None:
    nodes = [node(1), node(2, NodeState.LEAVING)]
    now = configuration((1, 2, 3), (), (4,))
    assert cluster_target(now, nodes, (NodeId(3), NodeId(4))) == target((1,))


def test_a_leaving_node_that_is_to_hear_more_loses_its_vote_to_who_takes_its_place() -> None:
    """It once kept the vote until it left: of four voters one was dead, and the loss of one more was one too many."""
    nodes = [node(1), node(2, NodeState.LEAVING), node(3), node(5, NodeState.JOINING)]
    now = configuration((1, 2, 3), (), (5,))
    wanted = cluster_target(now, nodes, (), kept=(NodeId(2),))
    assert wanted == target((1, 3, 5), (2,))
    step = next_step(now, wanted, (NodeId(5),))
    assert step.change is not None
    assert enter(now, step.change).voters == (1, 3, 5)
    gone = configuration((1, 3, 5))
    assert cluster_target(gone, nodes, (), kept=(NodeId(2),)) == target((1, 3, 5)), "who has left does not come back"


def test_who_takes_part_in_any_role() -> None:
    now = configuration((1,), (2,), (3,))
    assert [takes_part(now, NodeId(n)) for n in (1, 2, 3, 4)] == [True, True, True, False]
