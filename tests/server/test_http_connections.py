"""HTTP clients that mean harm, or are too many, on real sockets, with a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seatrial import marks
from seatrial.env import RealClock
from seatrial.server.admin import AdminServer
from seatrial.server.config import Address
from seatrial.server.http_answers import RefusedRequest, bounded_bodies
from seatrial.server.http_connections import BODY_BYTES_MAX, HEAD_BYTES_MAX, HttpConnections, HttpLimits
from seatrial.server.logs import Logger
from seatrial.server.patience import PatienceLimits

PATIENCE = PatienceLimits(idle_s=600, frame_s=60, waiting_bytes=1 << 30)
GET = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"
DEADLINE_S = 20.0


class Bench:
    """A server whose application answers with the length of the body, or, at /large, with many bytes; /wait waits."""

    def __init__(self, limits: HttpLimits) -> None:
        self.lines: list[dict[str, Any]] = []
        self.now_s = 1_000.0
        logger = Logger(lambda line: self.lines.append(json.loads(line)), RealClock(), "info")
        self.connections = HttpConnections(limits, logger, lambda: self.now_s)
        self.waited = asyncio.Event()
        self.app = bounded_bodies(self._answer)
        self._server = AdminServer(self, logger, self.connections)  # type: ignore[arg-type]
        self.port = 0

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        content, status = b"", 200
        try:
            if scope["path"] == "/large":
                content = bytes(8 << 20)
            elif scope["path"] == "/wait":
                await self.waited.wait()
            elif scope["path"] != "/refuse":
                size, more = 0, True
                while more:
                    message = await receive()
                    size, more = size + len(message.get("body", b"")), message.get("more_body", False)
                content = b"%d" % size
        except RefusedRequest as refused:
            status = refused.status
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": status, "headers": [length]})
        await send({"type": "http.response.body", "body": content})

    async def start(self) -> None:
        async def create(make: Callable[[], Any], host: str, port: int) -> asyncio.Server:
            server = await asyncio.get_running_loop().create_server(make, host, port)
            self.port = server.sockets[0].getsockname()[1]
            return server

        await self._server.start(Address("127.0.0.1", 0), create)

    async def close(self) -> None:
        self.waited.set()
        await self._server.close()
        for connection in list(self.connections.open):
            connection.give_up("the test ends")

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    def pass_time(self, seconds: float) -> None:
        """With a look each second."""
        for _ in range(int(seconds)):
            self.now_s += 1
            self.connections.look(self.now_s)

    def reasons(self) -> list[str]:
        return [line["reason"] for line in self.lines if line["event"] == "http_connection_closed"]


class Client:
    """A connection of raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        lines = head.lower().split(b"\r\n")
        length = next(int(line[16:]) for line in lines if line.startswith(b"content-length: "))
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def ended(self) -> bool:
        try:
            while await asyncio.wait_for(self.reader.read(1 << 16), DEADLINE_S):
                pass
        except ConnectionError:
            pass
        return True

    def is_served(self) -> bool:
        return not self.reader.at_eof()


def against(scenario: Callable[[Bench], Awaitable[None]], **limits: Any) -> None:
    async def whole() -> None:
        bench = Bench(HttpLimits(**{"patience": PATIENCE, **limits}))
        await bench.start()
        try:
            await asyncio.wait_for(scenario(bench), 3 * DEADLINE_S)
        finally:
            await bench.close()

    asyncio.run(whole())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(b"G", id="a byte"),
        pytest.param(GET[:-2], id="a head without its end"),
        pytest.param(b"PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: 10\r\n\r\n", id="no body yet"),
        pytest.param(b"PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: 10\r\n\r\nhalf", id="half a body"),
        pytest.param(GET + GET[:10], id="half of the next one"),
    ],
)
def test_a_half_request_costs_its_own_connection_after_its_time(half: bytes) -> None:
    async def scenario(bench: Bench) -> None:
        slow, quick = await bench.client(), await bench.client()
        if half.startswith(GET):
            await slow.send(GET)
            assert await slow.answer() == (200, b"0")
        await slow.send(half.removeprefix(GET))
        await quick.send(GET)
        assert await quick.answer() == (200, b"0")
        bench.pass_time(60)
        assert not bench.reasons()
        marks.taken()
        bench.pass_time(1)
        assert marks.taken() == {"an HTTP client was waited for long enough": 1}, bench.reasons()
        assert await slow.ended()
        assert bench.reasons() == ["a frame that is not whole after 60 s"]
        await quick.send(GET)
        assert await quick.answer() == (200, b"0")

    against(scenario)


def test_a_head_that_trickles_in_is_waited_for_once() -> None:
    async def scenario(bench: Bench) -> None:
        slow = await bench.client()
        await slow.send(b"GET / HTTP/1.1\r\n")
        for number in range(70):
            if bench.reasons():
                break
            slow.writer.write(b"a%d: b\r\n" % number)
            await asyncio.sleep(0.002)
            bench.pass_time(1)
        assert number >= 60
        assert await slow.ended()

    against(scenario)


