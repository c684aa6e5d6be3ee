"""Who vouches for a member that is not known here: peers alone, for members alone, and not for removed ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from seatrial.machines.metadata import ForgetNode, MetadataMachine, RegisterNode, RemoveNode, encode_command
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import COMMAND, Entry, ForwardProposal, Message, TimeoutNow
from seatrial.server.introductions import INTRODUCTIONS, Introductions
from seatrial.transport.base import PeerStatus


class Line:
    """The transport's part that introductions use: what was said to whom."""

    def __init__(self, *peers: int) -> None:
        self.known = [NodeId(peer) for peer in peers]
        self.said: list[tuple[int, object]] = []

    async def start(self, receive: object) -> None: ...

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        assert group == INTRODUCTIONS
        for message in messages:
            assert isinstance(message, ForwardProposal)
            self.said.append((message.to, json.loads(message.data)))

    def add_peer(self, peer: NodeId, address: str, *, directory: int = 0) -> None: ...

    def remove_peer(self, peer: NodeId, *, for_good: bool = False) -> None: ...

    def peers(self) -> Mapping[NodeId, PeerStatus]:
        return dict.fromkeys(self.known)  # type: ignore[arg-type]

    async def close(self) -> None: ...


class Scene:
    """Node 1, whose metadata knows nodes 1 to 3, and that 3 was removed where `removed`."""

    def __init__(self, *peers: int, removed: bool = False) -> None:
        self.line = Line(*peers)
        self.metadata = MetadataMachine()
        self.now_us = 0
        self.added: list[tuple[int, str, int]] = []
        commands: list[object] = [RegisterNode(n, f"r{n}:1", "k", 1, "h", directory=n * 11) for n in (1, 2, 3)]
        if removed:
            commands += [RemoveNode(3), ForgetNode(3)]
        for index, command in enumerate(commands, 1):
            encoded = encode_command(command, request_id=bytes(16))  # type: ignore[arg-type]
            self.metadata.apply(Entry(Term(1), Index(index), COMMAND, encoded))
        self.introductions = Introductions(
            NodeId(1), self.line, self.metadata, lambda: self.now_us, lambda *peer: self.added.append(peer)
        )

    def hear(self, sender: int, data: bytes) -> None:
        self.introductions.receive(ForwardProposal(NodeId(sender), NodeId(1), Term(0), data))


def test_all_peers_are_asked_about_a_stranger_but_not_again_and_again() -> None:
    scene = Scene(2, 3)
    scene.introductions.stranger(NodeId(9))
    scene.introductions.stranger(NodeId(9))
    assert scene.line.said == [(2, {"who": 9}), (3, {"who": 9})]
    scene.now_us += 500_000
    scene.introductions.stranger(NodeId(9))
    assert len(scene.line.said) == 4


def test_a_greeting_goes_to_all_peers_and_asks_for_nothing() -> None:
    scene = Scene(2, 3)
    scene.introductions.greet()
    assert scene.line.said == [(2, {}), (3, {})]
    scene.hear(2, b"{}")
    assert (len(scene.line.said), scene.added) == (2, [])


def test_members_are_vouched_for_and_others_are_not() -> None:
    scene = Scene(2)
    for asked in (3, 9, 2):
        scene.hear(2, b'{"who": %d}' % asked)
    assert scene.line.said == [(2, {"is": 3, "at": "r3:1", "directory": 33})]
    assert not Scene(2, removed=True).metadata.nodes.get(NodeId(3))


def test_who_is_introduced_becomes_a_peer_unless_it_is_one_or_was_removed() -> None:
    scene = Scene(2)
    scene.hear(2, b'{"is": 9, "at": "r9:1", "directory": 99}')
    scene.hear(2, b'{"is": 2, "at": "r2:1", "directory": 22}')
    scene.hear(2, b'{"is": 1, "at": "r1:1", "directory": 11}')
    assert scene.added == [(9, "r9:1", 99)]
    gone = Scene(2, removed=True)
    gone.hear(2, b'{"is": 3, "at": "r3:1", "directory": 33}')
    assert gone.added == []


def test_what_makes_no_sense_is_ignored() -> None:
    scene = Scene(2)
    for data in (b"", b"{", b"[]", b"7", b'{"who": "x"}', b'{"is": 9}', b'{"is": 9, "at": "r", "directory": null}'):
        scene.hear(2, data)
    scene.introductions.receive(TimeoutNow(NodeId(2), NodeId(1), Term(1)))
    assert (scene.line.said, scene.added) == ([], [])


def test_a_greeting_says_which_shards_a_node_leads_where_others_cannot_know() -> None:
    scene, heard = Scene(2, 3), list[tuple[int, int, int]]()
    led = [(0, 7), (2, 5)]
    talker = Introductions(
        NodeId(1), scene.line, scene.metadata, lambda: 0, lambda *peer: None, led=lambda: led, leads=lambda *said: None
    )
    talker.greet()
    assert scene.line.said == [(2, {"leads": [[0, 7], [2, 5]]}), (3, {"leads": [[0, 7], [2, 5]]})]
    listener = Introductions(
        NodeId(2), scene.line, scene.metadata, lambda: 0, lambda *peer: None, leads=lambda *said: heard.append(said)
    )
    for data in (scene.line.said[0][1], {"leads": [5]}, {"leads": [["x", 1]]}, {"leads": None}):
        listener.receive(ForwardProposal(NodeId(1), NodeId(2), Term(0), json.dumps(data).encode()))
    assert heard == [(1, 0, 7), (1, 2, 5)]
