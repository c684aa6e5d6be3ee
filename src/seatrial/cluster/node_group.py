"""The nodes of a cluster as faults and waits see them, wherever they run: processes, or hosts of a simulator.

Rule: a call returns when what it asks for is so, or raises and says what it last saw.
Knows nothing of how nodes run, of links, and of what the nodes say of Raft.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

from seatrial.cluster.drivers.base import NodeAddresses
from seatrial.cluster.errors import NodeExited

T = TypeVar("T")
TERMINATE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What the operating system knows of a node.  `pid` and `incarnation` are of its last start; 0: none yet."""

    node: int
    state: Literal["running", "paused", "down"]
    pid: int
    incarnation: int
    exit: str | None = None  # how the last incarnation ended, when the node is down

    def describe(self) -> str:
        if self.state == "down":
            return f"down ({self.exit or 'never started'}, incarnation {self.incarnation})"
        return f"{self.state} (pid {self.pid}, incarnation {self.incarnation})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How an incarnation ended.  `exit_status` is minus the signal's number where a signal ended it."""

    node: int
    pid: int
    incarnation: int
    exit_status: int


class NodeGroup(ABC):
    """The nodes, by id.  `unexpected_exits`: whatever ended without being told to, oldest first."""

    nodes: tuple[int, ...]
    unexpected_exits: list[NodeExited]

    @abstractmethod
    def node_state(self, node: int) -> NodeState: ...

    @abstractmethod
    def process_state(self, node: int) -> str:
        """What the operating system says of the node's process now: "running", "sleeping", "stopped", …, "gone"."""

    @abstractmethod
    def addresses(self, node: int) -> NodeAddresses:
        """Where clients reach the node."""

    @abstractmethod
    async def start(self, node: int, timeout: float | None = None) -> None:
        """Start a node that is down; returns when it accepts connections.

        Raises NodeExited with the end of its log when it ends first, DeadlineExceeded when it does neither.
        """

    @abstractmethod
    async def kill(self, node: int) -> ExitReport:
        """End it without warning, and wait until it has ended.  Raises ClusterError if it is down already."""

    @abstractmethod
    async def terminate(self, node: int, timeout: float = TERMINATE_TIMEOUT_S) -> ExitReport:
        """Ask it to end (a paused node is resumed first), and wait until it has."""

    @abstractmethod
    async def pause(self, node: int) -> None:
        """Freeze it."""

    @abstractmethod
    async def resume(self, node: int) -> None:
        """Let it go on."""

    @abstractmethod
    async def wipe(self, node: int) -> None:
        """Remove everything the node has stored.  It has to be down; it stays down."""

    @abstractmethod
    def _seen(self, node: int) -> str:
        """What can be said of the node's process, in a line or more."""

    # -- who is there

    def others(self, *nodes: int) -> list[int]:
        """All nodes but these."""
        return [node for node in self.nodes if node not in nodes]

    def running(self) -> tuple[int, ...]:
        """Nodes whose process is there and not paused."""
        return tuple(node for node in self.nodes if self.node_state(node).state == "running")

    # -- all at once

    async def restart(self, node: int, timeout: float | None = None) -> None:
        """Terminate it if it is up, then start it."""
        if self.node_state(node).state != "down":
            await self.terminate(node)
        await self.start(node, timeout)

    async def start_all(self, timeout: float | None = None) -> None:
        """Start every node that is down, all at once."""
        await _each(self.start(node, timeout) for node in self.nodes if self.node_state(node).state == "down")

    async def kill_all(self) -> tuple[ExitReport, ...]:
        """Kill every node that is up, all at once."""
        return await _each(self.kill(node) for node in self._up())

    async def terminate_all(self, timeout: float = TERMINATE_TIMEOUT_S) -> tuple[ExitReport, ...]:
        return await _each(self.terminate(node, timeout) for node in self._up())

    async def pause_all(self) -> None:
        await _each(self.pause(node) for node in self.running())

    async def resume_all(self) -> None:
        await _each(self.resume(node) for node in self.nodes if self.node_state(node).state == "paused")

    async def restart_all(self, timeout: float | None = None) -> None:
        """All down, then all up."""
        await self.terminate_all()
        await self.start_all(timeout)

    def _up(self) -> list[int]:
        return [node for node in self.nodes if self.node_state(node).state != "down"]

    def _last_seen(self) -> dict[int, str]:
        return {node: self._seen(node) for node in self.nodes}


async def _each(actions: Iterable[Awaitable[T]]) -> tuple[T, ...]:
    """All at once, each to its end; then the first error, if there was one."""
    results = await asyncio.gather(*actions, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(result for result in results if not isinstance(result, BaseException))
