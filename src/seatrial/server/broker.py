"""Which Raft groups this node takes part in, and where everything is: the `kafka.backend.Backend`.

Rule: the metadata group alone says which topics and nodes there are; what it says is carried out here after it was
applied, and a group's files are deleted only once this node is known to be up to date.
Group 0 is the metadata, group 1 the key-value store, partitions begin at 16.
Knows nothing of requests, sockets and HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from seatrial.env import Clock, Rng
from seatrial.kafka import backend
from seatrial.machines.commands import request_id_of
from seatrial.machines.kv import KeyValueMachine
from seatrial.machines.metadata import (
    FIRST_PARTITION_GROUP,
    MetadataChange,
    MetadataError,
    MetadataMachine,
    MetadataResult,
    Partition,
    RegisterNode,
    SetClusterId,
    Topic,
    encode_command,
)
from seatrial.machines.partition_log import PartitionLog
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.roles import Role
from seatrial.server.config import ServerConfig
from seatrial.server.errors import OutcomeUnknown, ProposalLost, StartError
from seatrial.server.key_value import KeyValueService, predict_result
from seatrial.server.logs import Logger
from seatrial.server.multiraft import MultiRaft
from seatrial.server.partition import HostedPartition, predict_outcome
from seatrial.server.replica import Replica, ReplicaOptions
from seatrial.storage.errors import DamagedLog

METADATA_GROUP: Final = GroupId(0)
KEY_VALUE_GROUP: Final = GroupId(1)
REGISTER_ATTEMPT_S: Final = 1.0
RETRY_S: Final = 0.02
ALIVE_SILENCE_US: Final = 2_000_000
OPEN_A_TURN: Final = 8
OPEN_PAUSE_S: Final = 0.01  # while as many groups as may are still electing their leaders
ROLE_CHANGES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChange:
    """One change of a group's role, term or leader as this node saw it; `sequence` counts all of them from 1."""

    sequence: int
    wall_ms: int
    group: str
    role: str
    term: int
    leader: int | None


