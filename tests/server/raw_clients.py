"""Clients of raw sockets, which do what no client library would; and a well-behaved one beside them, which measures."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

FETCH = 1
API_VERSIONS = 18
METADATA = 3
CREATE_TOPICS = 19


def raise_file_limit(wanted: int) -> int:
    """How many files this process may have open from now on; as many as wanted where that can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed, soft)


def frame(api_key: int, version: int, body: bytes) -> bytes:
    """A request without a client id, its length before it."""
    head = struct.pack(">hhih", api_key, version, 7, -1)
    return struct.pack(">i", len(head) + len(body)) + head + body


def names_frame(api_key: int, count: int, *, timeout_ms: int = 10_000) -> bytes:
    """Metadata 4 or CreateTopics 4 with so many topics."""
    topic = b"\0\x06t%05d"
    array = struct.pack(">i", count)
    if api_key == METADATA:
        return frame(METADATA, 4, array + b"".join(topic % (n % 100_000) for n in range(count)) + b"\0")
    rest = struct.pack(">ihii", 1, 1, 0, 0)  # a partition, a replica, no assignments, no settings
    named = b"".join(topic % (n % 100_000) + rest for n in range(count))
    return frame(CREATE_TOPICS, 4, array + named + struct.pack(">i?", timeout_ms, False))


def fetch_frame(topic: str, offset: int, max_bytes: int) -> bytes:
    """Fetch 4 of partition 0, which waits for nothing."""
    name = struct.pack(">h", len(topic)) + topic.encode()
    wanted = struct.pack(">iiqi", 1, 0, offset, max_bytes)
    return frame(FETCH, 4, struct.pack(">iiiibi", -1, 0, 0, max_bytes, 0, 1) + name + wanted)


async def connected(address: str, count: int) -> list[socket.socket]:
    """So many connections, non-blocking; a listener's queue is not overrun."""
    loop = asyncio.get_running_loop()
    host, _, port = address.partition(":")
    turn = asyncio.Semaphore(200)

    async def one() -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        async with turn:
            await asyncio.wait_for(loop.sock_connect(sock, (host, int(port))), 30)
        return sock

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def ended(sock: socket.socket) -> bool:
    """The other side has closed it; waits for that."""
    loop = asyncio.get_running_loop()
    try:
        while await loop.sock_recv(sock, 1 << 16):
            pass
    except ConnectionError:
        pass
    return True


async def ask(sock: socket.socket, request: bytes) -> bytes:
    """The answer's body, its correlation id included."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    size = struct.unpack(">i", await _exactly(sock, 4))[0]
    return await _exactly(sock, size)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts = b""
    while len(parts) < size:
        part = await loop.sock_recv(sock, size - len(parts))
        if not part:
            raise ConnectionResetError(f"closed after {len(parts)} of {size} bytes")
        parts += part
    return parts


class Bystander:
    """Asks one thing after the other.

    seconds: how long each answer took.  cpu_seconds: how long the node's main thread ran meanwhile, which says what
    kept the answer on a machine that does other things as well.
    """

    def __init__(self, address: str, pid: int) -> None:
        self._address = address
        self._schedule = Path(f"/proc/{pid}/schedstat")
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def _ran_s(self) -> float:
        return int(self._schedule.read_text().split()[0]) / 1e9

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Bystander]:
        (sock,) = await connected(self._address, 1)
        with closing(sock):
            await self._ask_once(sock)
            self.seconds.clear()
            self.cpu_seconds.clear()
            enough = asyncio.Event()
            task = asyncio.ensure_future(self._ask(sock, enough))
            try:
                yield self
            finally:
                enough.set()
                await task
            await self._ask_once(sock)

    async def _ask(self, sock: socket.socket, enough: asyncio.Event) -> None:
        while not enough.is_set():
            await self._ask_once(sock)
            await asyncio.sleep(0.005)

    async def _ask_once(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        begun, ran_s = loop.time(), self._ran_s()
        await asyncio.wait_for(ask(sock, frame(API_VERSIONS, 0, b"")), 30)
        self.seconds.append(loop.time() - begun)
        self.cpu_seconds.append(self._ran_s() - ran_s)


def close_all(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        sock.close()
