"""All simulated machines of one run: the nodes that run the server, and the hosts of the clients.

Rule: a node is found by its id, links by pairs of ids; what a node is asked to do it does as its own code, in its loop.
Knows nothing of faults, loads and verdicts.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from seatrial.sim.case import Case
from seatrial.sim.full.observer import Observer
from seatrial.sim.full.server_host import HTTP_PORT, KAFKA_PORT, ServerHost, host_name
from seatrial.sim.hosts import SimHost
from seatrial.sim.links import Link
from seatrial.sim.network import SimNetwork, run
from seatrial.sim.trace import Trace
from seatrial.sim.world import World
from seatrial.workloads.base import Endpoint

LOG_LINES_SHOWN: Final = 12


class Enough(Exception):
    """A promise was broken, and nobody asks for more."""


class Cluster:
    """The machines of a case.  nodes: by slot, spares included; those are not started before
    somebody wants them."""

    def __init__(self, case: Case, *, trace: Trace | None = None, unsafe: frozenset[str] = frozenset()) -> None:
        self.case = case
        self.world = World(case.seed)
        self.network = SimNetwork(self.world, case.network, trace=trace)
        self.observer = Observer(self.world, case)
        self.observer.logs = self.logs
        self.observer.tell = self.say
        if self.network.trace.is_shown:
            self.observer.remark = self.remark
        self.nodes: dict[int, ServerHost] = {
            node_id: ServerHost(self.network, case, node_id, self.observer, unsafe)
            for node_id in range(1, case.nodes + case.spares + 1)
        }
        self.kafka_host: SimHost = self.network.add_host("client-kafka")
        self.kv_host: SimHost = self.network.add_host("client-kv")
        self.operator: SimHost = self.network.add_host("operator")
        self.group_host: SimHost | None = self.network.add_host("client-group") if case.load.members else None

    def run(self, until_us: int, *, until: asyncio.Future[Any] | None = None) -> bool:
        """As `network.run`.  Raises Enough where the observer is to stop at the first violation, and there is one."""
        self._raise_if_enough()
        ended = run(self.world, until_us, until=until)
        self._raise_if_enough()
        return ended

    def _raise_if_enough(self) -> None:
        if self.observer.stops_at_first and self.observer.violations:
            raise Enough

    def say(self, text: str) -> None:
        """A line of the trace, with the time."""
        self.network.trace.line(f"{self.world.now_us} {text}")

    def remark(self, text: str) -> None:
        """As `say`, of what the trace tells anyway: each message's bytes are in the line of its segment."""
        self.network.trace.remark(f"{self.world.now_us} {text}")

    def start(self) -> None:
        for server in self.nodes.values():
            server.start()

    def link(self, source: int, target: int) -> Link:
        return self.network.link(host_name(source), host_name(target))

    def endpoints(self) -> list[Endpoint]:
        """Where clients find the nodes."""
        return [
            Endpoint(node=n, kafka=f"{host_name(n)}:{KAFKA_PORT}", http=f"http://{host_name(n)}:{HTTP_PORT}")
            for n in self.nodes
        ]

    def sample(self) -> None:
        """Have the observer write down every node's status now."""
        self.observer.sample(
            [
                (server.node_id, server.node if server.host.is_up else None, server.host.incarnation)
                for server in self.nodes.values()
            ]
        )

    def logs(self) -> dict[str, list[str]]:
        """The last that each node had to say."""
        return {host_name(n): server.last_log(LOG_LINES_SHOWN) for n, server in self.nodes.items()}
