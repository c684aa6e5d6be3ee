"""Where the consumer groups of the cluster are, and the end of offsets that nobody needs any more.

Rule: a group belongs to the shard that its id hashes to, and to whoever leads that shard.  Of shards without a replica
here this node believes what their leaders said last, and guesses before that; whoever is wrongly named says so
(NOT_COORDINATOR), and the client asks again.
Knows nothing of what groups do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_settings import GROUPS_TOPIC, GroupSettings, shard_of
from seatrial.machines.metadata import MetadataMachine
from seatrial.raft.ids import NodeId
from seatrial.server.errors import NoLeader, OutcomeUnknown
from seatrial.server.groups.shard import HostedShard
from seatrial.server.replica import Replica

if TYPE_CHECKING:
    from seatrial.kafka.group_backend import GroupCoordinator  # imported when somebody asks for a group

METADATA_TIMEOUT_S: Final = 2.0
EXPIRY_CHECK_S: Final = 600.0  # as Kafka's offsets.retention.check.interval.ms


class Cluster(Protocol):
    """What this needs of the broker."""

    metadata: MetadataMachine
    metadata_replica: Replica

    def alive_nodes(self) -> Sequence[int]: ...

    @property
    def node_id(self) -> int: ...


class Shards(Protocol):
    """What this needs of `server.hosting`."""

    shards: dict[tuple[str, int], HostedShard]


class Groups:
    """A `kafka.group_backend.GroupBackend`."""

    def __init__(
        self,
        cluster: Cluster,
        hosting: Shards,
        settings: GroupSettings,
        loop: asyncio.AbstractEventLoop,
        *,
        wall_ms: Callable[[], int],
    ) -> None:
        self._cluster = cluster
        self._hosting = hosting
        self._settings = settings
        self._loop = loop
        self._wall_ms = wall_ms
        self._heard: dict[int, tuple[int, NodeId]] = {}  # shard -> term and leader, of shards without a replica here

    @property
    def are_created(self) -> bool:
        return GROUPS_TOPIC in self._cluster.metadata.topics

    def _number(self, group_id: str) -> int | None:
        topic = self._cluster.metadata.topics.get(GROUPS_TOPIC)
        return None if topic is None else shard_of(group_id, len(topic.partitions))

    def leader_of(self, group_id: str) -> int:
        number = self._number(group_id)
        if number is None:
            return -1
        shard = self._hosting.shards.get((GROUPS_TOPIC, number))
        if shard is not None:
            return shard.leader_id
        hosts = self._cluster.metadata.topics[GROUPS_TOPIC].partitions[number].hosts
        if self._cluster.node_id in hosts:
            return -1  # about to be opened here
        alive = self._cluster.alive_nodes()
        _, leader = self._heard.get(number, (0, None))
        if leader in hosts and leader in alive:
            return leader
        return next((node for node in hosts if node in alive), -1)

    def led_unknown_to_others(self) -> list[tuple[int, int]]:
        """(number, term) of each shard that this node leads and some other node has no replica of."""
        nodes = self._cluster.metadata.nodes
        return [
            (shard.partition, shard.leader_epoch)
            for shard in self._hosting.shards.values()
            if shard.is_leader and any(node not in shard.placement.hosts for node in nodes)
        ]

    def heard_of_leader(self, node: NodeId, number: int, term: int) -> None:
        """Another node says that it leads a shard."""
        if term >= self._heard.get(number, (0, None))[0]:
            self._heard[number] = (term, node)

    def coordinator_of(self, group_id: str) -> GroupCoordinator | ErrorCode:
        number = self._number(group_id)
        shard = None if number is None else self._hosting.shards.get((GROUPS_TOPIC, number))
        return ErrorCode.NOT_COORDINATOR if shard is None else shard.coordinator

    def coordinators(self) -> Sequence[GroupCoordinator | ErrorCode]:
        return [shard.coordinator for _, shard in sorted(self._hosting.shards.items()) if shard.is_leader]

    async def metadata_is_current(self) -> bool:
        try:
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                await self._cluster.metadata_replica.read_barrier()
        except (TimeoutError, NoLeader, OutcomeUnknown):
            return False
        return True

    # ---- expiry ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let offsets expire; until cancelled."""
        while True:
            await asyncio.sleep(min(EXPIRY_CHECK_S, max(self._settings.offsets_retention_ms / 2000, 1.0)))
            await self.expire_offsets()

    async def expire_offsets(self) -> None:
        """Forget what has expired in the shards that this node leads."""
        led = [shard for _, shard in sorted(self._hosting.shards.items()) if shard.is_leader]
        # A topic that is not known here must be one that was deleted, not one that is new.
        if not led or not await self.metadata_is_current():
            return
        from seatrial.server.groups.expiry import expired, is_spent  # a node without groups need not know

        topic_ids = {topic.topic_id for topic in self._cluster.metadata.topics.values()}
        for shard in led:
            coordinator = shard.coordinator
            if isinstance(coordinator, ErrorCode):
                continue
            for group_id, stored in list(coordinator.stored().items()):
                gone = list(expired(stored, self._wall_ms(), self._settings.offsets_retention_ms, topic_ids))
                if gone or is_spent(stored):
                    coordinator.expire(group_id, gone)
