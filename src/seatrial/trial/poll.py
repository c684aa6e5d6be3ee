"""Asks every node for its status, again and again, and writes down what changed.

Rule: a node that does not answer is written down too; asking never delays anything else for longer than its own
time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.status import NodeStatus
from seatrial.history import StatusSample

INTERVAL_S = 0.1
UNCHANGED_MAX_NS = 2_000_000_000
ANSWER_TIMEOUT_S = 0.5
FIELDS = tuple(field.name for field in fields(NodeStatus))


class StatusPoll:
    """The trace of what nodes said of themselves."""

    def __init__(self, cluster: Cluster, sink: Callable[[StatusSample], None], now_ns: Callable[[], int]) -> None:
        self.samples: list[StatusSample] = []
        self._cluster = cluster
        self._sink = sink
        self._now_ns = now_ns
        self._last: dict[tuple[int, str], tuple[NodeStatus, int]] = {}  # what was written down last, and when

    async def run(self) -> None:
        """Poll until cancelled: each node on its own, so that a silent one does not slow the others down."""
        await asyncio.gather(*(self._follow(node) for node in self._cluster.nodes))

    async def _follow(self, node: int) -> None:
        while True:
            await self.ask(node)
            await asyncio.sleep(INTERVAL_S)

    async def ask(self, node: int, *, digest: bool = False) -> None:
        """One look at one node."""
        for status in await self._cluster.status(node, digest=digest, timeout=ANSWER_TIMEOUT_S):
            self._note(status)

    def leaders(self) -> dict[str, int]:
        """Who leads which group, by the newest answers."""
        return {status.group: status.node for status, _ in self._last.values() if status.role == "leader"}

    def _note(self, status: NodeStatus) -> None:
        now_ns = self._now_ns()
        told, told_ns = self._last.get((status.node, status.group), (None, 0))
        if status == told and now_ns - told_ns < UNCHANGED_MAX_NS:
            return
        self._last[status.node, status.group] = status, now_ns
        sample = StatusSample(time_ns=now_ns, **{name: getattr(status, name) for name in FIELDS})
        self.samples.append(sample)
        self._sink(sample)
