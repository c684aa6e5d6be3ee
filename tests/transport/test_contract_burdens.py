"""Peers, and who says to be one, that are a burden: half frames, too many connections, answers that nobody takes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc.aio
import pytest
from raw_callers import call, frame_of, hello

from seatrial import marks
from seatrial.env import RealClock
from seatrial.raft.ids import NodeId
from seatrial.transport import Limits
from seatrial.transport.codec import FRAME_HEADER, PING, pack_frame
from seatrial.transport.framed import FramedIncoming
from seatrial.transport.service import RaftService


@pytest.mark.slow
def test_a_frame_that_does_not_come_to_its_end_costs_its_connection_and_no_other(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair(frame_s_max=0.3)
        second.add_peer(NodeId(3), "127.0.0.1:1")
        whole = frame_of(nodes.append(1, bytes(100_000)))
        for cut in (3, 500):
            caller = await call(nodes, second.address)
            await caller.send(hello(sender=3) + whole[:cut])
            await caller.ends()
        assert second.refusals["overdue"] == 2
        assert any(f"of a frame there are {500 - FRAME_HEADER.size} bytes" in line for line in nodes.reports)
        first.send(5, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the other connection to go on")

    nodes.run(scenario())


@pytest.mark.slow
def test_strangers_have_room_for_each_other_alone_and_never_push_a_peer_out(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair(connections_max=4, dead_after_s=30.0)
        marks.taken()
        strangers = [await call(nodes, second.address) for _ in range(12)]
        for stranger in strangers:
            with contextlib.suppress(ConnectionError, grpc.RpcError, asyncio.InvalidStateError):  # it may have ended
                await stranger.send(hello(sender=9)[:10])
        await nodes.until(lambda: second.refusals["too many"] >= 8, "all but four to be ended")
        assert marks.taken()["there were too many connections from peers"] >= 8
        assert len(second.service.connections) <= 4
        first.send(5, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the peer that was there first to be heard")
        assert first.peers()[NodeId(2)].last_error is None
        assert sum("--raft-max-connections" in line for line in nodes.reports) == 1, "told, and not for each of them"

    nodes.run(scenario())


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.us = 1_000_000

    def now_us(self) -> int:
        return self.us

    def wall_ms(self) -> int:
        return 0


class Socket:
    """A transport whose other side takes nothing."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 7)

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


def incoming(clock: Any, **limits: Any) -> tuple[FramedIncoming, Socket, RaftService]:
    service = RaftService(NodeId(2), "test", clock=clock, limits=Limits(**limits))
    service.allow(NodeId(1))
    connection, socket = FramedIncoming(service), Socket()
    connection.connection_made(socket)  # type: ignore[arg-type]
    connection.feed(hello())
    assert connection.hello is not None
    return connection, socket, service


def test_a_slow_link_may_take_its_time_as_long_as_it_moves() -> None:
    clock = Clock()
    connection, socket, service = incoming(clock, frame_s_max=60.0)
    connection.feed(FRAME_HEADER.pack(1 << 20, 16))
    for _ in range(300):  # five minutes at two KiB a second
        clock.us += 1_000_000
        connection.feed(bytes(2048))
        service.check_connections()
    assert not socket.is_aborted
    for _ in range(1200):
        clock.us += 1_000_000
        connection.feed(b"\0")
        service.check_connections()
    assert socket.is_aborted, "a byte a second is no link"


def test_a_frame_is_not_held_to_the_time_of_the_one_before() -> None:
    clock = Clock()
    connection, socket, service = incoming(clock, frame_s_max=60.0)
    ping = pack_frame(PING, b"")
    connection.feed(ping[:3])
    for _ in range(100):
        clock.us += 1_000_000
        service.check_connections()
        if clock.us % 10_000_000 == 0:
            connection.feed(ping[3:] + ping[:3])
    assert not socket.is_aborted
    marks.taken()
    clock.us += 61_000_000
    service.check_connections()
    assert socket.is_aborted
    assert marks.taken() == {"a peer was waited for long enough": 1}


def test_a_peer_that_takes_none_of_its_answers_is_hung_up_on() -> None:
    connection, socket, service = incoming(RealClock(), unread_bytes_max=10_000)
    pings = pack_frame(PING, b"") * 1000
    marks.taken()
    while not socket.is_aborted:
        assert len(socket.written) < 20_000
        connection.feed(pings)
    assert len(socket.written) >= 10_000, "what a peer is late to take is kept for it"
    assert service.refusals == {"malformed": 1}
    assert marks.taken() == {"a peer took none of the answers to it": 1}
