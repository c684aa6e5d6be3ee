"""The simulated machines of a trial: nodes with the server as shipped, and one host for the harness and its clients.

Rule: a node's settings are those that `seatrial serve` would be given, read by the server's own table of options.
Knows nothing of faults, workloads and verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from seatrial.raft.ids import NodeId
from seatrial.server.config import OPTIONS, ServerConfig
from seatrial.server.node import Node
from seatrial.sim.case import Case, Raft
from seatrial.sim.full.observer import Observer
from seatrial.sim.full.server_host import HTTP_PORT, KAFKA_PORT, ServerHost, host_name
from seatrial.sim.links import Link
from seatrial.sim.network import SimNetwork
from seatrial.sim.trace import Trace
from seatrial.sim.world import World

T = TypeVar("T")
EVENTS_A_SECOND_MAX: Final = 400_000  # of virtual time: more is a storm
SECONDS_BESIDE_FAULTS: Final = 300  # set-up, waiting for consensus, final reads


class TrialServer(ServerHost):
    """A node with the options of a trial.  serving: it is started, and answers."""

    def __init__(self, network: SimNetwork, case: Case, node_id: int, observer: Observer, options: Mapping[str, Any]):
        self.serving = False
        self.peers: dict[NodeId, str] = {}  # of a node that comes later: those whose connections it accepts at first
        self._options = dict(options)
        super().__init__(network, case, node_id, observer)

    def _config(self) -> ServerConfig:
        config = replace(super()._config(), **self._options)
        return replace(config, peers=self.peers) if self.peers else config

    def crash(self, *, power: bool) -> bool:
        self.serving = False
        return super().crash(power=power)

    async def _serve(self) -> None:
        await super()._serve()
        self.serving = self.node is not None and self.host.is_up

    def call(self, function: Callable[[Node], T], done: Callable[[T | Exception], None]) -> bool:
        """Run a function on the node, as its own code, and hand on what comes of it; False where it does not run."""

        def run(node: Node) -> None:
            try:
                result: T | Exception = function(node)
            except Exception as error:  # handed to who asked
                result = error
            done(result)

        return self.ask(run)


class TrialHosts:
    """The machines of one trial.  servers: by node id; none is started.  harness: where everything else runs."""

    def __init__(self, *, seed: int, nodes: int, duration_s: float, options: Mapping[str, str]) -> None:
        values = read_options(options)
        defaults = Raft()
        raft = Raft(
            heartbeat_us=values.pop("heartbeat_ms", defaults.heartbeat_us // 1000) * 1000,
            election_timeout_us=values.pop("election_timeout_ms", defaults.election_timeout_us // 1000) * 1000,
            lease_reads=values.pop("lease_reads", defaults.lease_reads),
        )
        case = Case(level="full", seed=seed, nodes=nodes, raft=raft)
        self.world = World(seed, events_max=int(EVENTS_A_SECOND_MAX * (duration_s + SECONDS_BESIDE_FAULTS)))
        self.network = SimNetwork(self.world, case.network, trace=Trace(None))
        self.observer = Observer(self.world, case)
        self._case, self._options = case, {**values, "test_hooks": True}
        self.servers: dict[int, TrialServer] = {}
        for node in range(1, nodes + 1):
            self.add_server(node)
        self.observer.logs = lambda: {host_name(node): server.last_log() for node, server in self.servers.items()}
        self.harness = self.network.add_host("harness")

    def add_server(self, node: int) -> TrialServer:
        """Another machine, not started; one of those that the cluster begins with up to its size, else one that waits
        to be made a member."""
        assert node not in self.servers, f"there is a node {node} already"
        server = TrialServer(self.network, self._case, node, self.observer, self._options)
        if node > self._case.nodes:
            server.peers = {NodeId(n): other.addresses()["raft_addr"] for n, other in self.servers.items()}
        self.servers[node] = server
        return server

    def link(self, source: int, target: int) -> Link:
        return self.network.link(host_name(source), host_name(target))

    def reset(self, source: int, target: int) -> None:
        """Break the connections between two nodes, whoever dialled them."""
        self.network.reset(host_name(source), host_name(target))
        self.network.reset(host_name(target), host_name(source))

    def kafka_address(self, node: int) -> str:
        return f"{host_name(node)}:{KAFKA_PORT}"

    def http_address(self, node: int) -> str:
        return f"http://{host_name(node)}:{HTTP_PORT}"


def read_options(options: Mapping[str, str]) -> dict[str, Any]:
    """What the options of a trial mean to the server, by its settings' names.

    Raises:
        ValueError: the server has no such option, or cannot have this value for it.
    """
    known = {option.attribute: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for name, text in options.items():
        option = known.get(name)
        if option is None:
            raise ValueError(f"the server has no option {name!r}; it has: {', '.join(known)}")
        try:
            values[name] = option.read(str(text))
        except ValueError as error:
            raise ValueError(f"option {name}: {error}") from None
    values.pop("uvloop", None)  # there is one kind of loop in a simulation
    return values
