"""What only hand-framed TCP has: bytes cut anywhere, sockets that listen already, addresses."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvloop
from raw_callers import call, frame_of, hello
from wired_nodes import terms

from seatrial.raft.ids import NodeId
from seatrial.transport import parse_address
from seatrial.transport.codec import PING, WELCOME, pack_frame
from seatrial.transport.framed import FramedOutgoing, FramedWire


@pytest.mark.slow
def test_frames_split_at_every_byte_arrive_whole(framed_nodes: Any) -> None:
    """Each split of the stream in two, and the stream in single bytes."""

    nodes = framed_nodes

    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        stream = hello() + frame_of(nodes.vote(1)) + frame_of(nodes.append(3, b"x" * 40)) + frame_of(nodes.beat(2))
        splits = [[stream[:at], stream[at:]] for at in range(1, len(stream))]
        for parts in [*splits, [stream[i : i + 1] for i in range(len(stream))]]:
            nodes.received[2].clear()
            _, writer = await asyncio.open_connection(*parse_address(target.address))
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            await nodes.until(lambda: len(nodes.received[2]) == 3, "three messages")
            assert terms(nodes.received[2]) == [1, 1, 2]
            writer.close()

    nodes.run(scenario())


def test_connections_have_no_delay(framed_nodes: Any) -> None:
    nodes = framed_nodes

    async def scenario() -> None:
        first, _ = await nodes.pair()
        connection = first.client.peer(NodeId(2)).messages._connection._transport
        option = connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option == 1

    nodes.run(scenario())


def test_a_listening_socket_may_be_handed_over(framed_nodes: Any) -> None:
    nodes = framed_nodes

    async def scenario() -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        target = await nodes.start(2, {1: "127.0.0.1:1"}, listen=listening)
        caller = await call(nodes, target.address)
        await caller.send(hello() + pack_frame(PING, b""))
        assert (await caller.answer())[0] == WELCOME

    nodes.run(scenario())


@pytest.mark.parametrize("address", ["", "host", "host:", ":7001", "host:x", "host:70000", "::1:7001", "h:-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        parse_address(address)


def test_addresses_of_both_families_are_understood() -> None:
    assert parse_address("127.0.0.1:7001") == ("127.0.0.1", 7001)
    assert parse_address("node-1.local:0") == ("node-1.local", 0)
    assert parse_address("[::1]:7001") == ("::1", 7001)


class Link:
    """What hears of the connection's life."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.address = address
        self.begun: list[FramedOutgoing] = []
        self.ended: list[FramedOutgoing] = []
        self.dialling: asyncio.Task[Any] | None = None

    def made(self, connection: FramedOutgoing) -> None:
        self.begun.append(connection)
        if self.dialling is not None:
            self.dialling.cancel()

    def lost(self, connection: FramedOutgoing, error: Exception | None) -> None:
        self.ended.append(connection)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_is_written_to_a_connection_that_just_ended_is_dropped(new_loop: Any) -> None:
    """uvloop raised, in the middle of what a node does for all its groups: their timers were not set any more."""

    async def scenario() -> None:
        loop, link = asyncio.get_running_loop(), Link()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        connection = FramedOutgoing(link)  # type: ignore[arg-type]
        await loop.create_connection(lambda: connection, *server.sockets[0].getsockname())
        connection.abort()
        while connection not in link.ended:
            connection.write([PING])
            await asyncio.sleep(0)
        connection.write([PING])
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_made_in_the_turn_in_which_its_dialling_ends_is_lost_once(new_loop: Any) -> None:
    """As by a deadline that falls due then; uvloop closes the socket and says so to nobody."""

    async def scenario() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        link = Link(server.sockets[0].getsockname())
        link.dialling = asyncio.create_task(FramedWire().connect(link))  # type: ignore[arg-type]
        with pytest.raises(asyncio.CancelledError):
            await link.dialling
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(link.begun) == 1
        assert link.ended == link.begun
        server.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 10))
