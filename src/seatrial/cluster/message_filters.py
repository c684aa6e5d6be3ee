"""Message filters of real nodes: attached and taken away over the HTTP API of a system that has such hooks.

Rule: what was attached is taken away by the same context, and its counters are the evidence.  A process takes its
filters with it: they are attached again when the node is back, and what they counted is summed over its lives.
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


class NodeFilters:
    """The filters of one fault on its nodes, in every life of theirs while the fault lasts."""

    def __init__(self, http: httpx.AsyncClient, urls: Mapping[int, str], requests: Sequence[Mapping[str, Any]]) -> None:
        self.fault = FilterFault()
        self._http = http
        self._urls = urls
        self._requests = requests
        self._attached: dict[int, list[int]] = {}  # by node, the filters' numbers in its present life

    async def attach(self) -> None:
        """On every node.  Raises ClusterError."""
        for node in self._urls:
            await self._attach_to(node)

    async def _attach_to(self, node: int) -> None:
        numbers = self._attached.setdefault(node, [])
        for request in self._requests:
            numbers.append(await _attach(self._http, node, self._urls[node], request))

    async def ending(self, node: int) -> None:
        """The node is about to be killed: ask what its filters did, for that goes with the process."""
        numbers = self._attached.pop(node, [])
        if not numbers:
            return
        try:
            response = await self._http.get(f"{self._urls[node]}{PATH}")
            told = {one["id"]: one["counters"] for one in response.json()["filters"]}
            for number in numbers:
                self.fault.count(node, told[number])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self.fault.lost.append(f"node {node}, before it was ended: {error or type(error).__name__}")

    async def started(self, node: int) -> None:
        """The node is back, without filters: give it the same ones."""
        if node not in self._urls:
            return
        if self._attached.pop(node, None):
            self.fault.lost.append(f"node {node}: its process ended before it was asked what it had counted")
        try:
            await self._attach_to(node)
        except ClusterError as error:
            self.fault.lost.append(f"node {node}, started again: {error}")

    async def detach(self) -> None:
        """Take them all away; what they counted is in `fault` then."""
        for node, numbers in self._attached.items():
            for number in numbers:
                await self._detach_from(node, number)

    async def _detach_from(self, node: int, number: int) -> None:
        fault = self.fault
        try:
            response = await self._http.delete(f"{self._urls[node]}{PATH}/{number}")
            if response.status_code == 200:
                fault.count(node, response.json()["counters"])
            else:
                fault.lost.append(f"node {node}: HTTP status {response.status_code}")
        except httpx.HTTPError as error:
            fault.lost.append(f"node {node}: {error or type(error).__name__}")


@asynccontextmanager
async def filtered(filters: NodeFilters, under_way: list[NodeFilters]) -> AsyncIterator[FilterFault]:
    """Attach them, and have them among those `under_way`, whose nodes are told of.  Raises ClusterError."""
    under_way.append(filters)
    try:
        await filters.attach()
        yield filters.fault
    finally:
        under_way.remove(filters)
        await to_the_end(filters.detach())


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
