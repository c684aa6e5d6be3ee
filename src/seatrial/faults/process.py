"""Faults of processes: killed, ended politely, frozen, restarted.

Rule: a fault leaves every node that it hit running again.  The evidence is what the operating system says: the exit
status of the old process and the id of the new one, or the state of the frozen one.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.completion import to_the_end
from seatrial.cluster.node_group import ExitReport
from seatrial.env import Rng
from seatrial.faults.base import Injection, aim, people
from seatrial.faults.targets import Target


class EndsProcesses(ABC):
    """What the faults share that end processes: the targets are down while it is active, and started again after it."""

    kind: ClassVar[str]
    takes_out: ClassVar[bool] = True

    @property
    @abstractmethod
    def target(self) -> Target: ...

    @abstractmethod
    async def end(self, cluster: Cluster, node: int) -> ExitReport:
        """End one node's process."""

    def proves(self, report: ExitReport) -> bool:
        """Whether this exit is what the fault wanted."""
        return True

    def unavailable(self, cluster: Cluster) -> str | None:
        return None

    @asynccontextmanager
    async def injected(
        self, cluster: Cluster, rng: Rng, targets: tuple[int, ...] | None = None
    ) -> AsyncIterator[Injection]:
        targets = targets or await aim(self.target, cluster, rng)
        injection = Injection(description=f"{self.kind} {people(targets)}", targets=targets)
        ended: list[ExitReport] = []
        try:
            ended += await asyncio.gather(*(self.end(cluster, node) for node in targets))
            yield injection
        finally:
            await to_the_end(_start_again(cluster, targets))
            injection.evidence["processes"] = [_replaced(cluster, report) for report in ended]
            injection.bit = bool(ended) and all(self.proves(report) for report in ended)


@dataclass(frozen=True, kw_only=True)
class Kill(EndsProcesses):
    """Kill nodes without warning (SIGKILL), and start them again when it ends."""

    kind: ClassVar[str] = "kill"
    target: Target = Target.ONE

    async def end(self, cluster: Cluster, node: int) -> ExitReport:
        return await cluster.kill(node)

    def proves(self, report: ExitReport) -> bool:
        return report.exit_status == -signal.SIGKILL


@dataclass(frozen=True, kw_only=True)
class KillAll(Kill):
    """Kill every node at once, as when a rack loses its power, and start them again when it ends."""

    kind: ClassVar[str] = "kill-all"
    target: Target = Target.ALL


@dataclass(frozen=True, kw_only=True)
class Terminate(EndsProcesses):
    """End nodes politely (SIGTERM), and start them again when it ends."""

    kind: ClassVar[str] = "terminate"
    target: Target = Target.ONE

    async def end(self, cluster: Cluster, node: int) -> ExitReport:
        return await cluster.terminate(node)


@dataclass(frozen=True, kw_only=True)
class Restart(Terminate):
    """End nodes politely and start them again at once, as a rolling upgrade does."""

    kind: ClassVar[str] = "restart"


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Freeze nodes (SIGSTOP) with their connections open and their clocks running on, and thaw them when it ends."""

    kind: ClassVar[str] = "pause"
    takes_out: ClassVar[bool] = True
    target: Target = Target.ONE

    def unavailable(self, cluster: Cluster) -> str | None:
        return None

    @asynccontextmanager
    async def injected(
        self, cluster: Cluster, rng: Rng, targets: tuple[int, ...] | None = None
    ) -> AsyncIterator[Injection]:
        targets = targets or await aim(self.target, cluster, rng)
        injection = Injection(description=f"pause {people(targets)}", targets=targets)
        started = asyncio.get_running_loop().time()
        try:
            await asyncio.gather(*(cluster.pause(node) for node in targets))
            yield injection
        finally:
            # Read at the last moment: it was frozen for all of the time, not only at first.
            states = {str(node): cluster.process_state(node) for node in targets}
            await to_the_end(_resume(cluster, targets))
            injection.evidence |= {
                "process_states": states,
                "seconds": round(asyncio.get_running_loop().time() - started, 3),
            }
            injection.bit = all(state == "stopped" for state in states.values())


def _replaced(cluster: Cluster, report: ExitReport) -> dict[str, Any]:
    """Old and new process of a node that was ended."""
    return {
        "node": report.node,
        "pid": report.pid,
        "exit_status": report.exit_status,
        "new_pid": cluster.node_state(report.node).pid,
    }


async def _start_again(cluster: Cluster, targets: Sequence[int]) -> None:
    down = [node for node in targets if cluster.node_state(node).state == "down"]
    await asyncio.gather(*(cluster.start(node) for node in down))


async def _resume(cluster: Cluster, targets: Sequence[int]) -> None:
    paused = [node for node in targets if cluster.node_state(node).state == "paused"]
    await asyncio.gather(*(cluster.resume(node) for node in paused))
