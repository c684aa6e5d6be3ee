"""Whether a cluster bears more damage: the budget when a fault begins, for the members may be others than at first.

A case damages the nodes of one fixed minority alone.  But a node that comes back without its disk has another id, and
its predecessor stays a voter until its last replica has moved: three wipes of one machine, close together, can make a
dead majority out of a living one.
Rule: a plan within the budget damages only while every group keeps a majority that nothing has damaged; a plan beyond
it was asked for, and is carried out.
"""

from __future__ import annotations

from collections.abc import Iterable

from seatrial.raft.quorum import majority_size
from seatrial.sim.full.cluster import Cluster


def bears_damage(cluster: Cluster, slots: Iterable[int]) -> bool:
    """May these machines lose durable data now, by the configurations that running nodes hold?

    No, too, when so few nodes run that the others may know of newer configurations.
    """
    running = [server.node for server in cluster.nodes.values() if server.node is not None]
    if len(running) < majority_size(sum(server.enabled for server in cluster.nodes.values())):
        return False
    damaged = cluster.observer.damaged | {cluster.nodes[slot].node_id for slot in slots}
    for node in running:
        for replica in node.multiraft.replicas.values():
            configuration = replica.node.configuration
            for voters in (configuration.voters, configuration.voters_outgoing):
                good = sum(voter not in damaged for voter in voters)
                if voters and good < majority_size(len(voters)):
                    return False
    return True
