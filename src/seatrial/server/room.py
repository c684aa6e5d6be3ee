"""Whether there is room for records where they have to go: on this node's disk, and on those of a group's majority.

    a leader     refuses records while its own disk is low, or so many of the group's that no majority takes them; in
                 the first case it hands over to a peer that has room
    a follower   whose disk is full takes of an AppendEntries what needs no room, and answers for that alone: the
                 leader sends the rest again.  Heartbeats, votes, snapshots and the groups without records go on
    peers        are told with each greeting (`introductions`), so that leaders know, and keep back what is not taken

Rule: nothing is acknowledged that was not taken; whatever was refused is taken as soon as there is room, without a
restart.  What a peer said counts for a few greetings.
Knows nothing of how a disk is asked (`disk_room`), and of what commands mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from seatrial.marks import reached
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import COMMAND, AppendEntries, Entry
from seatrial.server.disk_room import DiskRoom, DiskState

if TYPE_CHECKING:
    from seatrial.server.replica import Replica

BELIEVED_US: Final = 3_000_000
HAND_OVER_US: Final = 5_000_000  # how often one group may be handed over
PROBE_US: Final = 2_000_000  # how often each group may try what a full peer takes


class Room:
    """One node's view.  disk: its own; None where that is of no size."""

    def __init__(self, node_id: NodeId, disk: DiskRoom | None, now_us: Callable[[], int]) -> None:
        self.disk = disk
        self._node_id = node_id
        self.appends_held = 0
        self._now_us = now_us
        self._peers: dict[NodeId, tuple[DiskState, int]] = {}  # those without room, and when they said so
        self._greeted_us: dict[NodeId, int] = {}  # when each peer was last heard
        self._handed_us: dict[GroupId, int] = {}
        self._short_since_us: int | None = None  # when that was first seen
        self._probed_us: dict[NodeId, int] = {}  # those that are full, and when they were last probed

    # ---- what peers say --------------------------------------------------------------------------------------------

    @property
    def state(self) -> DiskState:
        return DiskState.OK if self.disk is None else self.disk.state

    @property
    def is_short(self) -> bool:
        return self.state is not DiskState.OK

    def told_to_peers(self) -> str:
        return str(self.state) if self.is_short else ""

    def told(self) -> dict[str, Any] | None:
        """For people; None where the disk is of no size."""
        if self.disk is None:
            return None
        return {
            "state": str(self.disk.state),
            "free_bytes": self.disk.free_bytes,
            "reserve_bytes": self.disk.reserve_bytes,
            "peers": {str(peer): str(self._state_of(peer)) for peer in sorted(self._peers)},
        }

    def look(self, now_s: float) -> None:
        """About once a second."""
        if self.disk is not None:
            self.disk.look()
            if not self.is_short:
                self._short_since_us = None
            elif self._short_since_us is None:
                self._short_since_us = self._now_us()

    def heard(self, peer: NodeId, state: str) -> int | None:
        """What a peer said of its disk; "" where it said nothing, as those do that have room.

        How many probes of each group it may be sent until it says more (`RaftNode.hold`); None: as before.
        """
        now_us = self._greeted_us[peer] = self._now_us()
        if state in (DiskState.LOW, DiskState.FULL):
            self._peers[peer] = DiskState(state), now_us
        else:
            self._peers.pop(peer, None)
        if state == DiskState.FULL:
            # What needs no room it takes all the same, and whether there is any is found out by sending it.
            probes = int(now_us - self._probed_us.get(peer, -PROBE_US) >= PROBE_US)
            self._probed_us[peer] = now_us if probes else self._probed_us[peer]
            return probes
        return None if self._probed_us.pop(peer, None) is None else -1

    def _state_of(self, node: NodeId) -> DiskState:
        if node == self._node_id:
            return self.state
        state, said_us = self._peers.get(node, (DiskState.OK, 0))
        return state if self._now_us() - said_us < BELIEVED_US else DiskState.OK

    # ---- records of clients ----------------------------------------------------------------------------------------

    def refusal(self, replica: Replica, size: int) -> str | None:
        """Why so many bytes of a client's cannot be taken by this group now, with what to do about it."""
        node = replica.node
        if node.is_leader:
            if self.disk is not None and (refusal := self.disk.refusal(size)) is not None:
                return refusal
        elif self.state is DiskState.FULL:
            return "this node does not follow, and would not hear what became of it: " + _nearly_full([self._node_id])
        elif node.leader is not None and self._state_of(node.leader) is not DiskState.OK:
            return _nearly_full([node.leader])
        if self._peers:
            configuration = node.configuration
            for voters in (configuration.voters, configuration.voters_outgoing):
                low = [voter for voter in voters if self._state_of(voter) is not DiskState.OK]
                if voters and len(voters) - len(low) <= len(voters) // 2:
                    reached("records were refused because a majority's disks were nearly full")
                    return _nearly_full(low)
        return None

    def refuses(self, replica: Replica, command: bytes) -> bool:
        """Whether a command that another node passed on is not taken for want of room."""
        needs_room = replica.options.needs_room
        return needs_room is not None and needs_room(command) and self.refusal(replica, len(command)) is not None

    def heir(self, replica: Replica) -> NodeId | None:
        """Whom a group is to be handed over to, because this node leads it, has no room, and the other one has."""
        node, now_us = replica.node, self._now_us()
        if not self.is_short or replica.options.needs_room is None or not node.is_leader:
            return None
        if self._short_since_us is None or now_us - self._short_since_us < BELIEVED_US:
            return None  # peers whose disk is the same one may not have said so yet
        if now_us - self._handed_us.get(replica.group, -HAND_OVER_US) < HAND_OVER_US:
            return None
        able = [
            (match_index, -peer)
            for peer, match_index, _, caught_up in node.followers()
            if peer in node.configuration.voters
            and caught_up
            and self._state_of(peer) is DiskState.OK
            and now_us - self._greeted_us.get(peer, -BELIEVED_US) < BELIEVED_US
        ]
        if not able:
            return None
        reached("a leader handed over because its disk was nearly full")
        self._handed_us[replica.group] = now_us
        return NodeId(-max(able)[1])

    # ---- records of leaders ----------------------------------------------------------------------------------------

    def admitted(self, replica: Replica, message: AppendEntries) -> AppendEntries | None:
        """The message, as much of it as can be taken, or None: to be dropped."""
        needs_room = replica.options.needs_room
        if self.disk is None or needs_room is None:
            return message
        last = replica.node.last_index
        size = 0
        for entry in message.entries:
            if entry.index > last:
                size += len(entry.data)
        if not size or self.disk.takes(size):
            return message
        entries = list(takewhile(lambda entry: entry.index <= last or not _needs(needs_room, entry), message.entries))
        if len(entries) == len(message.entries):
            return message
        reached("a follower did not take the records of an append, for want of room")
        self.appends_held += 1
        if not entries:
            return None
        return AppendEntries(
            message.sender,
            message.to,
            message.term,
            message.prev_log_index,
            message.prev_log_term,
            message.leader_commit,
            entries,
        )


def _needs(needs_room: Callable[[bytes], bool], entry: Entry) -> bool:
    return entry.kind == COMMAND and needs_room(entry.data)


def _nearly_full(nodes: Iterable[NodeId]) -> str:
    named = sorted(nodes)
    which = f"disk of node {named[0]} is" if len(named) == 1 else f"disks of nodes {', '.join(map(str, named))} are"
    return (
        f"the {which} nearly full: what is left is not for records (--disk-reserve-bytes); delete records or free "
        "some space there, and they are taken again"
    )
