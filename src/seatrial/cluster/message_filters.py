"""Message filters of real nodes: attached and taken away over the HTTP API of a system that has such hooks.

Rule: what was attached is taken away by the same context, and its counters are the evidence.  A node that was
restarted meanwhile has lost its filters, and their counters with them.
Knows the API as documented (`seatrial serve --test-hooks`) and nothing of the server's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from seatrial.cluster.completion import to_the_end
from seatrial.cluster.errors import ClusterError

PATH = "/api/v1/test/filters"
HARMLESS = frozenset({"seen", "passed"})


@dataclass(slots=True)
class FilterFault:
    """One filter on some nodes.  `counters`, in all and by node, are complete once it was taken away."""

    counters: Counter[str] = field(default_factory=Counter)
    by_node: dict[int, dict[str, int]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)  # nodes whose counters could not be had, and why

    @property
    def bit(self) -> bool:
        """Whether any message did not simply pass."""
        return any(count for name, count in self.counters.items() if name not in HARMLESS)

    def count(self, node: int, counters: Mapping[str, int]) -> None:
        seen = {name: number for name, number in counters.items() if number}
        self.counters.update(seen)
        of_node = Counter(self.by_node.get(node, {}))
        of_node.update(seen)
        self.by_node[node] = dict(of_node)


@asynccontextmanager
async def filtered(
    http: httpx.AsyncClient, urls: Mapping[int, str], requests: Sequence[Mapping[str, Any]]
) -> AsyncIterator[FilterFault]:
    """Attach each request's filter to each of these nodes ("http://host:port" by id).  Raises ClusterError."""
    fault = FilterFault()
    attached: list[tuple[int, int]] = []
    try:
        for node, url in urls.items():
            for request in requests:
                attached.append((node, await _attach(http, node, url, request)))
        yield fault
    finally:
        await to_the_end(_detach(http, urls, attached, fault))


async def _attach(http: httpx.AsyncClient, node: int, url: str, request: Mapping[str, Any]) -> int:
    try:
        response = await http.post(f"{url}{PATH}", json=dict(request))
    except httpx.HTTPError as error:
        raise ClusterError(f"node {node} took no message filter: {error or type(error).__name__}") from error
    if response.status_code == 404:
        raise ClusterError(f"node {node} has no message filters: it was started without --test-hooks")
    if response.status_code != 201:
        raise ClusterError(f"node {node} refused the message filter {dict(request)}: {response.text}")
    number: int = response.json()["id"]
    return number


async def _detach(
    http: httpx.AsyncClient, urls: Mapping[int, str], attached: Sequence[tuple[int, int]], fault: FilterFault
) -> None:
    for node, number in attached:
        try:
            response = await http.delete(f"{urls[node]}{PATH}/{number}")
            if response.status_code == 200:
                fault.count(node, response.json()["counters"])
            else:  # restarted: a new process begins with no filter
                fault.lost.append(f"node {node}: HTTP status {response.status_code}")
        except httpx.HTTPError as error:
            fault.lost.append(f"node {node}: {error or type(error).__name__}")
