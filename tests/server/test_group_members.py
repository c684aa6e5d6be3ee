"""One Raft group whose members change, on real storage: who comes is filled, what is kept survives a start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from group_cluster import eventually

from seatrial.raft.errors import ConfigurationRefused, NotLeader
from seatrial.raft.ids import NodeId
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange
from seatrial.server.replica import Replica, ReplicaOptions

Run = Callable[..., None]
pytestmark = pytest.mark.slow
FORGETFUL = ReplicaOptions(snapshot_entries=10, keep_entries=2)
FOUR = NodeId(4)


async def changed(cluster: Any, *changes: tuple[int, int]) -> None:
    """The change is made by whoever leads, and committed."""
    wanted = ConfigurationChange([(operation, NodeId(node)) for operation, node in changes])
    leader: Replica = await cluster.leader()

    def accepted() -> bool:
        try:
            leader.reconfigure(wanted)
        except ConfigurationRefused:
            return False
        return True

    await eventually(accepted, leader.status)
    await eventually(
        lambda: (
            not leader.node.is_leader
            or (
                not leader.node.committed_configuration.voters_outgoing
                and leader.node.commit_index >= leader.node.configuration_index
            )
        ),
        leader.status,
    )


def test_a_learner_is_filled_by_a_snapshot_promoted_and_knows_the_members_after_a_start(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        for count in range(40):
            await cluster.write(b"k%d" % count, b"v")
        leader = await cluster.leader()
        await eventually(lambda: leader.storage.first_index > 2, lambda: leader.storage.first_index)
        await cluster.start(FOUR, voters=())
        assert cluster.replicas[FOUR].node.configuration.voters == ()
        await changed(cluster, (ADD_LEARNER, 4))
        await cluster.converged()
        assert len(cluster.machines[FOUR]) == 40
        assert cluster.replicas[FOUR].storage.snapshot_meta is not None
        assert cluster.replicas[FOUR].node.configuration.learners == (4,)
        await changed(cluster, (ADD_VOTER, 4))
        for count in range(20):
            await cluster.write(b"more%d" % count, b"v")
        await cluster.converged()
        replica = cluster.replicas[FOUR]
        await eventually(
            lambda: replica.storage.snapshot_meta.configuration.voters == (1, 2, 3, 4),
            lambda: replica.storage.snapshot_meta,
        )
        await cluster.stop(FOUR)
        await cluster.start(FOUR, voters=())
        assert cluster.replicas[FOUR].node.configuration.voters == (1, 2, 3, 4)
        await cluster.write(b"after", b"v")
        await cluster.converged()

    run_cluster(scenario, FORGETFUL)


def test_a_snapshot_carries_the_members_as_of_its_last_entry_and_not_of_later_ones(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        await cluster.write(b"k", b"v")
        leader = await cluster.leader()
        await cluster.converged()
        others = [n for n in cluster.members if n != leader.node.node_id]
        for node in others:
            cluster.wires.cut.add((node, leader.node.node_id))  # nothing is acknowledged: the change stays open
        await cluster.start(FOUR, voters=())
        leader.reconfigure(ConfigurationChange([(ADD_LEARNER, FOUR)]))
        assert leader.node.configuration.learners == (4,)
        assert leader.make_snapshot()
        await eventually(lambda: leader.storage.snapshot_meta is not None, leader.status)
        assert leader.storage.snapshot_meta.configuration.learners == ()
        cluster.wires.cut.clear()

    run_cluster(scenario)


def test_the_leader_can_be_removed_and_the_others_go_on(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        await cluster.write(b"k", b"v")
        old = await cluster.leader()
        me = old.node.node_id
        old.reconfigure(ConfigurationChange([(REMOVE, me)]))
        left = [n for n in cluster.members if n != me]
        new = await cluster.leader(left)
        await eventually(lambda: new.node.committed_configuration.voters == tuple(left), new.status)
        await asyncio.wait_for(new.propose(cluster.put(b"k2", b"v")[0]), 10)
        await eventually(lambda: not old.node.is_leader, old.status)

    run_cluster(scenario)


def test_a_change_is_refused_while_another_is_open_and_on_a_follower(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        await cluster.converged()
        with pytest.raises(NotLeader):
            cluster.follower().reconfigure(ConfigurationChange([(ADD_LEARNER, FOUR)]))
        leader.reconfigure(ConfigurationChange([(ADD_LEARNER, FOUR)]))
        with pytest.raises(ConfigurationRefused):
            leader.reconfigure(ConfigurationChange([(ADD_LEARNER, NodeId(5))]))

    run_cluster(scenario)


def test_who_waits_for_a_change_is_woken_by_one_of_the_members(run_cluster: Run) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        await cluster.converged()
        await cluster.start(FOUR, voters=())
        waiting = cluster.replicas[FOUR].changed()
        leader.reconfigure(ConfigurationChange([(ADD_LEARNER, FOUR)]))
        await asyncio.wait_for(waiting, 10)

    run_cluster(scenario)
