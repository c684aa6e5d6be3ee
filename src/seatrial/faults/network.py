"""Faults of the network between nodes: cut, slowed, dropped, reset.

Rule: only links between nodes are touched, never those of clients; undoing delivers what a cut had kept.  The evidence
is what the proxies counted: bytes held, delayed or dropped, connections closed or reset.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, Literal

from seatrial.cluster.cluster import Cluster, CutMode, LinkContext
from seatrial.cluster.connectivity import Link
from seatrial.cluster.links import LinkFault
from seatrial.env import Rng
from seatrial.faults.base import Injection, aim, people
from seatrial.faults.targets import Target


class NetworkFault(ABC):
    """What all faults of links share: where they can be done, and how they are, given their links.

    A subclass names its kind, has a `target` among its fields, and says what it does to which links.
    """

    kind: ClassVar[str]
    takes_out: ClassVar[bool] = True
    nodes_min: ClassVar[int] = 2

    @property
    @abstractmethod
    def target(self) -> Target: ...

    @abstractmethod
    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        """What it is, in words, and the context in which it is so."""

    def unavailable(self, cluster: Cluster) -> str | None:
        if len(cluster.nodes) < self.nodes_min:
            return f"{self.kind} needs at least {self.nodes_min} nodes; the cluster has {len(cluster.nodes)}"
        return None if cluster.has_links else "the cluster was started without links (ClusterSpec.links)"

    @asynccontextmanager
    async def injected(
        self, cluster: Cluster, rng: Rng, targets: tuple[int, ...] | None = None
    ) -> AsyncIterator[Injection]:
        targets = targets or await aim(self.target, cluster, rng)
        description, context = self.begin(cluster, rng, targets)
        injection = Injection(description=description, targets=targets)
        link_fault: LinkFault | None = None
        try:
            async with context as link_fault:
                yield injection
        finally:
            if link_fault is not None:
                injection.bit = link_fault.bit
                injection.evidence = {**link_fault.evidence, "links": link_fault.by_link}


@dataclass(frozen=True, kw_only=True)
class Partition(NetworkFault):
    """Split the cluster in two: the targets on one side, everyone else on the other."""

    kind: ClassVar[str] = "partition"
    target: Target = Target.HALF
    mode: CutMode = "hold"

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        rest = people(tuple(cluster.others(*targets)))
        return f"partition {people(targets)} from {rest} ({self.mode})", cluster.partition(targets, mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class Isolate(NetworkFault):
    """Cut each target off from every other node, both ways."""

    kind: ClassVar[str] = "isolate"
    target: Target = Target.ONE
    mode: CutMode = "hold"

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        links = cluster.links_between(*([node] for node in targets))
        return f"isolate {people(targets)} ({self.mode})", cluster.cut_links(links, mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class OneWayCut(NetworkFault):
    """Cut one direction: the targets are heard by nobody (`out`), or hear nobody (`in`)."""

    kind: ClassVar[str] = "cut"
    target: Target = Target.ONE
    direction: Literal["out", "in"] = "out"
    mode: CutMode = "hold"

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        end = 0 if self.direction == "out" else 1
        links = [link for link in cluster.links_between(*([node] for node in targets)) if link[end] in targets]
        what = "what is sent by" if self.direction == "out" else "what is sent to"
        return f"cut {what} {people(targets)} ({self.mode})", cluster.cut_links(links, mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class Latency(NetworkFault):
    """Delay everything between the targets and the other nodes, with jitter."""

    kind: ClassVar[str] = "latency"
    takes_out: ClassVar[bool] = False
    target: Target = Target.ONE
    latency_ms: int = 50
    jitter_ms: int = 20

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        description = f"delay the links of {people(targets)} by {self.latency_ms} ± {self.jitter_ms} ms"
        return description, cluster.latency(links_touching(cluster, targets), self.latency_ms, self.jitter_ms)


@dataclass(frozen=True, kw_only=True)
class Bandwidth(NetworkFault):
    """Let only so many kilobytes a second through each link of the targets."""

    kind: ClassVar[str] = "bandwidth"
    takes_out: ClassVar[bool] = False
    target: Target = Target.ONE
    kilobytes_per_second: int = 64

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        description = f"limit the links of {people(targets)} to {self.kilobytes_per_second} KB/s each"
        return description, cluster.bandwidth(links_touching(cluster, targets), self.kilobytes_per_second)


@dataclass(frozen=True, kw_only=True)
class BlackHole(NetworkFault):
    """Let everything between the targets and the others vanish; the connections look alive, and close at the end."""

    kind: ClassVar[str] = "timeout"
    target: Target = Target.ONE

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        return f"drop everything from and to {people(targets)}", cluster.timeout(cluster.links_between(targets))


@dataclass(frozen=True, kw_only=True)
class ResetConnections(NetworkFault):
    """Break every connection between the targets and the other nodes with an RST, and each new one until it ends."""

    kind: ClassVar[str] = "reset"
    target: Target = Target.ONE

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        return f"reset the connections of {people(targets)}", cluster.reset(links_touching(cluster, targets))


@dataclass(frozen=True, kw_only=True)
class Bridge(NetworkFault):
    """Split the cluster in two sides that both still reach one node, the bridge."""

    kind: ClassVar[str] = "bridge"
    nodes_min: ClassVar[int] = 3
    target: Target = Target.HALF
    mode: CutMode = "hold"

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        bridge = rng.choice(cluster.others(*targets))
        far = people(tuple(cluster.others(bridge, *targets)))
        links = [link for link in cluster.links_between(targets) if bridge not in link]
        description = f"split {people(targets)} from {far}; node {bridge} reaches both ({self.mode})"
        return description, cluster.cut_links(links, mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class MajoritiesRing(NetworkFault):
    """Let every node reach a majority, and no two of them the same one: each talks to its neighbours in a ring."""

    kind: ClassVar[str] = "majorities-ring"
    nodes_min: ClassVar[int] = 4
    target: Target = Target.ALL
    mode: CutMode = "hold"

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        ring = list(cluster.nodes)
        rng.shuffle(ring)
        description = f"ring of majorities {' - '.join(map(str, ring))} ({self.mode})"
        return description, cluster.cut_links(links_across_ring(ring), mode=self.mode)


@dataclass(frozen=True, kw_only=True)
class Flapping(NetworkFault):
    """Cut the targets off and let them back, again and again: half of each period they are cut off."""

    kind: ClassVar[str] = "flapping"
    target: Target = Target.ONE
    period_ms: int = 200

    def begin(self, cluster: Cluster, rng: Rng, targets: tuple[int, ...]) -> tuple[str, LinkContext]:
        return f"flap the links of {people(targets)} every {self.period_ms} ms", self._flapping(cluster, targets)

    @asynccontextmanager
    async def _flapping(self, cluster: Cluster, targets: tuple[int, ...]) -> AsyncIterator[LinkFault]:
        """Flap in the background; the evidence of all cuts together."""
        total = LinkFault("hold", cluster.links_between(targets))
        cuts: list[LinkFault] = []
        # Cut for the whole time, as far as it matters who can be relied on to be connected.
        cluster.links.cuts.add(total.links)
        flapping = asyncio.ensure_future(self._flap(cluster, targets, cuts))
        try:
            yield total
        finally:
            flapping.cancel()
            await asyncio.wait([flapping])
            cluster.links.cuts.remove(total.links)
            total.observed = all(cut.observed for cut in cuts)
            total.evidence = dict(sum((Counter(cut.evidence) for cut in cuts), Counter({"cuts": len(cuts)})))
        if not flapping.cancelled():
            flapping.result()  # it ended by itself: raise why

    async def _flap(self, cluster: Cluster, targets: Sequence[int], cuts: list[LinkFault]) -> None:
        half_period_s = self.period_ms / 2000
        while True:
            async with cluster.partition(targets) as cut:
                cuts.append(cut)
                await asyncio.sleep(half_period_s)
            await asyncio.sleep(half_period_s)


def links_touching(cluster: Cluster, targets: Sequence[int]) -> tuple[Link, ...]:
    """Every directed link that begins or ends at a target, those between targets included."""
    return tuple(link for link in cluster.all_links() if link[0] in targets or link[1] in targets)


def links_across_ring(ring: Sequence[int]) -> tuple[Link, ...]:
    """The links to cut so that each node reaches only itself and its nearest, as few as make a majority."""
    count = len(ring)
    reach = (count // 2 + 1) // 2
    at = {node: place for place, node in enumerate(ring)}

    def apart(a: int, b: int) -> int:
        distance = abs(at[a] - at[b])
        return min(distance, count - distance)

    return tuple((a, b) for a, b in permutations(sorted(ring), 2) if apart(a, b) > reach)
