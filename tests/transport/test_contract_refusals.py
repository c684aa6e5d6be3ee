"""Contract of every transport: who does not belong here, or breaks the protocol, loses its connection and no more."""

from __future__ import annotations

from typing import Any

import pytest
from raw_callers import call, frame_of, hello
from wired_nodes import GROUP, Nodes, terms

from seatrial.raft.ids import NodeId
from seatrial.transport import make_wire
from seatrial.transport.codec import FRAME_HEADER, HELLO, REJECT, WELCOME, pack_frame


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "other"}, "node 1 belongs to cluster 'other'; this is cluster 'test'"),
        ({"node": 3}, "node 3 is not known to node 2"),
        ({"calls": 9}, "node 1 looks for node 9; this is node 2"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(nodes: Any, options: dict[str, Any], words: str) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        calls = options.get("calls", 2)
        stranger = await nodes.start(options.get("node", 1), {calls: target.address}, options.get("cluster", "test"))
        stranger.send(GROUP, [nodes.vote(1, to=calls)])
        await nodes.until(lambda: words in str(stranger.peers()[NodeId(calls)].last_error), "the reason")
        assert not stranger.peers()[NodeId(calls)].connected
        assert nodes.received[2] == []
        assert target.refusals["rejected"] >= 1
        assert any(words in report for report in nodes.reports)

    nodes.run(scenario())


def test_wrong_protocol_version_is_refused(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        caller = await call(nodes, target.address)
        newer = bytearray(hello())
        newer[8 + 8] = 99
        await caller.send(bytes(newer))
        kind, reason = await caller.answer()
        assert kind == REJECT
        assert b"version 99" in reason

    nodes.run(scenario())


@pytest.mark.slow
def test_a_rejected_caller_that_does_not_hang_up_is_cut_off(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"}, dead_after_s=0.3)
        caller = await call(nodes, target.address)
        await caller.send(hello(cluster="other") + frame_of(nodes.vote(1)))
        assert (await caller.answer())[0] == REJECT
        await caller.ends()
        assert nodes.received[2] == []

    nodes.run(scenario())


@pytest.mark.slow
def test_a_caller_that_says_nothing_is_cut_off(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"}, dead_after_s=0.3)
        caller = await call(nodes, target.address)
        await caller.send(hello()[:-1])
        await caller.ends()

    nodes.run(scenario())


GARBAGE = {
    "no hello": (b"", frame_of),
    "http": (b"GET / HTTP/1.1\r\n\r\n", None),
    "a second hello": (hello() + hello(), None),
    "an unknown kind": (hello() + pack_frame(200, b"abc"), None),
    "a nonzero reserved byte": (hello() + b"\0\0\0\0\x20\0\0\x01", None),
    "a broken body": (hello() + pack_frame(32, b"abc"), None),
    "hello of another magic": (pack_frame(HELLO, b"Seatrail" + bytes(30)), None),
    "a welcome": (pack_frame(WELCOME, b""), None),
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_corrupt_frames_close_only_that_connection(nodes: Any, name: str) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        second.add_peer(NodeId(3), "127.0.0.1:1")
        sent = GARBAGE[name][0] or frame_of(nodes.vote(1))
        caller = await call(nodes, second.address)
        await caller.send(sent.replace(hello(), hello(sender=3)))
        await caller.ends()
        assert second.refusals["malformed"] == 1
        first.send(GROUP, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the other connection to go on")
        assert terms(nodes.received[2]) == [42]
        assert first.peers()[NodeId(2)].last_error is None

    nodes.run(scenario())


def test_oversized_frames_close_only_that_connection(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair(frame_bytes_max=1000)
        second.add_peer(NodeId(3), "127.0.0.1:1")
        caller = await call(nodes, second.address)
        await caller.send(hello(sender=3) + FRAME_HEADER.pack(1001, 16))
        await caller.ends()
        assert second.refusals == {"oversized": 1}
        # And this side never sends one.
        first.send(GROUP, [nodes.append(1, bytes(2000)), nodes.append(2, bytes(500))])
        await nodes.until(lambda: nodes.received[2], "the smaller one")
        assert [m.entries[0].index for _, m in nodes.received[2]] == [2]
        status = first.peers()[NodeId(2)]
        assert status.messages_dropped == 1
        assert "AppendEntries" in str(status.last_error)

    nodes.run(scenario())


def test_half_a_frame_is_never_delivered(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        second.add_peer(NodeId(3), "127.0.0.1:1")
        for at in (3, 8, 20, 50_000):
            caller = await call(nodes, second.address)
            await caller.send(hello(sender=3) + frame_of(nodes.append(1, bytes(100_000)))[:at])
            await caller.answer()
            await caller.close()
        first.send(GROUP, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the whole one")
        assert terms(nodes.received[2]) == [42]

    nodes.run(scenario())


PAIRS = [("framed", "grpc"), ("grpc", "framed")]


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "listens"), PAIRS, ids=lambda name: name)
def test_the_other_transport_is_told_apart_and_both_sides_say_so(calls: str, listens: str) -> None:
    nodes = Nodes(listens)

    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        stranger = await nodes.start(1, {2: target.address}, wire=make_wire(calls))

        def caller_says() -> bool:
            return any("node 2 at" in line and "same --transport" in line for line in nodes.reports)

        await nodes.until(caller_says, f"the caller's report; {nodes.reports}")
        assert not stranger.peers()[NodeId(2)].connected
        assert stranger.peers()[NodeId(2)].last_error
        if listens == "framed":
            told = [line for line in nodes.reports if "is refused" in line]
            assert "it speaks HTTP/2, as a node with --transport grpc does" in told[0]
        assert sum("node 2 at" in line for line in nodes.reports) == 1, "once, and not for each call"

    nodes.run(scenario())
