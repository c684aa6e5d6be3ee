"""Faults of single messages, by the names of the rules that our own nodes have for them, and by links.

Rule: as in `cluster.message_filters`.  What a rule can do to an honest peer's network, and what only a test does, is
told by the node (`GET /api/v1/test/filters`).
Knows the rules by name alone; the node refuses one that it does not have, and says which there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.connectivity import Link
from seatrial.cluster.message_filters import FilterFault
from seatrial.env import Rng
from seatrial.faults.base import Injection, people

Direction = Literal["in", "out", "both"]
SIDES: Mapping[Direction, tuple[str, ...]] = {"out": ("send",), "in": ("receive",), "both": ("send", "receive")}


@contextlib.asynccontextmanager
async def broken_messages(
    cluster: Cluster, requests: Mapping[int, Sequence[Mapping[str, Any]]], description: str
) -> AsyncIterator[Injection]:
    """Filters by node.  The evidence is what they counted."""
    injection = Injection(description=description, targets=tuple(sorted(requests)))
    faults: list[FilterFault] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            for node, wanted in sorted(requests.items()):
                faults.append(await stack.enter_async_context(cluster.filtered([node], wanted)))
            yield injection
    finally:
        injection.bit = any(fault.bit for fault in faults)
        by_node = {str(node): counters for fault in faults for node, counters in fault.by_node.items()}
        injection.evidence = {"nodes": by_node, "lost": [text for fault in faults for text in fault.lost]}


def by_rule(
    cluster: Cluster, rule: str, *, at: Sequence[int], value: float, direction: Direction, group: str | None, rng: Rng
) -> contextlib.AbstractAsyncContextManager[Injection]:
    """One rule, at these nodes."""
    seed = rng.integer(0, 1 << 30)
    requests = [
        {"rule": rule, "value": value, "side": side, "seed": seed, "group": group or ""} for side in SIDES[direction]
    ]
    what = {"out": "sent by", "in": "sent to", "both": "from and to"}[direction]
    description = f"{rule} {value:g} of what is {what} {people(tuple(at))}" + (f" in group {group}" if group else "")
    return broken_messages(cluster, dict.fromkeys(at, requests), description)


def on_links(
    cluster: Cluster, rule: str, links: Sequence[Link], value: float, rng: Rng
) -> contextlib.AbstractAsyncContextManager[Injection]:
    """One rule, for what the first node of each link sends to the second."""
    targets: dict[int, list[int]] = {}
    for source, target in links:
        targets.setdefault(source, []).append(target)
    seed = rng.integer(0, 1 << 30)
    requests = {
        source: [{"rule": rule, "value": value, "side": "send", "to": sorted(to), "seed": seed}]
        for source, to in sorted(targets.items())
    }
    description = f"{rule} {value:g} on {', '.join(f'{a}>{b}' for a, b in links)}"
    return broken_messages(cluster, requests, description)
