"""What a node knows only while it leads: its peers' progress, reads, lease and a transfer under way.

Rule: made when a node wins an election, dropped when it steps down; nothing of it is ever saved.
Knows nothing of messages or of the log.
"""

from __future__ import annotations

from typing import Final

from seatrial.marks import reached
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import NodeId
from seatrial.raft.log import ENTRY_OVERHEAD_BYTES
from seatrial.raft.membership import members
from seatrial.raft.messages import Configuration, Entry, Snapshot
from seatrial.raft.progress import SNAPSHOT, Progress, Window
from seatrial.raft.quorum import joint_reached, majority_reached
from seatrial.raft.reads import Lease, ReadQueue

_FAREWELL_TIMEOUTS: Final = 4  # election timeouts in which a removed node is told that it was


class Batch:
    """Entries that go out together, often to several peers; nobody changes the list.

    prev_term: of the entry before `first_index`.
    """

    __slots__ = ("entries", "first_index", "prev_term", "size")

    def __init__(self, first_index: int, prev_term: int, entries: list[Entry]) -> None:
        self.first_index = first_index
        self.prev_term = prev_term
        self.entries = entries
        size = 0
        for entry in entries:
            size += len(entry.data) + ENTRY_OVERHEAD_BYTES
        self.size = size


class Leadership:
    """The volatile state of a leader (figure 2, "volatile state on leaders")."""

    __slots__ = (
        "batch",
        "config",
        "dirty",
        "due",
        "first_index",
        "former",
        "heartbeat_deadline_us",
        "lease",
        "outgoing",
        "own",
        "peers",
        "progress",
        "reads",
        "resign_deadline_us",
        "round",
        "snapshot",
        "transfer_deadline_us",
        "transfer_to",
        "uncommitted_bytes",
        "unsettled",
        "voters",
    )

    def __init__(self, config: RaftConfig, next_index: int, now_us: int) -> None:
        """`reconfigure` follows, which says who takes part."""
        self.config = config
        self.first_index = next_index  # of the entry that opens this leadership
        self.own = Progress(config.node_id, next_index, now_us, Window(1, 1))  # match_index: durable here
        self.progress: dict[NodeId, Progress] = {}  # of the members, and for a while of those that were removed
        self.former: set[NodeId] = set()  # who was removed during this leadership
        self.peers: list[Progress] = []  # everyone that it sends to
        self.voters: list[Progress] = []
        self.outgoing: list[Progress] = []
        self.unsettled = True  # the configuration may want something of the leader (`reconfiguring.see_to`)
        self.heartbeat_deadline_us = now_us + config.heartbeat_us
        self.round = 0  # of heartbeats
        self.reads = ReadQueue()
        self.lease = Lease(config.lease_us if config.lease_reads else 0)
        self.snapshot: Snapshot | None = None  # shared by all peers that are being sent one
        self.transfer_to: NodeId | None = None
        self.transfer_deadline_us = 0
        self.resign_deadline_us = 0  # of a leader that is no voter any more; 0: not yet
        self.uncommitted_bytes = 0
        self.batch: Batch | None = None  # the last one cut, while sending
        self.dirty = True  # there may be something to send to any peer
        self.due: list[Progress] = []  # to these there is

    def reconfigure(self, configuration: Configuration, *, index: int, now_us: int) -> None:
        """Send to, and count, whoever takes part by the configuration that entry `index` brought."""
        config, own_id = self.config, self.own.node_id
        taking_part = members(configuration)
        for node_id, progress in self.progress.items():
            if node_id not in taking_part and not progress.is_leaving():
                progress.left_at(index, now_us + _FAREWELL_TIMEOUTS * config.election_timeout_us)
                self.former.add(node_id)
        for node_id in taking_part:
            known = self.progress.get(node_id)
            if node_id == own_id or (known is not None and not known.is_leaving()):
                continue
            window = Window(config.max_inflight_messages, config.max_inflight_bytes)
            progress = Progress(node_id, max(self.first_index, index), now_us, window)
            if node_id in self.former:
                reached("a node came back under the leader that removed it")
                progress.proven_from = index
            self.progress[node_id] = progress
        self.voters = [self._of(node_id) for node_id in configuration.voters]
        self.outgoing = [self._of(node_id) for node_id in configuration.voters_outgoing]
        self.peers = [self.progress[node_id] for node_id in sorted(self.progress)]
        self.unsettled = self.dirty = True
        self.forget_snapshot_unless_needed()

    def dismiss(self, now_us: int) -> bool:
        """Part with removed nodes that know of it, or that were given time enough; True if some still do not know."""
        waits = False
        for progress in [progress for progress in self.peers if progress.is_leaving()]:
            knows = progress.knows_that_it_left()
            if knows or now_us >= progress.leave_deadline_us:
                if not knows:
                    reached("a removed node was given up before it knew")
                del self.progress[progress.node_id]
                self.peers.remove(progress)
                self.forget_snapshot_unless_needed()
            else:
                waits = True
        return waits

    def _of(self, node_id: NodeId) -> Progress:
        return self.own if node_id == self.own.node_id else self.progress[node_id]

    def quorum_match(self) -> int:
        """The highest index that is durable on a quorum."""
        matched = [p.match_index for p in self.voters]
        if not self.outgoing:
            return majority_reached(matched)
        return joint_reached(matched, [p.match_index for p in self.outgoing])

    def quorum_round(self) -> int:
        """The latest heartbeat round that a quorum answered."""
        return joint_reached([p.acked_round for p in self.voters], [p.acked_round for p in self.outgoing])

    def quorum_contact_us(self, now_us: int) -> int:
        """The latest time since which a quorum has been heard of."""
        self.own.last_response_us = now_us
        return joint_reached([p.last_response_us for p in self.voters], [p.last_response_us for p in self.outgoing])

    def forget_snapshot_unless_needed(self) -> None:
        """A snapshot's bytes stay in memory only as long as a peer is being sent them."""
        if self.snapshot is not None and not any(p.state == SNAPSHOT for p in self.peers):
            self.snapshot = None
