"""What becomes of the cluster's members and of the replicas' places: pure functions of the metadata.

Rule: a refused command changes nothing; an accepted one names every node and topic that it changes, as new values.
What a change of target entails in the Raft groups is not decided here: the groups' leaders carry it out, and tell
when they have (SettleReplicas, NodePromoted, ForgetNode).
Knows nothing of who leads, who is alive and how far anyone has caught up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from seatrial.machines.cluster_model import MetadataError, Node, NodeState, Partition, RemovedNode, Topic
from seatrial.machines.placement import choose_node
from seatrial.marks import reached
from seatrial.raft.ids import NodeId


class AddNode(msgspec.Struct, frozen=True, tag=True):
    """A new member: a learner first; `learner`: until it is promoted by PromoteNode, else until it has caught up."""

    node_id: int
    raft_address: str
    kafka_host: str
    kafka_port: int
    http_address: str
    rack: str | None = None
    directory: int = 0
    learner: bool = False


class PromoteNode(msgspec.Struct, frozen=True, tag=True):
    """A learner shall become a voter once it has caught up."""

    node_id: int


class NodePromoted(msgspec.Struct, frozen=True, tag=True):
    """Told by the metadata group's leader: the node votes now."""

    node_id: int


class RemoveNode(msgspec.Struct, frozen=True, tag=True):
    """The node shall leave every group; its replicas move to `replacement`, or by the rules of placement (0).

    founder: of a voter that never registered, its Raft address, "" where that is not known; None: it is no such node.
    """

    node_id: int
    replacement: int = 0
    founder: str | None = None


class ForgetNode(msgspec.Struct, frozen=True, tag=True):
    """Told by the metadata group's leader: a leaving node is in no group any more."""

    node_id: int


class AssignReplicas(msgspec.Struct, frozen=True, tag=True):
    """A new target for one partition; `override`: also while an earlier one is not reached."""

    topic_id: bytes
    partition: int
    replicas: tuple[int, ...]
    learners: tuple[int, ...] = ()
    override: bool = False


class SettleReplicas(msgspec.Struct, frozen=True, tag=True):
    """Told by a partition's leader: this target is the group's configuration, and every member knows it."""

    topic_id: bytes
    partition: int
    target_index: int


class ReplicaGone(msgspec.Struct, frozen=True, tag=True):
    """Told by a node that has left a partition: the replica's files are gone for good."""

    topic_id: bytes
    partition: int
    target_index: int
    node_id: int


MemberCommand: TypeAlias = (
    AddNode | PromoteNode | NodePromoted | RemoveNode | ForgetNode | AssignReplicas | SettleReplicas | ReplicaGone
)


class Members(NamedTuple):
    """The part of the metadata that these commands read."""

    nodes: Mapping[NodeId, Node]
    removed: Mapping[NodeId, RemovedNode]
    topics: Mapping[str, Topic]
    names_by_id: Mapping[bytes, str]


class Outcome(NamedTuple):
    """What a command changes: values that replace those of the same id or name, and a node that is no more."""

    error: MetadataError = MetadataError.NONE
    message: str = ""
    nodes: tuple[Node, ...] = ()
    topics: tuple[Topic, ...] = ()
    forgotten: RemovedNode | None = None


def decide(members: Members, command: MemberCommand, index: int) -> Outcome:
    """`index`: of the entry that holds the command."""
    match command:
        case AddNode():
            return _add(members, command, index)
        case PromoteNode() | NodePromoted():
            return _promote(members, command)
        case RemoveNode():
            return _remove(members, command, index)
        case ForgetNode():
            return _forget(members, NodeId(command.node_id))
        case AssignReplicas():
            return _assign(members, command, index)
        case SettleReplicas():
            return _settle(members, command)
        case ReplicaGone():
            return _gone(members, command)


