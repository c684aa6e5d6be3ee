"""The partitions that this node holds: opened, moved in and given up as the metadata says.

Rule: what the metadata says is carried out after it was applied.  A replica of which nothing is stored here is opened
only once this node is known to be up to date with the metadata: by an old state it could be one that was given up
since, and an empty replica that thinks itself an old one could vote for a leader of the past.  Files are deleted only
when the metadata no longer wants them here, and that they are gone is reported when it will survive a crash.
Knows nothing of requests, and of how a group's members change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from seatrial.kafka.group_settings import GROUPS_TOPIC
from seatrial.machines.metadata import FIRST_PARTITION_GROUP, MetadataMachine, Partition, Topic
from seatrial.machines.partition_log import PartitionLog, holds_records
from seatrial.marks import reached
from seatrial.raft.ids import GroupId, NodeId
from seatrial.server.groups.shard import HostedShard
from seatrial.server.hosted import HostedReplica
from seatrial.server.kept_log import KeptLog
from seatrial.server.logs import Logger
from seatrial.server.multiraft import MultiRaft
from seatrial.server.partition import HostedPartition, predict_outcome
from seatrial.server.readers import Readers
from seatrial.server.replica import Replica, ReplicaOptions
from seatrial.storage.base import GroupStorage
from seatrial.storage.errors import DamagedLog, GroupBeingRemoved

if TYPE_CHECKING:
    from seatrial.machines.groups import GroupsMachine
    from seatrial.server.groups.coordinator import Coordinator

OPEN_A_TURN: Final = 8
OPEN_PAUSE_S: Final = 0.01  # while as many groups as may are still electing their leaders
RETRY_OPEN_S: Final = 0.1

Key = tuple[str, int]


class Hosting:
    """The partitions with a replica here, by topic and number."""

    def __init__(
        self,
        node_id: NodeId,
        multiraft: MultiRaft,
        metadata: MetadataMachine,
        logger: Logger,
        *,
        alive: Callable[[], Sequence[int]],
        replica_gone: Callable[[Topic, Partition], None],
        predicts: bool,
        make_coordinator: Callable[[Replica, GroupsMachine], Coordinator],
        refusal: Callable[[Replica, int], str | None],
    ) -> None:
        self._refusal = refusal
        self.partitions: dict[Key, HostedPartition] = {}
        self.shards: dict[Key, HostedShard] = {}  # of consumer groups
        self.refused: dict[str, str] = {}  # name -> why its stored log cannot be used
        self._node_id = node_id
        self._multiraft = multiraft
        self._metadata = metadata
        self._logger = logger
        self._alive = alive
        self._readers = Readers()
        self._replica_gone = replica_gone
        self._predicts = predicts
        self._make_coordinator = make_coordinator
        self._stored: set[GroupId] = set(multiraft.storage.groups())
        self._up_to_date = False
        self._stale_topics: set[str] = set()  # changed in the metadata, not yet carried out
        self._to_open: deque[Key] = deque()
        self._opening = False
        self._departures: set[tuple[GroupId, int]] = set()  # replicas given up, and for which target
        self.is_closed = False

    def topics_changed(self, topics: Collection[str]) -> None:
        if topics and not self._stale_topics:
            self._multiraft.loop.call_soon(self._follow)
        self._stale_topics.update(topics)

    def up_to_date(self) -> None:
        """This node knows all that was decided before its start: what was held off may be done now."""
        self._up_to_date = True
        wanted = {
            partition.group
            for topic in self._metadata.topics.values()
            for partition in topic.partitions
            if self._node_id in partition.hosts
        }
        for group in self._multiraft.storage.groups():
            if group >= FIRST_PARTITION_GROUP and group not in wanted:
                self._logger.info("group_removed", group=group)
                self._close(group)
                self._multiraft.remove_group(group)
        self.topics_changed(sorted(self._metadata.topics))

    def close(self) -> None:
        """Take part in nothing any more; what is stored stays."""
        self.is_closed = True
        for shard in self.shards.values():
            shard.close()
        self.partitions.clear()
        self.shards.clear()
        self._to_open.clear()

    def hosted(self) -> list[HostedReplica]:
        """All replicas here, whatever they hold."""
        return [*self.partitions.values(), *self.shards.values()]

    def _find(self, key: Key) -> HostedReplica | None:
        return self.partitions.get(key) or self.shards.get(key)

    def _drop(self, key: Key) -> None:
        """Serve it no more; its Raft group goes on until it is closed."""
        self.partitions.pop(key, None)
        shard = self.shards.pop(key, None)
        if shard is not None:
            shard.close()

    def _close(self, group: GroupId) -> None:
        for hosted in self.hosted():
            if hosted.replica.group == group:
                self._drop((hosted.topic, hosted.partition))

    # ---- what changed ----------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        names, self._stale_topics = sorted(self._stale_topics), set()
        if self.is_closed:
            return
        there: dict[str, list[HostedReplica]] = {name: [] for name in names}
        for hosted in self.hosted():
            if hosted.topic in there:
                there[hosted.topic].append(hosted)
        for name in names:
            topic = self._metadata.topics.get(name)
            for hosted in there[name]:
                if topic is None or hosted.topic_id != topic.topic_id:
                    self._drop((hosted.topic, hosted.partition))
                    self._multiraft.remove_group(hosted.replica.group)
            for partition in topic.partitions if topic is not None else ():
                assert topic is not None
                self._follow_partition(topic, partition)
        if self._to_open and not self._opening:
            self._open_some()

    def _follow_partition(self, topic: Topic, partition: Partition) -> None:
        key = (topic.name, partition.index)
        hosted = self._find(key)
        if self._node_id in partition.hosts:
            if hosted is not None:
                hosted.placement = partition
            elif self._up_to_date or partition.group in self._stored:
                self._want_open(key)
            else:
                reached("a replica of which nothing is stored was held off until the metadata was known to be new")
            return
        if not self._up_to_date:
            return  # what the metadata says now may be the past
        if hosted is not None:
            reached("a replica was given up after its partition had moved")
            self._logger.info("replica_given_up", group=hosted.replica.name)
            self._drop(key)
        departure = (partition.group, partition.target_index)
        is_leaving = hosted is not None or self._node_id in partition.lingering
        if is_leaving and departure not in self._departures:
            self._departures.add(departure)
            self.refused.pop(f"{topic.name}/{partition.index}", None)
            self._multiraft.remove_group(partition.group, done=lambda: self._replica_gone(topic, partition))

    # ---- opening ---------------------------------------------------------------------------------------------------

    def _want_open(self, key: Key) -> None:
        """Shards of consumer groups first: all members of a group wait for one of them."""
        if key[0] == GROUPS_TOPIC:
            self._to_open.appendleft(key)
        else:
            self._to_open.append(key)

    def _open_some(self) -> None:
        """A few a loop turn: opening touches the disk, and heartbeats must not wait for a thousand of them."""
        self._opening = True
        for _ in range(OPEN_A_TURN):
            if not self._to_open:
                self._opening = False
                return
            if not self._multiraft.may_campaign:
                self._multiraft.loop.call_later(OPEN_PAUSE_S, self._open_some)
                return
            key = self._to_open.popleft()
            topic = self._metadata.topics.get(key[0])
            if topic is not None and key[1] < len(topic.partitions) and self._find(key) is None:
                partition = topic.partitions[key[1]]
                if self._node_id in partition.hosts:
                    self._open(topic, partition)
        self._multiraft.loop.call_soon(self._open_some)

    def _open(self, topic: Topic, partition: Partition) -> None:
        name = f"{topic.name}/{partition.index}"
        if name in self.refused:
            return
        open_it = self._open_shard if topic.name == GROUPS_TOPIC else self._open_log
        first = partition.first_configuration(self._node_id)
        try:
            replica = open_it(name, topic, partition)
        except GroupBeingRemoved:
            reached("a replica was wanted while its old files were still being deleted")
            self._multiraft.loop.call_later(RETRY_OPEN_S, self.topics_changed, [topic.name])
            return
        except DamagedLog as error:
            # This replica is refused; the others, and the rest of this node, go on.
            reached("a damaged replica was refused, and the rest of its node went on")
            self.refused[name] = str(error)
            self._logger.error("group_refused", group=name, reason=str(error))
            return
        if not first:
            self._logger.info("replica_moves_in", group=name)
        if first and replica.node.term == 0:  # new: the preferred leader need not wait for anybody's election timeout
            if partition.replicas[0] == self._node_id:
                self._multiraft.campaign(replica)
            elif partition.replicas[0] in self._alive():
                self._multiraft.give_way(replica)

    def _open_log(self, name: str, topic: Topic, partition: Partition) -> Replica:
        machine = PartitionLog()
        predict = predict_outcome(machine) if self._predicts else None
        key = (topic.name, partition.index)

        def kept(storage: GroupStorage) -> KeptLog:
            return KeptLog(storage, machine, lambda: self._founders(key, partition))

        options = ReplicaOptions(keep_entries=None, predict=predict, stable=kept, needs_room=holds_records)
        first = partition.first_configuration(self._node_id)
        replica = self._multiraft.open(partition.group, name, machine, first, options)
        needed, kept_from = machine.base().entry_index + 1, replica.storage.first_index
        if needed < kept_from:
            # A snapshot holds no records: where the log lost its end before it, it stands for nothing.
            self._multiraft.close_group(partition.group)
            raise DamagedLog(name, 0, f"entries {needed} to {kept_from - 1} hold records, and are in no segment")
        hosted = HostedPartition(
            topic,
            partition,
            replica,
            machine,
            rack_of=self.rack_of,
            alive=self._alive,
            readers=self._readers,
            refusal=partial(self._refusal, replica),
        )
        self.partitions[key] = hosted
        return replica

    def _founders(self, key: Key, opened_as: Partition) -> Sequence[NodeId]:
        hosted = self.partitions.get(key)
        placement = opened_as if hosted is None else hosted.placement
        return placement.founding or placement.replicas

    def _open_shard(self, name: str, topic: Topic, partition: Partition) -> Replica:
        from seatrial.machines.groups import GroupsMachine  # a node without groups need not know it

        machine = GroupsMachine()
        first = partition.first_configuration(self._node_id)
        # Unlike records, entries are not kept: only the latest state counts.
        replica = self._multiraft.open(partition.group, name, machine, first, ReplicaOptions())
        make = partial(self._make_coordinator, replica, machine)
        self.shards[topic.name, partition.index] = HostedShard(topic, partition, replica, make, alive=self._alive)
        return replica

    def rack_of(self, node_id: NodeId) -> str:
        node = self._metadata.nodes.get(node_id)
        return (node.rack if node else None) or ""
