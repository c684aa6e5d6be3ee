"""A cluster in the simulator, as faults, waits and status polls see one: they cannot tell it from processes.

Rule: its coroutines run on the harness's own simulated host; what a node is asked to do, it does as its own code.
A node that ends by itself is started again by its supervisor, and is told of as an unexpected exit all the same.
Knows nothing of workloads, plans and verdicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.completion import to_the_end
from seatrial.cluster.drivers.base import Driver, NoAnswer, NodeAddresses
from seatrial.cluster.drivers.own import status_of
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.cluster.message_filters import FilterFault
from seatrial.cluster.node_group import TERMINATE_TIMEOUT_S, ExitReport, NodeState
from seatrial.cluster.status import NodeStatus
from seatrial.env import Clock, Rng
from seatrial.sim.trial_hosts import TrialHosts, TrialServer
from seatrial.trial.simulated_links import SimulatedLinks

T = TypeVar("T")
START_TIMEOUT_S = 20.0
STOP_DEADLINE_S = 4.0  # as `seatrial serve` gives itself
POLL_S = 0.005
ANSWER_S = 2.0
LOG_LINES = 20


class SimulatedCluster(Cluster):
    """The nodes of `hosts`; all are down at first."""

    answers_at_once = True

    def __init__(self, hosts: TrialHosts, driver: Driver, rng: Rng) -> None:
        super().__init__()
        self.driver = driver
        self.nodes = tuple(hosts.servers)
        self._hosts = hosts
        self._links = SimulatedLinks(hosts, rng)
        self._exits: dict[int, int] = dict.fromkeys(self.nodes, 0)

    @property
    def clock(self) -> Clock:
        """The harness's, which runs as the world does."""
        return self._hosts.harness.clock

    def _server(self, node: int) -> TrialServer:
        if node not in self._hosts.servers:
            raise ClusterError(f"there is no node {node}; the cluster has {list(self.nodes)}")
        return self._hosts.servers[node]

    @property
    def unexpected_exits(self) -> list[NodeExited]:  # type: ignore[override]
        """What ended by itself, oldest first."""
        ended = [
            (time_us, node, error) for node, server in self._hosts.servers.items() for time_us, error in server.exits
        ]
        return [
            NodeExited(f"node {node}", error.status, f"{error}\n{self._log(node)}")
            for _, node, error in sorted(ended, key=lambda one: one[:2])
        ]

    def _log(self, node: int) -> str:
        return "\n".join(self._server(node).last_log(LOG_LINES))

    # -- who is there

    def node_state(self, node: int) -> NodeState:
        host = self._server(node).host
        state: Literal["running", "paused", "down"] = "paused" if host.is_paused else "running"
        if not host.is_up:
            state = "down"
        # A process id that is as new with each start as an operating system's.
        return NodeState(node=node, state=state, pid=host.incarnation * 100 + node, incarnation=host.incarnation)

    def process_state(self, node: int) -> str:
        return {"running": "running", "paused": "stopped", "down": "gone"}[self.node_state(node).state]

    def addresses(self, node: int) -> NodeAddresses:
        return NodeAddresses(
            node=node, kafka=self._hosts.kafka_address(node), http=self._hosts.http_address(node), rack=f"node-{node}"
        )

    def _seen(self, node: int) -> str:
        return self.node_state(node).describe()

    def add_node(self, node: int) -> dict[str, str]:
        """A node of this new number, down, on an empty disk, that will wait to be made a member; its addresses."""
        if node in self._hosts.servers:
            raise ClusterError(f"there is a node {node} already; the cluster has {list(self.nodes)}")
        server = self._hosts.add_server(node)
        server.enabled = True
        self.nodes = (*self.nodes, node)
        self._exits[node] = 0
        return server.addresses()

    # -- lives and deaths

    async def start(self, node: int, timeout: float | None = None) -> None:
        server = self._server(node)
        if server.host.is_up:
            raise ClusterError(f"node {node} is already {self.node_state(node).describe()}")
        server.holds = 0
        exits = len(server.exits)
        server.start()
        await self._until(
            lambda: server.serving or len(server.exits) > exits,
            f"answer of node {node} after its start",
            timeout or START_TIMEOUT_S,
            node,
        )
        if len(server.exits) > exits:
            server.hold()  # as a process that ended: nobody starts it again but by name
            error = server.exits[exits][1]
            raise NodeExited(f"node {node}", error.status, f"{error}\n{self._log(node)}")

    async def kill(self, node: int) -> ExitReport:
        return self._ended(node, -signal.SIGKILL)

    async def terminate(self, node: int, timeout: float = TERMINATE_TIMEOUT_S) -> ExitReport:
        server = self._running_server(node)
        if self.node_state(node).state == "paused":
            await self.resume(node)
        stopped: list[bool] = []

        async def stop() -> None:
            try:
                assert server.node is not None
                await asyncio.wait_for(server.node.stop(), STOP_DEADLINE_S)
            except TimeoutError:
                pass  # as the process does: it ends all the same
            finally:
                stopped.append(True)

        if server.node is not None:
            server.host.spawn(stop(), name="stop")
            await self._until(
                lambda: bool(stopped) or not server.host.is_up, f"end of node {node} after SIGTERM", timeout, node
            )
        return self._ended(node, 0)

    def _running_server(self, node: int) -> TrialServer:
        server = self._server(node)
        if not server.host.is_up:
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}")
        return server

    def _ended(self, node: int, exit_status: int) -> ExitReport:
        server, state = self._running_server(node), self.node_state(node)
        server.hold()  # until it is started again by name
        server.crash(power=False)
        return ExitReport(node=node, pid=state.pid, incarnation=state.incarnation, exit_status=exit_status)

    async def pause(self, node: int) -> None:
        self._running_server(node).pause()

    async def resume(self, node: int) -> None:
        self._running_server(node).resume()

    async def wipe(self, node: int) -> None:
        server = self._server(node)
        if server.host.is_up:
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}; kill it before wiping its data")
        server.disk.wipe()

    async def _until(self, condition: Callable[[], bool], what: str, timeout: float, node: int) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not condition():
            if loop.time() >= deadline:
                raise DeadlineExceeded(what, timeout, {node: f"{self._seen(node)}\n{self._log(node)}"})
            await asyncio.sleep(POLL_S)

    # -- what the nodes say and do

    async def _ask(self, node: int, *, digest: bool) -> tuple[NodeStatus, ...]:
        server = self._server(node)
        if server.node is None or not server.serving:
            raise NoAnswer("it is starting")
        incarnation = server.host.incarnation
        return tuple(status_of(node, group, incarnation) for group in server.node.groups_info())

    async def _as_node(self, node: int, function: Callable[[Any], T]) -> T:
        """Have the node run a function as its own code.  Raises ClusterError when it cannot or does not."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: object) -> None:
            if not answered.done():
                answered.set_result(result)

        if not self._server(node).call(function, done):
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}")
        try:
            result = await asyncio.wait_for(answered, ANSWER_S)
        except TimeoutError:
            raise DeadlineExceeded(f"answer of node {node}", ANSWER_S, {node: self._seen(node)}) from None
        if isinstance(result, Exception):
            raise ClusterError(f"node {node} refused: {result}") from result
        answer: T = result
        return answer

    @contextlib.asynccontextmanager
    async def filtered(self, nodes: Sequence[int], requests: Sequence[Mapping[str, Any]]) -> AsyncIterator[FilterFault]:
        fault = FilterFault()
        bodies = [msgspec.json.encode(request) for request in requests]
        attached: list[tuple[int, Any, int]] = []  # of every life that a node has meanwhile

        def attach(number: int, node: Any) -> None:
            for body in bodies:
                attached.append((number, node, node.hooks.attach(body)["id"]))

        again = {number: partial(attach, number) for number in nodes}
        try:
            for number in nodes:
                await self._as_node(number, again[number])
                self._server(number).born.append(again[number])
            yield fault
        finally:
            for number in nodes:
                if again[number] in self._server(number).born:
                    self._server(number).born.remove(again[number])
            await to_the_end(self._detach(attached, fault))

    async def _detach(self, attached: Sequence[tuple[int, Any, int]], fault: FilterFault) -> None:
        for number, node, filter_number in attached:
            if self._server(number).node is not node:  # of a life that is over: its counters are still to be read
                fault.count(number, _counters(node, filter_number))
                continue
            try:
                told = await self._as_node(number, partial(_detach, filter_number))
                fault.count(number, told["counters"])
            except ClusterError as error:
                fault.lost.append(str(error))


def _counters(node: Any, number: int) -> Mapping[str, int]:
    told: list[dict[str, Any]] = node.hooks.told()["filters"]
    counters: Mapping[str, int] = next(one for one in told if one["id"] == number)["counters"]
    return counters


def _detach(number: int, node: Any) -> dict[str, Any]:
    told: dict[str, Any] = node.hooks.detach(number, release=True)
    return told