class Broker:
    """All replicas of this node and what they are for."""

    def __init__(self, config: ServerConfig, multiraft: MultiRaft, clock: Clock, rng: Rng, logger: Logger) -> None:
        self.config = config
        self.multiraft = multiraft
        self.metadata = MetadataMachine()
        self.role_changes: deque[RoleChange] = deque(maxlen=ROLE_CHANGES_MAX)
        self.registered = asyncio.Event()
        self.refused_groups: dict[str, str] = {}  # name -> why its stored log cannot be used
        self._clock = clock
        self._rng = rng
        self._logger = logger
        self._partitions: dict[tuple[str, int], HostedPartition] = {}
        self._stale_topics: set[str] = set()  # changed in the metadata, not yet carried out
        self._to_open: deque[tuple[Topic, Partition]] = deque()
        self.role_changes_seen = 0
        self._told: dict[GroupId, tuple[str, int, int | None]] = {}

    def start(self) -> None:
        """Open the groups that every node has; topics follow as the metadata group applies them.

        Raises:
            DamagedLog: one of these two cannot be opened; without them the node is of no use.
        """
        voters, unsafe = self.config.voters, self.config.unsafe
        self.metadata.listeners.append(self._metadata_changed)
        self.metadata_replica = self.multiraft.open(
            METADATA_GROUP, "metadata", self.metadata, voters, ReplicaOptions(request_id=request_id_of)
        )
        machine = KeyValueMachine()
        predict = predict_result(machine) if "ack-before-commit" in unsafe else None
        options = ReplicaOptions(request_id=request_id_of, predict=predict)
        self.key_value_replica = self.multiraft.open(KEY_VALUE_GROUP, "kv", machine, voters, options)
        self.key_value = KeyValueService(
            self.key_value_replica,
            machine,
            new_request_id=self.new_request_id,
            unsafe_stale_reads="stale-reads" in unsafe,
        )

    # ---- kafka.backend.Backend -------------------------------------------------------------------------------------

    @property
    def node_id(self) -> int:
        return self.config.node_id

    @property
    def cluster_id(self) -> str:
        return self.config.cluster_id

    @property
    def controller_id(self) -> int:
        return self.metadata_replica.node.leader or -1

    def alive_nodes(self) -> Sequence[int]:
        """This node, and the registered ones that were heard a moment ago."""
        now_us, peers = self._clock.now_us(), self.multiraft.transport.peers()
        alive = [self.config.node_id] if self.config.node_id in self.metadata.nodes else []
        for node_id in self.metadata.nodes:
            status = peers.get(node_id)
            heard_us = status.last_received_us if status else None
            if heard_us is not None and now_us - heard_us < ALIVE_SILENCE_US:
                alive.append(node_id)
        return sorted(alive)

    def leadership(self, topic: str, partition: int) -> backend.Leadership:
        hosted = self._partitions.get((topic, partition))
        if hosted is not None:
            known = hosted.leader_id >= 0
            return backend.Leadership(hosted.leader_id, hosted.leader_epoch if known else -1, hosted.in_sync)
        # No replica here, so no first-hand knowledge: a replica that is up either leads or knows who does.
        described = self.metadata.topics.get(topic)
        replicas = described.partitions[partition].replicas if described else ()
        alive = set(self.alive_nodes())
        up = [node for node in replicas if node in alive]
        return backend.Leadership(up[0] if up else -1, -1, up)

    def partition(self, topic: str, partition: int) -> HostedPartition | None:
        return self._partitions.get((topic, partition))

    def partitions(self) -> Sequence[HostedPartition]:
        """All that have a replica here, in order of topic and number."""
        return [self._partitions[key] for key in sorted(self._partitions)]

    def new_request_id(self) -> bytes:
        return self._rng.bytes(16)

    async def propose_metadata(self, command: bytes, timeout_s: float) -> MetadataResult:
        loop = self.multiraft.loop
        deadline = loop.time() + timeout_s
        while True:
            left = deadline - loop.time()
            try:
                future = self.metadata_replica.submit(command, request_id_of(command))
            except NotLeader as error:
                if left <= 0:
                    raise backend.NotLeader(error.leader or -1) from None
            except ProposalDropped as error:
                if left <= 0:
                    raise backend.ProposalDropped(error.reason) from None
            else:
                break
            await asyncio.wait([self.metadata_replica.changed()], timeout=RETRY_S)
        try:
            result: MetadataResult = await asyncio.wait_for(future, max(left, 0.001))
        except TimeoutError:
            raise OutcomeUnknown(f"the metadata command had no outcome within {timeout_s:g} s") from None
        return result

    # ---- registration ----------------------------------------------------------------------------------------------

    async def register(self) -> None:
        """Tell the cluster this node's addresses, as often as it takes; ends when that is applied here.

        Raises:
            StartError: the peers belong to a cluster of another name.
        """
        config = self.config
        commands = (
            SetClusterId(config.cluster_id),
            RegisterNode(
                config.node_id,
                str(config.raft_addr),
                config.advertise_kafka.host,
                config.advertise_kafka.port,
                str(config.http_addr),
                config.rack or None,
            ),
        )
        for command in commands:
            result = await self._propose_until_applied(encode_command(command, request_id=self.new_request_id()))
            if result.error == MetadataError.CLUSTER_ID_MISMATCH:
                raise StartError(11, f"the peers do not belong to this cluster: {result.message}; check --cluster-id")
        self._remove_deleted_groups()
        self.registered.set()

    async def _propose_until_applied(self, command: bytes) -> MetadataResult:
        while True:
            try:
                return await self.propose_metadata(command, REGISTER_ATTEMPT_S)
            except (backend.BackendError, ProposalLost) as error:
                self._logger.debug("register_retry", reason=str(error))

    def _remove_deleted_groups(self) -> None:
        """Registered, so up to date with the metadata: what is stored of a group that it does not name was deleted."""
        named = {p.group for topic in self.metadata.topics.values() for p in topic.partitions}
        for group in self.multiraft.storage.groups():
            if group >= FIRST_PARTITION_GROUP and group not in named:
                self._logger.info("group_removed", group=group)
                self.multiraft.remove_group(group)

    # ---- topics come and go ----------------------------------------------------------------------------------------

    def _metadata_changed(self, change: MetadataChange) -> None:
        if change.topics and not self._stale_topics:
            self.multiraft.loop.call_soon(self._follow_metadata)
        self._stale_topics.update(change.topics)

    def _follow_metadata(self) -> None:
        names, self._stale_topics = sorted(self._stale_topics), set()
        for name in names:
            topic = self.metadata.topics.get(name)
            for key, hosted in list(self._partitions.items()):
                if key[0] == name and (topic is None or hosted.topic_id != topic.topic_id):
                    del self._partitions[key]
                    self.multiraft.remove_group(hosted.replica.group)
            if topic is not None:
                self._to_open.extend((topic, p) for p in topic.partitions if self.config.node_id in p.replicas)
        if self._to_open:
            self._open_some()

    def _open_some(self) -> None:
        """A few a loop turn: opening touches the disk, and heartbeats must not wait for a thousand of them."""
        if not self.multiraft.may_campaign:
            self.multiraft.loop.call_later(OPEN_PAUSE_S, self._open_some)
            return
        for _ in range(OPEN_A_TURN):
            if not self._to_open:
                return
            topic, placement = self._to_open.popleft()
            current = self.metadata.topics.get(topic.name)
            known = (topic.name, placement.index) in self._partitions
            if current is not None and current.topic_id == topic.topic_id and not known:
                self._open_partition(topic, placement)
        self.multiraft.loop.call_soon(self._open_some)

    def _open_partition(self, topic: Topic, placement: Partition) -> None:
        name = f"{topic.name}/{placement.index}"
        machine = PartitionLog()
        predict = predict_outcome(machine) if "ack-before-commit" in self.config.unsafe else None
        options = ReplicaOptions(keep_entries=None, predict=predict)
        try:
            replica = self.multiraft.open(placement.group, name, machine, placement.replicas, options)
        except DamagedLog as error:
            # This replica is refused; the others, and the rest of this node, go on.
            self.refused_groups[name] = str(error)
            self._logger.error("group_refused", group=name, reason=str(error))
            return
        self._partitions[topic.name, placement.index] = HostedPartition(
            topic, placement, replica, machine, rack_of=self._rack_of, alive=self.alive_nodes
        )
        if placement.replicas[0] == self.config.node_id and replica.node.term == 0:
            replica.campaign()  # new: the preferred leader need not wait for anybody's election timeout

    def _rack_of(self, node_id: NodeId) -> str:
        node = self.metadata.nodes.get(node_id)
        return (node.rack if node else None) or ""

    # ---- roles -----------------------------------------------------------------------------------------------------

    def role_changed(self, replica: Replica) -> None:
        node = replica.node
        now = (role_name(replica), int(node.term), node.leader)
        if self._told.get(replica.group) == now:
            return
        self._told[replica.group] = now
        self.role_changes_seen += 1
        change = RoleChange(
            sequence=self.role_changes_seen,
            wall_ms=self._clock.wall_ms(),
            group=replica.name,
            role=now[0],
            term=now[1],
            leader=now[2],
        )
        self.role_changes.append(change)
        self._logger.info("role_changed", group=change.group, role=change.role, term=change.term, leader=change.leader)

    async def hand_over(self, timeout_s: float) -> None:
        """Give the lead of every group to its most caught-up follower that is up; as much as fits the time."""
        loop = self.multiraft.loop
        deadline = loop.time() + timeout_s
        alive = set(self.alive_nodes())
        while loop.time() < deadline:
            led = [r for r in self.multiraft.replicas.values() if r.node.is_leader]
            waiting = []
            for replica in led:
                status = replica.status()
                able = sorted((-progress.match_index, p) for p, progress in status.peers.items() if p in alive)
                if able:
                    if status.transfer_to is None:
                        replica.transfer_leadership(NodeId(able[0][1]))
                    waiting.append(replica.changed())
            if not waiting:
                return
            await asyncio.wait(waiting, timeout=0.05)


def role_name(replica: Replica) -> str:
    """ "follower", "pre-candidate", "candidate" or "leader"."""
    return Role(replica.node.role).name.lower().replace("_", "-")
