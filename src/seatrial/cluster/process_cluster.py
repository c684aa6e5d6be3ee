"""A cluster of processes on this machine, with proxies between them.

Rule: as in `nodes` and `cluster`.  Knows nothing of how the processes and proxies are set up (`spawn`).
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.drivers.base import Driver, NodePlace
from seatrial.cluster.errors import ClusterError
from seatrial.cluster.links import Links
from seatrial.cluster.message_filters import FilterFault, NodeFilters, filtered
from seatrial.cluster.node_group import ExitReport
from seatrial.cluster.nodes import Nodes
from seatrial.cluster.spec import ClusterSpec
from seatrial.cluster.status import NodeStatus
from seatrial.rundir import RunDirectory


class ProcessCluster(Nodes, Cluster):
    """Processes, the proxies between them, and what they say."""

    def __init__(self, spec: ClusterSpec, driver: Driver, run: RunDirectory, places: Mapping[int, NodePlace]) -> None:
        Nodes.__init__(self, driver, run, places, start_timeout=spec.start_timeout)
        Cluster.__init__(self)
        self.spec = spec
        # Set where there are proxies; makes those of a node that the cluster did not begin with.
        self.make_place: Callable[[int], Awaitable[NodePlace]] | None = None
        self._proxies: Links | None = None
        self._filters: list[NodeFilters] = []  # of the faults under way

    def attach(self, links: Links) -> None:
        """The proxies are up: from now on network faults can be carried out."""
        self._links = self._proxies = links

    def filtered(
        self, nodes: Sequence[int], requests: Sequence[Mapping[str, Any]]
    ) -> AbstractAsyncContextManager[FilterFault]:
        """Filter messages on these nodes, each by these requests (the bodies that `--test-hooks` takes)."""
        urls = {node: self.addresses(node).http or "" for node in nodes}
        return filtered(NodeFilters(self._http, urls, requests), self._filters)

    async def start(self, node: int, timeout: float | None = None) -> None:
        await super().start(node, timeout)
        for filters in list(self._filters):
            await filters.started(node)

    async def _end(self, node: int, number: signal.Signals, timeout: float) -> ExitReport:
        if self.node_state(node).state == "running":
            for filters in list(self._filters):
                await filters.ending(node)
        return await super()._end(node, number, timeout)

    @property
    def proxies(self) -> Links | None:
        """Those between the nodes; None where there are none."""
        return self._proxies

    async def add_node(self, node: int) -> str:
        """A node of this new number, down, on an empty directory, that will wait to be made a member; the peer address
        under which it is to be made one.

        Raises ClusterError for a number that was used before, and where there are no links.
        """
        if node in self.nodes:
            raise ClusterError(f"there is a node {node} already; the cluster has {list(self.nodes)}")
        if self.make_place is None:
            raise ClusterError("nodes can be added to a cluster with links: start it with ClusterSpec(links=True)")
        place = await self.make_place(node)
        self._add_place(place)
        return place.advertised

    async def _ask(self, node: int, *, digest: bool) -> tuple[NodeStatus, ...]:
        return await self.driver.status(self._node(node).place, self._http, digest=digest)

    async def _spawned(self, node: int, pid: int) -> None:
        if self._proxies is not None:
            await self._proxies.set_caller(node, [pid])
