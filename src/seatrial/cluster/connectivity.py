"""Which nodes can talk with each other, from what was cut.  PURE.

Rule: a link is directed; two nodes are connected when neither direction is cut; cuts are counted, so that two faults on
one link both have to end before it is whole.
Knows nothing of proxies and processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, permutations
from typing import TypeAlias

from seatrial.cluster.status import majority_of

Link: TypeAlias = tuple[int, int]  # (from, to): the direction in which the bytes flow


class Cuts:
    """The links that are cut at this time, each as often as it was cut."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[Link] = Counter()

    def add(self, links: Iterable[Link]) -> None:
        self._counts.update(links)

    def remove(self, links: Iterable[Link]) -> None:
        for link in links:
            assert self._counts[link] > 0, f"link {link} was not cut"
            self._counts[link] -= 1

    def clear(self) -> None:
        self._counts.clear()

    def links(self) -> tuple[Link, ...]:
        return tuple(sorted(link for link, count in self._counts.items() if count))

    def connected(self, a: int, b: int) -> bool:
        """Both ways."""
        return not self._counts[a, b] and not self._counts[b, a]


def connected_majority(nodes: Collection[int], up: Collection[int], cuts: Cuts) -> tuple[int, ...] | None:
    """The largest set of `up` nodes that are all connected with each other, if it is a majority of `nodes`.

    Of several equally large sets, the one with the lowest numbers.
    """
    candidates = sorted(up)
    for size in range(len(candidates), majority_of(len(nodes)) - 1, -1):
        for group in combinations(candidates, size):
            if all(cuts.connected(a, b) for a, b in combinations(group, 2)):
                return group
    return None


def links_between_groups(nodes: Collection[int], groups: Sequence[Collection[int]]) -> tuple[Link, ...]:
    """Every directed link from a node of one group to a node of another.

    Nodes in no group form one more group together: `[[1]]` of three nodes cuts 1 off from 2 and 3, which keep each
    other.  Raises ValueError for an unknown node, or one in two groups.
    """
    group_of: dict[int, int] = {}
    for number, group in enumerate(groups):
        for node in group:
            if node not in nodes:
                raise ValueError(f"there is no node {node}; the cluster has {sorted(nodes)}")
            if node in group_of:
                raise ValueError(f"node {node} is in two groups; use cut_links for overlapping groups")
            group_of[node] = number
    rest = len(groups)
    return tuple((a, b) for a, b in permutations(sorted(nodes), 2) if group_of.get(a, rest) != group_of.get(b, rest))


def links_of(nodes: Collection[int], node: int) -> tuple[Link, ...]:
    """Every directed link to and from one node."""
    return links_between_groups(nodes, [[node]])
