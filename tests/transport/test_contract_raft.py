"""Contract of every transport: Raft groups over it, on real sockets and real time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wired_nodes import Nodes, until

from seatrial.env import RealClock, Rng
from seatrial.machines.kv import KeyValueMachine, encode_put
from seatrial.raft.config import RaftConfig
from seatrial.raft.errors import NotLeader
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.roles import Role
from seatrial.server.multiraft import MultiRaft
from seatrial.server.replica import Replica, ReplicaOptions
from seatrial.storage.memory import MemoryStorage

GROUP = GroupId(10)
OPTIONS = ReplicaOptions()


class RaftNodes:
    """One key-value group on each node, in memory, over the transports of `nodes`."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.hosts: dict[int, MultiRaft] = {}
        self.machines: dict[int, KeyValueMachine] = {}
        self.replicas: dict[int, Replica] = {}
        nodes.finally_(self.close)

    async def start(self, count: int, heartbeat_ms: int = 20, election_timeout_ms: int = 100) -> None:
        numbers = range(1, count + 1)
        for node in numbers:
            transport = await self.nodes.start(node)
            self.hosts[node] = MultiRaft(
                loop=asyncio.get_running_loop(),
                clock=RealClock(),
                rng=Rng(node),
                storage=MemoryStorage(),
                transport=transport,
                raft=RaftConfig(
                    node_id=NodeId(node),
                    heartbeat_us=heartbeat_ms * 1000,
                    election_timeout_us=election_timeout_ms * 1000,
                ),
                on_role_change=lambda replica: None,
                on_fatal=lambda error: pytest.fail(str(error)),
            )
        for node, host in self.hosts.items():
            transport = self.nodes.transports[node]
            for other in numbers:
                if other != node:
                    transport.add_peer(NodeId(other), self.nodes.transports[other].address)
            machine = self.machines[node] = KeyValueMachine()
            voters = [NodeId(number) for number in numbers]
            replica = self.replicas[node] = host.open(GROUP, "orders/0", machine, voters, OPTIONS)
            transport.service.register(
                "orders", 0, GROUP, lambda group, message, replica=replica: replica.step(message)
            )

    async def leader(self, among: list[int] | None = None) -> Replica:
        def found() -> list[Replica]:
            ours = [replica for node, replica in self.replicas.items() if among is None or node in among]
            return [r for r in ours if r.node.is_leader and r.applied_term == r.node.term]

        await until(found, f"a leader; {[r.status() for r in self.replicas.values()]}", 20)
        return max(found(), key=lambda replica: replica.node.term)

    async def put(self, leader: Replica, key: bytes, value: bytes) -> None:
        await asyncio.wait_for(leader.propose(encode_put(key, value, request_id=key.ljust(16))), 20)

    def values(self, node: int, key: bytes) -> Any:
        found = self.machines[node].get(key)
        return None if found is None else found[0]

    def stop(self, node: int) -> None:
        """Its replica takes part no more, and its connections end."""
        self.hosts[node].close_group(GROUP)
        for peer in list(self.nodes.transports[node].peers()):
            self.nodes.transports[node].remove_peer(peer)
        del self.replicas[node]

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.close()
        self.nodes.transports.clear()


def test_single_node_elects_itself_by_ticks(nodes: Nodes) -> None:
    async def scenario() -> None:
        cluster = RaftNodes(nodes)
        await cluster.start(1)
        replica = cluster.replicas[1]
        assert replica.node.role is Role.FOLLOWER, "nobody leads before time has passed"
        leader = await cluster.leader()
        assert (leader.node.term, leader.node.leader) == (1, 1)

    nodes.run(scenario())


def test_state_tracking_of_term_commit_applied_and_leader(nodes: Nodes) -> None:
    async def scenario() -> None:
        cluster = RaftNodes(nodes)
        await cluster.start(1)
        leader = await cluster.leader()
        before = leader.status()
        for number in range(5):
            await cluster.put(leader, b"key%d" % number, b"value")
        after = leader.status()
        assert (after.term, after.leader, after.role) == (before.term, 1, Role.LEADER)
        assert after.commit_index == before.commit_index + 5
        assert leader.last_applied == after.commit_index

    nodes.run(scenario())


@pytest.mark.slow
def test_propose_on_a_non_leader_fails_with_not_leader_that_names_the_leader(nodes: Nodes) -> None:
    async def scenario() -> None:
        cluster = RaftNodes(nodes)
        await cluster.start(3)
        leader = await cluster.leader()
        follower = next(replica for replica in cluster.replicas.values() if replica is not leader)
        number = leader.node.leader
        assert number is not None
        await until(lambda: follower.node.leader == number, "the follower to know who leads")
        with pytest.raises(NotLeader, match=f"node {number} leads") as refused:
            follower.propose(b"anything")
        assert refused.value.leader == number
        assert follower.node.last_index == leader.node.last_index, "nothing was appended"

    nodes.run(scenario())


@pytest.mark.slow
def test_three_nodes_over_real_sockets_elect_and_replicate(nodes: Nodes) -> None:
    async def scenario() -> None:
        cluster = RaftNodes(nodes)
        await cluster.start(3)
        leader = await cluster.leader()
        await asyncio.gather(*[cluster.put(leader, b"key%d" % n, b"value%d" % n) for n in range(50)])

        def everywhere() -> bool:
            return all(cluster.values(node, b"key%d" % n) == b"value%d" % n for node in (1, 2, 3) for n in range(50))

        await until(everywhere, f"50 values on all; {[r.status() for r in cluster.replicas.values()]}")
        assert len({replica.node.term for replica in cluster.replicas.values()}) == 1
        assert {replica.node.leader for replica in cluster.replicas.values()} == {leader.node.leader}
        assert nodes.transports[1].service.lookup("orders", 0) is not None, "messages went through the registry"

    nodes.run(scenario())


@pytest.mark.slow
def test_two_of_three_nodes_over_real_sockets_elect_again_when_the_leader_is_gone(nodes: Nodes) -> None:
    async def scenario() -> None:
        cluster = RaftNodes(nodes)
        await cluster.start(3)
        first = await cluster.leader()
        await cluster.put(first, b"before", b"1")
        gone = first.node.leader
        assert gone is not None
        cluster.stop(gone)
        second = await cluster.leader()
        assert second.node.term > first.node.term
        await cluster.put(second, b"after", b"2")
        for node in cluster.replicas:
            await until(lambda node=node: cluster.values(node, b"after") == b"2", f"the write on node {node}")
            assert cluster.values(node, b"before") == b"1"

    nodes.run(scenario())
