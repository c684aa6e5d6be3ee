"""`cluster.traffic(…)`: the workloads, running in the background of a scenario, judged by their own checkers.

    async with cluster.traffic(kv=True, log=True) as traffic:
        await cluster.kill(await cluster.wait_for_leader())
        …
    await traffic.assert_valid()

Rule: what was begun is ended when the context is left, and a client that failed by a defect of ours is an error there.
All operations are in the cluster's history, on its clock, under keys of the traffic's own.
Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Evidence, Validity, Verdict, run_checkers
from seatrial.env import Rng
from seatrial.history import History, Json, Op, OpType
from seatrial.scenario.errors import NotHere, Unavailable
from seatrial.scenario.judging import demand_valid
from seatrial.scenario.patience import TIMEOUT_S
from seatrial.scenario.records import Records
from seatrial.workloads.base import Endpoint, Unsupported, Workload
from seatrial.workloads.runner import run_final, run_workload

FINAL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What the clients saw of a stretch of time.  Latencies are those of acknowledged operations, in milliseconds."""

    seconds: float
    acknowledged: int
    not_acknowledged: int
    per_second: float
    latency_ms_median: float | None
    latency_ms_p99: float | None
    latency_ms_max: float | None


class Traffic:
    """Workloads that run, or have run.  Their keys begin with one of `prefixes`."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        prefixes: Sequence[str],
        endpoints: Sequence[Endpoint],
        records: Records,
        rng: Rng,
    ) -> None:
        self._workloads = workloads
        self._prefixes = tuple(prefixes)
        self._endpoints = endpoints
        self._records = records
        self._rng = rng
        self._stop = asyncio.Event()
        self._load: list[asyncio.Future[None]] = []
        self.began_ns = records.now_ns()
        self.ended_ns: int | None = None

    # -- figures

    @property
    def history(self) -> History:
        """The traffic's own operations."""
        return self._records.history.select(lambda op: op.key is not None and op.key.startswith(self._prefixes))

    @property
    def acknowledged(self) -> int:
        """Operations that were acknowledged so far, reads and polls included."""
        return sum(op.type is OpType.OK for op in self.history)

    async def progress(self, more: int = 1, timeout: float = TIMEOUT_S) -> None:
        """Wait until so many more operations were acknowledged.  Raises Unavailable."""
        loop = asyncio.get_running_loop()
        deadline, begun = loop.time() + timeout, self.acknowledged
        while (done := self.acknowledged - begun) < more:
            if loop.time() >= deadline:
                text = f"{done} operations of the traffic were acknowledged within {timeout:g} s, not {more}"
                raise Unavailable(text, definite=False)
            await asyncio.sleep(0.05)

    def gaps(self) -> dict[str, float]:
        """Per service (the registers; each partition), the longest time in seconds without an acknowledgement while a
        majority was up and connected."""
        ended_ns = self._records.now_ns() if self.ended_ns is None else self.ended_ns
        evidence = Evidence(history=self.history, faults=self._records.faults, duration_ns=ended_ns)
        stats = Availability().check(evidence).stats
        by_service: dict[str, float] = dict(stats.get("gap_max_by_service_s", {}))
        return by_service

    def performance(self, since_ns: int = 0, until_ns: int | None = None) -> Performance:
        """Throughput and latency of what ended in this stretch of `cluster.records.now_ns()`."""
        began_ns = max(since_ns, self.began_ns)
        ended_ns = min(until_ns or self._records.now_ns(), self.ended_ns or self._records.now_ns())
        ended = [
            (begun, over)
            for begun, over in self.history.pairs()
            if over is not None and began_ns <= over.time_ns < ended_ns
        ]
        latencies = sorted(_latency_ms(begun, over) for begun, over in ended if over.type is OpType.OK)
        seconds = max(ended_ns - began_ns, 1) / 1e9
        return Performance(
            seconds=round(seconds, 6),
            acknowledged=len(latencies),
            not_acknowledged=len(ended) - len(latencies),
            per_second=round(len(latencies) / seconds, 3),
            latency_ms_median=round(median(latencies), 3) if latencies else None,
            latency_ms_p99=round(latencies[int(len(latencies) * 0.99)], 3) if latencies else None,
            latency_ms_max=round(latencies[-1], 3) if latencies else None,
        )

    def report_performance(self, phases: Mapping[str, tuple[int, int]]) -> dict[str, Performance]:
        """What the clients saw of each phase, which is also put into the run's report, as a table.

        phases: names, with the begin and end of each by `cluster.records.now_ns()`.
        """
        seen = {phase: self.performance(*stretch) for phase, stretch in phases.items()}
        rows: list[Json] = [{"phase": phase, **asdict(performance)} for phase, performance in seen.items()]
        verdict = Verdict(checker="performance", validity=Validity.VALID, stats={"phases": rows})
        self._records.verdicts.append(verdict)
        return seen

    # -- judging

    async def assert_valid(self, timeout: float = FINAL_TIMEOUT_S) -> None:
        """Stop, read everything from every node, and have the workloads' checkers judge it.

        Heal the cluster first.  Raises CheckFailed; Unavailable where something could not be read to the end.
        """
        await self.stop()
        for workload in self._workloads:
            outcome = await run_final(
                workload,
                self._endpoints,
                record=self._records.recorder,
                rng=self._rng.child(f"final {workload.name}"),
                timeout=timeout,
            )
            if outcome.missing:
                request, why = outcome.missing[0]
                raise Unavailable(
                    f"{len(outcome.missing)} final reads of {workload.name} got no answer within {timeout:g} s, e.g. "
                    f"{request.f} of {request.key} on node {request.node}: {why}",
                    definite=True,
                )
        evidence = Evidence(history=self._records.history, faults=self._records.faults)
        verdicts: list[Verdict] = []
        for workload in self._workloads:
            verdicts += run_checkers(workload.checkers(), evidence)
        self._records.verdicts += verdicts
        demand_valid(verdicts)

    # -- running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """The load, from entering to leaving."""
        try:
            for workload in self._workloads:
                await workload.setup(self._endpoints, timeout=TIMEOUT_S)
        except Unsupported as error:
            raise NotHere(str(error)) from error
        self.began_ns = self._records.now_ns()
        self._load = [
            asyncio.ensure_future(
                run_workload(
                    workload,
                    self._endpoints,
                    record=self._records.recorder,
                    rng=self._rng.child(f"workload {workload.name}"),
                    stop=self._stop,
                )
            )
            for workload in self._workloads
        ]
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """No more operations are begun, and those under way end.  Raises what a client of ours failed with."""
        self._stop.set()
        if self.ended_ns is None:
            self.ended_ns = self._records.now_ns()
        load, self._load = self._load, []
        await asyncio.gather(*load)


def _latency_ms(begun: Op, over: Op) -> float:
    return (over.time_ns - begun.time_ns) / 1e6
