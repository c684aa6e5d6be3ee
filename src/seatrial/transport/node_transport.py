"""One node's transport: a RaftClient and a RaftService of one cluster, on one wire.

In order for each peer, except that heartbeats go before other messages of the same turn, and chunks of snapshots
have an order of their own; Raft asks for neither.
Rule: as in `base`: nothing blocks, nothing raises, what cannot be sent is dropped and counted.
Knows nothing of what messages mean.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from seatrial.env import Clock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Message
from seatrial.transport.address import parse_address
from seatrial.transport.base import PeerStatus
from seatrial.transport.client import RaftClient
from seatrial.transport.handshake import Rejected
from seatrial.transport.limits import Limits
from seatrial.transport.pool import LinkPool
from seatrial.transport.service import RaftService
from seatrial.transport.wire import Wire

if TYPE_CHECKING:
    from seatrial.transport.filters.filter_set import FilterSet


class NodeTransport:
    """Implements Transport.

    `listen` is "host:port" (port 0: any; see `address`) or a socket that is bound; `peers` maps ids to "host:port".
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
        wire: Wire,
        *,
        listen: str | socket.socket,
        peers: Mapping[NodeId, str],
        clock: Clock,
        rng: Rng,
        limits: Limits | None = None,
        report: Callable[[str], None] = lambda sentence: None,
        directory: int = 0,
        on_rejected: Callable[[NodeId, Rejected], None] = lambda peer, rejected: None,
        on_stranger: Callable[[NodeId], None] = lambda node: None,
    ) -> None:
        self._node_id, self._wire, self._clock = node_id, wire, clock
        self._listen = parse_address(listen) if isinstance(listen, str) else listen
        self._filters: FilterSet | None = None
        pool = LinkPool(
            node_id,
            cluster_id,
            wire,
            clock=clock,
            rng=rng,
            limits=limits,
            directory=directory,
            report=report,
            on_rejected=on_rejected,
        )
        self.client = RaftClient(pool, lazy=False)
        self.service = RaftService(
            node_id,
            cluster_id,
            clock=clock,
            limits=limits,
            report=report,
            on_call=self.client.kick,
            on_stranger=on_stranger,
        )
        self._pool = pool
        pool.on_check = self.service.check_connections
        self._to_add: dict[NodeId, str] | None = dict(peers)  # None: started
        for address in peers.values():
            parse_address(address)

    @property
    def address(self) -> str:
        """Where this node listens, once started."""
        return self.service.address

    @property
    def refusals(self) -> Counter[str]:
        """Connections ended by this side, by the kind of reason (`RaftService`)."""
        return self.service.refusals

    @property
    def filters(self) -> FilterSet:
        """For tests: message filters, none of which is attached at first."""
        if self._filters is None:
            from seatrial.transport.filters.filter_set import FilterSet  # nodes that serve should not wait for it

            self._filters = FilterSet(self._clock.now_us, self._call_later)
            self.service.inbound = self._filter_in
        return self._filters

    async def start(self, receive: Callable[[GroupId, Message], None]) -> None:
        assert self._to_add is not None, "started twice"
        await self.service.start(self._wire, self._listen, receive)
        to_add, self._to_add = self._to_add, None
        for peer, address in to_add.items():
            self.add_peer(peer, address)
        self._pool.start()

    async def close(self) -> None:
        self.service.stop()
        for peer in list(self.client.peers()):
            self.remove_peer(peer)
        await self.client.close()
        await self.service.close()

    # Peers.

    def add_peer(self, peer: NodeId, address: str, *, directory: int = 0) -> None:
        """Dial it from now on, and accept its connections.  A known peer's address is replaced.

        `directory`, where it is not 0: accept it only with that data directory.
        """
        parse_address(address)
        if self._to_add is not None:
            self.service.allow(peer, directory=directory)
            self._to_add[peer] = address
            return
        known = self.client.peer(peer)
        if known is not None and known.address != address:
            self.remove_peer(peer)
        self.service.allow(peer, directory=directory)
        self.client.add_peer(peer, address)

    def remove_peer(self, peer: NodeId, *, for_good: bool = False) -> None:
        """Hang up both ways and refuse it from now on; `for_good`: and tell it so whenever it calls."""
        if self._to_add is not None:
            self._to_add.pop(peer, None)
        self.client.remove_peer(peer)
        self.service.refuse(peer, for_good=for_good)

    def peers(self) -> Mapping[NodeId, PeerStatus]:
        return self.client.peers(self.service.received_from())

    # Messages.

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        if self._filters is not None and self._filters.sending:
            for message in messages:
                self._filters.send(group, message, self._filtered)
        else:
            self.client.send(group, messages)

    def flush(self) -> None:
        self.client.flush()

    def _filtered(self, group: int, message: Message) -> None:
        """What a filter made may be meant for another node than the message that it saw: for this one, too."""
        if message.to != self._node_id:
            self.client.queue(GroupId(group), message)
        else:
            asyncio.get_running_loop().call_soon(self.service.deliver, GroupId(group), message)

    def _filter_in(self, group: GroupId, message: Message) -> None:
        if self._filters is not None and self._filters.receiving:
            self._filters.receive(group, message, self._filtered_in)
        else:
            self.service.deliver(group, message)

    def _filtered_in(self, group: int, message: Message) -> None:
        if message.to != self._node_id:
            self.client.queue(GroupId(group), message)
        elif self.service.hears(message.sender):  # which it may no longer do, if the message was late
            self.service.deliver(GroupId(group), message)

    @staticmethod
    def _call_later(delay_us: int, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_us / 1e6, callback)
