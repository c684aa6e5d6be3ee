"""A scenario in the simulator: the cluster on a world of its own, and the test's coroutine on the harness's host.

    simulation = Simulation(seed=7, nodes=5)
    simulation.run(test)          # test: async def (cluster) -> …

Rule: one seed decides everything.  What the observer saw broken at any step fails the scenario, whatever the test says.
A run repeats exactly only in a process that was started for that (`sim.launch`), as its only run.
Knows nothing of pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from seatrial.cluster.drivers import registry as systems
from seatrial.cluster.errors import ClusterError, DeadlineExceeded
from seatrial.env import Clock, Rng
from seatrial.faults.base import Injection
from seatrial.scenario.cluster import ScenarioCluster
from seatrial.scenario.damage import end_of, is_log_file, newest, torn_write
from seatrial.scenario.errors import BrokenPromise
from seatrial.scenario.surroundings import DAMAGES, Environment
from seatrial.sim.full.http import LeanHttp
from seatrial.sim.network import run as run_world
from seatrial.sim.trial_hosts import TrialHosts, TrialServer
from seatrial.trial.simulated_cluster import SimulatedCluster

T = TypeVar("T")
Body = Callable[[ScenarioCluster], Coroutine[Any, Any, T]]
VIRTUAL_S = 60.0
CLOSE_S = 10.0
HTTP_ANSWER_S = 120.0  # who asks has a limit of its own


class Simulation:
    """A world with a cluster.  cluster: the test's, at once; nothing has happened before the first `run`.

    Raises ValueError for an option that the server does not have.
    """

    def __init__(
        self, *, seed: int, nodes: int = 3, options: Mapping[str, Any] | None = None, boot: bool = True
    ) -> None:
        given = {name: _text(value) for name, value in (options or {}).items()}
        self.hosts = TrialHosts(seed=seed, nodes=nodes, duration_s=VIRTUAL_S, options=given)
        driver = systems.by_name("own", None, {**given, "test_hooks": "true"})
        inner = SimulatedCluster(self.hosts, driver, Rng(seed).child("simulated"))
        self.cluster = ScenarioCluster(inner, SimulatedSurroundings(self.hosts, inner), seed=seed)
        self._boot = boot
        self._overdue: asyncio.Task[Any] | None = None  # what did not end in its time, as it stands

    def run(self, body: Body[T], *, virtual_s: float = VIRTUAL_S) -> T:
        """Start the nodes (the first time, where they shall be), then the test; its result, or what it raised.

        It may be called again, for what comes before and after a test: time goes on where it was.
        Raises DeadlineExceeded when it is not over after so many virtual seconds (it then stands still, to be looked
        at, until `close`), BrokenPromise, SimEscape, EventStorm.
        """
        hosts = self.hosts
        task = hosts.harness.spawn(self._whole(body), name="scenario")
        over = run_world(hosts.world, hosts.world.now_us + int(virtual_s * 1_000_000), until=task)
        failure = task.exception() if over else None
        if not over:
            failure = DeadlineExceeded("end of the scenario", virtual_s, self.cluster.last_state())
            self._overdue = task
        found = list(hosts.observer.violations.values())
        if found:
            raise BrokenPromise(found) from failure
        if failure is not None:
            raise failure
        result: T = task.result()
        return result

    async def _whole(self, body: Body[T]) -> T:
        if self._boot:
            self._boot = False
            await self.cluster.start_all()
        try:
            result = await body(self.cluster)
        except GeneratorExit:  # the world has stopped for good, and with it everybody who could be asked
            raise
        except BaseException as failure:
            await self._wind_up(failure)
            raise
        await self.cluster.close()
        return result

    async def _wind_up(self, failure: BaseException) -> None:
        """The nodes are asked once more, and the clients hang up; where one of these fails as well, that is told with
        the failure, and does not take its place."""
        for what, doing in (("asking the nodes once more", self.cluster.look), ("hanging up", self.cluster.close)):
            try:
                await doing()
            except Exception as error:
                failure.add_note(f"{what} failed as well: {type(error).__name__}: {error}")

    def close(self) -> None:
        """End what ran out of time, if anything did: it is cancelled, and has CLOSE_S virtual seconds to clean up."""
        if self._overdue is not None:
            self._overdue.cancel()
            run_world(self.hosts.world, self.hosts.world.now_us + int(CLOSE_S * 1_000_000), until=self._overdue)
            self._overdue = None


def simulated(
    body: Body[T],
    *,
    seed: int,
    nodes: int = 3,
    options: Mapping[str, Any] | None = None,
    boot: bool = True,
    virtual_s: float = VIRTUAL_S,
) -> T:
    """Run one scenario in the simulator, in this process."""
    simulation = Simulation(seed=seed, nodes=nodes, options=options, boot=boot)
    try:
        return simulation.run(body, virtual_s=virtual_s)
    finally:
        simulation.close()


class SimulatedSurroundings:
    """Implements `Surroundings` on simulated machines."""

    env: Environment = "sim"

    def __init__(self, hosts: TrialHosts, cluster: SimulatedCluster) -> None:
        self._hosts = hosts
        self._cluster = cluster

    @property
    def clock(self) -> Clock:
        return self._hosts.harness.clock

    def open_http(self) -> LeanHttp:
        return LeanHttp(answer_s=HTTP_ANSWER_S)

    def open_load_http(self) -> LeanHttp:
        return LeanHttp()

    def log_tail(self, node: int, lines: int) -> str:
        return "\n".join(self._server(node).last_log(lines))

    def _server(self, node: int) -> TrialServer:
        if node not in self._hosts.servers:
            raise ClusterError(f"there is no node {node}; the cluster has {list(self._hosts.servers)}")
        return self._hosts.servers[node]

    async def power_failure(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            server = self._server(node)
            server.hold()  # until it is started by name
            server.crash(power=True)

    # -- disks

    @contextlib.asynccontextmanager
    async def disk_full(self, node: int) -> AsyncIterator[Injection]:
        server = self._server(node)
        server.disk.fills += 1
        injection = Injection(description=f"the disk of node {node} is full", targets=(node,))
        before = server.disk.counts["disk-full"]
        try:
            yield injection
        finally:
            server.disk.fills = max(0, server.disk.fills - 1)
            _told(injection, "writes_refused", server.disk.counts["disk-full"] - before)
            server.start()  # where it gave up; not where it was told to be down

    @contextlib.asynccontextmanager
    async def slow_disk(self, node: int, delay_ms: float) -> AsyncIterator[Injection]:
        disk, delay_us = self._server(node).disk, int(delay_ms * 1000)
        disk.slow_sync_us += delay_us
        injection = Injection(description=f"each sync of node {node} takes {delay_ms:g} ms more", targets=(node,))
        before = disk.counts["slow-sync"]
        try:
            yield injection
        finally:
            disk.slow_sync_us = max(0, disk.slow_sync_us - delay_us)
            _told(injection, "syncs_slowed", disk.counts["slow-sync"] - before)

    async def damage(self, node: int, kind: str, rng: Rng) -> str:
        server = self._server(node)
        if kind == "torn-tail":
            return _tear(server, rng)
        self._hosts.observer.damaged.add(server.node_id)
        if kind == "truncate":
            share = rng.uniform(0.2, 0.9)
            done, what = server.disk.truncate_file(share), f"a file was cut to {share:.0%} of its content"
        else:
            assert kind == "bit-flip", f"{kind} is none of {', '.join(DAMAGES)}"
            place = rng.random()
            done, what = server.disk.rot(place), f"one bit was flipped at {place:.0%} of a file's content"
        if not done:
            raise ClusterError(f"node {node} has stored nothing yet that could be damaged")
        return what

    # -- clocks

    @contextlib.asynccontextmanager
    async def clock_skew(self, node: int, *, offset_ms: float, drift_ppm: int) -> AsyncIterator[Injection]:
        server, offset_us = self._server(node), int(offset_ms * 1000)
        injection = Injection(
            description=f"the clock of node {node} is off by {offset_ms:g} ms, and {drift_ppm} ppm fast",
            targets=(node,),
        )
        clock = server.host.clock
        before_us = clock.wall_us() - self._hosts.world.now_us
        clock.jump_wall(offset_us)
        if drift_ppm:
            server.drift_by(drift_ppm)
        try:
            yield injection
        finally:
            _told(injection, "wall_clock_off_us", clock.wall_us() - self._hosts.world.now_us - before_us)
            clock.jump_wall(-offset_us)
            if drift_ppm:
                server.drift_by(-drift_ppm)

    # -- nodes that come later

    async def add_node(self, node: int) -> dict[str, str]:
        addresses = self._cluster.add_node(node)
        await self._cluster.start(node)
        return addresses


def _tear(server: TrialServer, rng: Rng) -> str:
    files = {path: content for path, content in server.disk.tree.files() if is_log_file(path)}
    if not files:
        raise ClusterError(f"node {server.slot} has no log yet that could be torn")
    path = newest(files, rng)
    content = files[path]
    content.sync()
    content.write(end_of(bytes(content.durable)), torn_write(rng))
    content.sync()
    return f"a write to {path} stopped half-way"


def _told(injection: Injection, what: str, count: int) -> None:
    injection.evidence = {what: count}
    injection.bit = count != 0


def _text(value: object) -> str:
    """An option as a command line has it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
