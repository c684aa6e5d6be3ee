"""A scenario on real processes of this machine, with proxies between them.

Rule: as `cluster.spawn`: nothing is left of it.  What only a simulated machine can suffer is refused with the reason.
Knows nothing of pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import httpx

from seatrial.cluster.errors import ClusterError
from seatrial.cluster.process_cluster import ProcessCluster
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.env import Clock, RealClock, Rng
from seatrial.faults.base import Injection
from seatrial.scenario.cluster import ScenarioCluster
from seatrial.scenario.damage import end_of, flipped, is_log_file, newest, torn_write, truncated
from seatrial.scenario.errors import NotHere
from seatrial.scenario.surroundings import Environment
from seatrial.workloads.http_outcomes import open_client

HTTP_ANSWER_S = 120.0  # who asks has a limit of its own


@contextlib.asynccontextmanager
async def local(
    *,
    nodes: int = 3,
    system: str = "own",
    version: str | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    boot: bool = True,
    directory: Path | None = None,
) -> AsyncIterator[ScenarioCluster]:
    """A cluster of real processes; all of them run (`boot`), or none does.

    directory: where the nodes' data and logs are; None: a temporary one.  Our own nodes take message filters.
    Raises ValueError, Unavailable (of `cluster.errors`), NodeExited, DeadlineExceeded.
    """
    given = {"test_hooks": True, **(options or {})} if system == "own" else dict(options or {})
    spec = ClusterSpec(
        system=system, nodes=nodes, version=version, options=given, seed=seed, directory=directory, links=True
    )
    async with spawn_cluster(spec, boot=boot) as inner:
        cluster = ScenarioCluster(inner, LocalSurroundings(inner), seed=seed)
        try:
            yield cluster
        finally:
            await cluster.close()


class LocalSurroundings:
    """Implements `Surroundings` on processes."""

    env: Environment = "local"

    def __init__(self, cluster: ProcessCluster) -> None:
        self._cluster = cluster
        self.clock: Clock = RealClock()

    def open_http(self) -> httpx.AsyncClient:
        return open_client(HTTP_ANSWER_S)

    def open_load_http(self) -> httpx.AsyncClient:
        return open_client()

    def log_tail(self, node: int, lines: int) -> str:
        return "\n".join(self._cluster.log_tail(node).splitlines()[-lines:])

    async def power_failure(self, nodes: Sequence[int]) -> None:
        await asyncio.gather(*(self._cluster.kill(node) for node in nodes))

    # -- what processes of this machine cannot be made to suffer

    def disk_full(self, node: int) -> contextlib.AbstractAsyncContextManager[Injection]:
        self._refuse("a full disk", "a file system of each node's own, which takes root")

    def slow_disk(self, node: int, delay_ms: float) -> contextlib.AbstractAsyncContextManager[Injection]:
        self._refuse("a slow disk", "a file system of each node's own, which takes root")

    def clock_skew(
        self, node: int, *, offset_ms: float, drift_ppm: int
    ) -> contextlib.AbstractAsyncContextManager[Injection]:
        self._refuse("a clock of a node's own", "a time namespace, which takes root")

    def _refuse(self, what: str, needs: str) -> NoReturn:
        system = self._cluster.driver.name
        where = "run this scenario in sim (--cluster-env=sim)"
        if system != "own":
            where = f"only simulated nodes have it, and {system} cannot be simulated: run this scenario with system own"
            where += " in sim (--cluster-system=own --cluster-env=sim)"
        raise NotHere(f"{what} cannot be had on processes of this machine ({needs}): {where}")

    # -- stored data

    async def damage(self, node: int, kind: str, rng: Rng) -> str:
        directory = self._cluster.data_directory(node)
        if self._cluster.driver.name != "own":
            raise NotHere(f"the files of {self._cluster.driver.name} are not known: only system own can be damaged")
        files = [str(path) for path in sorted(directory.rglob("*")) if is_log_file(str(path))]
        if not files:
            raise ClusterError(f"node {node} has no log yet that could be damaged")
        path = Path(newest(files, rng))
        content = path.read_bytes()
        if kind == "torn-tail":
            at = end_of(content)
            torn = torn_write(rng)
            path.write_bytes(content[:at].ljust(at, b"\0") + torn + content[at + len(torn) :])
            return f"a write to {path.name} stopped half-way"
        change: Callable[[bytes, Rng], bytes] = truncated if kind == "truncate" else flipped
        path.write_bytes(change(content, rng))
        return f"{kind} of {path.name}"

    async def add_node(self, node: int) -> dict[str, str]:
        raft_address = await self._cluster.add_node(node)
        await self._cluster.start(node)
        return {"raft_addr": raft_address}
