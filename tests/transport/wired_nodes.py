"""Nodes with real loopback sockets on any wire, and certificates made for the tests."""

from __future__ import annotations

import asyncio
import atexit
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import trustme

from seatrial.env import RealClock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import (
    AppendEntries,
    Configuration,
    Entry,
    Heartbeat,
    InstallSnapshot,
    RequestVote,
    SnapshotMeta,
)
from seatrial.transport import Limits, NodeTransport, Tls, TlsFiles, load_tls, make_wire

GROUP = GroupId(5)
LIMITS = frozenset(field.name for field in fields(Limits))


async def until(condition: Callable[[], Any], what: str, seconds: float = 10) -> None:
    """Poll; on expiry say what was waited for."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.002)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """An authority, and a node's certificate and key that it signed, as files and as loaded."""

    files: TlsFiles
    tls: Tls


def certificates(
    directory: Path, authority: trustme.CA, *hosts: str, demanded: bool = True, peer_name: str = ""
) -> Certificates:
    directory.mkdir(parents=True, exist_ok=True)
    issued = authority.issue_cert(*(hosts or ("127.0.0.1", "localhost")))
    paths = [directory / name for name in ("node.crt", "node.key", "ca.crt")]
    paths[0].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    files = TlsFiles(
        certificate=str(paths[0]),
        key=str(paths[1]),
        authority=str(paths[2]) if demanded else None,
        peer_name=peer_name,
    )
    return Certificates(files=files, tls=load_tls(files, lambda path: Path(path).read_bytes()))


@functools.cache
def _runner() -> asyncio.Runner:
    """One loop for all tests here: gRPC has one poller a process, which stumbles over events of a closed loop."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


class Nodes:
    """Transports that are closed at the end, and what each received."""

    def __init__(self, wire_name: str, tls: Tls | None = None) -> None:
        self.wire_name, self.tls = wire_name, tls
        self.transports: dict[int, NodeTransport] = {}
        self.received: dict[int, list[tuple[int, Any]]] = {}
        self.reports: list[str] = []
        self.until = until
        self._cleanups: list[Callable[[], Coroutine[Any, Any, Any]]] = []

    async def start(
        self, node: int, peers: dict[int, str] | None = None, cluster: str = "test", **options: Any
    ) -> NodeTransport:
        """`options`: of Limits and of NodeTransport; `wire`: another one than the test's."""
        settings: dict[str, Any] = {"listen": "127.0.0.1:0", **options}
        limits = Limits(**{name: settings.pop(name) for name in sorted(LIMITS & settings.keys())})
        transport = NodeTransport(
            NodeId(node),
            cluster,
            settings.pop("wire", None) or make_wire(self.wire_name, self.tls),
            peers={NodeId(n): address for n, address in (peers or {}).items()},
            clock=RealClock(),
            rng=Rng(node),
            limits=limits,
            report=self.reports.append,
            **settings,
        )
        received = self.received[node] = []
        await transport.start(lambda group, message: received.append((group, message)))
        self.transports[node] = transport
        return transport

    async def pair(self, **options: Any) -> tuple[NodeTransport, NodeTransport]:
        first, second = await self.start(1, **options), await self.start(2, **options)
        first.add_peer(NodeId(2), second.address)
        second.add_peer(NodeId(1), first.address)
        await self.connected(first, 2)
        await self.connected(second, 1)
        return first, second

    async def connected(self, transport: NodeTransport, peer: int) -> None:
        await until(lambda: transport.peers()[NodeId(peer)].connected, f"connected to {peer}: {transport.peers()}")

    def finally_(self, cleanup: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run at the end, before the nodes are closed."""
        self._cleanups.append(cleanup)

    async def close(self) -> None:
        for cleanup in self._cleanups:
            await cleanup()
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

        _runner().run(then_close())

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

    @staticmethod
    def chunk(offset: int, size: int) -> InstallSnapshot:
        meta = SnapshotMeta(9, 1, Configuration([1, 2]))  # type: ignore[arg-type, list-item]
        return InstallSnapshot(NodeId(1), NodeId(2), 1, meta, offset, 100 * size, bytes(size))  # type: ignore[arg-type]


def terms(received: list[tuple[int, Any]]) -> list[int]:
    return [message.term for _, message in received]