def refuse_identity(members: Members, node_id: NodeId, directory: int) -> Outcome | None:
    """Why this node, with this data directory, cannot be the member that it says it is; None where it can."""
    if node_id in members.removed:
        text = f"node {node_id} was removed; node ids are never used again: start it with a new --node-id and --join"
        return Outcome(MetadataError.NODE_REMOVED, text)
    known = members.nodes.get(node_id)
    if known is not None and 0 not in (known.directory, directory) and known.directory != directory:
        reached("a node came back with another data directory and was refused")
        text = (
            f"node {node_id} was known by another data directory: what it had acknowledged there is lost, and its "
            f"votes cannot be trusted; replace it: start a node with a new --node-id and --join, "
            f"then `seatrial members replace {node_id} NEW-ID`"
        )
        return Outcome(MetadataError.DIRECTORY_DIFFERS, text)
    return None


# ---- nodes ---------------------------------------------------------------------------------------------------------


def _unknown(node_id: int) -> Outcome:
    return Outcome(MetadataError.UNKNOWN_NODE, f"node {node_id} is no member of this cluster")


def _add(members: Members, command: AddNode, index: int) -> Outcome:
    node_id = NodeId(command.node_id)
    refusal = refuse_identity(members, node_id, command.directory)
    if refusal is not None:
        return refusal
    known = members.nodes.get(node_id)
    if known is not None:
        if known.state == NodeState.LEAVING:
            return Outcome(MetadataError.CHANGE_PENDING, f"node {node_id} is being removed")
        return Outcome(nodes=(replace(known, directory=known.directory or command.directory),))
    for other in members.nodes.values():
        if other.raft_address == command.raft_address:
            text = f"{command.raft_address} is the Raft address of node {other.node_id}"
            return Outcome(MetadataError.INVALID_ASSIGNMENT, text)
    state = NodeState.LEARNER if command.learner else NodeState.JOINING
    added = Node(
        node_id,
        command.raft_address,
        command.kafka_host,
        command.kafka_port,
        command.http_address,
        command.rack,
        index,
        command.directory,
        state,
        joined=True,
    )
    return Outcome(nodes=(added,))


def _promote(members: Members, command: PromoteNode | NodePromoted) -> Outcome:
    node = members.nodes.get(NodeId(command.node_id))
    if node is None:
        return _unknown(command.node_id)
    if node.state == NodeState.LEAVING:
        return Outcome(MetadataError.CHANGE_PENDING, f"node {node.node_id} is being removed")
    if node.state == NodeState.VOTER:
        return Outcome(nodes=(node,))
    state = NodeState.JOINING if isinstance(command, PromoteNode) else NodeState.VOTER
    return Outcome(nodes=(replace(node, state=state),))


def _remove(members: Members, command: RemoveNode, index: int) -> Outcome:
    node_id = NodeId(command.node_id)
    node = members.nodes.get(node_id)
    if node_id in members.removed:
        return Outcome()  # asked again
    if node is None and command.founder is not None:
        reached("a founder that had never come up was removed")
        node = Node(node_id, command.founder, "", 0, "", None, index)
    if node is None:
        return _unknown(node_id)
    if node.state == NodeState.LEAVING and not command.replacement:
        return Outcome(nodes=(node,))
    if command.replacement:
        by = members.nodes.get(NodeId(command.replacement))
        if by is None or command.replacement == node_id:
            return _unknown(command.replacement)
        if by.state == NodeState.LEAVING:
            return Outcome(MetadataError.CHANGE_PENDING, f"node {by.node_id} is being removed itself")
    elif not any(n.state == NodeState.VOTER for n in members.nodes.values() if n.node_id != node_id):
        return Outcome(MetadataError.NO_VOTER_LEFT, f"node {node_id} is the last voter: add another node first")
    leaving = replace(node, state=NodeState.LEAVING)
    nodes = {**members.nodes, node_id: leaving}
    load = Counter(n for topic in members.topics.values() for p in topic.partitions for n in p.hosts)
    topics, shrunk = [], []
    for name in sorted(members.topics):
        topic = members.topics[name]
        partitions = list(topic.partitions)
        for partition in topic.partitions:
            if node_id not in (*partition.replicas, *partition.learners):
                continue
            replicas, learners = _without(partition, node_id, NodeId(command.replacement), nodes, load)
            moved = retarget(partition, replicas, learners, index)
            if not moved.replicas:
                text = f"node {node_id} holds the only replica of {name}/{partition.index}, and no other node can"
                return Outcome(MetadataError.NO_VOTER_LEFT, f"{text} take it: add a node first")
            if len(moved.replicas) < len(partition.replicas):
                shrunk.append(f"{name}/{partition.index}")
            partitions[partition.index] = moved
        if partitions != list(topic.partitions):
            topics.append(replace(topic, partitions=tuple(partitions)))
    message = f"too few nodes are left, so these have one replica fewer: {', '.join(shrunk)}" if shrunk else ""
    return Outcome(MetadataError.NONE, message, (leaving,), tuple(topics))


