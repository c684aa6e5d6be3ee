"""Carries out what the metadata says about members: each group by the node that leads it.

    the metadata says who shall hold a group  ──▶ the group's leader changes its configuration, step by step
    the group is there, and every member knows ─▶ its leader reports it (SettleReplicas)
    a joining node votes everywhere           ──▶ the metadata's leader reports it (NodePromoted)
    a leaving node is nowhere any more        ──▶ the metadata's leader reports it (ForgetNode)

Rule: a step is proposed only by a leader that has applied an entry of its own term, and reported only when it is
committed and every member has it on disk: a member that still had the old configuration could be elected by nodes
that have deleted their replicas since.  Whatever is lost on the way is done again: the difference between what is
and what shall be is all the state there is.
Knows nothing of HTTP, and of how replicas are opened and deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from typing import Final, Protocol

from seatrial.kafka.backend import BackendError
from seatrial.machines.metadata import (
    ForgetNode,
    MetadataMachine,
    MetadataResult,
    NodePromoted,
    NodeState,
    SettleReplicas,
    encode_command,
)
from seatrial.marks import reached
from seatrial.raft.errors import ConfigurationRefused, ProposalRefused
from seatrial.raft.ids import NodeId
from seatrial.server.errors import ProposalLost
from seatrial.server.hosted import HostedReplica
from seatrial.server.logs import Logger
from seatrial.server.reconfiguration import Target, cluster_target, next_step, partition_target, takes_part
from seatrial.server.replica import Replica

PACE_S: Final = 0.05  # between two looks while something is under way
IDLE_S: Final = 1.0  # and while nothing is
REPORT_TIMEOUT_S: Final = 2.0


class Cluster(Protocol):
    """What this needs of the broker."""

    metadata: MetadataMachine
    metadata_replica: Replica
    key_value_replica: Replica

    def hosted(self) -> Sequence[HostedReplica]: ...

    def new_request_id(self) -> bytes: ...

    def propose_metadata(self, command: bytes, timeout_s: float) -> Awaitable[MetadataResult]: ...


class Membership:
    """One node's part in it."""

    def __init__(self, cluster: Cluster, loop: asyncio.AbstractEventLoop, logger: Logger) -> None:
        self._cluster = cluster
        self._loop = loop
        self._logger = logger
        self._changed = asyncio.Event()
        self._reports: dict[Hashable, asyncio.Task[None]] = {}
        self._looked_everywhere_s = loop.time() - IDLE_S
        self.waiting_for: dict[str, str] = {}  # group name -> what its change of members waits for, where led here

    def wake(self) -> None:
        """Something changed: members, targets, roles or configurations."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            pace = PACE_S if self._look() else IDLE_S
            try:
                await asyncio.wait_for(self._changed.wait(), pace)
            except TimeoutError:
                continue
            await asyncio.sleep(PACE_S / 10)  # what changes at once is looked at once

    def close(self) -> None:
        for report in self._reports.values():
            report.cancel()

    # ---- looking ---------------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Take every step that can be taken now; True while there is something to follow closely."""
        everywhere = self._loop.time() - self._looked_everywhere_s >= IDLE_S
        if everywhere:
            self._looked_everywhere_s = self._loop.time()
        busy = self._look_at_cluster_groups()
        for hosted in self._cluster.hosted():
            placement = hosted.placement
            if not placement.settled or everywhere:
                if not is_established(hosted.replica):
                    self.waiting_for.pop(hosted.replica.name, None)
                elif not self._advance(hosted.replica, partition_target(placement)):
                    busy = True
                elif not placement.settled:
                    busy = True
                    settled = SettleReplicas(hosted.topic_id, hosted.partition, placement.target_index)
                    self._report(("settled", hosted.topic_id, hosted.partition), settled)
        return busy

    def _look_at_cluster_groups(self) -> bool:
        cluster = self._cluster
        metadata, busy = cluster.metadata, False
        for replica in (cluster.metadata_replica, cluster.key_value_replica):
            if not is_established(replica):
                self.waiting_for.pop(replica.name, None)
                continue
            # A leaving node hears by the metadata what becomes of its replicas: that, it leaves last.
            leaving = [n.node_id for n in metadata.nodes.values() if n.state == NodeState.LEAVING]
            kept = [n for n in leaving if replica is cluster.metadata_replica and self._holds(n)]
            target = cluster_target(
                replica.node.configuration, metadata.nodes.values(), metadata.removed.keys(), kept=kept
            )
            if not self._advance(replica, target) or leaving:
                busy = True
        if is_established(cluster.metadata_replica):
            self._report_members()
        return busy

    def _holds(self, node: NodeId) -> str | None:
        """What a leaving node still takes part in, apart from the metadata; None: nothing."""
        if takes_part(self._cluster.key_value_replica.node.committed_configuration, node):
            return "kv"
        for name in sorted(self._cluster.metadata.topics):
            for partition in self._cluster.metadata.topics[name].partitions:
                if node in partition.hosts:
                    return f"{name}/{partition.index}"
        return None

    def _report_members(self) -> None:
        """On the metadata's leader: who has become a voter, and who is gone."""
        cluster = self._cluster
        configurations = [
            replica.node.committed_configuration for replica in (cluster.metadata_replica, cluster.key_value_replica)
        ]
        for node in list(cluster.metadata.nodes.values()):
            node_id = node.node_id
            if node.state == NodeState.JOINING:
                if all(node_id in configuration.voters for configuration in configurations):
                    self._report(("promoted", node_id), NodePromoted(node_id))
            elif node.state == NodeState.LEAVING and self._holds(node_id) is None:
                gone = not any(takes_part(configuration, node_id) for configuration in configurations)
                if gone and is_known_to_all(cluster.metadata_replica):
                    self._report(("forgotten", node_id), ForgetNode(node_id))

    def what_keeps(self, node: NodeId) -> str | None:
        """What a leaving node still takes part in."""
        held = self._holds(node)
        if held is None and takes_part(self._cluster.metadata_replica.node.committed_configuration, node):
            return "metadata"
        return held

    # ---- doing -----------------------------------------------------------------------------------------------------

    def _advance(self, replica: Replica, target: Target) -> bool:
        """Take the next step towards the target; True once it is reached and every member knows it."""
        node = replica.node
        caught_up = [follower.node_id for follower in node.followers() if follower.caught_up]
        step = next_step(node.configuration, target, caught_up)
        waiting_for = step.waiting_for
        if step.change is not None:
            try:
                replica.reconfigure(step.change)
                waiting_for = "the change to be committed"
                self._logger.info("members_changing", group=replica.name, change=repr(step.change))
            except ConfigurationRefused as refused:
                reached("a step of a change of members was refused for now")
                waiting_for = str(refused)
            except ProposalRefused as refused:
                waiting_for = str(refused)
        elif not waiting_for and not is_known_to_all(replica):
            waiting_for = "every member to have the new configuration on disk"
        if waiting_for:
            self.waiting_for[replica.name] = waiting_for
            return False
        self.waiting_for.pop(replica.name, None)
        return True

    def _report(self, key: Hashable, command: SettleReplicas | NodePromoted | ForgetNode) -> None:
        """Tell the metadata, once at a time."""
        if key not in self._reports:
            task = self._loop.create_task(self._propose(command))
            self._reports[key] = task
            task.add_done_callback(lambda ended: self._reports.pop(key, None))

    async def _propose(self, command: SettleReplicas | NodePromoted | ForgetNode) -> None:
        encoded = encode_command(command, request_id=self._cluster.new_request_id())
        try:
            result = await self._cluster.propose_metadata(encoded, REPORT_TIMEOUT_S)
        except (BackendError, ProposalLost) as error:
            reached("a report about members was lost and had to be repeated")
            self._logger.debug("members_report_failed", command=repr(command), reason=str(error))
            return
        if result.error:
            self._logger.debug("members_report_refused", command=repr(command), reason=result.message)
        else:
            self._logger.info("members_changed", command=repr(command))


def is_established(replica: Replica) -> bool:
    """It leads, and has applied an entry of its own term: its view is not older than its lead."""
    return not replica.closed and replica.node.is_leader and replica.applied_term == replica.node.term


def is_known_to_all(replica: Replica) -> bool:
    """On the leader: the configuration is committed, and every member has it on disk."""
    node = replica.node
    index = node.configuration_index
    if index > node.commit_index or index > node.durable_index:
        return False
    return all(follower.match_index >= index for follower in node.followers())
