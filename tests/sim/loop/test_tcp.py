"""Bytes of a living connection arrive once and in order whatever is done to the links; dead ones end as TCP's do."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.sim import Network, SimNetwork, World, run
from seatrial.sim.links import IMPOSABLE
from seatrial.sim.tcp import WINDOW_BYTES

PORT = 7000


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(handle: Any = echo) -> None:
    server = await asyncio.start_server(handle, "0.0.0.0", PORT)
    await server.serve_forever()


async def ask(text: bytes, host: str = "b") -> bytes:
    reader, writer = await asyncio.open_connection(host, PORT)
    writer.write(text)
    answer = await reader.readexactly(len(text))
    writer.close()
    await writer.wait_closed()
    return answer


class Recorder(asyncio.Protocol):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.received = bytearray()
        self.pieces: list[int] = []
        self.error: BaseException | None = None
        self.transport: Any = None
        self.keep_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(len(data))
        if self.told[-1] != "data":
            self.told.append("data")

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self.told.append("lost")


def connected(pair: Any) -> tuple[Recorder, Recorder]:
    """A connection from `a` to `b`: both protocols."""
    served: list[Recorder] = []

    def factory() -> Recorder:
        served.append(Recorder())
        return served[-1]

    async def listen() -> None:
        await asyncio.get_running_loop().create_server(factory, "0.0.0.0", PORT)

    async def dial() -> Recorder:
        _, protocol = await asyncio.get_running_loop().create_connection(Recorder, "b", PORT)
        return protocol

    pair.run(listen(), on=pair.b)
    client = pair.run(dial())
    later(pair, 10_000)
    return client, served[0]


def later(pair: Any, microseconds: int) -> None:
    run(pair.world, pair.world.now_us + microseconds)


def test_streams_talk_by_name(pair: Any) -> None:
    pair.b.spawn(serve())
    later(pair, 1_000)
    assert pair.run(ask(b"hello" * 10_000)) == b"hello" * 10_000


def test_a_host_talks_to_itself(pair: Any) -> None:
    pair.a.spawn(serve())
    later(pair, 1_000)
    assert pair.run(ask(b"hello", "localhost")) == b"hello"


def test_addresses_are_those_of_the_hosts(pair: Any) -> None:
    client, served = connected(pair)
    assert client.transport.get_extra_info("peername") == (pair.b.address, PORT)
    assert served.transport.get_extra_info("peername") == client.transport.get_extra_info("sockname")
    assert client.transport.get_extra_info("socket").getpeername()[1] == PORT


def test_a_port_where_nobody_listens_refuses(pair: Any) -> None:
    with pytest.raises(ConnectionRefusedError):
        pair.run(ask(b"x"))


def test_a_port_bound_to_loopback_refuses_others(pair: Any) -> None:
    async def listen() -> None:
        await asyncio.start_server(echo, "127.0.0.1", PORT)

    pair.run(listen(), on=pair.b)
    with pytest.raises(ConnectionRefusedError):
        pair.run(ask(b"x"))


def test_a_port_in_use_cannot_be_bound_and_a_closed_one_can(pair: Any) -> None:
    async def listen() -> None:
        first = await asyncio.start_server(echo, "0.0.0.0", PORT)
        with pytest.raises(OSError, match="in use") as caught:
            await asyncio.start_server(echo, "0.0.0.0", PORT)
        assert caught.value.errno == errno.EADDRINUSE
        first.close()
        await first.wait_closed()
        second = await asyncio.start_server(echo, "0.0.0.0", PORT)
        assert second.sockets[0].getsockname() == (pair.b.address, PORT)

    pair.run(listen(), on=pair.b)


def test_a_half_closed_connection_still_carries_the_answer(pair: Any) -> None:
    client, served = connected(pair)
    served.keep_open = True
    client.transport.write(b"question")
    client.transport.write_eof()
    later(pair, 10_000)
    assert served.told == ["made", "data", "eof"]
    served.transport.write(b"answer")
    served.transport.close()
    later(pair, 10_000)
    assert client.received == b"answer"
    assert client.told == ["made", "data", "eof", "lost"]
    assert client.error is served.error is None


def test_closing_sends_what_was_written_first(pair: Any) -> None:
    client, served = connected(pair)
    text = b"x" * (3 * WINDOW_BYTES)
    client.transport.write(text)
    client.transport.close()
    assert client.told == ["made", "pause"]
    later(pair, 100_000)
    assert served.received == text
    assert client.told[-1] == served.told[-1] == "lost"
    assert client.error is served.error is None


def test_a_writer_is_held_back_until_the_reader_reads(pair: Any) -> None:
    client, served = connected(pair)
    served.transport.pause_reading()
    for _ in range(16):
        client.transport.write(b"x" * (WINDOW_BYTES // 8))
    later(pair, 1_000_000)
    assert client.told == ["made", "pause"]
    assert len(served.received) == 0
    assert client.transport.get_write_buffer_size() >= WINDOW_BYTES // 2
    served.transport.resume_reading()
    later(pair, 1_000_000)
    assert client.told == ["made", "pause", "resume"]
    assert len(served.received) == 2 * WINDOW_BYTES


def test_an_aborted_connection_is_reset_at_the_other_side(pair: Any) -> None:
    client, served = connected(pair)
    client.transport.abort()
    later(pair, 10_000)
    assert client.error is None
    assert isinstance(served.error, ConnectionResetError)


def test_what_is_sent_to_a_closed_end_is_answered_by_a_reset(pair: Any) -> None:
    client, served = connected(pair)
    client.keep_open = True
    served.transport.close()
    later(pair, 10_000)
    assert client.told == ["made", "eof"]
    client.transport.write(b"too late")
    later(pair, 10_000)
    assert isinstance(client.error, ConnectionResetError)


def test_a_killed_process_resets_its_connections(pair: Any) -> None:
    client, _ = connected(pair)
    pair.b.crash(power=False)
    later(pair, 10_000)
    assert isinstance(client.error, ConnectionResetError)
    with pytest.raises(ConnectionRefusedError):
        pair.run(ask(b"x"))


def test_a_power_cut_tells_nobody_until_the_machine_is_back(pair: Any) -> None:
    client, served = connected(pair)
    pair.b.crash(power=True)
    client.transport.write(b"anybody there?")
    later(pair, 2_000_000)
    assert client.told == ["made"]
    pair.b.boot()
    later(pair, 2_000_000)
    assert isinstance(client.error, ConnectionResetError)
    assert served.told == ["made"]


def test_a_power_cut_that_lasts_times_the_connection_out(pair: Any) -> None:
    client, _ = connected(pair)
    pair.b.crash(power=True)
    client.transport.write(b"anybody there?")
    later(pair, 60_000_000)
    assert isinstance(client.error, TimeoutError)


def test_dialling_a_machine_without_power_gets_no_answer(pair: Any) -> None:
    pair.b.crash(power=True)
    with pytest.raises(TimeoutError, match="Connect call failed"):
        pair.run(ask(b"x", "b"))
    assert pair.world.now_us > 30_000_000


def test_a_paused_host_keeps_connections_open_and_accepts_new_ones_later(pair: Any) -> None:
    client, served = connected(pair)
    pair.b.pause()
    client.transport.write(b"hello")
    later(pair, 5_000_000)
    assert client.told == ["made"]
    pair.b.resume()
    later(pair, 1_000)
    assert served.received == b"hello"


def test_giving_up_dialling_leaves_no_connection_behind(pair: Any) -> None:
    served: list[Recorder] = []

    async def listen() -> None:
        def factory() -> Recorder:
            served.append(Recorder())
            return served[-1]

        await asyncio.get_running_loop().create_server(factory, "0.0.0.0", PORT)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection("b", PORT), 0.00025)

    pair.run(listen(), on=pair.b)
    pair.run(impatient())
    later(pair, 1_000_000)
    assert all(recorder.told[-1] == "lost" for recorder in served)
    assert not pair.network.link("a", "b").directions


def test_open_connections_are_forgotten_when_both_ends_are_closed(pair: Any) -> None:
    pair.b.spawn(serve())
    later(pair, 1_000)
    for _ in range(20):
        pair.run(ask(b"hello"))
    later(pair, 1_000_000)
    assert not pair.network.link("a", "b").directions
    assert not pair.network.link("b", "a").directions


def test_a_buffered_protocol_gets_every_byte_through_its_own_buffer(pair: Any) -> None:
    class Buffered(asyncio.BufferedProtocol):
        received = bytearray()

        def get_buffer(self, sizehint: int) -> bytearray:
            self.buffer = bytearray(7)
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.received += self.buffer[:nbytes]

    async def listen() -> None:
        await asyncio.get_running_loop().create_server(Buffered, "0.0.0.0", PORT)

    async def send() -> None:
        _, writer = await asyncio.open_connection("b", PORT)
        writer.write(bytes(range(256)))
        await writer.drain()
        await asyncio.sleep(1)

    pair.run(listen(), on=pair.b)
    pair.run(send())
    assert Buffered.received == bytes(range(256))


faults = st.lists(
    st.tuples(
        st.integers(0, 3_000_000),
        st.sampled_from(IMPOSABLE),
        st.sampled_from([("a", "b"), ("b", "a")]),
        st.integers(1, 2_000_000),
        st.floats(0, 1),
    ),
    max_size=6,
)


def value_of(kind: str, share: float) -> float:
    return {
        "delay": 200_000 * share,
        "loss": 0.5 * share,
        "bandwidth": 2_000 + 10**6 * share,
        "split": 1 + 50 * share,
    }.get(kind, 0)


def impose_for(what: Any) -> None:
    link, kind, value, duration_us = what
    undo = link.impose(kind, value)
    link._world.after(duration_us, lambda _: undo())


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), faults=faults, sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=12))
def test_bytes_arrive_once_and_in_order_under_any_faults(seed: int, faults: list[Any], sizes: list[int]) -> None:
    world = World(seed)
    network = SimNetwork(world, Network(tail=0.1, split=0.5, loss=0.05))
    a, b = network.add_host("a"), network.add_host("b")
    stream = world.stream("what is sent")
    texts = [stream.bytes(size) for size in sizes]
    b.spawn(serve())
    for at_us, kind, ends, duration_us, share in faults:
        world.at(at_us, impose_for, (network.link(*ends), kind, value_of(kind, share), duration_us))

    async def program() -> bytes:
        await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("b", PORT)
        for text in texts:
            writer.write(text)
            await asyncio.sleep(0.2)
        return await reader.readexactly(sum(sizes))

    task = a.spawn(program())
    assert run(world, 200_000_000, until=task)
    assert task.result() == b"".join(texts)