def _without(
    partition: Partition, node_id: NodeId, by: NodeId, nodes: Mapping[NodeId, Node], load: Counter[NodeId]
) -> tuple[list[NodeId], list[NodeId]]:
    """Replicas and learners with the node replaced, or left out where nobody can take its place."""
    learners = [n for n in partition.learners if n not in (node_id, by)]
    kept = [n for n in partition.replicas if n != node_id]
    if node_id not in partition.replicas:
        return kept, learners
    barred = {*kept, *partition.former} - {*partition.learners, *partition.leaving}
    able = (
        [by]
        if by and by not in kept
        else [n for n in sorted(nodes) if nodes[n].state in (NodeState.VOTER, NodeState.JOINING)]
    )
    candidates = {n: nodes[n].rack for n in able if n not in barred and n != node_id}
    chosen = choose_node(candidates, load, taken=[nodes[n].rack for n in kept if n in nodes])
    if chosen is None:
        return kept, learners
    load[chosen] += 1
    return [chosen if n == node_id else n for n in partition.replicas], [n for n in learners if n != chosen]


def _forget(members: Members, node_id: NodeId) -> Outcome:
    node = members.nodes.get(node_id)
    if node is None:
        return _unknown(node_id)
    if node.state != NodeState.LEAVING:
        return Outcome(MetadataError.CHANGE_PENDING, f"node {node_id} is not being removed")
    topics = []
    for name in sorted(members.topics):
        topic = members.topics[name]
        for partition in topic.partitions:
            if node_id in partition.hosts:
                text = f"node {node_id} still holds {name}/{partition.index}"
                return Outcome(MetadataError.CHANGE_PENDING, text)
        if any(node_id in p.lingering for p in topic.partitions):
            # Nobody listens to it any more: what it still has can do no harm.
            topics.append(replace(topic, partitions=tuple(_cleaned(p, node_id) for p in topic.partitions)))
    removed = RemovedNode(node_id, node.directory, node.raft_address)
    return Outcome(topics=tuple(topics), forgotten=removed)


# ---- partitions ----------------------------------------------------------------------------------------------------


def retarget(partition: Partition, replicas: Sequence[NodeId], learners: Sequence[NodeId], index: int) -> Partition:
    """The partition with the target set by the entry at `index`; whoever else held it, or was to, is leaving."""
    target = {*replicas, *learners}
    same = set(replicas) == {*partition.replicas} and set(learners) == {*partition.learners}
    settled = partition.settled and same
    before = partition.replicas if partition.settled else partition.previous
    return replace(
        partition,
        replicas=tuple(replicas),
        learners=tuple(sorted(learners)),
        settled=settled,
        previous=() if settled else before,
        target_index=index,
        leaving=tuple(n for n in partition.hosts if n not in target),
        founding=partition.founding or partition.replicas,
    )


def _cleaned(partition: Partition, node_id: NodeId) -> Partition:
    lingering = tuple(n for n in partition.lingering if n != node_id)
    return replace(partition, lingering=lingering, former=partition.former if lingering else ())


