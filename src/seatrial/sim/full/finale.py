"""The end of a run: healed, the cluster converges, and goes on without one of its nodes; then every machine loses power
at once and starts again, and the cluster must elect, converge and serve.

Rule: everything waits for a condition with a deadline in virtual time, and a deadline that passes is a violation that
says what was last seen.  A node whose disk was damaged on purpose may refuse to serve; the others are enough.
Knows nothing of how promises are judged: it makes the final reads that the checkers want.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from seatrial.machines.metadata import NodeState
from seatrial.server.broker import role_name
from seatrial.server.replica import Replica
from seatrial.sim.case import Case
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.group_load import GroupLoad
from seatrial.sim.full.kafka_load import KafkaLoad
from seatrial.sim.full.kv_load import KvLoad
from seatrial.sim.full.server_host import ServerHost
from seatrial.sim.hosts import SimHost

FLUSH_US: Final = 4_500_000  # for operations in flight: more than any client's own time limit
POWER_OFF_US: Final = 20_000
POLL_US: Final = 50_000
RECOVER_US: Final = 15_000_000
TIMEOUTS: Final = 30  # further time to recover, in election timeouts
SERVE_S: Final = 20.0
JOINED: Final = frozenset({NodeState.VOTER, NodeState.JOINING, NodeState.LEARNER})


class Finale:
    """What comes after the faults."""

    def __init__(
        self,
        case: Case,
        cluster: Cluster,
        kafka: KafkaLoad,
        kv: KvLoad,
        group: GroupLoad,
        loads: Sequence[asyncio.Task[None]],
    ) -> None:
        self._case = case
        self._cluster = cluster
        self._kafka = kafka
        self._kv = kv
        self._group = group
        self._loads = loads
        self._world = cluster.world

    def carry_out(self) -> None:
        self._end_load()
        if not self._lose_one():
            return
        self._cut_all_power()
        if self._becomes(self._not_converged, "healed, and not recovered in time"):
            if (too_little := self._keeps_too_little()) is not None:
                self._cluster.observer.report("deleted-too-much", too_little)
            self._serve()
            self._cluster.sample()

    def _becomes(self, complaint: Callable[[], str | None], otherwise: str) -> bool:
        """Wait until there is nothing to complain of; else it is a violation."""
        deadline_us = self._world.now_us + RECOVER_US + TIMEOUTS * self._case.raft.election_timeout_us
        while (missing := complaint()) is not None:
            if self._world.now_us >= deadline_us:
                self._cluster.observer.report("liveness", f"{otherwise}: {missing}")
                self._cluster.sample()
                return False
            self._cluster.run(self._world.now_us + POLL_US)
        return True

    def _lose_one(self) -> bool:
        """Where nothing is damaged: converge without any restart, then do without one node; False where it cannot."""
        expected = self._expected()
        if self._cluster.observer.damaged or len(expected) < 3:
            return True
        if not self._becomes(self._not_converged, "healed, and not recovered without a restart"):
            return False
        lost = self._cluster.nodes[self._world.stream("lost in the end").choice(expected)]
        lost.hold()
        lost.crash(power=False)
        led = self._becomes(self._not_led, f"node {lost.node_id} was lost, and the others did not go on")
        lost.release()
        return led

    def _not_led(self) -> str | None:
        """A group that has no leader, although a majority of its voters is there."""
        for name, replicas in sorted(self._groups().items()):
            voters = next(iter(replicas.values())).node.configuration.voters
            present = sum(voter in replicas for voter in voters)
            if 2 * present > len(voters) and not any(replica.node.is_leader for replica in replicas.values()):
                return f"{name} has no leader: {_told(replicas)}"
        return None

    def _end_load(self) -> None:
        """Let operations in flight end while the nodes are as the faults left them."""
        deadline_us = self._world.now_us + FLUSH_US
        while self._world.now_us < deadline_us and not all(load.done() for load in self._loads):
            self._cluster.run(self._world.now_us + POLL_US)
        for load in self._loads:
            if not load.done():
                load.cancel()
            elif load.exception() is not None:
                self._cluster.observer.report("client-crash", f"a client failed: {load.exception()!r}")

    def _cut_all_power(self) -> None:
        self._cluster.observer.unreadable.clear()
        for server in self._cluster.nodes.values():
            server.crash(power=True)
        self._cluster.run(self._world.now_us + POWER_OFF_US)
        self._cluster.start()

    # ---- converging ------------------------------------------------------------------------------------------------

    def _expected(self) -> list[int]:
        """Slots of the nodes that have no excuse: members, as far as anybody knows, whose disks nothing damaged."""
        members = self._members()
        nodes = self._cluster.nodes
        return [
            slot
            for slot, server in nodes.items()
            if server.node_id in members and server.node_id not in self._cluster.observer.damaged
        ]

    def _members(self) -> set[int]:
        """As the node knows them that has applied most of the metadata; at first, the founders."""
        brokers = [server.node.broker for server in self._cluster.nodes.values() if server.node is not None]
        known = [broker for broker in brokers if broker.metadata.nodes]
        if not known:
            return set(range(1, self._case.nodes + 1))
        metadata = max(known, key=lambda broker: broker.metadata_replica.last_applied).metadata
        return {int(n) for n, node in metadata.nodes.items() if node.state in JOINED}

    def _not_converged(self) -> str | None:
        """What is still missing, in words; None when every group has one leader and equal replicas."""
        for slot in self._expected():
            complaint = self._not_well(self._cluster.nodes[slot])
            if complaint is not None:
                return complaint
        groups = self._groups()
        missing = [name for name in ("metadata", "kv", *self._topics()) if name not in groups]
        if missing:
            return f"no replica of {', '.join(missing)} is open"
        for name, replicas in sorted(groups.items()):
            complaint = self._not_equal(name, replicas)
            if complaint is not None:
                return complaint
        return None

    def _not_well(self, server: ServerHost) -> str | None:
        node, who = server.node, f"node {server.node_id}"
        if node is None or not server.host.is_up:
            return f"{who} is down" + (f" (it ended itself: {server.exits[-1][1]})" if server.exits else "")
        if not server.is_ready:
            return f"{who} is not ready: {node.is_ready()}"
        if node.broker.refused_groups:
            return f"{who} refuses {node.broker.refused_groups}, and nothing damaged its disk"
        return None

    def _not_equal(self, name: str, replicas: dict[int, Replica]) -> str | None:
        """Of the replicas that the group's leader counts among its members."""
        leaders = [n for n, replica in replicas.items() if replica.node.is_leader]
        if len(leaders) != 1:
            return f"{name} has no single leader: {_told(replicas)}"
        leader = replicas[leaders[0]].node
        configuration = leader.configuration
        if configuration.voters_outgoing:
            return f"{name} is in joint consensus still, of {configuration}"
        members = {*configuration.voters, *configuration.voters_outgoing, *configuration.learners}
        counted = {n: replica for n, replica in replicas.items() if n in members}
        states = {(r.last_applied, r.node.commit_index, r.node.last_index, r.machine.digest) for r in counted.values()}
        absent = {self._cluster.nodes[slot].node_id for slot in self._expected()} & members - counted.keys()
        if len(states) != 1 or absent:
            lacking = f"; no replica on {sorted(absent)}" if absent else ""
            return f"the replicas of {name} differ: {_told(counted)}{lacking}"
        return None

    def _topics(self) -> list[str]:
        return self._kafka.keys if self._kafka.ready.is_set() else []

    def _groups(self) -> dict[str, dict[int, Replica]]:
        groups: dict[str, dict[int, Replica]] = {}
        for server in self._cluster.nodes.values():
            if server.node is not None and server.host.is_up:
                for replica in server.node.multiraft.replicas.values():
                    groups.setdefault(replica.name, {})[server.node_id] = replica
        return groups

    def _keeps_too_little(self) -> str | None:
        """Of a partition with a retention size: what is deleted must leave that much."""
        least = self._case.load.retention_bytes
        for name, replicas in sorted(self._groups().items()):
            for node_id, replica in sorted(replicas.items()):
                machine: Any = replica.machine
                if name in self._kafka.keys and machine.log_start_offset > 0 and machine.kept_bytes < least:
                    return f"node {node_id} kept {machine.kept_bytes} bytes of {name}, and retention.bytes is {least}"
        return None

    # ---- serving ---------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        cluster, kafka, kv = self._cluster, self._kafka, self._kv
        if self._kafka.ready.is_set():
            self._within(cluster.kafka_host, self._probe(), "Kafka clients", lambda: kafka.last_error)
        self._within(
            cluster.kv_host, kv.prove_served(self._expected(), SERVE_S), "key-value clients", lambda: kv.last_error
        )
        group = self._group
        if cluster.group_host is not None and group.ready.is_set():
            self._within(cluster.group_host, group.read_rest(SERVE_S), "a consumer group", lambda: group.last_error)

    async def _probe(self) -> list[str]:
        """One append to every partition, then all of it read: what could not be done in time."""
        loop, missing = asyncio.get_running_loop(), list[str]()
        deadline = loop.time() + SERVE_S
        client = self._kafka.new_client()
        for key in self._kafka.keys:
            while await self._kafka.append([client], key):
                client = self._kafka.new_client()
                if loop.time() > deadline:
                    missing.append(f"an append to {key}")
                    break
        for key in self._kafka.keys:
            while not await self._kafka.read_whole(key, SERVE_S):
                if loop.time() > deadline:
                    missing.append(f"all of {key}")
                    break
        return missing

    def _within(self, host: SimHost, work: Coroutine[Any, Any, list[str]], who: str, last: Any) -> None:
        task = host.spawn(work, name=who)
        in_time = self._cluster.run(self._world.now_us + int(3 * SERVE_S * 1e6), until=task)
        missing = task.result() if in_time else ["an answer"]
        if missing:
            self._cluster.observer.report(
                "liveness",
                f"everything is healed, and {who} did not get {', '.join(missing[:3])}; the last error: {last()}",
            )


def _told(replicas: dict[int, Replica]) -> str:
    told = []
    for n, replica in sorted(replicas.items()):
        node = replica.node
        told.append(
            f"node {n} {role_name(replica)} of term {node.term}, applied {replica.last_applied}, "
            f"committed {node.commit_index}, last {node.last_index}"
        )
    return "; ".join(told)
