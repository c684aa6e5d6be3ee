"""Faults of a plan in few words, for the families of cases that are written by hand.

Rule: each gives data, drawn from nothing but its arguments.  Knows nothing of what the plans are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TypeAlias

from seatrial.sim.case import Fault

Links: TypeAlias = tuple[tuple[int, int], ...]


def between(some: Iterable[int], others: Iterable[int]) -> Links:
    """Every link between the two groups, both ways."""
    pairs = list(product(some, others))
    return tuple(sorted([*pairs, *((b, a) for a, b in pairs)]))


def into(node: int, nodes: int) -> Links:
    """Every link to this node."""
    return tuple((other, node) for other in range(1, nodes + 1) if other != node)


def out_of(node: int, nodes: int) -> Links:
    """Every link from this node."""
    return tuple((node, other) for other in range(1, nodes + 1) if other != node)


def cut(at_us: int, duration_us: int, links: Links) -> Fault:
    return Fault(at_us=at_us, kind="cut", duration_us=duration_us, links=links, mode="partition")


def isolate(at_us: int, duration_us: int, node: int, nodes: int) -> Fault:
    links = tuple(sorted([*into(node, nodes), *out_of(node, nodes)]))
    return Fault(at_us=at_us, kind="cut", duration_us=duration_us, links=links, mode="isolate")


def cut_one_way(at_us: int, duration_us: int, links: Links) -> Fault:
    return Fault(at_us=at_us, kind="cut", duration_us=duration_us, links=links, mode="one-way")


def campaign(at_us: int, node: int) -> Fault:
    return Fault(at_us=at_us, kind="campaign", nodes=(node,))


def transfer(at_us: int, node: int) -> Fault:
    return Fault(at_us=at_us, kind="transfer", nodes=(node,))


def kill(at_us: int, duration_us: int, node: int) -> Fault:
    return Fault(at_us=at_us, kind="crash", duration_us=duration_us, nodes=(node,), mode="kill")


def cut_power(at_us: int, duration_us: int, *nodes: int) -> Fault:
    return Fault(at_us=at_us, kind="crash", duration_us=duration_us, nodes=nodes, mode="power")


def change(at_us: int, duration_us: int, mode: str, *nodes: int) -> Fault:
    return Fault(at_us=at_us, kind="membership", duration_us=duration_us, nodes=nodes, mode=mode)


def in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at_us))
