"""Which replicas a node opens and deletes: nothing empty before the metadata is known to be new, nothing too early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from group_cluster import eventually

from seatrial.env import RealClock
from seatrial.machines.groups import GroupsMachine
from seatrial.machines.metadata import (
    FIRST_PARTITION_GROUP,
    AssignReplicas,
    CreateTopic,
    DeleteTopic,
    MetadataMachine,
    RegisterNode,
    SettleReplicas,
    encode_command,
)
from seatrial.machines.partition_log import encode_append
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import COMMAND, Entry
from seatrial.server.groups.coordinator import Coordinator
from seatrial.server.hosting import Hosting
from seatrial.server.logs import Logger
from seatrial.server.multiraft import MultiRaft
from seatrial.server.replica import Replica

Run = Callable[..., None]
pytestmark = pytest.mark.slow
GROUP = GroupId(FIRST_PARTITION_GROUP)
KEY = ("t", 0)


class Scene:
    """Node 1's hosting over a metadata machine that the test feeds."""

    def __init__(self, multiraft: MultiRaft) -> None:
        self.multiraft = multiraft
        self.metadata = MetadataMachine()
        self.index = 0
        self.gone: list[int] = []
        for node in (1, 2, 3):
            self.do(RegisterNode(node, f"r{node}:1", "k", 1, "h"))
        self.hosting = self.restarted()
        self.metadata.listeners.append(lambda change: self.hosting.topics_changed(change.topics))

    def restarted(self) -> Hosting:
        """As after a start: nothing is known to be new."""
        self.hosting = Hosting(
            NodeId(1),
            self.multiraft,
            self.metadata,
            Logger(lambda line: None, RealClock(), "error"),
            alive=lambda: [1, 2, 3],
            replica_gone=lambda topic, partition: self.gone.append(partition.target_index),
            predicts=False,
            make_coordinator=no_coordinator,
            refusal=lambda replica, size: None,
        )
        return self.hosting

    def open_again(self) -> None:
        """From what is stored."""
        self.multiraft.close_group(GROUP)
        self.restarted().topics_changed(["t"])

    def do(self, command: Any) -> None:
        self.index += 1
        encoded = encode_command(command, request_id=bytes(16))
        result = self.metadata.apply(Entry(Term(1), Index(self.index), COMMAND, encoded))
        assert result is not None
        assert result.error == 0, result

    def assign(self, *replicas: int) -> None:
        self.do(AssignReplicas(self.metadata.topics["t"].topic_id, 0, replicas))

    def settle(self) -> None:
        topic = self.metadata.topics["t"]
        self.do(SettleReplicas(topic.topic_id, 0, topic.partitions[0].target_index))

    @property
    def is_open(self) -> bool:
        return KEY in self.hosting.partitions

    async def becomes(self, is_open: bool) -> None:
        await eventually(lambda: self.is_open == is_open, lambda: (self.hosting.partitions, self.metadata.topics))


def no_coordinator(replica: Replica, machine: GroupsMachine) -> Coordinator:
    raise AssertionError("there are no consumer groups in these tests")


async def holding_alone(cluster: Any) -> tuple[Scene, Replica]:
    """Node 1 with the only replica of the partition."""
    scene = Scene(cluster.hosts[NodeId(1)])
    scene.hosting.up_to_date()
    scene.do(CreateTopic("t", ((1,),)))
    await scene.becomes(True)
    return scene, scene.hosting.partitions[KEY].replica


async def a_moment() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_replica_of_which_nothing_is_stored_waits_until_the_metadata_is_known_to_be_new(run_cluster: Run) -> None:
    """From an old state it may have been given up since: empty, it would vote as if it were the old one."""

    async def scenario(cluster: Any) -> None:
        scene = Scene(cluster.hosts[NodeId(1)])
        scene.do(CreateTopic("t", ((1, 2, 3),)))
        await a_moment()
        assert not scene.is_open
        scene.hosting.up_to_date()
        await scene.becomes(True)
        replica = scene.hosting.partitions[KEY].replica
        assert replica.node.configuration.voters == (1, 2, 3)

    run_cluster(scenario)


def test_a_replica_is_kept_until_the_move_is_settled_and_then_deleted_and_reported(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        scene = Scene(cluster.hosts[NodeId(1)])
        scene.hosting.up_to_date()
        scene.do(CreateTopic("t", ((1, 2),)))
        await scene.becomes(True)
        scene.assign(2, 3)
        await a_moment()
        assert scene.is_open, "the group still counts on it"
        scene.settle()
        await scene.becomes(False)
        await eventually(lambda: scene.gone, lambda: scene.gone)
        assert GROUP not in scene.multiraft.storage.groups()
        assert GROUP not in scene.multiraft.replicas

    run_cluster(scenario)


def test_a_node_that_is_not_sure_of_the_metadata_deletes_nothing(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        scene, stored = await holding_alone(cluster)
        await eventually(lambda: stored.node.term > 0, stored.status)
        scene.open_again()
        await scene.becomes(True)
        scene.assign(2, 3)
        scene.settle()
        await a_moment()
        assert scene.is_open
        scene.hosting.up_to_date()
        await scene.becomes(False)
        await eventually(lambda: scene.gone, lambda: scene.gone)

    run_cluster(scenario)


def test_who_moves_in_begins_without_members_and_a_deleted_topic_takes_its_replica_along(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        scene = Scene(cluster.hosts[NodeId(1)])
        scene.hosting.up_to_date()
        scene.do(CreateTopic("t", ((2, 3),)))
        await a_moment()
        assert not scene.is_open
        scene.assign(1, 2, 3)
        await scene.becomes(True)
        assert scene.hosting.partitions[KEY].replica.node.configuration.voters == ()
        assert scene.hosting.partitions[KEY].replicas == (1, 2, 3)
        scene.do(DeleteTopic(scene.metadata.topics["t"].topic_id))
        await scene.becomes(False)
        await eventually(lambda: GROUP not in scene.multiraft.storage.groups(), scene.multiraft.storage.groups)

    run_cluster(scenario)


def test_a_replica_whose_log_has_lost_records_that_its_snapshot_stands_for_is_refused(run_cluster: Run) -> None:
    """A partition's snapshot holds no records: what it stands for has to be in the log beside it."""

    async def scenario(cluster: Any) -> None:
        scene, stored = await holding_alone(cluster)
        await eventually(lambda: stored.node.is_leader, stored.status)
        for _ in range(3):
            await scene.hosting.partitions[KEY].append(encode_append(bytes(100), record_count=1))
        stored.make_snapshot()
        await eventually(lambda: stored.storage.snapshot_meta is not None, stored.status)
        for lost, is_refused in ((False, False), (True, True)):
            if lost:
                stored.storage.compact(Index(stored.storage.snapshot_meta.last_included_index + 1))
            scene.open_again()
            await eventually(lambda: scene.is_open or scene.hosting.refused, lambda: scene.hosting.refused)
            assert scene.is_open != is_refused
            stored = scene.multiraft.replicas.get(GROUP, stored)
        assert "hold records, and are in no segment" in scene.hosting.refused["t/0"]
        assert GROUP not in scene.multiraft.replicas, "it takes part in nothing"

    run_cluster(scenario)
