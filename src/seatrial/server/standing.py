"""Whether this node is a member of its cluster, and who else is: whom it dials, whom it hears, and when it must go.

Rule: who was removed takes part in nothing from the moment it hears of it; a node whose directory was lost never takes
part in place.  The other members' addresses are kept by a snapshot of the metadata, so that a node that knows them from
nobody's command line finds them again after a start.
Knows nothing of how members are changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from seatrial.machines.metadata import NodeState
from seatrial.marks import reached
from seatrial.raft.ids import NodeId
from seatrial.server.broker import Broker
from seatrial.server.config import ServerConfig
from seatrial.server.directory import Directory
from seatrial.server.errors import StartError
from seatrial.server.reconfiguration import takes_part
from seatrial.transport.base import Transport
from seatrial.transport.handshake import Refusal, Rejected

REMEMBER_AGAIN_S: Final = 0.5


class Standing:
    """One node's membership, as it knows it itself."""

    def __init__(
        self,
        config: ServerConfig,
        directory: Directory,
        transport: Transport,
        broker: Broker,
        loop: asyncio.AbstractEventLoop,
        *,
        on_fatal: Callable[[StartError], None],
        on_removed: Callable[[str], None],
    ) -> None:
        self.removed: str | None = None  # why this node is no member any more
        self._config = config
        self._directory = directory
        self._transport = transport
        self._broker = broker
        self._loop = loop
        self._on_fatal = on_fatal
        self._on_removed = on_removed
        self._remembered: set[object] = set()

    def is_member(self) -> bool:
        """As far as it knows: some leader has told it that it takes part."""
        return takes_part(self._broker.metadata_replica.node.configuration, self._config.node_id)

    def why_outside(self) -> str | None:
        """Why it serves nobody; None for a member."""
        if self.removed is not None:
            return f"this node is no member any more: {self.removed}"
        if self.is_member():
            return None
        known = self._broker.metadata.nodes.get(self._config.node_id)
        if known is not None and known.state == NodeState.LEAVING:
            return "this node has left, and waits to be forgotten"
        return "this node has not joined yet"

    def add_peer(self, peer: NodeId, address: str, directory: int = 0) -> None:
        """Who is named in --peers is dialled there: the address may lead through something that is this node's own."""
        if self.removed is None:
            self._transport.add_peer(peer, self._config.peers.get(peer, address), directory=directory)

    def nodes_changed(self) -> None:
        """Dial new members, hang up on removed ones; to be called when the metadata has changed."""
        metadata, me, peers = self._broker.metadata, self._config.node_id, self._config.peers
        if self.removed is not None:
            return
        if me in metadata.removed:
            self.leave(f"node {me} was removed from cluster {self._config.cluster_id!r}")
            return
        for node_id in sorted(metadata.nodes):
            node = metadata.nodes[node_id]
            if node_id != me:
                address = node.raft_address if node.joined else peers.get(node_id, node.raft_address)
                if not address:
                    continue  # of a founder that never came up, and is being removed: nobody here ever knew it
                self._transport.add_peer(node_id, address, directory=node.directory)
        for node_id in sorted(metadata.removed):
            self._transport.remove_peer(node_id, for_good=True)
        # What --peers does not say has to be known at the next start before anybody is heard.
        named = [node for node in metadata.nodes.values() if node.joined or self._directory.joined]
        known: set[object] = {(node.node_id, node.raft_address) for node in named}
        known.update(metadata.removed)
        if known != self._remembered:
            self._remembered = known
            self._remember()

    def _remember(self) -> None:
        replica = self._broker.metadata_replica
        meta = replica.storage.snapshot_meta
        if replica.closed or (meta is not None and meta.last_included_index >= replica.last_applied):
            return
        if not replica.make_snapshot():
            self._loop.call_later(REMEMBER_AGAIN_S, self._remember)

    def rejected(self, peer: NodeId, rejected: Rejected) -> None:
        """A peer will not talk to this node."""
        if rejected.refusal == Refusal.REMOVED:
            self.leave(str(rejected))
        elif rejected.refusal == Refusal.DIRECTORY:
            reached("a node was told that it had lost its data directory")
            me = self._config.node_id
            text = (
                f"node {peer} knows node {me} by another data directory, so what this node had promised is lost: it "
                f"must not come back in place; start it with a new --node-id and --join, then "
                f"`seatrial members replace {me} NEW-ID`"
            )
            self._on_fatal(StartError(16, text))

    def leave(self, reason: str) -> None:
        """No member any more."""
        if self.removed is not None:
            return
        self.removed = reason
        reached("a node heard that it had been removed")
        for peer in list(self._transport.peers()):
            self._transport.remove_peer(peer)
        self._on_removed(reason)
