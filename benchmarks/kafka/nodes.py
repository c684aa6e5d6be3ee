"""A peer's processes in one measure: started, killed, weighed, and all of it away again.

Rule: leaving `prepared` leaves no process and no directory behind, also by an exception or a signal; what is left when
this process itself is killed is ended by the guardian (seatrial.cluster.guardian).
Knows nothing of Kafka's protocol.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
from peers import Peer

from seatrial.cluster.drivers.base import NodePlace
from seatrial.cluster.node_process import NodeProcess, Processes
from seatrial.cluster.nodes import clean_environment
from seatrial.cluster.ports import lease_addresses
from seatrial.cluster.workspace import TemporaryWorkspace, sweep

LAST_WORDS = 2000  # characters of each log


class Nodes:
    """The nodes of one peer, all down at first."""

    def __init__(
        self,
        peer: Peer,
        durability: str,
        places: Mapping[int, NodePlace],
        processes: Processes,
        runner: asyncio.Runner,
    ) -> None:
        self.peer = peer
        self._durability = durability
        self._places = places
        self._processes = processes
        self._runner = runner
        self._running: dict[int, NodeProcess] = {}

    @property
    def bootstrap(self) -> str:
        return self.peer.bootstrap(self._places)

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._places)

    def start(self, *nodes: int) -> None:
        """Start these nodes, or all; returns before they answer."""

        async def spawn() -> None:
            for node in nodes or self.nodes:
                place = self._places[node]
                self._running[node] = self._processes.spawn(
                    f"{self.peer.name} {node}",
                    self.peer.command(place, self._durability),
                    environment=clean_environment({}),
                    cwd=place.directory,
                    logs=place.directory / "logs",
                )

        self._runner.run(spawn())

    def kill(self, node: int) -> None:
        """SIGKILL; the process may still be there for a moment."""
        self._running[node].end(signal.SIGKILL)

    def wait_for_end(self, node: int) -> None:
        self._runner.run(self._ended(node))

    async def _ended(self, node: int) -> None:
        await self._running[node].wait()

    def cpu_seconds(self) -> dict[int, float]:
        """User and system time that each node's process has used."""
        times = {node: psutil.Process(process.pid).cpu_times() for node, process in self._running.items()}
        return {node: used.user + used.system for node, used in times.items()}

    def memory_mb(self) -> float:
        """Of all nodes together, in 10^6 bytes: what they have to themselves and their share of the rest (PSS)."""
        shares: list[int] = [psutil.Process(process.pid).memory_full_info().pss for process in self._running.values()]
        return sum(shares) / 1e6

    def peak_memory_mb(self) -> float:
        """The most that the nodes have had resident, each at its own moment, together, in 10^6 bytes."""
        return sum(_peak_kilobytes(process.pid) for process in self._running.values()) * 1024 / 1e6

    def last_words(self) -> str:
        """The end of what each node wrote, for the message of a failure."""
        logs = [process.log for process in self._running.values()]
        written = [path for log in logs for path in (log, log.with_name("stdout.log")) if path.stat().st_size]
        return "\n".join(f"{path}: {path.read_text(errors='replace')[-LAST_WORDS:]}" for path in written)


@contextmanager
def prepared(peer: Peer, durability: str) -> Iterator[Nodes]:
    """The peer's nodes with addresses and empty directories of their own, none started yet."""
    workspace = TemporaryWorkspace()
    lease = lease_addresses()
    try:
        sweep()
        with asyncio.Runner() as runner:
            processes = runner.run(_processes())
            try:
                processes.remove_at_end(workspace.root)
                numbers = range(1, peer.processes + 1)
                listen = {
                    node: {service: lease.address(node, port) for service, port in peer.ports.items()}
                    for node in numbers
                }
                peers = {node: listen[node]["peer"] for node in numbers}
                places = {
                    node: NodePlace(node=node, directory=workspace.root / str(node), listen=listen[node], peers=peers)
                    for node in numbers
                }
                with ThreadPoolExecutor() as threads:
                    for _ in threads.map(lambda place: peer.lay_out(place, durability), places.values()):
                        pass
                yield Nodes(peer, durability, places, processes, runner)
            finally:
                runner.run(processes.close())
    finally:
        lease.close()
        workspace.close()


async def _processes() -> Processes:
    return Processes(lambda _process: None)


def _peak_kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError(f"/proc/{pid}/status does not tell the peak of its memory")
