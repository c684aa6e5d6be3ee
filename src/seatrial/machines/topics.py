"""Commands about topics: what each does to them, as pure functions of the topics and nodes that there are.

Rule: a command changes nothing or all that it says.  Partitions are only ever added behind the last one, and who adds
them names how many there were, so that two who ask at once do not add twice.
Knows nothing of groups, ids and listeners (`metadata`), and of what settings mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from seatrial.machines.cluster_model import MetadataError, Node, NodeState, Partition, Topic
from seatrial.raft.ids import GroupId, NodeId


class CreateTopic(msgspec.Struct, frozen=True, tag=True):
    """`assignments`: for each partition its replicas, the preferred leader first (`placement.assign_replicas`)."""

    name: str
    assignments: tuple[tuple[int, ...], ...]
    configs: dict[str, str] = {}


class DeleteTopic(msgspec.Struct, frozen=True, tag=True):
    """By id, so that a topic of the same name that was made meanwhile is safe."""

    topic_id: bytes


class AddPartitions(msgspec.Struct, frozen=True, tag=True):
    """`assignments` of partitions from `first` on, which is how many the topic has now."""

    topic_id: bytes
    first: int
    assignments: tuple[tuple[int, ...], ...]


class SetTopicConfigs(msgspec.Struct, frozen=True, tag=True):
    """Settings by name; None takes one away.  `replaces`: those that are not named go as well."""

    topic_id: bytes
    changes: dict[str, str | None]
    replaces: bool = False


class SetBrokerConfigs(msgspec.Struct, frozen=True, tag=True):
    """As SetTopicConfigs, of one broker by its id as text, or ("") of all brokers that have no setting of their own."""

    broker: str
    changes: dict[str, str | None]
    replaces: bool = False


class ElectPreferred(msgspec.Struct, frozen=True, tag=True):
    """Partitions, as (topic id, number), whose leaders shall hand over to the first of their replicas.

    Changes no state: whoever leads one of them as it hears of this does it, once.
    """

    partitions: tuple[tuple[bytes, int], ...]


TopicCommand: TypeAlias = (
    CreateTopic | DeleteTopic | AddPartitions | SetTopicConfigs | SetBrokerConfigs | ElectPreferred
)


class Refusal(NamedTuple):
    """Why a command changes nothing."""

    error: MetadataError
    message: str


def changed_configs(configs: Mapping[str, str], changes: Mapping[str, str | None], *, replaces: bool) -> dict[str, str]:
    """The settings after a change of them."""
    after = {} if replaces else dict(configs)
    for name, value in changes.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after


def refuse_assignments(
    assignments: Sequence[Sequence[int]], nodes: Mapping[NodeId, Node], first: int
) -> Refusal | None:
    """Why partitions, numbered from `first` on, cannot be placed so; None where they can."""
    for number, replicas in enumerate(assignments, first):
        if not replicas or len(set(replicas)) != len(replicas):
            message = f"partition {number} needs replicas on different nodes, not {list(replicas)}"
            return Refusal(MetadataError.INVALID_ASSIGNMENT, message)
        unknown = sorted(set(replicas) - set(nodes))
        if unknown:
            message = f"partition {number} is assigned to unknown nodes {unknown}"
            return Refusal(MetadataError.UNKNOWN_NODE, message)
        leaving = sorted(n for n in replicas if nodes[NodeId(n)].state == NodeState.LEAVING)
        if leaving:
            message = f"partition {number} is assigned to nodes that are being removed: {leaving}"
            return Refusal(MetadataError.UNKNOWN_NODE, message)
    return None


def new_partitions(
    assignments: Sequence[Sequence[int]], *, first: int, first_group: int, index: int
) -> tuple[Partition, ...]:
    """Partitions numbered from `first` on, made by the entry at `index`."""
    return tuple(
        Partition(first + number, GroupId(first_group + number), tuple(map(NodeId, replicas)), target_index=index)
        for number, replicas in enumerate(assignments)
    )


def with_more_partitions(
    topic: Topic, command: AddPartitions, nodes: Mapping[NodeId, Node], *, first_group: int, index: int
) -> Topic | Refusal:
    """The topic with the partitions added."""
    if command.first != len(topic.partitions):
        text = f"topic {topic.name!r} has {len(topic.partitions)} partitions, and not {command.first} as it was thought"
        return Refusal(MetadataError.PARTITIONS_DIFFER, text)
    refusal = refuse_assignments(command.assignments, nodes, command.first)
    if refusal is not None:
        return refusal
    more = new_partitions(command.assignments, first=command.first, first_group=first_group, index=index)
    return replace(topic, partitions=(*topic.partitions, *more))


def with_configs(topic: Topic, command: SetTopicConfigs) -> Topic:
    return replace(topic, configs=changed_configs(topic.configs, command.changes, replaces=command.replaces))
