"""The cluster's metadata as a state machine: its id, its nodes, its topics, and the producer ids handed out.

Rule: everything that is allocated (group ids, topic ids, producer ids) is allocated at apply, from the log's prefix
alone.  Topics and nodes are immutable values: a change replaces them, and listeners are told their names after it.
Knows nothing of who leads, who is alive, and of Kafka's error codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

import msgspec

from seatrial.machines.cluster_model import MetadataError, Node, NodeState, Partition, RemovedNode, Topic
from seatrial.machines.commands import HEAD, MalformedCommand, pack_head, unpack_kind
from seatrial.machines.digest import AppliedDigest, Fingerprinted
from seatrial.machines.members import (
    AddNode,
    AssignReplicas,
    ForgetNode,
    MemberCommand,
    Members,
    NodePromoted,
    PromoteNode,
    RemoveNode,
    ReplicaGone,
    SettleReplicas,
    decide,
    refuse_identity,
)
from seatrial.machines.topics import (
    AddPartitions,
    CreateTopic,
    DeleteTopic,
    ElectPreferred,
    Refusal,
    SetBrokerConfigs,
    SetTopicConfigs,
    TopicCommand,
    changed_configs,
    new_partitions,
    refuse_assignments,
    with_configs,
    with_more_partitions,
)
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import COMMAND, Entry

__all__ = [
    "AddNode",
    "AddPartitions",
    "AllocateProducerIds",
    "AssignReplicas",
    "CreateTopic",
    "DeleteTopic",
    "ElectPreferred",
    "ForgetNode",
    "MemberCommand",
    "MetadataChange",
    "MetadataError",
    "MetadataMachine",
    "MetadataResult",
    "Node",
    "NodePromoted",
    "NodeState",
    "Partition",
    "PromoteNode",
    "RegisterNode",
    "RemoveNode",
    "RemovedNode",
    "ReplicaGone",
    "SetBrokerConfigs",
    "SetClusterId",
    "SetTopicConfigs",
    "SettleReplicas",
    "Topic",
    "decode_command",
    "encode_command",
]

FIRST_PARTITION_GROUP: Final = 16  # group ids below are the cluster's own (metadata, key-value, …)
COMMAND_KIND: Final = 1
SNAPSHOT_VERSION: Final = 1


class SetClusterId(msgspec.Struct, frozen=True, tag=True):
    """Only the first one counts; later ones must agree."""

    cluster_id: str


class RegisterNode(msgspec.Struct, frozen=True, tag=True):
    """At each start of a node, and whenever its addresses change.

    `founder`: it is a member from the beginning, by its list of peers; any other must have been added (AddNode).
    """

    node_id: int
    raft_address: str
    kafka_host: str
    kafka_port: int
    http_address: str
    rack: str | None = None
    directory: int = 0
    founder: bool = True


class AllocateProducerIds(msgspec.Struct, frozen=True, tag=True):
    count: int = 1


Command: TypeAlias = SetClusterId | RegisterNode | AllocateProducerIds | TopicCommand | MemberCommand


class MetadataResult(NamedTuple):
    """What a command did.  `topic`: the one that was created, deleted, or was there already."""

    error: MetadataError = MetadataError.NONE
    message: str = ""
    topic: Topic | None = None
    node: Node | None = None
    first_producer_id: int = -1


class MetadataChange(NamedTuple):
    """What one entry changed: names of topics and ids of nodes, present or gone; both sorted.

    elections: partitions, as (topic, number), whose preferred replica shall lead; that is not kept in the state.
    """

    topics: tuple[str, ...] = ()
    nodes: tuple[NodeId, ...] = ()
    elections: tuple[tuple[str, int], ...] = ()


class _State(msgspec.Struct):
    """The snapshot: lists in order of their keys, so that equal states give equal bytes."""

    index: int
    chain: bytes
    cluster_id: str
    next_group: int
    next_producer_id: int
    nodes: list[Node]
    topics: list[Topic]
    removed: list[RemovedNode] = []
    broker_configs: dict[str, dict[str, str]] = {}


_encoder = msgspec.msgpack.Encoder(order="sorted")
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_state_decoder = msgspec.msgpack.Decoder(_State)


def encode_command(command: Command, *, request_id: bytes) -> bytes:
    """The bytes to propose; `machines.commands.request_id_of` finds the 16-byte request id in them again."""
    return pack_head(COMMAND_KIND, request_id) + _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Raises MalformedCommand."""
    if unpack_kind(data) != COMMAND_KIND:
        raise MalformedCommand(f"kind {data[1]} is not a metadata command")
    try:
        return _command_decoder.decode(memoryview(data)[HEAD.size :])
    except msgspec.DecodeError as error:
        raise MalformedCommand(f"a metadata command that cannot be read: {error}") from error


