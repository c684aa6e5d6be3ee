"""The lean HTTP client raises what httpx would, so that an outcome is `fail` only where nothing was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from seatrial.sim import SimNetwork, World, run
from seatrial.sim.full.http import LeanHttp

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ask(answer: Answer | None, *, count: int = 1, port: int = 80) -> tuple[list[Any], int]:
    """What so many requests in a row gave, and how many connections the server saw."""
    network = SimNetwork(World(1))
    server, client = network.add_host("server"), network.add_host("client")
    seen: list[int] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        assert answer is not None
        await answer(reader, writer)

    async def serve() -> None:
        await asyncio.start_server(connected, "server", 80)

    async def requests() -> list[Any]:
        await asyncio.sleep(0.1)
        http, found = LeanHttp(), list[Any]()
        for _ in range(count):
            try:
                found.append(await http.request("PUT", f"http://server:{port}/x", params={"a": "1"}, content=b"body"))
            except httpx.HTTPError as error:
                found.append(error)
        await http.aclose()
        return found

    if answer is not None:
        server.spawn(serve())
    asked = client.spawn(requests())
    assert run(network.world, 60_000_000, until=asked)
    return asked.result(), len(seen)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        body = await reader.readexactly(4)
        line = head.split(b"\r\n")[0]
        writer.write(b'HTTP/1.1 201 Made\r\nETag: "7"\r\ncontent-length: %d\r\n\r\n' % (len(line) + 5))
        writer.write(line + b" " + body)


async def hang_up_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    writer.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"nonsense\r\n\r\n")


def test_answers_come_over_one_connection() -> None:
    found, connections = ask(echo, count=3)
    assert [(r.status_code, r.headers["etag"], r.content) for r in found] == [
        (201, '"7"', b"PUT /x?a=1 HTTP/1.1 body")
    ] * 3
    assert connections == 1


def test_nothing_was_sent_where_nobody_listens() -> None:
    found, _ = ask(None)
    assert isinstance(found[0], httpx.ConnectError)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (hang_up_halfway, httpx.RemoteProtocolError),
        (say_nothing, httpx.ReadTimeout),
        (talk_nonsense, httpx.RemoteProtocolError),
    ],
)
def test_an_answer_that_is_not_whole_leaves_the_outcome_unknown(answer: Answer, error: type[Exception]) -> None:
    found, connections = ask(answer, count=2)
    assert [type(one) for one in found] == [error, error]
    assert connections == 2, "a connection that failed under a request is not used again"
