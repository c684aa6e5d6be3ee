"""The cluster's own operations as faults: handing the lead over, snapshots at odd times, and message filters.

Rule: a node does them as its own code, as if its HTTP API had been asked; what is asked for and refused bit nothing.
Knows nothing of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from seatrial.raft.ids import NodeId
from seatrial.server.node import Node
from seatrial.sim.case import Fault
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.transport.filters.filter_set import ActiveFilter
from seatrial.transport.filters.table import named


def _transfer(cluster: Cluster, fault: Fault) -> Carried:
    """Every group that another node leads is asked for."""
    asked: list[str] = []
    to = NodeId(cluster.nodes[fault.nodes[0]].node_id)

    def ask(node: Node) -> None:
        for _, replica in sorted(node.multiraft.replicas.items()):
            if replica.node.is_leader and to != replica.node.node_id and to in replica.node.configuration.voters:
                replica.transfer_leadership(to)
                asked.append(replica.name)

    for server in cluster.nodes.values():
        server.ask(ask)
    return Carried(bit=lambda: bool(asked))


def _snapshot(cluster: Cluster, fault: Fault) -> Carried:
    made: list[str] = []

    def make(node: Node) -> None:
        for _, replica in sorted(node.multiraft.replicas.items()):
            if replica.last_applied:
                replica.make_snapshot()
                made.append(replica.name)

    for node in fault.nodes:
        cluster.nodes[node].ask(make)
    return Carried(bit=lambda: bool(made))


def _filter(cluster: Cluster, fault: Fault) -> Carried:
    """On the sending side of each link, in this life of its node and in those that begin while it lasts."""
    attached: list[tuple[int, Node, ActiveFilter]] = []
    told: list[tuple[int, Callable[[Node], None]]] = []

    def attach(node: Node, *, source: int, target: int) -> None:
        described = named(
            fault.mode,
            fault.value,
            cluster.world.stream(f"filter {source}-{target}"),
            senders=frozenset({cluster.nodes[source].node_id}),
            receivers=frozenset({cluster.nodes[target].node_id}),
        )
        attached.append((source, node, node.transport.filters.attach(described)))

    for source, target in fault.links:
        again = partial(attach, source=source, target=target)
        cluster.nodes[source].ask(again)
        cluster.nodes[source].born.append(again)
        told.append((source, again))

    def end() -> None:
        for source, again in told:
            cluster.nodes[source].born.remove(again)
        for source, node, active in attached:
            if cluster.nodes[source].node is node:
                cluster.nodes[source].ask(partial(_remove, active))

    return Carried(bit=lambda: any(active.bit for _, _, active in attached), end=end)


def _remove(active: ActiveFilter, _: Node) -> None:
    active.remove()


CARRIERS: Final[Carriers] = {"transfer": _transfer, "snapshot": _snapshot, "filter": _filter}