class MetadataMachine(Fingerprinted):
    """The state machine (a `StateMachine`)."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster_id = ""
        self._next_group = FIRST_PARTITION_GROUP
        self._next_producer_id = 0
        self._nodes: dict[NodeId, Node] = {}
        self._removed: dict[NodeId, RemovedNode] = {}
        self._topics: dict[str, Topic] = {}
        self._names_by_id: dict[bytes, str] = {}
        self._broker_configs: dict[str, dict[str, str]] = {}
        self.listeners: list[Callable[[MetadataChange], None]] = []  # called after the change, in order

    @property
    def cluster_id(self) -> str:
        """Empty until the first SetClusterId is applied."""
        return self._cluster_id

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        return self._nodes

    @property
    def placeable(self) -> Mapping[NodeId, Node]:
        """The nodes that new topics may be placed on: neither leaving, nor still learning."""
        return {node_id: node for node_id, node in self._nodes.items() if node.state == NodeState.VOTER}

    @property
    def removed(self) -> Mapping[NodeId, RemovedNode]:
        """Node ids that are used up."""
        return self._removed

    @property
    def topics(self) -> Mapping[str, Topic]:
        return self._topics

    @property
    def next_group(self) -> GroupId:
        """The group id that the next partition will get."""
        return GroupId(self._next_group)

    @property
    def broker_configs(self) -> Mapping[str, Mapping[str, str]]:
        """Settings that were changed while the cluster runs, by broker id as text; "" holds for all brokers."""
        return self._broker_configs

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        name = self._names_by_id.get(topic_id)
        return None if name is None else self._topics[name]

    def apply(self, entry: Entry) -> MetadataResult | None:
        """Apply the next committed entry; None for an entry that is no command."""
        self._digest.absorb(entry)
        if entry.kind != COMMAND:
            return None
        match decode_command(entry.data):
            case SetClusterId() as command:
                return self._set_cluster_id(command)
            case RegisterNode() as command:
                return self._register(command, entry.index)
            case CreateTopic() as command:
                return self._create(command, entry.index)
            case DeleteTopic() as command:
                return self._delete(command)
            case AddPartitions() as command:
                return self._add_partitions(command, entry.index)
            case SetTopicConfigs() as command:
                return self._set_topic_configs(command)
            case SetBrokerConfigs() as command:
                return self._set_broker_configs(command)
            case ElectPreferred() as command:
                return self._elect_preferred(command)
            case AllocateProducerIds() as command:
                first = self._next_producer_id
                self._next_producer_id += max(command.count, 0)
                return MetadataResult(first_producer_id=first)
            case command:
                return self._change_members(command, entry.index)

    def _members(self) -> Members:
        return Members(self._nodes, self._removed, self._topics, self._names_by_id)

    def _change_members(self, command: MemberCommand, index: int) -> MetadataResult:
        outcome = decide(self._members(), command, index)
        nodes, topics = outcome.nodes, outcome.topics
        for node in nodes:
            self._nodes[node.node_id] = node
        for topic in topics:
            self._topics[topic.name] = topic
        changed = [node.node_id for node in nodes]
        if outcome.forgotten is not None:
            gone = outcome.forgotten.node_id
            del self._nodes[gone]
            self._removed[gone] = outcome.forgotten
            changed.append(gone)
        if changed or topics:
            self._tell(MetadataChange(tuple(sorted(topic.name for topic in topics)), tuple(sorted(changed))))
        return MetadataResult(
            outcome.error, outcome.message, topics[0] if topics else None, nodes[0] if nodes else None
        )

    def _set_cluster_id(self, command: SetClusterId) -> MetadataResult:
        if self._cluster_id and self._cluster_id != command.cluster_id:
            message = f"this cluster is {self._cluster_id!r}, not {command.cluster_id!r}"
            return MetadataResult(MetadataError.CLUSTER_ID_MISMATCH, message)
        self._cluster_id = command.cluster_id
        return MetadataResult()

    def _register(self, command: RegisterNode, index: int) -> MetadataResult:
        refusal = refuse_identity(self._members(), NodeId(command.node_id), command.directory)
        if refusal is not None:
            return MetadataResult(refusal.error, refusal.message)
        known = self._nodes.get(NodeId(command.node_id))
        if known is None and not command.founder:
            message = f"node {command.node_id} was never added to this cluster"
            return MetadataResult(MetadataError.UNKNOWN_NODE, message)
        node = Node(
            NodeId(command.node_id),
            command.raft_address,
            command.kafka_host,
            command.kafka_port,
            command.http_address,
            command.rack,
            index,
            command.directory or (known.directory if known else 0),
            known.state if known else NodeState.VOTER,
            known.joined if known else False,
        )
        self._nodes[node.node_id] = node
        self._tell(MetadataChange(nodes=(node.node_id,)))
        return MetadataResult(node=node)

    def _create(self, command: CreateTopic, index: int) -> MetadataResult:
        existing = self._topics.get(command.name)
        if existing is not None:
            message = f"topic {command.name!r} already exists"
            return MetadataResult(MetadataError.TOPIC_ALREADY_EXISTS, message, existing)
        if not command.assignments:
            return MetadataResult(MetadataError.INVALID_ASSIGNMENT, f"topic {command.name!r} has no partitions")
        refusal = refuse_assignments(command.assignments, self._nodes, 0)
        if refusal is not None:
            return MetadataResult(*refusal)
        partitions = new_partitions(command.assignments, first=0, first_group=self._next_group, index=index)
        self._next_group += len(partitions)
        # Derived, not drawn: every replica comes to the same id, and an index is never used twice.
        seed = f"{self._cluster_id}/{index}/{command.name}".encode()
        topic_id = blake2b(seed, digest_size=16, person=b"seatrial topic").digest()
        topic = Topic(command.name, topic_id, partitions, dict(command.configs))
        self._topics[topic.name] = topic
        self._names_by_id[topic_id] = topic.name
        self._tell(MetadataChange(topics=(topic.name,)))
        return MetadataResult(topic=topic)

    def _named(self, topic_id: bytes) -> Topic | MetadataResult:
        topic = self.topic_by_id(topic_id)
        return topic or MetadataResult(MetadataError.UNKNOWN_TOPIC, f"no topic has id {topic_id.hex()}")

    def _add_partitions(self, command: AddPartitions, index: int) -> MetadataResult:
        topic = self._named(command.topic_id)
        if isinstance(topic, MetadataResult):
            return topic
        first_group = self._next_group
        larger = with_more_partitions(topic, command, self._nodes, first_group=first_group, index=index)
        if isinstance(larger, Refusal):
            return MetadataResult(*larger)
        self._next_group += len(command.assignments)
        return self._replace_topic(larger)

    def _set_topic_configs(self, command: SetTopicConfigs) -> MetadataResult:
        topic = self._named(command.topic_id)
        return topic if isinstance(topic, MetadataResult) else self._replace_topic(with_configs(topic, command))

    def _replace_topic(self, topic: Topic) -> MetadataResult:
        self._topics[topic.name] = topic
        self._tell(MetadataChange(topics=(topic.name,)))
        return MetadataResult(topic=topic)

    def _set_broker_configs(self, command: SetBrokerConfigs) -> MetadataResult:
        before = self._broker_configs.pop(command.broker, {})
        after = changed_configs(before, command.changes, replaces=command.replaces)
        if after:
            self._broker_configs[command.broker] = after
        return MetadataResult()

    def _elect_preferred(self, command: ElectPreferred) -> MetadataResult:
        found = ((self.topic_by_id(topic_id), number) for topic_id, number in command.partitions)
        named = [(topic.name, number) for topic, number in found if topic and 0 <= number < len(topic.partitions)]
        self._tell(MetadataChange(elections=tuple(sorted(named))))
        return MetadataResult()

    def _delete(self, command: DeleteTopic) -> MetadataResult:
        name = self._names_by_id.pop(command.topic_id, None)
        if name is None:
            return MetadataResult(MetadataError.UNKNOWN_TOPIC, f"no topic has id {command.topic_id.hex()}")
        topic = self._topics.pop(name)
        self._tell(MetadataChange(topics=(name,)))
        return MetadataResult(topic=topic)

    def _tell(self, change: MetadataChange) -> None:
        for listener in self.listeners:
            listener(change)

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        state = _State(
            index=self._digest.index,
            chain=self._digest.chain,
            cluster_id=self._cluster_id,
            next_group=self._next_group,
            next_producer_id=self._next_producer_id,
            nodes=[self._nodes[node_id] for node_id in sorted(self._nodes)],
            topics=[self._topics[name] for name in sorted(self._topics)],
            removed=[self._removed[node_id] for node_id in sorted(self._removed)],
            broker_configs=self._broker_configs,
        )
        return bytes([SNAPSHOT_VERSION]) + _encoder.encode(state)

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's; listeners are told everything that was or is there.

        Raises MalformedCommand on a snapshot of an unknown version.
        """
        if data[:1] != bytes([SNAPSHOT_VERSION]):
            raise MalformedCommand(f"{len(data)} bytes are not a metadata snapshot, version {SNAPSHOT_VERSION}")
        try:
            state = _state_decoder.decode(memoryview(data)[1:])
        except msgspec.DecodeError as error:
            raise MalformedCommand(f"a metadata snapshot that cannot be read: {error}") from error
        topics, nodes = set(self._topics), {*self._nodes, *self._removed}
        self._digest = AppliedDigest(state.index, state.chain)
        self._cluster_id = state.cluster_id
        self._next_group, self._next_producer_id = state.next_group, state.next_producer_id
        self._nodes = {node.node_id: node for node in state.nodes}
        self._removed = {node.node_id: node for node in state.removed}
        self._topics = {topic.name: topic for topic in state.topics}
        self._names_by_id = {topic.topic_id: topic.name for topic in state.topics}
        self._broker_configs = state.broker_configs
        changed_topics, changed_nodes = topics | set(self._topics), nodes | {*self._nodes, *self._removed}
        self._tell(MetadataChange(tuple(sorted(changed_topics)), tuple(sorted(changed_nodes))))
