"""A cluster that stands before another one: everything asked of it is passed on, and what is done to nodes and links,
and what nodes say of themselves, is written down on the way.

Rule: nothing here knows an environment or a system; what differs is behind `Surroundings` and `Driver`.
Knows nothing of clients, and of how what was written down is judged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from typing import Any

from seatrial.cluster.cluster import STATUS_TIMEOUT_S, Cluster, LinkControl
from seatrial.cluster.connectivity import Link
from seatrial.cluster.drivers.base import NodeAddresses
from seatrial.cluster.errors import ClusterError, NodeExited
from seatrial.cluster.message_filters import FilterFault
from seatrial.cluster.node_group import TERMINATE_TIMEOUT_S, ExitReport, NodeState
from seatrial.cluster.status import NodeStatus
from seatrial.env import Clock, Rng
from seatrial.faults.base import Injection
from seatrial.history import StatusSample
from seatrial.scenario.errors import NotHere
from seatrial.scenario.faults import FaultLog, RecordedLinks
from seatrial.scenario.messages import Direction, by_rule, on_links
from seatrial.scenario.records import Records
from seatrial.scenario.surroundings import DAMAGES, Environment, Surroundings

DOWN = ("kill", "terminate", "power-failure")
STATUS_FIELDS = tuple(field.name for field in fields(NodeStatus))


class RecordedCluster(Cluster):
    """All of `Cluster`, and:

    rng: chance that the seed decides; draw from `rng.child("what for")`.  clock: the test's, virtual where time is.
    records: what was done and said, for checkers and reports.
    """

    def __init__(self, inner: Cluster, surroundings: Surroundings, *, seed: int) -> None:
        super().__init__()
        self._inner = inner
        self._members = inner.nodes
        self._surroundings = surroundings
        self.driver = inner.driver
        self.answers_at_once = inner.answers_at_once
        self.seed = seed
        self.rng = Rng(seed).child("scenario")
        self.records = Records(surroundings.clock)
        self._faults = FaultLog(self.records, self.connected_majority)
        self._damages = self._filters = 0  # so far; each draws from a stream of its own
        self._recorded_links: RecordedLinks | None = None
        self._last_status: dict[int, tuple[NodeStatus, ...]] = {}

    # -- who and where

    @property
    def env(self) -> Environment:
        return self._surroundings.env

    @property
    def system(self) -> str:
        """The driver's name: "own", "etcd", …"""
        return self.driver.name

    @property
    def clock(self) -> Clock:
        return self._surroundings.clock

    @property
    def nodes(self) -> tuple[int, ...]:  # type: ignore[override]
        """The members; a node that was removed may still run."""
        return self._members

    @property
    def unexpected_exits(self) -> list[NodeExited]:  # type: ignore[override]
        return self._inner.unexpected_exits

    def node_state(self, node: int) -> NodeState:
        return self._inner.node_state(node)

    def process_state(self, node: int) -> str:
        return self._inner.process_state(node)

    def addresses(self, node: int) -> NodeAddresses:
        return self._inner.addresses(node)

    def _seen(self, node: int) -> str:
        return self._inner._seen(node)

    # -- members that come and go (`members`)

    async def new_node(self) -> tuple[int, Mapping[str, str]]:
        """A node that runs and waits to be made a member: its number, never used before, and its addresses."""
        node = max(self._inner.nodes) + 1
        return node, await self._surroundings.add_node(node)

    def member_came(self, node: int) -> None:
        """From now on it counts as one of `nodes`."""
        self._members = tuple(sorted({*self._members, node}))

    def member_left(self, node: int) -> None:
        """From now on it does not; it can still be killed, started and cut off by its number."""
        self._members = tuple(other for other in self._members if other != node)

    # -- lives and deaths

    async def start(self, node: int, timeout: float | None = None) -> None:
        await self._inner.start(node, timeout)
        self._faults.end(DOWN, node)

    async def kill(self, node: int) -> ExitReport:
        report = await self._inner.kill(node)
        self._faults.begin("kill", node)
        return report

    async def terminate(self, node: int, timeout: float = TERMINATE_TIMEOUT_S) -> ExitReport:
        report = await self._inner.terminate(node, timeout)
        self._faults.begin("terminate", node)
        return report

    async def pause(self, node: int) -> None:
        await self._inner.pause(node)
        self._faults.begin("pause", node)

    async def resume(self, node: int) -> None:
        await self._inner.resume(node)
        self._faults.end(("pause",), node)

    async def wipe(self, node: int) -> None:
        await self._inner.wipe(node)
        number = self._faults.inject("wipe", f"wipe node {node}", (node,))
        self._faults.heal(number, "wipe", f"wipe node {node}", (node,), bit=True)

    async def power_failure(self, nodes: Collection[int] | None = None) -> None:
        """All of these nodes (None: every one) lose their power at once, and stay down: `start` or `start_all` them.

        In the simulator what no sync had returned for is lost or torn; on processes it is a SIGKILL, which loses
        nothing that was written.
        """
        hit = [node for node in (self.nodes if nodes is None else sorted(nodes)) if node in self._up()]
        await self._surroundings.power_failure(hit)
        for node in hit:
            self._faults.begin("power-failure", node)

    # -- disks and clocks

    def disk_full(self, node: int) -> AbstractAsyncContextManager[Injection]:
        """No write to the node's disk succeeds, until this ends; then a node that gave up is started again."""
        return self._faults.recorded("disk-full", self._surroundings.disk_full(node))

    def slow_disk(self, node: int, delay_ms: float) -> AbstractAsyncContextManager[Injection]:
        """Each sync of the node's disk takes so much longer."""
        return self._faults.recorded("slow-disk", self._surroundings.slow_disk(node, delay_ms))

    async def damage(self, node: int, kind: str) -> str:
        """Damage what a node that is down has stored; says what was done.

        kind: "torn-tail" (a write that stopped half-way; the node has to live with it), "truncate", "bit-flip" (the
        node has to notice: it refuses to serve).
        """
        if kind not in DAMAGES:
            raise ValueError(f"there is no damage {kind!r}; there is: {', '.join(DAMAGES)}")
        if self.node_state(node).state != "down":
            raise ClusterError(f"node {node} is {self.node_state(node).describe()}; kill it before damaging its data")
        self._damages += 1
        what = await self._surroundings.damage(node, kind, self.rng.child(f"damage {self._damages}"))
        number = self._faults.inject("damage", f"{kind} of node {node}: {what}", (node,))
        self._faults.heal(number, "damage", f"{kind} of node {node}", (node,), bit=True)
        return what

    def clock_skew(
        self, node: int, *, offset_ms: float = 0, drift_ppm: int = 0
    ) -> AbstractAsyncContextManager[Injection]:
        """The node's wall clock is off by so much, and its clocks run so much too fast (or slow), until this ends."""
        context = self._surroundings.clock_skew(node, offset_ms=offset_ms, drift_ppm=drift_ppm)
        return self._faults.recorded("clock-skew", context)

    # -- links and messages

    @property
    def links(self) -> LinkControl:
        if self._recorded_links is None:
            self._recorded_links = RecordedLinks(self._inner.links, self._faults)
        return self._recorded_links

    @property
    def has_links(self) -> bool:
        return self._inner.has_links

    def filtered(
        self, nodes: Sequence[int], requests: Sequence[Mapping[str, Any]]
    ) -> AbstractAsyncContextManager[FilterFault]:
        if not self.driver.test_hooks:
            raise NotHere(f"the nodes of {self.system} do not filter messages: it takes system own")
        return self._inner.filtered(nodes, requests)

    def messages(
        self,
        rule: str,
        *,
        at: int | Collection[int],
        value: float = 0,
        direction: Direction = "both",
        group: str | None = None,
    ) -> AbstractAsyncContextManager[Injection]:
        """Drop, delay, hold, repeat or rewrite single Raft messages at these nodes, by a rule's name: "drop-votes",
        "delay-appends", "duplicate-messages", …; `docs/reference/` has all of them, and what `value` means to each.

        direction: what the nodes send ("out"), what is sent to them ("in"), or both.  group: one Raft group's alone.
        """
        nodes = sorted({at} if isinstance(at, int) else set(at))
        context = by_rule(self, rule, at=nodes, value=value, direction=direction, group=group, rng=self._filter_rng())
        return self._faults.recorded("messages", context)

    def loss(self, links: Sequence[Link], probability: float) -> AbstractAsyncContextManager[Injection]:
        """Raft messages on these links vanish, each with this probability."""
        return self._faults.recorded("loss", on_links(self, "lose-messages", links, probability, self._filter_rng()))

    def reorder(self, links: Sequence[Link], most_ms: float = 100) -> AbstractAsyncContextManager[Injection]:
        """Each Raft message on these links is late by a time of its own, so that they overtake each other."""
        context = on_links(self, "reorder-messages", links, most_ms * 1000, self._filter_rng())
        return self._faults.recorded("reorder", context)

    def duplicate(self, links: Sequence[Link], probability: float = 0.5) -> AbstractAsyncContextManager[Injection]:
        """Raft messages on these links arrive twice, each with this probability."""
        context = on_links(self, "duplicate-messages", links, probability, self._filter_rng())
        return self._faults.recorded("duplicate", context)

    def _filter_rng(self) -> Rng:
        self._filters += 1
        return self.rng.child(f"filter {self._filters}")

    # -- what the nodes say

    async def _ask(self, node: int, *, digest: bool) -> tuple[NodeStatus, ...]:
        return await self._inner._ask(node, digest=digest)

    async def status(
        self, node: int, *, digest: bool = False, timeout: float = STATUS_TIMEOUT_S
    ) -> tuple[NodeStatus, ...]:
        said = await super().status(node, digest=digest, timeout=timeout)
        if self._last_status.get(node) != said:
            self._last_status[node] = said
            now_ns = self.records.now_ns()
            self.records.statuses += [
                StatusSample(time_ns=now_ns, **{name: getattr(status, name) for name in STATUS_FIELDS})
                for status in said
            ]
        return said
