"""Nodes with real loopback sockets, and a peer of raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from seatrial.env import RealClock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import AppendEntries, Entry, Heartbeat, RequestVote
from seatrial.transport import FramedTransport


async def until(condition: Callable[[], Any], what: str, seconds: float = 10) -> None:
    """Poll; on expiry say what was waited for."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.002)


class Nodes:
    """Transports that are closed at the end, and what each received."""

    def __init__(self) -> None:
        self.transports: dict[int, FramedTransport] = {}
        self.received: dict[int, list[tuple[int, Any]]] = {}
        self.reports: list[str] = []
        self.until = until

    async def start(
        self, node: int, peers: dict[int, str] | None = None, cluster: str = "test", **options: Any
    ) -> FramedTransport:
        settings: dict[str, Any] = {"listen": "127.0.0.1:0", **options}
        transport = FramedTransport(
            NodeId(node),
            cluster,
            peers={NodeId(n): address for n, address in (peers or {}).items()},
            clock=RealClock(),
            rng=Rng(node),
            report=self.reports.append,
            **settings,
        )
        received = self.received[node] = []
        await transport.start(lambda group, message: received.append((group, message)))
        self.transports[node] = transport
        return transport

    async def pair(self, **options: Any) -> tuple[FramedTransport, FramedTransport]:
        first, second = await self.start(1, **options), await self.start(2, **options)
        first.add_peer(NodeId(2), second.address)
        second.add_peer(NodeId(1), first.address)
        await self.connected(first, 2)
        await self.connected(second, 1)
        return first, second

    async def connected(self, transport: FramedTransport, peer: int) -> None:
        await until(lambda: transport.peers()[NodeId(peer)].connected, f"connected to {peer}: {transport.peers()}")

    async def close(self) -> None:
        for transport in self.transports.values():
            await transport.close()

    def run(self, scenario: Coroutine[Any, Any, Any]) -> None:
        async def then_close() -> None:
            errors: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
            try:
                await asyncio.wait_for(scenario, 60)
            finally:
                await self.close()
            await asyncio.sleep(0)
            assert not errors, errors

        asyncio.run(then_close())

    @staticmethod
    def vote(term: int, sender: int = 1, to: int = 2) -> RequestVote:
        return RequestVote(NodeId(sender), NodeId(to), term, 0, 0, False)  # type: ignore[arg-type]

    @staticmethod
    def beat(term: int, sender: int = 1, to: int = 2) -> Heartbeat:
        return Heartbeat(NodeId(sender), NodeId(to), term, 0, 0)  # type: ignore[arg-type]

    @staticmethod
    def append(index: int, data: bytes, sender: int = 1, to: int = 2) -> AppendEntries:
        entry = Entry(1, index, 0, data)  # type: ignore[arg-type]
        return AppendEntries(NodeId(sender), NodeId(to), 1, index - 1, 1, 0, [entry])  # type: ignore[arg-type]


GROUP = GroupId(5)


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()
