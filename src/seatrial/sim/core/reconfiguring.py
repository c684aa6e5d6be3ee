"""Changes of members and wiped nodes, as an operator would carry them out: ask the leader until it is done.

Rule: a node's disk is wiped only after its removal is committed, for a node that forgot its votes must not count in any
quorum that remembers them; it comes back as a learner, and is promoted when it has caught up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from seatrial.raft.errors import ProposalRefused
from seatrial.raft.ids import NodeId
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange
from seatrial.raft.messages import Configuration
from seatrial.sim.case import Fault
from seatrial.sim.core.cluster import CoreCluster
from seatrial.sim.core.proof import FOR_EVER_US, Proof

Steps: TypeAlias = Iterator[int]
RETRY_US: Final = 50_000


def change_members(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    """`fault.mode` is one of `faults.MEMBERSHIP_CHANGES`; tried until it is done, or until the fault ends."""
    until = cluster.world.now_us + (fault.duration_us or FOR_EVER_US)
    for step in _PLANS[fault.mode](cluster, [NodeId(node_id) for node_id in fault.nodes]):
        while not step(cluster):
            if cluster.world.now_us >= until:
                return
            yield RETRY_US
        proof.bit = True


def wipe(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    """Remove the node, wipe it, and let it come back as a new one."""
    until = cluster.world.now_us + (fault.duration_us or FOR_EVER_US)
    node_id, host = NodeId(fault.nodes[0]), cluster.hosts[fault.nodes[0]]
    while cluster.is_member_anywhere(node_id):
        for step in _remove(cluster, [node_id]):
            step(cluster)
        if cluster.world.now_us >= until:
            return
        yield RETRY_US
    host.crash("lost")
    cluster.forget_messages(node_id)
    host.wipe()
    proof.bit = True
    host.kept_down += 1
    try:
        yield RETRY_US
    finally:
        host.release()
    for step in (*_add_learner(cluster, [node_id]), *_promote(cluster, [node_id])):
        while not step(cluster):
            yield RETRY_US


def once_more(cluster: CoreCluster) -> list[Step]:
    """Out of joint consensus, whoever entered it and did not ask to leave; then a node that there is not comes and goes
    as a learner: a cluster that has changed its members can change them again."""
    stranger = [NodeId(max(cluster.hosts) + 1)]
    return [_not_joint, *_add_learner(cluster, stranger), *_remove(cluster, stranger)]


def leaves_by_itself(configuration: Configuration) -> bool:
    """It is joint, and a leader that commits it must leave it unasked."""
    return bool(configuration.voters_outgoing) and configuration.auto_leave


# -- steps: each says whether it is done, and asks for it where it is not ----------------------------------------------

Step: TypeAlias = Callable[[CoreCluster], bool]


def _ask(cluster: CoreCluster, changes: Sequence[tuple[int, NodeId]], *, explicit: bool = False) -> None:
    leader = cluster.leader()
    if leader is None or leader.paused:
        return
    change = ConfigurationChange(changes, explicit)
    try:
        leader.call(lambda node, now_us: node.propose_configuration(change, now_us))
    except ProposalRefused as refused:
        cluster.say(f"node {leader.node_id} refuses {change}: {refused}")


def _leave(cluster: CoreCluster) -> None:
    leader = cluster.leader()
    if leader is None or leader.paused:
        return
    try:
        leader.call(lambda node, now_us: node.leave_joint(now_us))
    except ProposalRefused as refused:
        cluster.say(f"node {leader.node_id} refuses to leave joint consensus: {refused}")


def _committed(cluster: CoreCluster) -> Configuration | None:
    """What the leader knows to be committed; None while nobody leads."""
    leader = cluster.leader()
    return None if leader is None else leader.node.committed_configuration


def _not_joint(cluster: CoreCluster) -> bool:
    """Asks to leave only what nobody leaves unasked."""
    configuration = _committed(cluster)
    if configuration is None:
        return False
    if configuration.voters_outgoing and not configuration.auto_leave:
        _leave(cluster)
    return not configuration.voters_outgoing


def _until(holds: Callable[[Configuration], bool], changes: Sequence[tuple[int, NodeId]]) -> Step:
    """Ask for the changes until the committed configuration is as wanted, and not joint."""

    def step(cluster: CoreCluster) -> bool:
        configuration = _committed(cluster)
        if configuration is None:
            return False
        if not configuration.voters_outgoing and holds(configuration):
            return True
        _ask(cluster, changes)
        return False

    return step


def _add_learner(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    node = nodes[0]
    return [_until(lambda c: node in c.learners or node in c.voters, [(ADD_LEARNER, node)])]


def _promote(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    node = nodes[0]
    return [_until(lambda c: node in c.voters, [(ADD_VOTER, node)])]


def _add_voter(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    return [*_add_learner(cluster, nodes), *_promote(cluster, nodes)]


def _remove(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    node = nodes[0]
    return [_until(lambda c: node not in c.voters and node not in c.learners, [(REMOVE, node)])]


def _replace(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    """The first by the second, in one joint change."""
    old, new = nodes[0], nodes[1]
    swap = _until(lambda c: new in c.voters and old not in c.voters, [(REMOVE, old), (ADD_VOTER, new)])
    return [*_add_learner(cluster, [new]), swap]


def _joint_explicit(cluster: CoreCluster, nodes: Sequence[NodeId]) -> list[Step]:
    """Into joint consensus with the node added as a learner, or removed where it is a member; then out, when asked."""
    node = nodes[0]

    def enter(cluster: CoreCluster) -> bool:
        configuration = _committed(cluster)
        if configuration is None:
            return False
        if configuration.voters_outgoing:
            return True
        is_member = node in configuration.voters or node in configuration.learners
        _ask(cluster, [(REMOVE if is_member else ADD_LEARNER, node)], explicit=True)
        return False

    def left(cluster: CoreCluster) -> bool:
        configuration = _committed(cluster)
        if configuration is None:
            return False
        if not configuration.voters_outgoing:
            return True
        _leave(cluster)
        return False

    return [enter, left]


_PLANS: Final[dict[str, Callable[[CoreCluster, Sequence[NodeId]], list[Step]]]] = {
    "add-learner": _add_learner,
    "add-voter": _add_voter,
    "promote": _promote,
    "remove": _remove,
    "replace": _replace,
    "joint-explicit": _joint_explicit,
}
