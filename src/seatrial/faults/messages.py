"""Faults of single messages: dropped, late, held, repeated or rewritten by the node's own filters, by type and count.

Rule: as in `base`.  The evidence is what the filters counted.
Knows the rules by name alone; the node refuses one that it does not have, and says which there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.message_filters import FilterFault
from seatrial.env import Rng
from seatrial.faults.base import Injection, aim, people
from seatrial.faults.targets import Target


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Drop, delay, hold, repeat or rewrite single Raft messages to or from the targets, by a rule's name and number.

    `direction`: what the targets send (`out`), what is sent to them (`in`), or both.
    """

    kind: ClassVar[str] = "messages"
    takes_out: ClassVar[bool] = True
    target: Target = Target.ONE
    rule: str = "drop-appends"
    value: float = 0
    direction: Literal["in", "out", "both"] = "both"

    def unavailable(self, cluster: Cluster) -> str | None:
        if len(cluster.nodes) < 2:
            return f"messages needs at least 2 nodes; the cluster has {len(cluster.nodes)}"
        if not cluster.driver.test_hooks:
            return (
                f"the nodes of {cluster.driver.name} do not filter their messages: it takes seatrial's own server "
                "(system own) with the option test_hooks=true"
            )
        return None

    @asynccontextmanager
    async def injected(
        self, cluster: Cluster, rng: Rng, targets: tuple[int, ...] | None = None
    ) -> AsyncIterator[Injection]:
        targets = targets or await aim(self.target, cluster, rng)
        sides = {"out": ["send"], "in": ["receive"], "both": ["send", "receive"]}[self.direction]
        seed = rng.integer(0, 1 << 30)
        requests = [{"rule": self.rule, "value": self.value, "side": side, "seed": seed} for side in sides]
        what = {"out": "sent by", "in": "sent to", "both": "from and to"}[self.direction]
        injection = Injection(
            description=f"{self.rule} {self.value:g} of what is {what} {people(targets)}", targets=targets
        )
        fault: FilterFault | None = None
        # As far as it matters who can be relied on to be connected, the targets are not.
        links = cluster.links_between(*([node] for node in targets)) if cluster.has_links else ()
        try:
            async with cluster.filtered(targets, requests) as fault:
                if links:
                    cluster.links.cuts.add(links)
                yield injection
        finally:
            if links and fault is not None:
                cluster.links.cuts.remove(links)
            if fault is not None:
                injection.bit = fault.bit
                by_node = {str(node): counters for node, counters in fault.by_node.items()}
                injection.evidence = {
                    **fault.counters,
                    "nodes": by_node,
                    **({"lost": fault.lost} if fault.lost else {}),
                }
