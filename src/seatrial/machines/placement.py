"""Which nodes hold a new topic's partitions, and which takes the place of one that leaves.

Rule: pure functions; every node gets its turn as preferred leader, replicas of one partition are on different nodes,
and on different racks as far as there are racks.  Knows nothing of load in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from seatrial.raft.ids import NodeId


def assign_replicas(
    racks: Mapping[int, str | None], *, partitions: int, replication_factor: int, first: int
) -> tuple[tuple[int, ...], ...]:
    """For each partition its replicas, the preferred leader first.

    `racks`: the rack (or None) of each node that can be used; `first` moves the start, so that topic after topic
    does not load the same node.  Raises ValueError where there are fewer nodes than `replication_factor`.
    """
    nodes = _rack_alternated(racks)
    if not 1 <= replication_factor <= len(nodes):
        raise ValueError(f"replication factor {replication_factor} with {len(nodes)} nodes")
    assignments: list[tuple[int, ...]] = []
    for partition in range(partitions):
        start = first + partition
        # The followers' start moves on with each round, so that a node's partitions are not all on the same peers.
        shift = start // len(nodes) % max(len(nodes) - 1, 1)
        leader = nodes[start % len(nodes)]
        others = [nodes[(start + 1 + step) % len(nodes)] for step in range(len(nodes) - 1)]
        followers = others[shift:] + others[:shift]
        assignments.append((leader, *_spread(leader, followers, racks, replication_factor - 1)))
    return tuple(assignments)


def _rack_alternated(racks: Mapping[int, str | None]) -> list[int]:
    """All nodes, taken from one rack after the other."""
    by_rack: dict[str, list[int]] = {}
    for node in sorted(racks):
        by_rack.setdefault(racks[node] or "", []).append(node)
    rounds = zip_longest(*(by_rack[rack] for rack in sorted(by_rack)))
    return [node for group in rounds for node in group if node is not None]


def _spread(leader: int, candidates: Sequence[int], racks: Mapping[int, str | None], count: int) -> list[int]:
    """`count` of the candidates in their order, those that bring a new rack before the others."""
    chosen: list[int] = []
    used = {racks[leader]}
    for node in candidates:
        if len(chosen) < count and racks[node] not in used:
            chosen.append(node)
            used.add(racks[node])
    rest = (node for node in candidates if node not in chosen)
    return chosen + [next(rest) for _ in range(count - len(chosen))]


def choose_node(
    racks: Mapping[NodeId, str | None], load: Mapping[NodeId, int], *, taken: Sequence[str | None]
) -> NodeId | None:
    """One more node for a partition: of a rack that is not `taken`, then the least loaded; None of none."""
    return min(racks, key=lambda node: (racks[node] in taken, load.get(node, 0), node), default=None)
