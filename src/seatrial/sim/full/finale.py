"""The end of a run: every machine loses power at once and starts again, and the cluster must elect, converge and serve.

Rule: everything waits for a condition with a deadline in virtual time, and a deadline that passes is a violation that
says what was last seen.  A node whose disk was damaged on purpose may refuse to serve; the others are enough.
Knows nothing of how promises are judged: it makes the final reads that the checkers want.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from seatrial.sim.case import Case
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.kafka_load import KafkaLoad
from seatrial.sim.full.kv_load import KvLoad
from seatrial.sim.full.observer import sample_of
from seatrial.sim.hosts import SimHost
from seatrial.sim.network import run

FLUSH_US: Final = 4_500_000  # for operations in flight: more than any client's own time limit
POWER_OFF_US: Final = 20_000
POLL_US: Final = 50_000
RECOVER_US: Final = 30_000_000
TIMEOUTS: Final = 30  # further time to recover, in election timeouts
SERVE_S: Final = 20.0


class Finale:
    """What comes after the faults."""

    def __init__(
        self, case: Case, cluster: Cluster, kafka: KafkaLoad, kv: KvLoad, loads: Sequence[asyncio.Task[None]]
    ) -> None:
        self._case = case
        self._cluster = cluster
        self._kafka = kafka
        self._kv = kv
        self._loads = loads
        self._world = cluster.world

    def carry_out(self) -> None:
        self._end_load()
        self._cut_all_power()
        deadline_us = self._world.now_us + RECOVER_US + TIMEOUTS * self._case.raft.election_timeout_us
        while (missing := self._not_converged()) is not None:
            if self._world.now_us >= deadline_us:
                self._cluster.observer.report("liveness", f"healed, and not recovered in time: {missing}")
                break
            run(self._world, self._world.now_us + POLL_US)
        self._serve()
        self._cluster.sample()

    def _end_load(self) -> None:
        """Let operations in flight end while the nodes are as the faults left them."""
        deadline_us = self._world.now_us + FLUSH_US
        while self._world.now_us < deadline_us and not all(load.done() for load in self._loads):
            run(self._world, self._world.now_us + POLL_US)
        for load in self._loads:
            if not load.done():
                load.cancel()
            elif load.exception() is not None:
                self._cluster.observer.report("client-crash", f"a client failed: {load.exception()!r}")

    def _cut_all_power(self) -> None:
        self._cluster.observer.unreadable.clear()
        for server in self._cluster.nodes.values():
            server.crash(power=True)
        run(self._world, self._world.now_us + POWER_OFF_US)
        self._cluster.start()

    # ---- converging ------------------------------------------------------------------------------------------------

    def _expected(self) -> list[int]:
        """Nodes that have no excuse."""
        return [n for n in self._cluster.nodes if n not in self._cluster.observer.damaged]

    def _not_converged(self) -> str | None:
        """What is still missing, in words; None when every group has one leader and equal replicas."""
        expected = self._expected()
        for n in expected:
            server = self._cluster.nodes[n]
            if not server.is_ready:
                reason = "is down" if server.node is None else f"is not ready: {server.node.is_ready()}"
                exits = f" (it ended itself: {server.exits[-1][1]})" if server.exits else ""
                return f"node {n} {reason}{exits}"
            if server.node is not None and server.node.broker.refused_groups:
                return f"node {n} refuses {server.node.broker.refused_groups}, and nothing damaged its disk"
        groups = self._groups()
        missing = [name for name in ("metadata", "kv", *self._topics()) if name not in groups]
        if missing:
            return f"no replica of {', '.join(missing)} is open"
        for name, samples in sorted(groups.items()):
            if sum(sample.role == "leader" for sample in samples.values()) != 1:
                return f"{name} has no single leader: {_told(samples)}"
            states = {(s.last_applied, s.commit_index, s.last_index, s.digest) for s in samples.values()}
            if len(states) != 1:
                return f"the replicas of {name} differ: {_told(samples)}"
        return None

    def _topics(self) -> list[str]:
        return self._kafka.keys if self._kafka.ready.is_set() else []

    def _groups(self) -> dict[str, dict[int, Any]]:
        groups: dict[str, dict[int, Any]] = {}
        for n, server in self._cluster.nodes.items():
            if server.node is None:
                continue
            for replica in server.node.multiraft.replicas.values():
                status = sample_of(n, replica, self._world.now_us * 1000, server.host.incarnation)
                groups.setdefault(replica.name, {})[n] = status
        return groups

    # ---- serving ---------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        cluster, kafka, kv = self._cluster, self._kafka, self._kv
        if self._kafka.ready.is_set():
            self._within(cluster.kafka_host, self._probe(), "Kafka clients", lambda: kafka.last_error)
        self._within(
            cluster.kv_host, kv.read_all(self._expected(), SERVE_S), "key-value clients", lambda: kv.last_error
        )

    async def _probe(self) -> list[str]:
        """One append to every partition, then all of it read: what could not be done in time."""
        loop, missing = asyncio.get_running_loop(), list[str]()
        deadline = loop.time() + SERVE_S
        client = self._kafka.new_client()
        for key in self._kafka.keys:
            while not await self._kafka.append(client, key):
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
        in_time = run(self._world, self._world.now_us + int(3 * SERVE_S * 1e6), until=task)
        missing = task.result() if in_time else ["an answer"]
        if missing:
            self._cluster.observer.report(
                "liveness",
                f"everything is healed, and {who} did not get {', '.join(missing[:3])}; the last error: {last()}",
            )


def _told(samples: dict[int, Any]) -> str:
    return "; ".join(
        f"node {n} {s.role} of term {s.term}, applied {s.last_applied}, committed {s.commit_index}, last {s.last_index}"
        for n, s in sorted(samples.items())
    )
