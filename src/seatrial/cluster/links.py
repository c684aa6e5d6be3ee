"""The links between nodes: one set of proxies, and what is done to the bytes that flow along each directed link.

A link (i, j) is the flow of bytes from node i to node j, whoever dialled the connection.  With one proxy for each
directed pair (`per_link`) those bytes pass `i-j` upstream and `j-i` downstream; with one proxy for each destination
(`per_destination`) they pass `to-j` upstream on connections that i dialled, and `to-i` downstream on those that j did.

Rule: what was done is undone by the same object, and says afterwards how many bytes and connections it touched.
Knows nothing of processes; talks the Toxiproxy API alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from seatrial.cluster.completion import to_the_end
from seatrial.cluster.connectivity import Cuts, Link
from seatrial.cluster.drivers.base import LinkStyle
from seatrial.cluster.errors import ClusterError, Unavailable
from seatrial.cluster.proxy.client import ProxyClient, ProxyError

# Any of these above zero proves that a toxic acted; the others of its counters only say that it was there.
PROOF = (
    *("connections_closed", "connections_reset", "bytes_held", "bytes_delayed", "bytes_dropped"),
    *("segments_held", "segments_delayed"),  # of the simulated network
)
SEVERING = frozenset({"hold", "timeout", "reset_peer"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a toxic has to sit: the stream of a proxy, for the connections of one caller (None: of all)."""

    proxy: str
    stream: str
    caller: str | None = None


@dataclass(slots=True)
class LinkFault:
    """One thing done to some links.  `evidence`, in all and by link, is complete once it was undone."""

    kind: str  # the toxic's type
    links: tuple[Link, ...]
    evidence: dict[str, int] = field(default_factory=dict)
    by_link: dict[str, dict[str, int]] = field(default_factory=dict)

    observed: bool = True

    @property
    def bit(self) -> bool | None:
        """Whether it touched any byte or connection; None where the proxy server counts nothing (a real Toxiproxy)."""
        return any(self.evidence.get(name) for name in PROOF) if self.observed else None


def places_of(style: LinkStyle, link: Link, newcomers: Sequence[int] = ()) -> tuple[Place, Place]:
    """The two places that bytes from one node to another can pass.

    newcomers: nodes that joined while the cluster ran, in that order.  Those who were there before are all told one
    address of theirs; they know a proxy of their own for each of those.
    """
    source, target = link
    order = {node: number for number, node in enumerate(newcomers, start=1)}

    def dialled(by: int, to: int) -> tuple[str, str | None]:
        if style is LinkStyle.PER_LINK and order.get(to, 0) <= order.get(by, 0):
            return f"{by}-{to}", None
        return f"to-{to}", caller_name(by)

    (there, caller), (back, called) = dialled(source, target), dialled(target, source)
    return Place(there, "upstream", caller), Place(back, "downstream", called)


def proxy_names(style: LinkStyle, nodes: Iterable[int]) -> dict[str, tuple[int | None, int]]:
    """Each proxy with the node that dials it (None: any) and the node it leads to."""
    if style is LinkStyle.PER_LINK:
        return {f"{source}-{target}": (source, target) for source, target in permutations(sorted(nodes), 2)}
    return {f"to-{target}": (None, target) for target in sorted(nodes)}


def caller_name(node: int) -> str:
    return f"n{node}"


