"""Which replica a request is for, and what to tell a client that asked the wrong node.

Rule: a partition that exists but is elsewhere is NOT_LEADER_OR_FOLLOWER and one that does not exist is
UNKNOWN_TOPIC_OR_PARTITION; clients refresh their metadata after the first and may give up after the second.
Knows nothing of any one request.
"""

from __future__ import annotations

from collections.abc import Collection

from seatrial.kafka.backend import Backend, PartitionBackend
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.produce_codec import Endpoint, LeaderHint


def local_partition(backend: Backend, topic: str, index: int) -> PartitionBackend | ErrorCode:
    """The replica on this node, or why there is none."""
    replica = backend.partition(topic, index)
    if replica is not None:
        return replica
    known = backend.metadata.topics.get(topic)
    if known is None or not 0 <= index < len(known.partitions):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.NOT_LEADER_OR_FOLLOWER


def leader_hint(backend: Backend, topic: str, index: int) -> LeaderHint | None:
    """The leader of an existing partition, as far as it is known."""
    leadership = backend.leadership(topic, index)
    return None if leadership.leader_id < 0 else LeaderHint(leadership.leader_id, leadership.leader_epoch)


def epoch_error(replica: PartitionBackend, epoch: int) -> ErrorCode:
    """Compare the leader epoch that a client knows (-1: none) with the replica's (KIP-320)."""
    if epoch < 0 or epoch == replica.leader_epoch:
        return ErrorCode.NONE
    return ErrorCode.FENCED_LEADER_EPOCH if epoch < replica.leader_epoch else ErrorCode.UNKNOWN_LEADER_EPOCH


def endpoints_of(backend: Backend, node_ids: Collection[int]) -> list[Endpoint]:
    """Addresses of those nodes that are registered, by id."""
    if not node_ids:
        return []
    nodes = backend.metadata.nodes
    found = (nodes[node_id] for node_id in sorted(nodes) if node_id in node_ids)
    return [Endpoint(node.node_id, node.kafka_host, node.kafka_port, node.rack) for node in found]
