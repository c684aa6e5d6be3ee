"""What the cluster's metadata is made of: nodes, topics, partitions, as immutable values.

Rule: a partition names its *target*, the nodes that shall hold it; while it is not settled, the Raft group behind it
is still on its way there, and whoever held it before keeps its replica.  A node id that was removed is never used
again.  Knows nothing of how values change (`metadata`, `members`).
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from seatrial.raft.ids import GroupId, NodeId


class NodeState(IntEnum):
    """How far a node is a member: in the groups that every node takes part in, and for new replicas."""

    VOTER = 0
    JOINING = 1  # learns; becomes a voter by itself once it has caught up
    LEARNER = 2  # learns, and stays a learner until it is promoted
    LEAVING = 3  # gives up its replicas, then its membership


class Node(msgspec.Struct, frozen=True):
    """A registered node.  `incarnation` is the Raft index of its last registration: it rises at each start.

    `directory`: the number of its data directory, drawn when that was made; 0 where it is not known.
    `joined`: it was added later, and is dialled at `raft_address` whatever a node's own list of peers says.
    """

    node_id: NodeId
    raft_address: str  # host:port
    kafka_host: str
    kafka_port: int
    http_address: str  # host:port
    rack: str | None = None
    incarnation: int = 0
    directory: int = 0
    state: NodeState = NodeState.VOTER
    joined: bool = False


class RemovedNode(msgspec.Struct, frozen=True):
    """A node id that is used up, and the directory of whoever had it."""

    node_id: NodeId
    directory: int
    raft_address: str


class Partition(msgspec.Struct, frozen=True):
    """One partition: its Raft group and the nodes that shall hold it, the preferred leader first.

    target_index: of the metadata entry that set the target; reports name it, so that a late one is known as such.
    leaving: nodes that are not of the target any more, and keep their replica until the group is settled.
    lingering: nodes that have left, and have not yet said that their replica's files are gone.
    former: nodes that left since there was last nobody lingering: none may come back before that, because an old
        replica that was not told of its removal would take a new one of the same node, which knows nothing, for the
        old one that voted and acknowledged, and could with its vote be elected by a majority of the past.
    founding: the voters when the topic was made; departed: those of them that have left at some time.
    previous: while it is not settled, the replicas that it had when it last was.
    """

    index: int
    group: GroupId
    replicas: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    settled: bool = True
    target_index: int = 0
    leaving: tuple[NodeId, ...] = ()
    lingering: tuple[NodeId, ...] = ()
    former: tuple[NodeId, ...] = ()
    founding: tuple[NodeId, ...] = ()
    departed: tuple[NodeId, ...] = ()
    previous: tuple[NodeId, ...] = ()

    @property
    def hosts(self) -> tuple[NodeId, ...]:
        """All nodes that have an open replica, or shall have one; sorted."""
        return tuple(sorted({*self.replicas, *self.learners, *self.leaving}))

    def first_configuration(self, node_id: NodeId) -> tuple[NodeId, ...]:
        """The voters with which a node's empty replica begins; none unless it has been there from the beginning."""
        founding = self.founding or self.replicas
        return founding if node_id in founding and node_id not in self.departed else ()


class Topic(msgspec.Struct, frozen=True):
    """A topic; its partitions in order of their index.  `topic_id` has 16 bytes and is never given again."""

    name: str
    topic_id: bytes
    partitions: tuple[Partition, ...]
    configs: dict[str, str]


class MetadataError(IntEnum):
    """Why a command changed nothing."""

    NONE = 0
    TOPIC_ALREADY_EXISTS = 1
    UNKNOWN_TOPIC = 2
    CLUSTER_ID_MISMATCH = 3
    UNKNOWN_NODE = 4  # it never registered, or was removed
    INVALID_ASSIGNMENT = 5  # no partitions, no replicas, or a node twice in one partition
    NODE_REMOVED = 6  # its id is used up
    DIRECTORY_DIFFERS = 7  # the node was known by another data directory: what it had promised is lost
    CHANGE_PENDING = 8  # an earlier change of the same thing is under way
    NO_VOTER_LEFT = 9
    FORMER_REPLICA = 10  # the node held the partition, and not everybody who left has cleaned up
    PARTITIONS_DIFFER = 11  # the topic has not as many partitions as it was thought to have