def _with_partition(topic: Topic, partition: Partition) -> Outcome:
    partitions = (*topic.partitions[: partition.index], partition, *topic.partitions[partition.index + 1 :])
    return Outcome(topics=(replace(topic, partitions=partitions),))


def _found(members: Members, topic_id: bytes, number: int) -> tuple[Topic, Partition] | None:
    name = members.names_by_id.get(topic_id)
    if name is None or not 0 <= number < len(members.topics[name].partitions):
        return None
    return members.topics[name], members.topics[name].partitions[number]


def _assign(members: Members, command: AssignReplicas, index: int) -> Outcome:
    found = _found(members, command.topic_id, command.partition)
    if found is None:
        return Outcome(MetadataError.UNKNOWN_TOPIC, f"no partition {command.partition} of such a topic")
    topic, partition = found
    named = f"{topic.name}/{partition.index}"
    replicas, learners = tuple(map(NodeId, command.replicas)), tuple(map(NodeId, command.learners))
    target = [*replicas, *learners]
    if not replicas:
        return Outcome(MetadataError.NO_VOTER_LEFT, f"{named} would have no voter left; keep or add one")
    if len(set(target)) != len(target):
        return Outcome(MetadataError.INVALID_ASSIGNMENT, f"{named} needs different nodes, not {target}")
    unknown = sorted(n for n in target if n not in members.nodes)
    if unknown:
        return Outcome(MetadataError.UNKNOWN_NODE, f"these are no members of this cluster: {unknown}")
    if replicas == partition.replicas and tuple(sorted(learners)) == partition.learners:
        return Outcome()  # asked again: what is under way goes on
    if not partition.settled and not command.override:
        text = f"{named} is still moving to {list(partition.replicas)}; wait until that is done, or send override"
        return Outcome(MetadataError.CHANGE_PENDING, text)
    added = [n for n in target if n not in partition.hosts]
    leaving = sorted(n for n in added if members.nodes[n].state == NodeState.LEAVING)
    if leaving:
        return Outcome(MetadataError.CHANGE_PENDING, f"these nodes are being removed: {leaving}")
    barred = sorted(n for n in added if n in partition.former)
    if barred:
        reached("a replica was refused on a node that had held it, while old replicas lingered")
        text = f"{barred} held {named} before; they may again once {list(partition.lingering)} have deleted theirs"
        return Outcome(MetadataError.FORMER_REPLICA, text)
    return _with_partition(topic, retarget(partition, replicas, learners, index))


def _settle(members: Members, command: SettleReplicas) -> Outcome:
    found = _found(members, command.topic_id, command.partition)
    if found is None:
        return Outcome(MetadataError.UNKNOWN_TOPIC, "the topic is gone")
    topic, partition = found
    if command.target_index != partition.target_index:
        reached("a partition's leader reported a target that had been changed meanwhile")
        return Outcome(MetadataError.CHANGE_PENDING, "the target was changed meanwhile")
    founders = {*partition.founding} & {*partition.leaving}
    settled = replace(
        partition,
        settled=True,
        previous=(),
        leaving=(),
        lingering=tuple(sorted({*partition.lingering, *partition.leaving})),
        former=tuple(sorted({*partition.former, *partition.leaving})),
        departed=tuple(sorted({*partition.departed, *founders})),
    )
    return _with_partition(topic, settled)


def _gone(members: Members, command: ReplicaGone) -> Outcome:
    found = _found(members, command.topic_id, command.partition)
    if found is None:
        return Outcome(MetadataError.UNKNOWN_TOPIC, "the topic is gone")
    topic, partition = found
    if command.target_index != partition.target_index:
        reached("a replica was reported gone for a target that had been changed meanwhile")
        return Outcome(MetadataError.CHANGE_PENDING, "the target was changed meanwhile")
    return _with_partition(topic, _cleaned(partition, NodeId(command.node_id)))
