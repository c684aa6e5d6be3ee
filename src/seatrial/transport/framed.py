"""Transport over hand-framed TCP on asyncio protocols: the default.

    connection  a node dials each peer and sends on that connection; what the peer has to say comes on the peer's
                own, so that one direction of a link can fail alone, as it can in a network
    messages    of all groups, one write for each peer and turn of the loop; heartbeats of all groups in one frame
    snapshots   on a second connection, dialled when there is a chunk to send

In order for each peer, except that heartbeats go before other messages of the same turn, and chunks of snapshots
have an order of their own; Raft asks for neither.  asyncio sets TCP_NODELAY on every connection.
Rule: as in `base`: nothing blocks, nothing raises, what cannot be sent is dropped and counted.
Knows nothing of what messages mean.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from seatrial.env import Clock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import InstallSnapshot, Message
from seatrial.transport.base import PeerStatus
from seatrial.transport.codec import Decoded
from seatrial.transport.handshake import CLUSTER_ID_BYTES_MAX, Hello, Purpose, Refusal, Rejected, check_hello, differs
from seatrial.transport.incoming import IncomingConnection
from seatrial.transport.link import Limits, PeerLink
from seatrial.transport.receiver import OversizedFrame

if TYPE_CHECKING:
    from seatrial.transport.filters.filter_set import FilterSet

_CHECK_INTERVAL_S: Final = 0.25


class Peer:
    """One peer's two links, and what came from it."""

    __slots__ = ("address", "bytes_received", "last_received_us", "messages", "snapshots")

    def __init__(self, address: str, messages: PeerLink, snapshots: PeerLink) -> None:
        self.address = address
        self.messages = messages
        self.snapshots = snapshots
        self.bytes_received = 0  # on connections that are closed
        self.last_received_us: int | None = None

    @property
    def links(self) -> tuple[PeerLink, PeerLink]:
        return self.messages, self.snapshots

    def status(self, bytes_received_open: int) -> PeerStatus:
        """With what the connections that are still open received."""
        return PeerStatus(
            connected=self.messages.connected,
            last_received_us=self.last_received_us,
            bytes_sent=sum(link.bytes_sent for link in self.links),
            bytes_received=self.bytes_received + bytes_received_open,
            messages_dropped=sum(link.messages_dropped for link in self.links),
            last_error=self.messages.last_error or self.snapshots.last_error,
        )