def test_a_request_that_is_worked_on_is_waited_for_by_its_client_alone() -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client()
        await client.send(GET.replace(b"/", b"/wait", 1))
        await until(lambda: bench.connections.open)
        await asyncio.sleep(0.05)
        bench.pass_time(2_000)
        bench.waited.set()
        assert await client.answer() == (200, b"")
        assert not bench.reasons()

    against(scenario)


def test_a_connection_that_never_says_anything_ends_after_a_long_time() -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client()
        await until(lambda: bench.connections.open)
        bench.pass_time(599)
        assert not bench.reasons()
        bench.pass_time(2)
        assert await client.ended()
        assert bench.reasons() == ["nothing came in 600 s"]

    against(scenario)


def test_an_answer_must_be_taken() -> None:
    async def scenario(bench: Bench) -> None:
        deaf, hearing = await bench.client(), await bench.client()
        for client in (deaf, hearing):
            await client.send(GET.replace(b"/", b"/large", 1))
        assert (await hearing.answer())[1] == bytes(8 << 20)
        await until(lambda: any(one._transport.get_write_buffer_size() for one in bench.connections.open))  # type: ignore[union-attr]
        bench.pass_time(602)
        assert await deaf.ended()
        (reason,) = [reason for reason in bench.reasons() if "not taken" in reason]
        assert "bytes of answers that were not taken in 600 s" in reason

    against(scenario)


def test_a_head_without_end_is_refused_and_a_large_one_is_not() -> None:
    async def scenario(bench: Bench) -> None:
        marks.taken()
        fair, endless = await bench.client(), await bench.client()
        await fair.send(GET[:-2] + b"a: " + bytes(HEAD_BYTES_MAX // 2).replace(b"\0", b"x") + b"\r\n\r\n")
        assert await fair.answer() == (200, b"0")
        await endless.send(GET[:-2])
        try:
            for _ in range(1000):
                await endless.send(b"a: " + b"x" * 1000 + b"\r\n")
        except ConnectionError:
            pass
        assert await endless.ended()
        assert marks.taken() == {"an HTTP client sent a head without end": 1}
        assert bench.reasons() == [f"a head of more than {HEAD_BYTES_MAX} bytes, or a body without end"]

    against(scenario)


def test_a_body_is_read_to_its_bound_and_no_further() -> None:
    async def scenario(bench: Bench) -> None:
        for size, status in ((BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413)):
            client = await bench.client()
            client.writer.write(b"PUT / HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            assert (await client.answer())[0] == status
            client.writer.close()
        assert not bench.reasons()

    against(scenario)


@pytest.mark.parametrize("path", [b"/", b"/refuse"])
def test_the_end_of_a_body_may_come_in_one_piece_however_large(path: bytes) -> None:
    """What ends a body is part of it, whether it is read or, its request being answered, thrown away."""
    size = 3 * HEAD_BYTES_MAX
    head = b"PUT %b HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % (path, 2 * size)

    async def scenario(bench: Bench) -> None:
        client = await bench.client()
        await until(lambda: bench.connections.open)
        (connection,) = bench.connections.open
        for _ in range(2):
            connection.data_received(head)
            if path == b"/refuse":
                assert await client.answer() == (200, b"")
            connection.data_received(bytes(size))
            await asyncio.sleep(0)
            connection.data_received(bytes(size))  # as the transport hands it over: both pieces are larger than a head
            if path == b"/":
                assert await client.answer() == (200, b"%d" % (2 * size))
        assert not bench.reasons()
        connection.data_received(GET)
        assert await client.answer() == (200, b"0")
        assert bench.connections.open == {connection: None}

    against(scenario)


def test_the_rest_of_a_body_that_nobody_reads_may_come_but_not_without_end() -> None:
    """Whoever is told that a token is wrong has sent a value by then, and is to read the answer."""

    async def scenario(bench: Bench) -> None:
        fair, endless = await bench.client(), await bench.client()
        await fair.send(b"PUT /refuse HTTP/1.1\r\nHost: n\r\nContent-Length: 1000000\r\n\r\n")
        assert await fair.answer() == (200, b"")
        await fair.send(bytes(1_000_000) + GET)
        assert await fair.answer() == (200, b"0")
        await endless.send(b"PUT /refuse HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await endless.answer() == (200, b"")
        try:
            for _ in range(100):
                await endless.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except ConnectionError:
            pass
        assert await endless.ended()
        assert len(bench.reasons()) == 1

    against(scenario)


def test_clients_beyond_the_bound_are_turned_away_and_the_log_says_why() -> None:
    async def scenario(bench: Bench) -> None:
        kept = [await bench.client() for _ in range(3)]
        for client in kept:
            await client.send(GET)
            assert await client.answer() == (200, b"0")
        more = [await bench.client() for _ in range(2)]
        for client in more:
            assert await client.ended()
        await kept[0].send(GET)
        assert await kept[0].answer() == (200, b"0")
        bench.pass_time(1)
        (told,) = [line for line in bench.lines if line["event"] == "http_connections_turned_away"]
        assert told["count"] == 2
        assert told["reason"] == "there are 3 already, and --http-max-connections is 3"
        kept[1].writer.close()
        await until(lambda: len(bench.connections.open) == 2)
        again = await bench.client()
        await again.send(GET)
        assert await again.answer() == (200, b"0")

    against(scenario, connections=3)
