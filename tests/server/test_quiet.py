"""Many idle groups: they fall quiet, wake for whatever happens, and notice a dead leader all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from group_cluster import ELECTION_TIMEOUT_S, eventually

from seatrial.machines.kv import KeyValueMachine
from seatrial.machines.metadata import Partition, Topic
from seatrial.raft.ids import GroupId
from seatrial.raft.roles import Role
from seatrial.server.campaigns import CAMPAIGNS_MAX
from seatrial.server.hosted import IN_SYNC_SILENCE_US, HostedReplica
from seatrial.server.multiraft import GIVE_WAY_TIMEOUTS
from seatrial.server.quiet import GROUPS_MIN
from seatrial.server.replica import Replica, ReplicaOptions

pytestmark = pytest.mark.slow
COUNT = GROUPS_MIN + 6
GROUPS = [GroupId(16 + number) for number in range(COUNT)]


class Many:
    """The groups of the cluster's three nodes, each led by the node that stood first."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        for number, group in enumerate(GROUPS):
            for node in cluster.members:
                replica = cluster.hosts[node].open(
                    group, f"g{group}", KeyValueMachine(), cluster.members, cluster.options
                )
                if node == cluster.members[number % 3]:
                    replica.campaign()

    def leaders(self) -> dict[GroupId, Replica]:
        replicas = (host.replicas[group] for host in self.cluster.hosts.values() for group in GROUPS)
        return {replica.group: replica for replica in replicas if replica.node.is_leader}

    def terms(self) -> list[int]:
        return [int(leader.node.term) for _, leader in sorted(self.leaders().items())]

    def resting(self) -> int:
        return sum(len(host._quiet) for host in self.cluster.hosts.values())

    async def until_quiet(self) -> None:
        await eventually(lambda: self.resting() >= COUNT, lambda: (self.resting(), self.terms()))


def test_idle_groups_stop_talking_and_keep_their_leaders(run_cluster: Callable[..., None]) -> None:
    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        terms, before = many.terms(), cluster.wires.delivered
        await asyncio.sleep(1.0)
        messages = cluster.wires.delivered - before
        # 50 heartbeats a second to two followers of 70 groups, and their answers, would be 14,000.
        assert messages < 1_500, messages
        assert many.terms() == terms

    run_cluster(scenario)


def test_a_write_to_a_quiet_group_needs_no_election(run_cluster: Callable[..., None]) -> None:
    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        terms = many.terms()
        leaders = many.leaders()
        for group in GROUPS[:20]:
            result = await asyncio.wait_for(leaders[group].propose(cluster.put(b"k", b"v")[0]), 5)
            assert result.applied
        for group in GROUPS[:20]:
            for host in cluster.hosts.values():
                await asyncio.wait_for(host.replicas[group].read_barrier(), 5)
                assert host.replicas[group].machine.get(b"k") is not None
        assert many.terms() == terms

    run_cluster(scenario)


def test_the_groups_of_a_dead_quiet_leader_elect_new_ones(run_cluster: Callable[..., None]) -> None:
    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        await cluster.stop(cluster.members[0])
        await eventually(lambda: len(many.leaders()) == COUNT, lambda: (len(many.leaders()), many.terms()))

    run_cluster(scenario)


def test_a_quiet_leader_that_is_cut_off_steps_down(run_cluster: Callable[..., None]) -> None:
    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        node = cluster.members[0]
        cluster.wires.isolate(node)
        host = cluster.hosts[node]
        await eventually(
            lambda: not any(host.replicas[group].node.is_leader for group in GROUPS),
            lambda: [host.replicas[group].status() for group in GROUPS[:3]],
        )

    run_cluster(scenario)


