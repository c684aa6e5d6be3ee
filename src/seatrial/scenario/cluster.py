"""`cluster`: a running cluster as a scenario test holds it, the same in every environment.

What is done to it is written down by `recorded`; here are its clients, what a test waits for, and the verdict.

Rule: every wait has a deadline, 10 s where none is given.
Knows nothing of environments, and of a system no more than its name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any

from seatrial.checkers.base import Evidence, Validity, Verdict
from seatrial.cluster.cluster import Cluster
from seatrial.scenario.errors import NotHere
from seatrial.scenario.judging import demand_valid, judge
from seatrial.scenario.key_value import KeyValue
from seatrial.scenario.log import Log
from seatrial.scenario.members import Members
from seatrial.scenario.patience import PAUSE_S_MAX, TIMEOUT_S
from seatrial.scenario.recorded import RecordedCluster
from seatrial.scenario.records import HistoryHandle
from seatrial.scenario.surroundings import Surroundings
from seatrial.scenario.traffic import Traffic
from seatrial.trial.conduct import endpoints_of
from seatrial.workloads.base import Endpoint, Workload
from seatrial.workloads.dialect import Dialect
from seatrial.workloads.kafka_log import LogWorkload
from seatrial.workloads.kv_register import KvWorkload

LOG_LINES = 20
DIGEST_TIMEOUT_S = 5.0  # for a digest a node has to go through all that it stores


class ScenarioCluster(RecordedCluster):
    """What a test is given.  All of `RecordedCluster`, and:

    kv, log(…), members: clients of the service, whose operations are all in `history`.
    """

    def __init__(self, inner: Cluster, surroundings: Surroundings, *, seed: int) -> None:
        super().__init__(inner, surroundings, seed=seed)
        self.history = HistoryHandle(self.records)
        self.kv = KeyValue(self, self.system, self.rng.child("kv"))
        self.members = Members(self)
        self._logs: dict[str, Log] = {}
        self._traffics = 0  # so far; each draws from a stream of its own

    # -- clients

    def log(self, topic: str = "t", *, partitions: int = 1, replication: int | None = None) -> Log:
        """The topic of this name, created when it is first used.  replication: replicas; None: one on each node."""
        made = self._logs.get(topic)
        if made is None:
            made = self._logs[topic] = Log(self, topic, partitions=partitions, replication=replication)
        if made.partitions < partitions:
            raise ValueError(f"topic {topic} has {made.partitions} partitions here already: name them the first time")
        return made

    def traffic(
        self, *, kv: bool | Workload = True, log: bool | Workload = False, rate: float = 50.0
    ) -> AbstractAsyncContextManager[Traffic]:
        """Workloads in the background, from entering to leaving: `async with cluster.traffic(log=True) as traffic`.

        kv, log: whether, or which workload.  rate: operations a second of each.
        """
        self._traffics += 1
        rng = self.rng.child(f"traffic {self._traffics}")
        name = f"traffic-{self._traffics}"
        workloads: list[Workload] = []
        if kv:
            workloads.append(kv if not isinstance(kv, bool) else self._kv_workload(f"{name}.", rate))
        if log:
            workloads.append(log if not isinstance(log, bool) else self._log_workload(name, rate))
        return Traffic(workloads, (f"{name}.", f"{name}/"), self.endpoints(), self.records, rng).running()

    def _kv_workload(self, prefix: str, rate: float) -> Workload:
        dialect = {"own": Dialect.SEATRIAL, "etcd": Dialect.ETCD}.get(self.system)
        open_http = self._surroundings.open_load_http
        return KvWorkload(clients=4, rate=rate, per_key=150, prefix=prefix, dialect=dialect, open_http=open_http)

    def _log_workload(self, topic: str, rate: float) -> Workload:
        return LogWorkload(
            topic=topic,
            partitions=2,
            replication=len(self.nodes),
            appenders=3,
            pollers=2,
            rate=rate,
            threads=False,
        )

    def endpoints(self) -> list[Endpoint]:
        """Where clients reach each node."""
        return endpoints_of(self)

    def http_url(self, node: int) -> str:
        """ "http://host:port" of the node's HTTP API.  Raises NotHere where the system has none."""
        url = self.addresses(node).http
        if url is None:
            raise NotHere(f"the nodes of {self.system} speak no HTTP: use system own or etcd")
        return url

    def open_http(self) -> Any:
        """A new HTTP client; who opens it closes it (`aclose`)."""
        return self._surroundings.open_http()

    # -- judging

    def check(self, *names: str) -> None:
        """Have checkers judge all that was recorded; those that fit, or those named (`judging.CHECKERS`).

        Raises CheckFailed with the anomalies, or with what could not be judged: nothing is VALID that was not checked.
        """
        verdicts = self._judged(*names)
        self.records.verdicts += verdicts
        demand_valid(verdicts)

    def _judged(self, *names: str) -> list[Verdict]:
        evidence = Evidence(
            history=self.records.history,
            faults=self.records.faults,
            statuses=self.records.statuses,
            nodes=self.nodes,
            duration_ns=self.records.now_ns(),
        )
        hosts = {(node, status.group) for node in self.nodes for status in self._last_status.get(node, ())}
        return judge(evidence, names, atomic=self.driver.status_is_atomic, hosts=hosts)

    async def verify(self, timeout: float = 2 * TIMEOUT_S) -> None:
        """Wait until all nodes agree, read every key and every log, compare the replicas, and `check` it all.

        Heal the cluster first.  Raises CheckFailed, DeadlineExceeded, Unavailable.
        """
        await self.wait_for_consensus(timeout)
        for log in self._logs.values():
            await log.read_everywhere(timeout=timeout)
        for key in self.kv.keys:
            await self.kv.get(key, timeout=timeout)
        await self.wait_for_consensus(timeout)
        self.check()
        await self._compare_replicas(timeout)

    async def _compare_replicas(self, timeout: float) -> None:
        """Judge the nodes' digests; asked for again while no two are of one moment (etcd has entries of its own)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await self.statuses(digest=True, timeout=DIGEST_TIMEOUT_S)
        while loop.time() < deadline and any(v.validity is Validity.UNKNOWN for v in self._judged("replica-equality")):
            await asyncio.sleep(PAUSE_S_MAX)
            await self.statuses(digest=True, timeout=DIGEST_TIMEOUT_S)
        self.check("replica-equality")

    # -- what the nodes say

    async def wait_for_leader(
        self,
        timeout: float = TIMEOUT_S,
        *,
        among: Collection[int] | None = None,
        other_than: int | Collection[int] | None = None,
        group: str | None = None,
    ) -> int:
        return await super().wait_for_leader(timeout, among=among, other_than=other_than, group=group)

    async def wait_for_consensus(self, timeout: float = TIMEOUT_S) -> None:
        await super().wait_for_consensus(timeout)

    async def heal_everything(self, timeout: float = TIMEOUT_S) -> None:
        await super().heal_everything(timeout)

    @contextlib.asynccontextmanager
    async def watch(self, every: float = 0.05) -> AsyncIterator[None]:
        """Ask all nodes for their status again and again, from entering to leaving, so that `check` can judge what
        they said all along: one leader a term, terms and commits that never go back."""
        task = asyncio.ensure_future(self._watch(every))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, every: float) -> None:
        while True:
            await self.statuses()
            await asyncio.sleep(every)

    def leaders_seen(self, group: str | None = None) -> dict[int, set[int]]:
        """For each term that any node told of, who said that it leads the group in it; of all statuses so far."""
        name = group or self.driver.group
        seen: dict[int, set[int]] = {}
        for sample in self.records.statuses:
            if sample.group == name and sample.term is not None:
                leaders = seen.setdefault(sample.term, set())
                if sample.role == "leader":
                    leaders.add(sample.node)
        return dict(sorted(seen.items()))

    async def look(self) -> None:
        """Ask every node for its status, so that it is in the records."""
        await self.statuses()

    def last_state(self) -> dict[int, str]:
        """Of each node what is known of its process, and what it last said of each group; asks nobody."""
        return {
            node: "; ".join([self._seen(node), *(s.describe() for s in self._last_status.get(node, ()))])
            for node in self.nodes
        }

    def log_tail(self, node: int, lines: int = LOG_LINES) -> str:
        """The end of the node's log."""
        return self._surroundings.log_tail(node, lines)

    async def close(self) -> None:
        """Close the clients of the test."""
        await self.kv.close()
        await self.members.close()
        for log in self._logs.values():
            await log.close()
