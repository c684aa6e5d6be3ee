"""What members say to each other apart from Raft: that they are here, and who a stranger is.

Two followers of the same leaders have nothing to say to each other, and would not know whether the other one is up:
so each greets all its peers now and then.  With its greeting it says which shards of consumer groups it leads, for
those that have no replica of them and are asked where a group is; and that its disk is nearly full, where it is.

A node that was away while others joined knows them only when it has caught up with the metadata, and it may be one of
them that leads the metadata now: it would refuse the only node that could tell it.  So it asks its other peers, who
answer from their metadata, and from then on it hears the stranger too.
Rule: only a peer's word introduces anybody; who was removed is introduced by nobody.  Best effort: the stranger calls
again, and is asked about again.
Knows nothing of Raft groups: what is said travels as forwarded commands of a group that is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from seatrial.machines.metadata import MetadataMachine
from seatrial.marks import reached
from seatrial.raft.ids import GroupId, NodeId, Term
from seatrial.raft.messages import ForwardProposal, Message
from seatrial.transport.base import Transport

INTRODUCTIONS: Final = GroupId(3)  # not a Raft group: ids below the first partition's are the cluster's own
ASK_AGAIN_US: Final = 500_000


class Introductions:
    """Both sides of it, for one node."""

    def __init__(
        self,
        node_id: NodeId,
        transport: Transport,
        metadata: MetadataMachine,
        now_us: Callable[[], int],
        add_peer: Callable[[NodeId, str, int], None],
        *,
        led: Callable[[], list[tuple[int, int]]] = list,
        leads: Callable[[NodeId, int, int], None] = lambda node, shard, term: None,
        disk: Callable[[], str] = str,
        greeted: Callable[[NodeId, str], None] = lambda node, disk: None,
    ) -> None:
        """`led`: (shard, term) of what this node leads and others cannot know; `leads`: told so of another node.
        `disk`: what is to be said of this node's disk, "" where there is nothing; `greeted`: told so of another."""
        self._node_id = node_id
        self._transport = transport
        self._metadata = metadata
        self._now_us = now_us
        self._add_peer = add_peer
        self._led = led
        self._leads = leads
        self._disk = disk
        self._greeted = greeted
        self._asked_us: dict[NodeId, int] = {}

    def greet(self) -> None:
        """Whoever hears it takes this node for alive; there is no answer."""
        led, disk = self._led(), self._disk()
        said: dict[str, object] = {"leads": led} if led else {}
        if disk:
            said["disk"] = disk
        for peer in self._transport.peers():
            self._say(peer, said)

    def stranger(self, node: NodeId) -> None:
        """A node that this one does not know was refused."""
        now_us = self._now_us()
        if now_us - self._asked_us.get(node, -ASK_AGAIN_US) < ASK_AGAIN_US:
            return
        self._asked_us[node] = now_us
        for peer in self._transport.peers():
            self._say(peer, {"who": node})

    def receive(self, message: Message) -> None:
        """A question or an answer of a peer; anything else is ignored."""
        try:
            said = json.loads(message.data) if isinstance(message, ForwardProposal) else None
            if not isinstance(said, dict):
                return
            if "who" in said:
                self._answer(message.sender, NodeId(int(said["who"])))
            elif "is" in said:
                self._introduced(NodeId(int(said["is"])), str(said["at"]), int(said["directory"]))
            else:
                self._greeted(message.sender, str(said.get("disk", "")))
                for shard, term in said.get("leads", ()):
                    self._leads(message.sender, int(shard), int(term))
        except (ValueError, TypeError, KeyError):
            return

    def _answer(self, peer: NodeId, asked: NodeId) -> None:
        node = self._metadata.nodes.get(asked)
        if node is not None and asked != peer:
            self._say(peer, {"is": asked, "at": node.raft_address, "directory": node.directory})

    def _introduced(self, node: NodeId, address: str, directory: int) -> None:
        if node != self._node_id and node not in self._metadata.removed and node not in self._transport.peers():
            reached("a member was introduced by another one, because the metadata here was behind")
            self._add_peer(node, address, directory)

    def _say(self, peer: NodeId, what: dict[str, object]) -> None:
        data = json.dumps(what).encode()
        self._transport.send(INTRODUCTIONS, [ForwardProposal(self._node_id, peer, Term(0), data)])