def test_a_group_that_is_closed_at_its_quiet_leader_gets_another_one(run_cluster: Callable[..., None]) -> None:
    """Its host goes on beating for its other groups: it must not vouch for a leader that is gone."""

    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        node = cluster.members[0]
        host = cluster.hosts[node]
        closed = next(group for group in GROUPS if host.replicas[group].node.is_leader)
        others = [host.replicas[group].node.term for group in GROUPS if group != closed]
        host.close_group(closed)
        left = [other.replicas[closed] for other in cluster.hosts.values() if closed in other.replicas]
        await eventually(
            lambda: any(replica.node.is_leader for replica in left), lambda: [replica.status() for replica in left]
        )
        assert others == [host.replicas[group].node.term for group in GROUPS if group != closed]

    run_cluster(scenario)


def test_the_followers_of_a_resting_group_count_as_in_sync_until_their_node_is_silent(
    run_cluster: Callable[..., None],
) -> None:
    async def scenario(cluster: Any) -> None:
        many = Many(cluster)
        await many.until_quiet()
        leader = next(replica for replica in many.leaders().values() if replica.host is cluster.hosts[1])
        followers = [2, 3]
        placement = Partition(index=0, group=leader.group, replicas=(1, 2, 3))
        hosted = HostedReplica(Topic("t", bytes(16), (placement,), {}), placement, leader, alive=lambda: ())

        def silent_us() -> int:
            """For how long the group itself has heard nothing."""
            return leader.host.now_us() - max(leader.status().peers[node].last_response_us for node in followers)

        await eventually(lambda: silent_us() > IN_SYNC_SILENCE_US, silent_us)
        assert list(hosted.in_sync) == [1, 2, 3]
        await cluster.stop(3)
        await eventually(lambda: list(hosted.in_sync) == [1, 2], lambda: hosted.in_sync)

    run_cluster(scenario)


def test_of_more_groups_than_may_stand_at_once_each_gets_its_turn_though_none_can_win(
    run_cluster: Callable[..., None],
) -> None:
    async def scenario(cluster: Any) -> None:
        node = cluster.members[0]
        cluster.wires.isolate(node)
        host = cluster.hosts[node]
        groups = [GroupId(16 + number) for number in range(3 * CAMPAIGNS_MAX)]
        for group in groups:
            host.open(group, f"g{group}", KeyValueMachine(), cluster.members, cluster.options)
        stood: set[GroupId] = set()

        def all_stood() -> bool:
            assert len(host._campaigns) <= CAMPAIGNS_MAX
            stood.update(group for group in groups if host.replicas[group].node.role == Role.PRE_CANDIDATE)
            return len(stood) == len(groups)

        await eventually(all_stood, lambda: (len(stood), len(host._campaigns)))

    run_cluster(scenario)


@pytest.mark.parametrize("gives_way", [True, False])
def test_a_new_group_is_left_to_its_preferred_leader_but_not_for_ever(
    run_cluster: Callable[..., None], gives_way: bool
) -> None:
    async def scenario(cluster: Any) -> None:
        group, (first, second, _) = GroupId(16), cluster.members
        loop = asyncio.get_running_loop()
        opened_s = loop.time()
        for node in (first, second):
            replica = cluster.hosts[node].open(group, "g", KeyValueMachine(), cluster.members, cluster.options)
            if gives_way:
                cluster.hosts[node].give_way(replica)
        replicas = [cluster.hosts[node].replicas[group] for node in (first, second)]
        await eventually(lambda: any(r.node.is_leader for r in replicas), lambda: [r.status() for r in replicas])
        patience_s = GIVE_WAY_TIMEOUTS * ELECTION_TIMEOUT_S
        assert (loop.time() - opened_s >= patience_s) == gives_way

    run_cluster(scenario)


def test_few_groups_never_fall_quiet(run_cluster: Callable[..., None]) -> None:
    async def scenario(cluster: Any) -> None:
        leader = await cluster.leader()
        await eventually(lambda: leader.idle_beats > 40, lambda: leader.idle_beats)
        assert all(len(host._quiet) == 0 for host in cluster.hosts.values())

    run_cluster(scenario, ReplicaOptions())
