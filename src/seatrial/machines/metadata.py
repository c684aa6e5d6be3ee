"""The cluster's metadata as a state machine: its id, its nodes, its topics, and the producer ids handed out.

Rule: everything that is allocated (group ids, topic ids, producer ids) is allocated at apply, from the log's prefix
alone.  Topics and nodes are immutable values: a change replaces them, and listeners are told their names after it.
Knows nothing of who leads, who is alive, and of Kafka's error codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple, TypeAlias

import msgspec

from seatrial.machines.commands import HEAD, MalformedCommand, pack_head, unpack_kind
from seatrial.machines.digest import AppliedDigest
from seatrial.raft.ids import GroupId, Index, NodeId
from seatrial.raft.messages import COMMAND, Entry

FIRST_PARTITION_GROUP: Final = 16  # group ids below are the cluster's own (metadata, key-value, …)
COMMAND_KIND: Final = 1
SNAPSHOT_VERSION: Final = 1


class Node(msgspec.Struct, frozen=True):
    """A registered node.  `incarnation` is the Raft index of its last registration: it rises at each start."""

    node_id: NodeId
    raft_address: str  # host:port
    kafka_host: str
    kafka_port: int
    http_address: str  # host:port
    rack: str | None = None
    incarnation: int = 0


class Partition(msgspec.Struct, frozen=True):
    """One partition: its Raft group and the nodes that hold it, the preferred leader first."""

    index: int
    group: GroupId
    replicas: tuple[NodeId, ...]


class Topic(msgspec.Struct, frozen=True):
    """A topic; its partitions in order of their index.  `topic_id` has 16 bytes and is never given again."""

    name: str
    topic_id: bytes
    partitions: tuple[Partition, ...]
    configs: dict[str, str]


class SetClusterId(msgspec.Struct, frozen=True, tag=True):
    """Only the first one counts; later ones must agree."""

    cluster_id: str


class RegisterNode(msgspec.Struct, frozen=True, tag=True):
    """At each start of a node, and whenever its addresses change."""

    node_id: int
    raft_address: str
    kafka_host: str
    kafka_port: int
    http_address: str
    rack: str | None = None


class CreateTopic(msgspec.Struct, frozen=True, tag=True):
    """`assignments`: for each partition its replicas, the preferred leader first (`placement.assign_replicas`)."""

    name: str
    assignments: tuple[tuple[int, ...], ...]
    configs: dict[str, str] = {}


class DeleteTopic(msgspec.Struct, frozen=True, tag=True):
    """By id, so that a topic of the same name that was made meanwhile is safe."""

    topic_id: bytes


class AllocateProducerIds(msgspec.Struct, frozen=True, tag=True):
    count: int = 1


Command: TypeAlias = SetClusterId | RegisterNode | CreateTopic | DeleteTopic | AllocateProducerIds


class MetadataError(IntEnum):
    """Why a command changed nothing."""

    NONE = 0
    TOPIC_ALREADY_EXISTS = 1
    UNKNOWN_TOPIC = 2
    CLUSTER_ID_MISMATCH = 3
    UNKNOWN_NODE = 4  # a replica is assigned to a node that never registered
    INVALID_ASSIGNMENT = 5  # no partitions, no replicas, or a node twice in one partition


class MetadataResult(NamedTuple):
    """What a command did.  `topic`: the one that was created, deleted, or was there already."""

    error: MetadataError = MetadataError.NONE
    message: str = ""
    topic: Topic | None = None
    node: Node | None = None
    first_producer_id: int = -1


class MetadataChange(NamedTuple):
    """What one entry changed: names of topics and ids of nodes, present or gone; both sorted."""

    topics: tuple[str, ...] = ()
    nodes: tuple[NodeId, ...] = ()


class _State(msgspec.Struct):
    """The snapshot: lists in order of their keys, so that equal states give equal bytes."""

    index: int
    chain: bytes
    cluster_id: str
    next_group: int
    next_producer_id: int
    nodes: list[Node]
    topics: list[Topic]


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


class MetadataMachine:
    """The state machine (a `StateMachine`)."""

    def __init__(self) -> None:
        self._digest = AppliedDigest()
        self._cluster_id = ""
        self._next_group = FIRST_PARTITION_GROUP
        self._next_producer_id = 0
        self._nodes: dict[NodeId, Node] = {}
        self._topics: dict[str, Topic] = {}
        self._names_by_id: dict[bytes, str] = {}
        self.listeners: list[Callable[[MetadataChange], None]] = []  # called after the change, in order

    @property
    def cluster_id(self) -> str:
        """Empty until the first SetClusterId is applied."""
        return self._cluster_id

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        return self._nodes

    @property
    def topics(self) -> Mapping[str, Topic]:
        return self._topics

    @property
    def next_group(self) -> GroupId:
        """The group id that the next partition will get."""
        return GroupId(self._next_group)

    @property
    def applied_index(self) -> Index:
        return Index(self._digest.index)

    @property
    def digest(self) -> str:
        """Fingerprint of all applied entries, as 16 hexadecimal digits."""
        return self._digest.hex()

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
            case AllocateProducerIds() as command:
                first = self._next_producer_id
                self._next_producer_id += max(command.count, 0)
                return MetadataResult(first_producer_id=first)

    def _set_cluster_id(self, command: SetClusterId) -> MetadataResult:
        if self._cluster_id and self._cluster_id != command.cluster_id:
            message = f"this cluster is {self._cluster_id!r}, not {command.cluster_id!r}"
            return MetadataResult(MetadataError.CLUSTER_ID_MISMATCH, message)
        self._cluster_id = command.cluster_id
        return MetadataResult()

    def _register(self, command: RegisterNode, index: int) -> MetadataResult:
        node = Node(
            NodeId(command.node_id),
            command.raft_address,
            command.kafka_host,
            command.kafka_port,
            command.http_address,
            command.rack,
            index,
        )
        self._nodes[node.node_id] = node
        self._tell(MetadataChange(nodes=(node.node_id,)))
        return MetadataResult(node=node)

    def _create(self, command: CreateTopic, index: int) -> MetadataResult:
        existing = self._topics.get(command.name)
        if existing is not None:
            message = f"topic {command.name!r} already exists"
            return MetadataResult(MetadataError.TOPIC_ALREADY_EXISTS, message, existing)
        refusal = self._refuse_assignments(command)
        if refusal is not None:
            return refusal
        partitions: list[Partition] = []
        for number, replicas in enumerate(command.assignments):
            group = GroupId(self._next_group + number)
            partitions.append(Partition(number, group, tuple(NodeId(node) for node in replicas)))
        self._next_group += len(partitions)
        # Derived, not drawn: every replica comes to the same id, and an index is never used twice.
        seed = f"{self._cluster_id}/{index}/{command.name}".encode()
        topic_id = blake2b(seed, digest_size=16, person=b"seatrial topic").digest()
        topic = Topic(command.name, topic_id, tuple(partitions), dict(command.configs))
        self._topics[topic.name] = topic
        self._names_by_id[topic_id] = topic.name
        self._tell(MetadataChange(topics=(topic.name,)))
        return MetadataResult(topic=topic)

    def _refuse_assignments(self, command: CreateTopic) -> MetadataResult | None:
        if not command.assignments:
            return MetadataResult(MetadataError.INVALID_ASSIGNMENT, f"topic {command.name!r} has no partitions")
        for number, replicas in enumerate(command.assignments):
            if not replicas or len(set(replicas)) != len(replicas):
                message = f"partition {number} needs replicas on different nodes, not {list(replicas)}"
                return MetadataResult(MetadataError.INVALID_ASSIGNMENT, message)
            unknown = sorted(set(replicas) - set(self._nodes))
            if unknown:
                message = f"partition {number} is assigned to unknown nodes {unknown}"
                return MetadataResult(MetadataError.UNKNOWN_NODE, message)
        return None

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
        topics, nodes = set(self._topics), set(self._nodes)
        self._digest = AppliedDigest(state.index, state.chain)
        self._cluster_id = state.cluster_id
        self._next_group, self._next_producer_id = state.next_group, state.next_producer_id
        self._nodes = {node.node_id: node for node in state.nodes}
        self._topics = {topic.name: topic for topic in state.topics}
        self._names_by_id = {topic.topic_id: topic.name for topic in state.topics}
        changed_topics, changed_nodes = topics | set(self._topics), nodes | set(self._nodes)
        self._tell(MetadataChange(tuple(sorted(changed_topics)), tuple(sorted(changed_nodes))))