class FramedTransport:
    """Implements Transport.

    `listen` is "host:port" (port 0: any; see `address`) or a listening socket; `peers` maps ids to "host:port".
    `directory`: the number of this node's data directory, by which its peers know it again.  `report` gets each
    sentence that an operator should read, `on_rejected` each peer's refusal to talk to this node, `on_stranger` each
    node of this cluster that called, is not known and was refused.
    Raises ValueError for an address that is none, or a cluster id that is too long; `start` raises OSError where it
    cannot listen.
    """

    def __init__(
        self,
        node_id: NodeId,
        cluster_id: str,
        *,
        listen: str | socket.socket,
        peers: Mapping[NodeId, str],
        clock: Clock,
        rng: Rng,
        max_frame_bytes: int = 64 << 20,
        send_queue_bytes: int = 16 << 20,
        connect_timeout_s: float = 1.0,
        dead_after_s: float = 2.0,
        report: Callable[[str], None] = lambda sentence: None,
        directory: int = 0,
        on_rejected: Callable[[NodeId, Rejected], None] = lambda peer, rejected: None,
        on_stranger: Callable[[NodeId], None] = lambda node: None,
    ) -> None:
        if len(cluster_id.encode()) > CLUSTER_ID_BYTES_MAX:
            raise ValueError(f"the cluster id {cluster_id!r} is longer than {CLUSTER_ID_BYTES_MAX} bytes")
        self._node_id, self._cluster_id = node_id, cluster_id
        self._listen = parse_address(listen) if isinstance(listen, str) else listen
        self._clock, self._rng, self._report = clock, rng, report
        self._limits = Limits(
            frame_bytes_max=max_frame_bytes,
            queue_bytes_max=send_queue_bytes,
            connect_timeout_s=connect_timeout_s,
            dead_after_s=dead_after_s,
            back_off_first_s=0.02,
            back_off_max_s=0.5,
            back_off_rejected_s=2.0,
        )
        self._filters: FilterSet | None = None
        self.refusals: Counter[str] = Counter()  # connections ended by this side: "rejected", "oversized", "malformed"
        self._directory, self._on_rejected, self._on_stranger = directory, on_rejected, on_stranger
        self._directories: dict[NodeId, int] = {}  # of peers, as far as they are known
        self._removed: set[NodeId] = set()
        self._peers: dict[NodeId, Peer] = {}
        self._to_add = dict(peers)
        for address in peers.values():
            parse_address(address)
        self._connections: dict[IncomingConnection, None] = {}
        self._dirty: dict[PeerLink, None] = {}
        self._flushing: asyncio.Handle | None = None  # at the end of this turn
        self._receive: Callable[[GroupId, Message], None] | None = None
        self._server: asyncio.Server | None = None
        self._checks: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where this node listens, once started."""
        assert self._server is not None, "not started"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def filters(self) -> FilterSet:
        """For tests: message filters, none of which is attached at first."""
        if self._filters is None:
            from seatrial.transport.filters.filter_set import FilterSet  # nodes that serve should not wait for it

            self._filters = FilterSet(self._clock.now_us, self._call_later)
        return self._filters

    async def start(self, receive: Callable[[GroupId, Message], None]) -> None:
        assert self._receive is None, "started twice"
        loop = asyncio.get_running_loop()
        if isinstance(self._listen, tuple):
            host, port = self._listen
            self._server = await loop.create_server(self._incoming_connection, host, port)
        else:
            self._server = await loop.create_server(self._incoming_connection, sock=self._listen)
        self._receive = receive
        for peer, address in self._to_add.items():
            self.add_peer(peer, address)
        self._checks = loop.call_later(_CHECK_INTERVAL_S, self._check_connections)

    def _incoming_connection(self) -> IncomingConnection:
        limits = self._limits
        return IncomingConnection(
            self,
            self._clock,
            self._node_id,
            frame_bytes_max=limits.frame_bytes_max,
            progress_us=limits.sign_of_life_us,
        )

    async def close(self) -> None:
        if self._checks is not None:
            self._checks.cancel()
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            self.remove_peer(peer)
        for connection in list(self._connections):
            connection.abort()
        if self._closing:
            await asyncio.gather(*self._closing)

    # Peers.

    def add_peer(self, peer: NodeId, address: str, *, directory: int = 0) -> None:
        """Dial it from now on, and accept its connections.  A known peer's address is replaced.

        `directory`, where it is not 0: accept it only with that data directory.
        """
        where = parse_address(address)
        if directory:
            self._directories[peer] = directory
            self._hang_up(peer, lambda hello: differs(hello.directory, directory))
        if self._receive is None:
            self._to_add[peer] = address
            return
        known = self._peers.get(peer)
        if known is not None and known.address == address:
            return
        if known is not None:
            self.remove_peer(peer)
        self._peers[peer] = made = Peer(address, *(self._link(peer, where, purpose) for purpose in Purpose))
        for link in made.links:
            link.start()

    def _link(self, peer: NodeId, where: tuple[str, int], purpose: Purpose) -> PeerLink:
        hello = Hello(
            sender=self._node_id,
            to=peer,
            cluster_id=self._cluster_id,
            purpose=purpose,
            directory=self._directory,
        )
        return PeerLink(
            hello,
            where,
            self._limits,
            lazy=purpose is Purpose.SNAPSHOTS,
            clock=self._clock,
            rng=self._rng.child(f"{purpose.name} to {peer}"),
            report=self._report,
            on_rejected=self._on_rejected,
        )

    def remove_peer(self, peer: NodeId, *, for_good: bool = False) -> None:
        """Hang up both ways and refuse it from now on; `for_good`: and tell it so whenever it calls."""
        if for_good:
            self._removed.add(peer)
        self._to_add.pop(peer, None)
        removed = self._peers.pop(peer, None)
        if removed is None:
            return
        for link in removed.links:
            self._dirty.pop(link, None)
            closing = asyncio.get_running_loop().create_task(link.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._hang_up(peer, lambda hello: True)

    def _hang_up(self, peer: NodeId, on: Callable[[Hello], bool]) -> None:
        for connection in list(self._connections):
            if connection.hello is not None and connection.hello.sender == peer and on(connection.hello):
                connection.close()

    def peers(self) -> Mapping[NodeId, PeerStatus]:
        open_now: Counter[NodeId] = Counter()
        for connection in self._connections:
            if connection.hello is not None:
                open_now[connection.hello.sender] += connection.bytes_received
        return {peer: known.status(open_now[peer]) for peer, known in sorted(self._peers.items())}

    # Messages.

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        if self._filters is not None and self._filters.sending:
            for message in messages:
                self._filters.send(group, message, self._filtered)
        else:
            queue = self._queue
            for message in messages:
                queue(group, message)

    def _filtered(self, group: int, message: Message) -> None:
        """What a filter made may be meant for another node than the message that it saw: for this one, too."""
        if message.to != self._node_id:
            self._queue(GroupId(group), message)
        elif self._receive is not None:
            asyncio.get_running_loop().call_soon(self._receive, GroupId(group), message)

    def _filtered_in(self, group: int, message: Message) -> None:
        if message.to != self._node_id:
            self._queue(GroupId(group), message)
        elif self._receive is not None and message.sender in self._peers:  # which it may no longer be, if it was late
            self._receive(GroupId(group), message)

    @staticmethod
    def _call_later(delay_us: int, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_us / 1e6, callback)

    def _queue(self, group: GroupId, message: Message) -> None:
        peer = self._peers.get(message.to)
        if peer is None:
            return
        link = peer.snapshots if type(message) is InstallSnapshot else peer.messages
        link.queue(group, message)
        self._dirty[link] = None
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        if self._flushing is None:
            return
        self._flushing.cancel()
        self._flushing = None
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    def _check_connections(self) -> None:
        self._checks = asyncio.get_running_loop().call_later(_CHECK_INTERVAL_S, self._check_connections)
        for peer in self._peers.values():
            for link in peer.links:
                link.check()
        overdue = self._clock.now_us() - self._limits.dead_after_s * 1e6
        for connection in list(self._connections):
            if connection.hello is None and connection.since_us < overdue:
                connection.abort()  # no HELLO in time, or one that was rejected and is not hung up

    # As an Acceptor.

    def check(self, hello: memoryview) -> Hello:
        return check_hello(
            hello,
            node_id=self._node_id,
            cluster_id=self._cluster_id,
            known=self._peers,
            removed=self._removed,
            directories=self._directories,
        )

    def opened(self, connection: IncomingConnection) -> None:
        self._connections[connection] = None

    def accepted(self, connection: IncomingConnection, hello: Hello) -> None:
        """A peer that calls is up: do not wait to call it back.  Its older connection is a leftover."""
        for other in list(self._connections):
            if other is not connection and other.hello == hello:
                other.abort()
        for link in self._peers[hello.sender].links:
            link.kick()

    def received(self, connection: IncomingConnection, messages: Decoded) -> None:
        assert self._receive is not None
        if connection.hello is not None and (peer := self._peers.get(connection.hello.sender)) is not None:
            peer.last_received_us = connection.received_us
        if self._filters is not None and self._filters.receiving:
            for group, message in messages:
                self._filters.receive(group, message, self._filtered_in)
            return
        receive = self._receive
        for group, message in messages:
            receive(group, message)

    def refused(self, connection: IncomingConnection, error: Exception) -> None:
        if isinstance(error, Rejected):
            reason = "rejected"
        else:
            reason = "oversized" if isinstance(error, OversizedFrame) else "malformed"
        self.refusals[reason] += 1
        if isinstance(error, Rejected) and error.refusal is Refusal.STRANGER and error.sender is not None:
            self._on_stranger(error.sender)
        self._report(f"a connection from {connection.address} is refused: {error}")

    def closed(self, connection: IncomingConnection) -> None:
        self._connections.pop(connection, None)
        if connection.hello is not None and (peer := self._peers.get(connection.hello.sender)) is not None:
            peer.bytes_received += connection.bytes_received


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port"; raises ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdecimal() or int(port) > 65535 or (":" in host and host == bare):
        raise ValueError(f"{address!r} is no address: give host:port, such as 127.0.0.1:7001 or [::1]:7001")
    return bare, int(port)
