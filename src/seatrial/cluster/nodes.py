"""The processes of a cluster's nodes: started, killed, paused, resumed, wiped; and what became of them.

Rule: a call returns when what it asks for is so (the process has ended, is stopped, answers), or raises and says what
it last saw.  An exit that nobody asked for is kept in `unexpected_exits`.
Knows nothing of links and of what the nodes say of Raft.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import httpx

from seatrial.cluster.drivers.base import Driver, NoAnswer, NodeAddresses, NodePlace
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.cluster.node_group import TERMINATE_TIMEOUT_S, ExitReport, NodeGroup, NodeState
from seatrial.cluster.node_process import NodeProcess, Processes
from seatrial.rundir import RunDirectory

READY_POLL_S = 0.02  # asking takes CPU time that a node which starts could use
READY_TIMEOUT_S = 1.0
SIGNAL_POLL_S = 0.001
SIGNAL_TIMEOUT_S = 5.0
# Settings of this harness and its systems must come from the spec, so that a trial can be replayed elsewhere.
ENVIRONMENT_DROPPED = ("SEATRIAL_", "ETCD_")


@cache
def _certificates() -> ssl.SSLContext:
    """Loading them takes tens of milliseconds, so all clusters of a process share one set."""
    return httpx.create_ssl_context(trust_env=False)


class _Node:
    """One node's place and its current incarnation."""

    def __init__(self, place: NodePlace) -> None:
        self.place = place
        self.process: NodeProcess | None = None
        self.incarnation = 0


