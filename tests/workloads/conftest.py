"""A fake of the key-value HTTP API with real semantics that can be told to misbehave, and a fake clock."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from seatrial.workloads.base import Endpoint


class FakeClock:
    """A clock that moves one microsecond at every look, so that times are distinct and known."""

    def __init__(self) -> None:
        self.us = 1_000

    def now_us(self) -> int:
        self.us += 1
        return self.us

    def wall_ms(self) -> int:
        return self.us // 1000


@dataclass(slots=True)
class FakeStore:
    """One linearizable store behind all nodes, with sessions that apply a request once.

    `refuse` may answer instead of the store, before anything is done; `after` may replace the answer to a write that
    was done, given the node and the status that it would have had.
    """

    values: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    history: dict[str, list[tuple[bytes, int]]] = field(default_factory=dict)
    sessions: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    applied: int = 0
    stale_node: int | None = None  # answers every read with the value before the last one
    refuse: Callable[[int], Response | None] = lambda node: None  # asked before anything is done
    after: Callable[[int, int], Response | None] = lambda node, status: None  # asked after a write was done
    requests: list[tuple[int, str, str]] = field(default_factory=list)

    def write(self, key: str, value: bytes, expected: int | None, session: tuple[str, str] | None) -> tuple[int, int]:
        """(status, version), the same one for every retry of a session's request."""
        if session is not None and session in self.sessions:
            return self.sessions[session]
        _, version = self.values.get(key, (b"", 0))
        if expected is not None and expected != version:
            result = (412, version)
        else:
            self.applied += 1
            self.values[key] = (value, version + 1)
            self.history.setdefault(key, []).append((value, version + 1))
            result = (200, version + 1)
        if session is not None:
            self.sessions[session] = result
        return result

    def read(self, key: str, node: int) -> tuple[bytes, int] | None:
        seen = self.history.get(key, [])
        if node == self.stale_node and len(seen) > 1:
            return seen[-2]
        return self.values.get(key)

    def app(self, node: int) -> Starlette:
        """The API of one node."""

        async def key_value(request: Request) -> Response:
            key = request.path_params["key"]
            self.requests.append((node, request.method, key))
            refused = self.refuse(node)
            if refused is not None:
                return refused
            if request.method == "GET":
                found = self.read(key, node)
                if found is None:
                    return JSONResponse({"error": "no such key", "definite": True}, 404)
                return Response(found[0], headers={"ETag": f'"{found[1]}"'})
            match = request.headers.get("if-match")
            client, sequence = request.headers.get("seatrial-client-id"), request.headers.get("seatrial-sequence")
            session = (client, sequence) if client is not None and sequence is not None else None
            expected = int(match.strip('"')) if match else None
            status, version = self.write(key, await request.body(), expected, session)
            replaced = self.after(node, status)
            return replaced or JSONResponse({"version": version}, status, {"ETag": f'"{version}"'})

        async def readyz(request: Request) -> Response:
            return JSONResponse({"status": "ready"})

        routes = [Route("/api/v1/kv/{key:path}", key_value, methods=["GET", "PUT"]), Route("/readyz", readyz)]
        return Starlette(routes=routes)


class QuietServer(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(store: FakeStore, nodes: int = 3) -> AsyncIterator[list[Endpoint]]:
    """The store behind `nodes` HTTP servers on loopback."""
    endpoints, servers, tasks = [], [], []
    for node in range(1, nodes + 1):
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(store.app(node), log_config=None, lifespan="off", ws="none")
        servers.append(QuietServer(config))
        tasks.append(asyncio.ensure_future(servers[-1].serve(sockets=[listener])))
        endpoints.append(Endpoint(node=node, http=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    try:
        yield endpoints
    finally:
        for server in servers:
            server.should_exit = server.force_exit = True
        await asyncio.gather(*tasks)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def serve() -> Callable[..., object]:
    return serving


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
