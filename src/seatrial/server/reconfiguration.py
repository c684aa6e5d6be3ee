"""From the members that a Raft group has to those that it shall have: the next step, as pure functions.

    missing nodes          are added as learners, all at once
    learners               are waited for until they have caught up
    then, in one change:   they become voters, and who is not wanted goes

so that a group never counts on a node that has nothing yet, and never has fewer good copies than before on the way.
Rule: nothing here waits, proposes or remembers.  Knows nothing of what groups are for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from seatrial.machines.cluster_model import Node, NodeState, Partition
from seatrial.raft.ids import NodeId
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange, members
from seatrial.raft.messages import Configuration


class Target(NamedTuple):
    """Who shall take part."""

    voters: frozenset[NodeId]
    learners: frozenset[NodeId]


class Step(NamedTuple):
    """What to do next: a change to propose, or what has to happen first; neither when the target is reached."""

    change: ConfigurationChange | None = None
    waiting_for: str = ""


def next_step(configuration: Configuration, target: Target, caught_up: Collection[NodeId]) -> Step:
    """`caught_up`: the learners that the leader could promote now."""
    if configuration.voters_outgoing:
        return Step(waiting_for="the earlier change to be completed (joint consensus)")
    present = {*configuration.voters, *configuration.learners}
    missing = sorted((target.voters | target.learners) - present)
    if missing:
        return Step(ConfigurationChange([(ADD_LEARNER, node) for node in missing]))
    promoted = sorted(target.voters & {*configuration.learners})
    behind = [node for node in promoted if node not in caught_up]
    if behind:
        return Step(waiting_for=f"node {', '.join(map(str, behind))} to catch up")
    changes = [(ADD_VOTER, node) for node in promoted]
    changes += [(ADD_LEARNER, node) for node in sorted(target.learners & {*configuration.voters})]
    changes += [(REMOVE, node) for node in sorted(present - target.voters - target.learners)]
    return Step(ConfigurationChange(changes)) if changes else Step()


def partition_target(partition: Partition) -> Target:
    return Target(frozenset(partition.replicas), frozenset(partition.learners))


def cluster_target(
    configuration: Configuration,
    nodes: Iterable[Node],
    removed: Collection[NodeId],
    *,
    kept: Collection[NodeId] = (),
) -> Target:
    """Of a group in which every node takes part.

    Nodes that are members of the group and have not registered yet stay: a cluster registers node by node.
    `kept`: leaving nodes that are still to hear what is decided.  They lose their vote with all others that leave, in
    the change that gives it to who takes their place: with one voter more in between, of which the leaving one may be
    dead, the group would bear the loss of nobody.
    """
    voters, learners = {*configuration.voters} - {*removed}, {*configuration.learners} - {*removed}
    for node in nodes:
        if node.state == NodeState.LEAVING:
            present = node.node_id in voters or node.node_id in learners
            voters.discard(node.node_id)
            learners.discard(node.node_id)
            if present and node.node_id in kept:
                learners.add(node.node_id)
        elif node.state == NodeState.LEARNER:
            if node.node_id not in voters:
                learners.add(node.node_id)
        else:
            voters.add(node.node_id)
            learners.discard(node.node_id)
    return Target(frozenset(voters), frozenset(learners))


def takes_part(configuration: Configuration, node: NodeId) -> bool:
    """In any role, the outgoing ones included."""
    return node in members(configuration)