class Nodes(NodeGroup):
    """The nodes' processes.  `nodes` are the ids, in order; all are down at first."""

    def __init__(
        self, driver: Driver, run: RunDirectory, places: Mapping[int, NodePlace], *, start_timeout: float
    ) -> None:
        self.driver = driver
        self.run = run
        self.nodes = tuple(sorted(places))
        # Whatever ended without being told to, nodes and proxies, oldest first.
        self.unexpected_exits: list[NodeExited] = []
        self.processes = Processes(self._process_ended)
        # Proxies from the environment are for the world outside; these addresses are in this machine.
        self._http = httpx.AsyncClient(verify=_certificates(), trust_env=False, timeout=READY_TIMEOUT_S)
        self._start_timeout = start_timeout
        self._nodes = {node: _Node(place) for node, place in sorted(places.items())}

    async def close(self) -> None:
        """End every process."""
        try:
            await self.processes.close()
        finally:
            await self._http.aclose()

    def _process_ended(self, process: NodeProcess) -> None:
        if not process.end_requested:
            assert process.exit_status is not None
            self.unexpected_exits.append(NodeExited(process.name, process.exit_status, process.log_tail()))

    def _node(self, node: int) -> _Node:
        if node not in self._nodes:
            raise ClusterError(f"there is no node {node}; the cluster has {list(self.nodes)}")
        return self._nodes[node]

    def _process(self, node: int) -> NodeProcess:
        process = self._node(node).process
        if process is None or not process.alive:
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}")
        return process

    async def _spawned(self, node: int, pid: int) -> None:
        """Called between the start of a node's process and the wait for its answer."""

    # -- who is there

    def node_state(self, node: int) -> NodeState:
        this = self._node(node)
        process = this.process
        if process is None:
            return NodeState(node=node, state="down", pid=0, incarnation=0)
        if not process.alive:
            how = process.how_it_ended() + ("" if process.end_requested else ", unexpectedly")
            return NodeState(node=node, state="down", pid=process.pid, incarnation=this.incarnation, exit=how)
        state: Literal["running", "paused"] = "paused" if process.paused else "running"
        return NodeState(node=node, state=state, pid=process.pid, incarnation=this.incarnation)

    def process_state(self, node: int) -> str:
        """What the operating system says of the node's process now: "running", "sleeping", "stopped", …, "gone"."""
        process = self._node(node).process
        return process.state() if process is not None else "gone"

    def addresses(self, node: int) -> NodeAddresses:
        """Where clients reach the node."""
        return self.driver.addresses(self._node(node).place)

    def _add_place(self, place: NodePlace) -> None:
        self._nodes[place.node] = _Node(place)
        self.nodes = (*self.nodes, place.node)

    def data_directory(self, node: int) -> Path:
        """What the node stores is below it."""
        return self._node(node).place.directory

    def log_tail(self, node: int) -> str:
        """The end of what the node's last incarnation wrote to its log; empty where there was none."""
        process = self._node(node).process
        return "" if process is None else process.log_tail()

    # -- processes

    async def start(self, node: int, timeout: float | None = None) -> None:
        """Start a node that is down; returns when it accepts connections.

        Raises NodeExited with the end of its log when it ends first, DeadlineExceeded when it does neither.
        """
        this = self._node(node)
        if this.process is not None and this.process.alive:
            raise ClusterError(f"node {node} is already {self.node_state(node).describe()}")
        command = self.driver.command(this.place)
        logs = self.run.node(node)
        this.place.directory.mkdir(parents=True, exist_ok=True)
        process = self.processes.spawn(
            f"node {node}", command.argv, environment=clean_environment(command.environment), cwd=logs, logs=logs
        )
        this.process = process
        this.incarnation += 1
        await self._spawned(node, process.pid)
        await self._until_ready(this, process, self._start_timeout if timeout is None else timeout)

    async def _until_ready(self, this: _Node, process: NodeProcess, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            process.check_alive()
            try:
                return await self.driver.check_ready(this.place, self._http)
            except NoAnswer as error:
                if loop.time() >= deadline:
                    node = this.place.node
                    raise DeadlineExceeded(
                        f"answer of node {node} after its start", timeout, {node: str(error)}
                    ) from error
            await asyncio.sleep(READY_POLL_S)

    async def kill(self, node: int) -> ExitReport:
        """SIGKILL, and wait until it has ended.  Raises ClusterError if it is down already."""
        return await self._end(node, signal.SIGKILL, SIGNAL_TIMEOUT_S)

    async def terminate(self, node: int, timeout: float = TERMINATE_TIMEOUT_S) -> ExitReport:
        """SIGTERM (a paused node is resumed first), and wait until it has ended."""
        if self.node_state(node).state == "paused":
            await self.resume(node)
        return await self._end(node, signal.SIGTERM, timeout)

    async def _end(self, node: int, number: signal.Signals, timeout: float) -> ExitReport:
        process = self._process(node)
        process.end(number)
        try:
            status = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            raise DeadlineExceeded(f"end of node {node} after {number.name}", timeout, self._last_seen()) from None
        return ExitReport(node=node, pid=process.pid, incarnation=self._node(node).incarnation, exit_status=status)

    async def pause(self, node: int) -> None:
        """SIGSTOP, and wait until the operating system says that it is stopped."""
        await self._signal_and_wait(node, signal.SIGSTOP, lambda state: state == "stopped")

    async def resume(self, node: int) -> None:
        """SIGCONT, and wait until the operating system says that it is not stopped any more."""
        await self._signal_and_wait(node, signal.SIGCONT, lambda state: state != "stopped")

    async def _signal_and_wait(self, node: int, number: signal.Signals, reached: Callable[[str], bool]) -> None:
        process = self._process(node)
        process.send(number)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SIGNAL_TIMEOUT_S
        while not reached(state := process.state()):
            process.check_alive()
            if loop.time() >= deadline:
                raise DeadlineExceeded(f"effect of {number.name}", SIGNAL_TIMEOUT_S, {node: f"process state {state}"})
            await asyncio.sleep(SIGNAL_POLL_S)

    async def wipe(self, node: int) -> None:
        """Remove everything the node has stored.  It has to be down; it stays down."""
        if self.node_state(node).state != "down":
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}; kill it before wiping its data")
        directory = self._node(node).place.directory
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=False)

    def _seen(self, node: int) -> str:
        """The process, and where it ended unexpectedly the end of its log."""
        process = self._node(node).process
        seen = self.node_state(node).describe()
        if process is None or process.alive or process.end_requested:
            return seen
        return f"{seen}; the end of its log:\n{process.log_tail()}"


def clean_environment(added: Mapping[str, str]) -> dict[str, str]:
    """Our own environment, without what could configure a system by accident, and with what the driver adds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_DROPPED)}
    return {**kept, **added}
