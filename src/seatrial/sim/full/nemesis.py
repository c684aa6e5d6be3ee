"""Carries out a case's plan of faults on a cluster, and counts what was done and what of it there is evidence for.

Rule: each fault begins and ends at its own time; leaving one out moves none of the others.  When everything is healed
no fault is under way, and no end of one comes later.
Knows nothing of how any one kind is carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from seatrial.sim.budget import over_budget
from seatrial.sim.case import Fault
from seatrial.sim.faults import KINDS
from seatrial.sim.full import (
    nemesis_cluster,
    nemesis_disk,
    nemesis_members,
    nemesis_network,
    nemesis_process,
)
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.survivable import bears_damage

CARRIERS: Final[Carriers] = {
    **nemesis_network.CARRIERS,
    **nemesis_process.CARRIERS,
    **nemesis_disk.CARRIERS,
    **nemesis_cluster.CARRIERS,
    **nemesis_members.CARRIERS,
}


class UnderWay:
    """One fault that was begun."""

    __slots__ = ("carried", "fault", "over")

    def __init__(self, fault: Fault, carried: Carried) -> None:
        self.fault = fault
        self.carried = carried
        self.over = False


class Nemesis:
    """The faults of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._done: Counter[str] = Counter()
        self._bit: Counter[str] = Counter()
        self._under_way: list[UnderWay] = []
        self._healed = False
        self._within_budget = over_budget(cluster.case) is None

    def plan(self, faults: Iterable[Fault]) -> None:
        """Have every fault happen at its time.  Raises KeyError for a kind that this level has not."""
        for fault in faults:
            if fault.kind not in CARRIERS:
                raise KeyError(f"level full has no fault {fault.kind!r}; it has: {', '.join(sorted(CARRIERS))}")
            self._cluster.world.at(fault.at_us, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        if self._healed:
            return
        if self._within_budget and KINDS[fault.kind].damaging and not bears_damage(self._cluster, fault.nodes):
            return  # by now it would be more than Raft claims to survive, and a violation no bug
        self._done[fault.kind] += 1
        self._cluster.say(f"fault begins: {describe_fault(fault)}")
        under_way = UnderWay(fault, CARRIERS[fault.kind](self._cluster, fault))
        self._under_way.append(under_way)
        if fault.duration_us:
            self._cluster.world.after(fault.duration_us, self._end, under_way)

    def _end(self, under_way: UnderWay) -> None:
        if under_way.over:
            return
        under_way.over = True
        self._cluster.say(f"fault ends: {describe_fault(under_way.fault)}")
        under_way.carried.end()
        if not under_way.carried.late:
            self._under_way.remove(under_way)
            self._bit[under_way.fault.kind] += under_way.carried.bit()

    def heal(self) -> None:
        """End what lasts, and whatever else faults may have left behind; damage stays."""
        self._healed = True
        for under_way in [one for one in self._under_way if not one.over]:
            under_way.over = True
            under_way.carried.end()
        self._cluster.network.clear()
        # A lost segment holds up all behind it until it is sent again: longer than some election timeouts.
        self._cluster.network.calm()
        for server in self._cluster.nodes.values():
            server.heal()

    def evidence(self) -> dict[str, tuple[int, int]]:
        """For each kind: how often it was carried out, and how often there is evidence that it did something."""
        for under_way in self._under_way:
            self._bit[under_way.fault.kind] += under_way.carried.bit()
        self._under_way.clear()
        return {kind: (count, self._bit[kind]) for kind, count in sorted(self._done.items())}


def describe_fault(fault: Fault) -> str:
    """`cut link 1>2 2>1`, `slow-sync 20000 node 3`: for the trace."""
    links = " ".join(f"{one}>{other}" for one, other in fault.links)
    nodes = " ".join(f"node {node}" for node in fault.nodes)
    number = f"{fault.value:g}" if fault.value else ""
    return " ".join(word for word in (fault.kind, fault.mode, number, links, nodes) if word)
