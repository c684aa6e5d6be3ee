"""Faults of the network between nodes, carried out on simulated links.

Rule: a link's own counters are the evidence: bytes that waited, segments that were late, connections that broke.
Knows nothing of nodes but their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from seatrial.sim.case import Fault
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.server_host import host_name
from seatrial.sim.links import Link


def _counted(links: Sequence[Link], kind: str) -> int:
    return sum(link.evidence.get(kind, 0) for link in links)


def _more(links: Sequence[Link], kind: str) -> Callable[[], bool]:
    """Whether it was counted again since now."""
    before = _counted(links, kind)
    return lambda: _counted(links, kind) > before


def _impose(cluster: Cluster, fault: Fault, *, kind: str) -> Carried:
    links = [cluster.link(source, target) for source, target in fault.links]
    bit = _more(links, kind)
    undos = [link.impose(kind, fault.value) for link in links]

    def end() -> None:
        for undo in undos:
            undo()

    return Carried(bit=bit, end=end)


def _swizzle_clog(cluster: Cluster, fault: Fault) -> Carried:
    """The nodes are clogged one after the other in the first third of the time, and unclogged in the last third."""
    world, nodes = cluster.world, list(fault.nodes)
    back = list(nodes)
    world.stream("swizzle").shuffle(back)
    links = {node: _links_of(cluster, node) for node in nodes}
    every = [link for found in links.values() for link in found]
    bit = _more(every, "clog")
    undos: dict[int, list[Callable[[], None]]] = {}
    ended: list[bool] = []

    def clog(node: int) -> None:
        if not ended:
            undos[node] = [link.impose("clog") for link in links[node]]

    def unclog(node: int) -> None:
        for undo in undos.pop(node, ()):
            undo()

    step_us = fault.duration_us // (3 * len(nodes))
    for place, node in enumerate(nodes):
        world.after(place * step_us, clog, node)
    for place, node in enumerate(back):
        world.after(2 * fault.duration_us // 3 + place * step_us, unclog, node)

    def end() -> None:
        ended.append(True)
        for node in list(undos):
            unclog(node)

    return Carried(bit=bit, end=end)


def _links_of(cluster: Cluster, node: int) -> list[Link]:
    others = [other for other in cluster.nodes if other != node]
    return [link for other in others for link in (cluster.link(node, other), cluster.link(other, node))]


def _reset(cluster: Cluster, fault: Fault) -> Carried:
    links = [cluster.link(source, target) for source, target in fault.links]
    bit = _more(links, "reset")
    for source, target in fault.links:
        cluster.network.reset(host_name(source), host_name(target))
    return Carried(bit=bit)


def _half_open(cluster: Cluster, fault: Fault) -> Carried:
    links = [cluster.link(source, target) for source, target in fault.links]
    bit = _more(links, "half-open")
    for source, target in fault.links:
        cluster.network.half_open(host_name(source), host_name(target))
    return Carried(bit=bit)


CARRIERS: Final[Carriers] = {
    **{kind: partial(_impose, kind=kind) for kind in ("cut", "clog", "delay", "loss", "bandwidth", "split")},
    "swizzle-clog": _swizzle_clog,
    "reset": _reset,
    "half-open": _half_open,
}
