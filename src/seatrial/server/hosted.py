"""What every replica of a partition on this node has, whatever it holds: its place in the metadata and its leadership.

Rule: the placement is the metadata's, as of now; leadership is this replica's own word, first hand.
Knows nothing of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatrial.machines.metadata import Partition as Placement
from seatrial.machines.metadata import Topic
from seatrial.raft.ids import NodeId
from seatrial.server.replica import Replica

IN_SYNC_SILENCE_US = 2_000_000  # a follower that was heard within this, and is nearly caught up, counts as in sync
IN_SYNC_LAG_ENTRIES = 1_000


class HostedReplica:
    """A partition that has a replica here."""

    def __init__(
        self, topic: Topic, placement: Placement, replica: Replica, *, alive: Callable[[], Sequence[int]]
    ) -> None:
        self.topic = topic.name
        self.topic_id = topic.topic_id
        self.partition = placement.index
        self.placement = placement  # as the metadata has it now
        self.replica = replica
        self._alive = alive

    @property
    def replicas(self) -> Sequence[int]:
        return self.placement.replicas

    @property
    def is_leader(self) -> bool:
        return self.replica.node.is_leader

    @property
    def is_established(self) -> bool:
        """It leads, and has applied an entry of its own term: nothing that was ever acknowledged is missing."""
        return self.replica.node.is_leader and self.replica.applied_term == self.replica.node.term

    @property
    def is_catching_up(self) -> bool:
        return self.replica.node.commit_index > self.replica.last_applied

    @property
    def leader_id(self) -> int:
        return self.replica.node.leader or -1

    @property
    def leader_epoch(self) -> int:
        return self.replica.node.term

    @property
    def in_sync(self) -> Sequence[int]:
        """The leader's own measure; elsewhere the replicas that are thought to be up."""
        if not self.is_leader:
            alive = set(self._alive())
            return [node for node in self.replicas if node in alive]
        caught_up = self._caught_up()
        return [NodeId(node) for node in self.replicas if node in caught_up]

    def _caught_up(self) -> set[int]:
        """On the leader: itself, and the followers that answer and are at most a little behind."""
        node, host = self.replica.node, self.replica.host
        since_us, enough = host.now_us() - IN_SYNC_SILENCE_US, node.commit_index - IN_SYNC_LAG_ENTRIES
        caught_up: set[int] = {node.node_id}
        for peer, match_index, last_response_us, _ in node.followers():
            if match_index >= enough and max(last_response_us, host.heard_us(self.replica, peer)) > since_us:
                caught_up.add(peer)
        return caught_up
