"""A Kafka connection's frames, order and bounds, over real loopback sockets and a dispatcher of a few lines."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from struct import pack, unpack
from typing import Any

import pytest

from seatrial.env import RealClock
from seatrial.kafka.context import ClientContext, CloseConnection
from seatrial.server.config import Address
from seatrial.server.listener import KafkaListener, ListenerLimits
from seatrial.server.logs import Logger

LARGE_ANSWER = 200_000


class EchoDispatcher:
    """Answers a frame with itself; its first two bytes say how: 0 at once, 1 later by hand, 2 never, 3 by closing,
    4 by a bug, 5 at once and with more behind it."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.held: list[tuple[asyncio.Future[list[Any]], bytes]] = []

    def handle(self, frame: memoryview, client: ClientContext) -> Any:
        data = bytes(frame)
        self.seen.append(data)
        kind = data[1]
        if kind == 0:
            return framed(data)
        if kind == 1:
            future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
            self.held.append((future, data))
            return future
        if kind == 2:
            return None
        if kind == 4:
            raise KeyError("a bug")
        if kind == 5:
            return framed(data + bytes(LARGE_ANSWER))
        raise CloseConnection("unknown API 3")

    def release(self, position: int) -> None:
        future, data = self.held[position]
        future.set_result(framed(data))


def framed(data: bytes) -> list[bytes]:
    return [pack(">i", len(data)), data]


def request(kind: int, text: bytes) -> bytes:
    return pack(">ih", len(text) + 2, kind) + text


class Bench:
    """A listener, its dispatcher and its log."""

    def __init__(self, limits: ListenerLimits) -> None:
        self.dispatcher = EchoDispatcher()
        self.lines: list[dict[str, Any]] = []
        logger = Logger(lambda line: self.lines.append(json.loads(line)), RealClock(), "debug")
        self.listener = KafkaListener(
            self.dispatcher,
            limits,
            logger,
            asyncio.get_running_loop(),
        )
        self.port = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        async def create(factory: Callable[[], Any], host: str, port: int) -> asyncio.Server:
            server = await loop.create_server(factory, host, port)
            self.port = server.sockets[0].getsockname()[1]
            return server

        await self.listener.start(Address("127.0.0.1", 0), create)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"never; log: {self.lines}, seen: {len(self.dispatcher.seen)}")


def run(scenario: Callable[[Bench], Awaitable[None]], **limits: int) -> None:
    async def whole() -> None:
        bench = Bench(ListenerLimits(**limits))
        await bench.start()
        try:
            await asyncio.wait_for(scenario(bench), 20)
        finally:
            await bench.listener.close()

    asyncio.run(whole())


async def answer(reader: asyncio.StreamReader) -> bytes:
    (size,) = unpack(">i", await asyncio.wait_for(reader.readexactly(4), 5))
    return await asyncio.wait_for(reader.readexactly(size), 5)


def test_pipelined_requests_are_all_started_and_answered_in_their_order() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        writer.write(request(1, b"first") + request(1, b"second") + request(0, b"third"))
        await bench.until(lambda: len(bench.dispatcher.seen) == 3)
        bench.dispatcher.release(1)
        bench.dispatcher.release(0)
        assert [(await answer(reader))[2:] for _ in range(3)] == [b"first", b"second", b"third"]

    run(scenario)


def test_a_request_without_an_answer_holds_nobody_up() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        writer.write(request(2, b"acks=0") + request(0, b"next"))
        assert (await answer(reader))[2:] == b"next"

    run(scenario)


@pytest.mark.parametrize("size", [1, 4_000, 16 << 10, (16 << 10) + 1, 65_530, 65_536, 300_000])
def test_frames_of_any_size_arrive_whole_however_they_are_cut(size: int) -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        frame = request(0, bytes(i % 251 for i in range(size)))
        stream = frame * 3
        pieces = (1, 3, 5, 4_095, 20_000, 70_000)
        position = 0
        while position < len(stream):
            step = pieces[position % len(pieces)]
            writer.write(stream[position : position + step])
            await writer.drain()
            position += step
        for _ in range(3):
            assert await answer(reader) == frame[4:]

    run(scenario)


def test_a_small_frame_cut_at_every_byte_arrives_whole() -> None:
    async def scenario(bench: Bench) -> None:
        frame = request(0, b"abcdef")
        reader, writer = await bench.connect()
        writer.transport.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY: each piece its own segment
        for cut in range(1, len(frame)):
            writer.write(frame[:cut])
            await asyncio.sleep(0)
            writer.write(frame[cut:])
            assert (await answer(reader))[2:] == b"abcdef"

    run(scenario)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (pack(">i", 1 << 30), "a frame of 1073741824 bytes (limit 1048576)"),
        (pack(">i", -5), "a frame of -5 bytes"),
        (pack(">i", 0), "a frame of 0 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 1195725856 bytes"),
        (request(3, b"?"), "unknown API 3"),
    ],
)
def test_a_frame_that_cannot_be_closes_its_own_connection_and_says_why(garbage: bytes, reason: str) -> None:
    async def scenario(bench: Bench) -> None:
        healthy_reader, healthy_writer = await bench.connect()
        reader, writer = await bench.connect()
        writer.write(garbage)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        closed = [line for line in bench.lines if line["event"] == "kafka_connection_closed"]
        assert len(closed) == 1
        assert reason in closed[0]["reason"]
        healthy_writer.write(request(0, b"still here"))
        assert (await answer(healthy_reader))[2:] == b"still here"

    run(scenario, frame_bytes=1 << 20)