class Links:
    """All links of one cluster.  `cuts` are those that are severed now."""

    def __init__(self, client: ProxyClient, style: LinkStyle, nodes: Sequence[int], *, ours: bool) -> None:
        self._client = client
        self._style = style
        self._nodes = tuple(nodes)
        self._ours = ours
        self._number = 0
        self._callers: dict[str, list[int]] = {}
        self._newcomers: list[int] = []
        self.cuts = Cuts()

    async def set_caller(self, node: int, pids: Sequence[int]) -> None:
        """Tell the proxy which processes are this node now, where it needs to know callers."""
        self._callers[caller_name(node)] = list(pids)
        if self._style is LinkStyle.PER_DESTINATION or self._newcomers:
            await _all([self._client.set_callers(self._callers)])

    async def add_node(self, node: int, proxies: Sequence[Mapping[str, Any]]) -> None:
        """A node has come that was not there at first, with the proxies (`newcomer_proxies`) to and from it."""
        if not self._ours:
            raise Unavailable("a real Toxiproxy cannot tell callers apart, which links to a new node need")
        await _all([self._client.populate(proxies), self._client.set_callers(self._callers)])
        self._nodes = (*self._nodes, node)
        self._newcomers.append(node)

    @contextlib.asynccontextmanager
    async def applied(
        self, kind: str, attributes: Mapping[str, int | float], links: Sequence[Link]
    ) -> AsyncIterator[LinkFault]:
        """Put a toxic on these links; take it off again at the end, and gather what it did."""
        for link in links:
            if link not in set(permutations(self._nodes, 2)):
                raise ValueError(f"there is no link {link}; the cluster has nodes {list(self._nodes)}")
        if kind == "hold" and not self._ours:
            # A real Toxiproxy has no `hold`; the nearest thing it has drops the bytes, and closes in the end.
            kind, attributes = "timeout", {"timeout": 0}
        self._number += 1
        fault = LinkFault(kind, tuple(links), observed=self._ours)
        severs = kind in SEVERING
        placed = [
            (link, place, f"{kind}-{self._number}-{link[0]}-{link[1]}-{place.stream}")
            for link in links
            for place in places_of(self._style, link, self._newcomers)
        ]
        added: list[tuple[Link, Place, str]] = []
        if severs:
            self.cuts.add(links)
        try:
            await self._add(kind, attributes, placed, added)
            yield fault
        finally:
            try:
                await to_the_end(self._undo(added, fault))
            finally:
                if severs:
                    self.cuts.remove(links)

    async def _add(
        self,
        kind: str,
        attributes: Mapping[str, int | float],
        placed: Sequence[tuple[Link, Place, str]],
        added: list[tuple[Link, Place, str]],
    ) -> None:
        async def add(link: Link, place: Place, name: str) -> None:
            added.append((link, place, name))  # before it is asked for: a cancelled request may have been carried out
            await self._client.add_toxic(place.proxy, kind, place.stream, attributes, name=name, caller=place.caller)

        await _all(add(*one) for one in placed)

    async def _undo(self, added: Sequence[tuple[Link, Place, str]], fault: LinkFault) -> None:
        async def undo(link: Link, place: Place, name: str) -> None:
            try:
                await self._client.remove_toxic(place.proxy, name)
            except ProxyError as error:
                if error.status != 404:  # not there: `clean` was quicker, or adding it had failed
                    raise
            counters = await self._client.counters(place.proxy)
            count(fault, link, counters.get("toxics", {}).get(name, {}))

        await _all(undo(*one) for one in added)

    async def delete(self) -> None:
        """Take the proxies away again, from a server that is not ours to end."""
        await _all(self._client.delete(name) for name in proxy_names(self._style, self._nodes))

    async def clean(self) -> None:
        """Make every link whole, whatever was done to it."""
        await _all([self._client.reset()])


def count(fault: LinkFault, link: Link, counters: Mapping[str, Any]) -> None:
    """Add one toxic's counters to the evidence, in all and, as far as they prove anything, of its link.

    What is zero, and gauges, are left out.
    """
    of_link = fault.by_link.setdefault(f"{link[0]}->{link[1]}", {})
    for name, value in counters.items():
        if value and not name.endswith("_now"):
            fault.evidence[name] = fault.evidence.get(name, 0) + value
            if name in PROOF:
                of_link[name] = of_link.get(name, 0) + value


async def _all(requests: Iterable[Any]) -> None:
    """Run requests at once, each to its end; raise ClusterError with the first that failed."""
    failed = [r for r in await asyncio.gather(*requests, return_exceptions=True) if isinstance(r, BaseException)]
    if failed:
        raise ClusterError(f"the proxy refused {len(failed)} requests; the first: {failed[0]!r}") from failed[0]
