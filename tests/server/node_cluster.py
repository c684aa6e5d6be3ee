"""Whole nodes in one event loop, on real files and loopback sockets: members come and go without a process for each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from seatrial.env import RealClock, RealFiles, Rng
from seatrial.raft.ids import NodeId
from seatrial.server.config import Address, ServerConfig
from seatrial.server.errors import StartError
from seatrial.server.http_json import NoAnswer, ask_json
from seatrial.server.logs import Logger
from seatrial.server.node import Node, build_node

DEADLINE_S = 30.0


class NodeCluster:
    """Founders 1 to n, and nodes that join; `prefix` is 127.A.B, leased by the test.

    absent: founders that never come up.  election_timeout_ms: long, where no leader may change on a busy machine.
    """

    def __init__(
        self,
        root: Path,
        prefix: str,
        founders: int,
        token: str = "",
        *,
        absent: Collection[int] = (),
        election_timeout_ms: int = 300,
    ) -> None:
        self.root = root
        self.prefix = prefix
        self.founders = range(1, founders + 1)
        self.absent = absent
        self.election_timeout_ms = election_timeout_ms
        self.token = token
        self.nodes: dict[int, Node] = {}
        self.lines: dict[int, list[dict[str, Any]]] = {}
        self.fatal: dict[int, StartError] = {}
        self.starts = 0
        self.free_bytes: dict[int, int] = {}  # of a node's disk; those that are not named have room

    def config(self, number: int, join: tuple[str, ...] | None) -> ServerConfig:
        host = f"{self.prefix}.{number}"
        peers = {} if join else {NodeId(n): f"{self.prefix}.{n}:7101" for n in self.founders if n != number}
        return ServerConfig(
            node_id=NodeId(number),
            data_dir=str(self.root / f"node{number}"),
            peers=peers,
            raft_addr=Address(host, 7101),
            kafka_addr=Address(host, 9092),
            http_addr=Address(host, 9644),
            advertise_kafka=Address(host, 9092),
            join=join,
            durability="os",
            election_timeout_ms=self.election_timeout_ms,
            http_token=self.token,
            uvloop=False,
        )

    async def start(self, number: int, *, join: tuple[int, ...] | None = None) -> Node:
        """`join`: the nodes to ask; () for an operator that adds it."""
        urls = None if join is None else tuple(self.url(n) for n in join)
        self.starts += 1
        lines = self.lines.setdefault(number, [])
        node = build_node(
            self.config(number, urls),
            RealClock(),
            Rng(self.starts),
            RealFiles(),
            asyncio.get_running_loop(),
            logger=Logger(lambda line: lines.append(json.loads(line)), RealClock(), "info"),
            on_fatal=lambda error: self.fatal.setdefault(number, error),
            free_bytes=lambda: self.free_bytes.get(number, 1 << 40),
        )
        self.nodes[number] = node
        await node.start()
        return node

    async def start_founders(self) -> None:
        for number in self.founders:
            if number not in self.absent:
                await self.start(number)
        await self.ready()

    async def stop(self, number: int) -> None:
        await self.nodes.pop(number).stop()

    async def ready(self) -> None:
        await self.until(lambda: all(node.is_ready() is None for node in self.nodes.values()), self.readiness)

    def readiness(self) -> object:
        return {n: node.is_ready() for n, node in self.nodes.items()}, self.fatal

    async def until(self, condition: Callable[[], Any], what: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while not condition():
            assert loop.time() < deadline, f"not within {DEADLINE_S} s; last seen: {what()}"
            await asyncio.sleep(0.01)

    def url(self, number: int) -> str:
        return f"http://{self.prefix}.{number}:9644"

    async def ask(self, number: int, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        try:
            return await ask_json(
                method, f"{self.url(number)}/api/v1/{path}", body or {}, token=self.token, timeout_s=15
            )
        except NoAnswer as error:
            raise AssertionError(f"node {number}: {error}; {self.lines[number][-5:]}") from error

    def state(self, seen_by: int, number: int) -> str | None:
        node = self.nodes[seen_by].broker.metadata.nodes.get(NodeId(number))
        return None if node is None else node.state.name.lower()

    def voters(self, seen_by: int, group: str) -> tuple[int, ...]:
        replica = self.nodes[seen_by].replica_named(group)
        return () if replica is None else replica.node.committed_configuration.voters

    def leader(self, group: str) -> int | None:
        found = [
            n for n, node in self.nodes.items() if (r := node.replica_named(group)) is not None and r.node.is_leader
        ]
        return found[0] if len(found) == 1 else None

    def partition(self, seen_by: int, name: str, number: int = 0) -> Any:
        return self.nodes[seen_by].broker.metadata.topics[name].partitions[number]

    def events(self, number: int, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines[number] if line["event"] == name]

    async def close(self) -> None:
        for number in list(self.nodes):
            await self.stop(number)
