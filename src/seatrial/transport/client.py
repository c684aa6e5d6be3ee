"""The sending side of a node: its peers, and the links over which messages leave.

Rule: `send` never blocks and never raises; what cannot be sent is dropped and counted.  A clone shares the connections
and nothing else.  Knows nothing of what messages mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import InstallSnapshot, Message
from seatrial.transport.address import parse_address
from seatrial.transport.base import PeerStatus
from seatrial.transport.handshake import Purpose
from seatrial.transport.link import PeerLink
from seatrial.transport.pool import LinkPool


class Received:
    """What came from one peer."""

    __slots__ = ("bytes_received", "last_received_us")

    def __init__(self) -> None:
        self.bytes_received = 0
        self.last_received_us: int | None = None


class Peer:
    """One peer's two links."""

    __slots__ = ("address", "messages", "snapshots")

    def __init__(self, address: str, messages: PeerLink, snapshots: PeerLink) -> None:
        self.address = address
        self.messages = messages
        self.snapshots = snapshots

    @property
    def links(self) -> tuple[PeerLink, PeerLink]:
        return self.messages, self.snapshots

    def status(self, bytes_received: int, last_received_us: int | None) -> PeerStatus:
        """With what came from it, which is not the sending side's to know."""
        return PeerStatus(
            connected=self.messages.connected,
            last_received_us=last_received_us,
            bytes_sent=sum(link.bytes_sent for link in self.links),
            bytes_received=bytes_received,
            messages_dropped=sum(link.messages_dropped for link in self.links),
            last_error=self.messages.last_error or self.snapshots.last_error,
        )


class RaftClient:
    """Sends to peers, each over one connection for messages and one for the chunks of snapshots.

    `lazy`: dial a peer only when there is something for it, and hang up after half a minute without; else it is
    dialled when it is added, and again for as long as it is a peer.  Snapshots' connections are always lazy.
    """

    def __init__(self, pool: LinkPool, *, lazy: bool = True) -> None:
        self._pool, self._lazy = pool, lazy
        self._peers: dict[NodeId, Peer] = {}
        self._dirty: dict[PeerLink, None] = {}
        self._flushing: asyncio.Handle | None = None  # at the end of this turn
        self._is_closed = False
        pool.join()

    def clone(self) -> RaftClient:
        """Another client of the same node: it begins with the same peers, shares their connections, and from then on
        adds, removes and closes for itself alone."""
        clone = RaftClient(self._pool, lazy=self._lazy)
        for peer, known in self._peers.items():
            clone.add_peer(peer, known.address)
        return clone

    def add_peer(self, peer: NodeId, address: str) -> None:
        """Messages to it go to this "host:port" from now on; raises ValueError for an address that is none."""
        assert not self._is_closed, "closed already"
        where = parse_address(address)
        self._pool.start()
        known = self._peers.get(peer)
        if known is not None and known.address == address:
            return
        if known is not None:
            self.remove_peer(peer)
        messages = self._pool.lease(peer, where, Purpose.MESSAGES, lazy=self._lazy)
        snapshots = self._pool.lease(peer, where, Purpose.SNAPSHOTS, lazy=True)
        self._peers[peer] = Peer(address, messages, snapshots)

    def remove_peer(self, peer: NodeId) -> None:
        """Send it nothing more; what is queued has a moment to leave.  No error where it is none."""
        removed = self._peers.pop(peer, None)
        if removed is not None:
            for link in removed.links:
                self._dirty.pop(link, None)
                self._pool.release(link)

    def peer(self, peer: NodeId) -> Peer | None:
        return self._peers.get(peer)

    def peers(self, received: Mapping[NodeId, Received] | None = None) -> Mapping[NodeId, PeerStatus]:
        """Each peer's state; `received`: what came from them, where somebody knows."""
        nothing = Received()
        statuses = {}
        for peer, known in sorted(self._peers.items()):
            came = (received or {}).get(peer, nothing)
            statuses[peer] = known.status(came.bytes_received, came.last_received_us)
        return statuses

    def kick(self, peer: NodeId) -> None:
        """It was heard from: do not wait any longer to dial it."""
        known = self._peers.get(peer)
        if known is not None:
            for link in known.links:
                link.kick()

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        """Queue for each message's `to`; flushed once at the end of the loop turn, all groups in one write a peer."""
        queue = self.queue
        for message in messages:
            queue(group, message)

    def queue(self, group: GroupId, message: Message) -> None:
        peer = self._peers.get(message.to)
        if peer is None:
            return
        link = peer.snapshots if type(message) is InstallSnapshot else peer.messages
        link.queue(group, message)
        self._dirty[link] = None
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what is queued now, and not only at the end of the turn."""
        if self._flushing is None:
            return
        self._flushing.cancel()
        self._flushing = None
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    async def close(self) -> None:
        """Let go of all peers; the last client of a pool closes its connections.  No error where it is closed."""
        if self._is_closed:
            return
        self._is_closed = True
        for peer in list(self._peers):
            self.remove_peer(peer)
        if self._flushing is not None:
            self._flushing.cancel()
        await self._pool.leave()
