"""Which Raft groups this node takes part in, and where everything is: the `kafka.backend.Backend`.

Rule: the metadata group alone says which topics and nodes there are; `hosting` carries out what it says of partitions,
`membership` what it says of members.
Group 0 is the metadata, group 1 the key-value store, partitions begin at 16.
Knows nothing of requests, sockets and HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from seatrial.env import Clock, Rng
from seatrial.kafka import backend
from seatrial.kafka.group_settings import GroupLimits, GroupSettings
from seatrial.machines.commands import request_id_of
from seatrial.machines.kv import KeyValueMachine, holds_value, once_id_of
from seatrial.machines.metadata import (
    MetadataChange,
    MetadataError,
    MetadataMachine,
    MetadataResult,
    Partition,
    RegisterNode,
    ReplicaGone,
    SetClusterId,
    Topic,
    encode_command,
)
from seatrial.marks import reached
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import GroupId, Index, NodeId
from seatrial.raft.roles import Role
from seatrial.server.config import ServerConfig
from seatrial.server.directory import Directory
from seatrial.server.errors import OutcomeUnknown, ProposalLost, Removed, StartError
from seatrial.server.groups.service import Groups
from seatrial.server.hosted import HostedReplica
from seatrial.server.hosting import Hosting
from seatrial.server.key_value import KeyValueService, predict_result
from seatrial.server.logs import Logger
from seatrial.server.membership import Membership
from seatrial.server.multiraft import MultiRaft
from seatrial.server.partition import HostedPartition
from seatrial.server.replica import Replica, ReplicaOptions

if TYPE_CHECKING:
    from seatrial.machines.groups import GroupsMachine
    from seatrial.server.groups.coordinator import Coordinator

METADATA_GROUP: Final = GroupId(0)
KEY_VALUE_GROUP: Final = GroupId(1)
REGISTER_ATTEMPT_S: Final = 1.0
RETRY_S: Final = 0.02  # what a leader is too full for, or about to hand over, is offered again after this
ALIVE_SILENCE_US: Final = 2_000_000
ALIVE_US: Final = 10_000  # how long what was found of that is told
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

    def __init__(
        self,
        config: ServerConfig,
        directory: Directory,
        multiraft: MultiRaft,
        clock: Clock,
        rng: Rng,
        logger: Logger,
        *,
        nodes_changed: Callable[[], None],
        refusal: Callable[[Replica, int], str | None],
    ) -> None:
        self.config = config
        self.directory = directory
        self.multiraft = multiraft
        self.metadata = MetadataMachine()
        self.role_changes: deque[RoleChange] = deque(maxlen=ROLE_CHANGES_MAX)
        self.registered = asyncio.Event()
        self._clock = clock
        self._rng = rng
        self._logger = logger
        self._nodes_changed = nodes_changed
        self._refusal = refusal
        self.membership = Membership(self, multiraft.loop, logger)
        self.hosting = Hosting(
            config.node_id,
            multiraft,
            self.metadata,
            logger,
            alive=self.alive_nodes,
            replica_gone=self._replica_gone,
            predicts="ack-before-commit" in config.unsafe,
            make_coordinator=self._make_coordinator,
            refusal=refusal,
        )
        settings = group_settings(config)
        self._group_limits = settings.limits
        self.groups = Groups(self, self.hosting, settings, multiraft.loop, wall_ms=clock.wall_ms)
        self._tasks: set[asyncio.Task[None]] = set()
        self.role_changes_seen = 0
        self._alive: Sequence[int] = ()  # what `alive_nodes` tells until then, with so much of the metadata applied
        self._alive_until_us = 0
        self._alive_with = Index(0)
        self._told: dict[GroupId, tuple[str, int, int | None]] = {}

    def start(self) -> None:
        """Open the groups that every node has; topics follow as the metadata group applies them.

        Raises:
            DamagedLog: one of these two cannot be opened; without them the node is of no use.
        """
        unsafe = self.config.unsafe
        voters = () if self.directory.joined else self.config.voters
        self.metadata.listeners.append(self._metadata_changed)
        self.metadata_replica = self.multiraft.open(
            METADATA_GROUP, "metadata", self.metadata, voters, ReplicaOptions(request_id=request_id_of)
        )
        machine = KeyValueMachine()
        predict = predict_result(machine) if "ack-before-commit" in unsafe else None
        options = ReplicaOptions(request_id=request_id_of, once_id=once_id_of, predict=predict, needs_room=holds_value)
        self.key_value_replica = self.multiraft.open(KEY_VALUE_GROUP, "kv", machine, voters, options)
        self.key_value = KeyValueService(
            self.key_value_replica,
            machine,
            new_request_id=self.new_request_id,
            refusal=partial(self._refusal, self.key_value_replica),
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

    @property
    def is_joining(self) -> bool:
        return self.directory.joined and not self.metadata.nodes

    @property
    def log_directory(self) -> str:
        return self.config.data_dir

    def now_us(self) -> int:
        return self._clock.now_us()

    def alive_nodes(self) -> Sequence[int]:
        """This node, and the registered ones that were heard a moment ago.

        Asked for each of thousands of partitions by one request, so it is looked at again only after a while.
        """
        now_us, known = self._clock.now_us(), self.metadata_replica.last_applied
        if now_us >= self._alive_until_us or known != self._alive_with:
            self._alive, self._alive_with, self._alive_until_us = self._heard_lately(now_us), known, now_us + ALIVE_US
        return self._alive

    def _heard_lately(self, now_us: int) -> Sequence[int]:
        peers = self.multiraft.transport.peers()
        alive = [self.config.node_id] if self.config.node_id in self.metadata.nodes else []
        for node_id in self.metadata.nodes:
            status = peers.get(node_id)
            heard_us = status.last_received_us if status else None
            if heard_us is not None and now_us - heard_us < ALIVE_SILENCE_US:
                alive.append(node_id)
        return sorted(alive)

    def leadership(self, topic: str, partition: int) -> backend.Leadership:
        hosted = self.hosting.partitions.get((topic, partition))
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
        return self.hosting.partitions.get((topic, partition))

    @property
    def refused_groups(self) -> dict[str, str]:
        """Name -> why its stored log cannot be used."""
        return self.hosting.refused

    def partitions(self) -> Sequence[HostedPartition]:
        """All that have a replica here, in order of topic and number."""
        return [self.hosting.partitions[key] for key in sorted(self.hosting.partitions)]

    def hosted(self) -> list[HostedReplica]:
        """All that have a replica here, shards of consumer groups included."""
        return self.hosting.hosted()

    def new_request_id(self) -> bytes:
        return self._rng.bytes(16)

    async def propose_metadata(self, command: bytes, timeout_s: float) -> MetadataResult:
        loop = self.multiraft.loop
        deadline = loop.time() + timeout_s
        while True:
            left = deadline - loop.time()
            patience = RETRY_S
            try:
                future = self.metadata_replica.submit(command, request_id_of(command))
            except NotLeader as error:
                if left <= 0:
                    raise backend.NotLeader(error.leader or -1) from None
                patience = left  # a change ends it: that a leader is known is one
            except ProposalDropped as error:
                if left <= 0:
                    raise backend.ProposalDropped(error.reason) from None
            else:
                break
            await asyncio.wait([self.metadata_replica.changed()], timeout=patience)
        try:
            result: MetadataResult = await asyncio.wait_for(future, max(left, 0.001))
        except TimeoutError:
            reached("a metadata command had no outcome in time")
            raise OutcomeUnknown(f"the metadata command had no outcome within {timeout_s:g} s") from None
        return result

    def _make_coordinator(self, replica: Replica, machine: GroupsMachine) -> Coordinator:
        from seatrial.server.groups.coordinator import Coordinator  # a node without groups need not know it

        return Coordinator(
            replica,
            machine,
            self._group_limits,
            self.multiraft.loop,
            wall_ms=self._clock.wall_ms,
            new_id=self._new_member_number,
        )

    def _new_member_number(self) -> str:
        """36 characters, as Kafka's member ids have behind the client's id."""
        digits = self._rng.bytes(16).hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    # ---- registration ----------------------------------------------------------------------------------------------

    async def register(self) -> None:
        """Tell the cluster this node's addresses, as often as it takes; ends when that is applied here.

        Raises:
            StartError: the peers belong to a cluster of another name, or know this node by another data directory.
            Removed: this node's id was removed from the cluster, or was never added.
        """
        config = self.config
        commands = (
            SetClusterId(config.cluster_id),
            RegisterNode(
                config.node_id,
                str(config.advertise_raft or config.raft_addr),
                config.advertise_kafka.host,
                config.advertise_kafka.port,
                str(config.http_addr),
                config.rack or None,
                self.directory.number,
                not self.directory.joined,
            ),
        )
        for command in commands:
            result = await self._propose_until_applied(encode_command(command, request_id=self.new_request_id()))
            if result.error == MetadataError.CLUSTER_ID_MISMATCH:
                raise StartError(11, f"the peers do not belong to this cluster: {result.message}; check --cluster-id")
            if result.error == MetadataError.DIRECTORY_DIFFERS:
                raise StartError(16, result.message)
            if result.error:
                raise Removed(result.message)
        self.hosting.up_to_date()
        self.registered.set()

    async def _propose_until_applied(self, command: bytes) -> MetadataResult:
        while True:
            try:
                return await self.propose_metadata(command, REGISTER_ATTEMPT_S)
            except (backend.BackendError, ProposalLost) as error:
                reached("a registration had to be repeated")
                self._logger.debug("register_retry", reason=str(error))

    # ---- the metadata changes --------------------------------------------------------------------------------------

    def _metadata_changed(self, change: MetadataChange) -> None:
        self.hosting.topics_changed(change.topics)
        for key in change.elections:
            self._hand_to_preferred(key)
        self.membership.wake()
        if change.nodes:
            self.multiraft.loop.call_soon(self._nodes_changed)

    def _hand_to_preferred(self, key: tuple[str, int]) -> None:
        """A client asks for it; only who leads now can do it."""
        hosted = self.hosting.partitions.get(key)
        if hosted is None or not hosted.is_leader:
            return
        preferred = hosted.placement.replicas[0]
        if preferred != self.config.node_id and preferred in hosted.replica.node.configuration.voters:
            reached("a leader handed over to the preferred replica because a client had asked for it")
            hosted.replica.transfer_leadership(preferred)

    def _replica_gone(self, topic: Topic, partition: Partition) -> None:
        """The files of a replica that had moved away are deleted: tell it until it is known, or has changed again."""
        task = self.multiraft.loop.create_task(self._report_gone(topic, partition))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _report_gone(self, topic: Topic, partition: Partition) -> None:
        gone = ReplicaGone(topic.topic_id, partition.index, partition.target_index, self.config.node_id)
        while not self.hosting.is_closed:
            try:
                await self.propose_metadata(encode_command(gone, request_id=self.new_request_id()), REGISTER_ATTEMPT_S)
                return
            except (backend.BackendError, ProposalLost) as error:
                self._logger.debug("replica_gone_retry", reason=str(error))

    def close(self) -> None:
        """Stop what goes on in the background."""
        self.membership.close()
        self.hosting.close()
        for task in list(self._tasks):
            task.cancel()

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
        self.membership.wake()
        self._logger.info("role_changed", group=change.group, role=change.role, term=change.term, leader=change.leader)

    def configuration_changed(self, replica: Replica) -> None:
        configuration = replica.node.configuration
        self._logger.info(
            "configuration_changed",
            group=replica.name,
            voters=configuration.voters,
            voters_outgoing=configuration.voters_outgoing,
            learners=configuration.learners,
        )
        self.membership.wake()

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
                voters = alive & {*replica.node.configuration.voters}
                able = sorted((-progress.match_index, p) for p, progress in status.peers.items() if p in voters)
                if able:
                    if status.transfer_to is None:
                        replica.transfer_leadership(NodeId(able[0][1]))
                    waiting.append(replica.changed())
            if not waiting:
                return
            await asyncio.wait(waiting, timeout=0.05)


def group_settings(config: ServerConfig) -> GroupSettings:
    return GroupSettings(
        coordinators=config.group_coordinators,
        limits=GroupLimits(
            min_session_timeout_ms=config.group_min_session_timeout_ms,
            max_session_timeout_ms=config.group_max_session_timeout_ms,
            initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
        ),
        offsets_retention_ms=config.offsets_retention_minutes * 60_000,
    )


ROLE_NAMES: Final = {role: role.name.lower().replace("_", "-") for role in Role}


def role_name(replica: Replica) -> str:
    """ "follower", "pre-candidate", "candidate" or "leader"."""
    return ROLE_NAMES[replica.node.role]