def test_connections_that_rest_hold_no_buffers() -> None:
    async def scenario(bench: Bench) -> None:
        tracemalloc.start()
        try:
            kept = []
            for _ in range(200):
                reader, writer = await bench.connect()
                kept.append(writer)
                writer.write(request(0, b"x"))
                await answer(reader)
            assert len(bench.listener.clients.open) == 200
            assert tracemalloc.get_traced_memory()[0] < 200 * (64 << 10) / 4
        finally:
            tracemalloc.stop()

    run(scenario)


def test_a_bug_in_serving_a_request_ends_its_connection_and_no_other() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        bystander, asking = await bench.connect()
        writer.write(request(4, b"x"))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert [line["error"] for line in bench.lines if line["event"] == "kafka_request_failed"] == [
            "KeyError('a bug')"
        ]
        asking.write(request(0, b"y"))
        assert (await answer(bystander))[2:] == b"y"

    run(scenario)


def test_a_request_that_ends_in_closing_after_its_client_left_is_no_error_that_nobody_caught() -> None:
    """A client that gave up while its metadata were waited for left an exception behind that ended a simulated run."""

    async def scenario(bench: Bench) -> None:
        uncaught: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: uncaught.append(context))
        _, writer = await bench.connect()
        writer.write(request(1, b"x") + request(1, b"y"))
        await bench.until(lambda: len(bench.dispatcher.held) == 2)
        writer.close()
        await bench.until(lambda: not bench.listener.clients.open)
        bench.dispatcher.held[0][0].set_exception(CloseConnection("ask again"))
        bench.dispatcher.held[1][0].set_exception(KeyError("a bug"))
        bench.dispatcher.held.clear()
        await asyncio.sleep(0)
        gc.collect()
        assert uncaught == []
        assert [line["error"] for line in bench.lines if line["event"] == "kafka_request_failed"] == [
            "KeyError('a bug')"
        ]

    run(scenario)


def test_what_is_declared_takes_no_memory_until_it_comes() -> None:
    async def scenario(bench: Bench) -> None:
        tracemalloc.start()
        try:
            for _ in range(20):
                _, writer = await bench.connect()
                writer.write(pack(">i", 99 << 20) + bytes(100_000))
                writer.close()
            missing = f"{(99 << 20) - 100_000} bytes"
            await bench.until(lambda: [line["missing"] for line in bench.lines] == [missing] * 20)
            assert tracemalloc.get_traced_memory()[1] < 99 << 20
        finally:
            tracemalloc.stop()

    run(scenario)


@pytest.mark.parametrize("part", [2, 50, 40_000])
def test_a_frame_left_half_written_is_noted_and_disturbs_nobody(part: int) -> None:
    async def scenario(bench: Bench) -> None:
        _, writer = await bench.connect()
        writer.write(request(0, bytes(100_000))[:part])
        await writer.drain()
        writer.close()
        await bench.until(lambda: any(line["event"] == "kafka_half_frame" for line in bench.lines))
        assert bench.dispatcher.seen == []
        await bench.until(lambda: not bench.listener.clients.open)

    run(scenario)


def test_past_the_bound_of_requests_in_flight_the_socket_is_not_read() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        body = bytes(60_000)  # so that no two requests arrive in one read
        for _ in range(12):
            writer.write(request(1, body))
        await bench.until(lambda: len(bench.dispatcher.seen) >= 4)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(bench.dispatcher.seen) <= 6
        for position in range(12):
            await bench.until(lambda wanted=position: len(bench.dispatcher.held) > wanted)  # type: ignore[misc]
            bench.dispatcher.release(position)
            assert len(await answer(reader)) == 60_002

    run(scenario, in_flight_requests=4)


def test_past_the_bound_of_bytes_in_flight_the_socket_is_not_read() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        for _ in range(10):
            writer.write(request(1, bytes(100_000)))
        await bench.until(lambda: len(bench.dispatcher.seen) >= 3)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(bench.dispatcher.seen) == 3
        for position in range(10):
            await bench.until(lambda wanted=position: len(bench.dispatcher.held) > wanted)  # type: ignore[misc]
            bench.dispatcher.release(position)
            await answer(reader)

    run(scenario, in_flight_bytes=250_000)


def test_a_client_that_does_not_read_its_answers_is_not_read_either() -> None:
    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect()
        request_bytes, count = 500_000, 60
        sending = asyncio.ensure_future(flood(writer, request(0, bytes(request_bytes)), count))
        await bench.until(lambda: len(bench.dispatcher.seen) >= 2)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert len(bench.dispatcher.seen) < count
        for _ in range(count):
            await answer(reader)
        await sending

    run(scenario, unsent_bytes=200_000)


def test_small_requests_with_large_answers_are_served_as_these_are_taken() -> None:
    """Hundreds of Fetch requests fit one receive buffer: each was answered, and held, before one answer had left."""

    async def scenario(bench: Bench) -> None:
        count = 300
        reader, writer = await bench.connect()
        writer.write(b"".join(request(5, b"%d" % number) for number in range(count)))
        await bench.until(lambda: len(bench.dispatcher.seen) >= 5)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert len(bench.dispatcher.seen) * LARGE_ANSWER < 20_000_000, "of the 60 MB that they ask for"
        taken = [await answer(reader) for _ in range(count)]
        assert [data[2:-LARGE_ANSWER] for data in taken] == [b"%d" % number for number in range(count)]

    run(scenario, unsent_bytes=1_000_000, in_flight_requests=1000)


async def flood(writer: asyncio.StreamWriter, frame: bytes, count: int) -> None:
    for _ in range(count):
        writer.write(frame)
        await writer.drain()
