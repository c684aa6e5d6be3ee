"""Runs one case at the full level: safety under faults and load, then everything heals and it must recover.

    boot ─ load and faults ─ duration ─ heal, power cut of everything, restart ─ converge ─ serve ─ final reads ─ judge

Rule: what comes out is a function of the case alone, in any process that was launched for replay (`sim.launch`).
Knows nothing of how faults are carried out (`nemesis`) or promises judged (`judge`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from seatrial import marks
from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.sim.case import Case, Load, Outcome, Violation
from seatrial.sim.escape import SimEscape
from seatrial.sim.faults import KINDS
from seatrial.sim.full.cluster import Cluster, Enough
from seatrial.sim.full.finale import Finale
from seatrial.sim.full.group_load import GroupLoad
from seatrial.sim.full.judge import judge
from seatrial.sim.full.kafka_load import KafkaLoad
from seatrial.sim.full.kv_load import KvLoad
from seatrial.sim.full.nemesis import Nemesis
from seatrial.sim.full.warm import warm
from seatrial.sim.trace import Trace
from seatrial.sim.world import EventStorm, World
from seatrial.workloads.payload import Payload, sometimes_large
from seatrial.workloads.recorder import Recorder

SAMPLE_US: Final = 200_000
LARGE_ONE_IN: Final = 20
EVENTS_A_SECOND_MAX: Final = 400_000  # of virtual time: more is a storm


class WorldClock:
    """The world's own time, for the history: it never goes back, whichever host writes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._latest_us = 0

    def now_us(self) -> int:
        self._latest_us = max(self._latest_us, self._world.now_us)
        return self._latest_us

    def wall_ms(self) -> int:
        return self.now_us() // 1000


class FullRun:
    """One case, from boot to verdict."""

    def __init__(self, case: Case, *, trace: Callable[[str], object] | None, unsafe: frozenset[str]) -> None:
        self.case = case
        self.cluster = Cluster(case, trace=Trace(trace), unsafe=unsafe)
        world = self.world = self.cluster.world
        world.events_max = EVENTS_A_SECOND_MAX * (case.duration_us // 1_000_000 + 60)
        self.record = Recorder(WorldClock(world), begin_us=0)
        endpoints = self.cluster.endpoints()
        rng = Rng(case.seed).child("load")
        self.kafka = KafkaLoad(
            case.load,
            [str(endpoint.kafka) for endpoint in endpoints],
            self.record,
            rng.child("kafka"),
            Payload(_sizes(case.load, rng, least=case.load.payload_bytes)),
            replication=replication(case),
        )
        self.kv = KvLoad(case.load, endpoints, self.record, rng.child("kv"), Payload(_sizes(case.load, rng, least=1)))
        self.group = GroupLoad(case.load, endpoints, self.record, rng.child("group"), replication=replication(case))
        self.nemesis = Nemesis(self.cluster)

    def carry_out(self) -> Outcome:
        marks.taken()
        violations = self._violations()
        counts = {kind.value: self.record.total(kind) for kind in (OpType.OK, OpType.FAIL, OpType.INFO)}
        return Outcome(
            violations=tuple(violations),
            digest=self.cluster.network.trace.digest(),
            events=self.world.events,
            virtual_us=self.world.now_us,
            operations=counts,
            bit=self.nemesis.evidence(),
            marks=marks.taken(),
        )

    def _violations(self) -> list[Violation]:
        observer = self.cluster.observer
        try:
            self._safety()
            self._liveness()
        except Enough:
            return list(observer.violations.values())
        except EventStorm as storm:
            observer.report("liveness", str(storm))
        except SimEscape as escaped:
            observer.report("simulator-escape", str(escaped))
        for complaint in (*self.kv.blamed, *self.kafka.blamed):
            observer.report("blamed", f"a client was told that its request is wrong, and it was not: {complaint}")
        found = list(observer.violations.values())
        duration_ns, retains = self.case.duration_us * 1000, self.case.load.retains
        judged = judge(self.record.history, observer.samples, duration_ns=duration_ns, retains=retains)
        return found + [violation for violation in judged if violation.name not in observer.violations]

    def _safety(self) -> None:
        cluster = self.cluster
        cluster.start()
        self.nemesis.plan(self.case.faults)
        self._sample()
        self._loads = [
            cluster.kafka_host.spawn(self.kafka.run(), name="kafka load"),
            cluster.kv_host.spawn(self.kv.run(), name="kv load"),
        ]
        if cluster.group_host is not None:
            self._loads.append(cluster.group_host.spawn(self.group.run(), name="group load"))
        self.cluster.run(self.case.duration_us)

    def _sample(self, _: None = None) -> None:
        self.cluster.sample()
        self.world.after(SAMPLE_US, self._sample)

    def _liveness(self) -> None:
        self.nemesis.heal()
        self.kafka.stop.set()
        self.kv.stop.set()
        self.group.stop.set()
        Finale(self.case, self.cluster, self.kafka, self.kv, self.group, self._loads).carry_out()


def _sizes(load: Load, rng: Rng, *, least: int) -> Callable[[int], int]:
    return sometimes_large(rng.child("sizes"), usual=least, largest=load.large_bytes, one_in=LARGE_ONE_IN)


def replication(case: Case) -> int:
    """Of topics: all nodes where disks are damaged, for a minority of the nodes could be a majority of three."""
    damaging = any(KINDS[fault.kind].damaging for fault in case.faults)
    return case.nodes if damaging else min(3, case.nodes)


def run_case(
    case: Case,
    *,
    trace: Callable[[str], object] | None = None,
    unsafe: frozenset[str] = frozenset(),
    stops_at_first: bool = False,
) -> Outcome:
    """Run a case and say what became of it.

    trace: given the run's events, line by line; it changes nothing.  unsafe: the server's own planted bugs
    (`seatrial serve --unsafe`), which a run must find.  stops_at_first: end when a promise was broken at a step; the
    first violation is the same, and whatever else would have been found or counted is not.
    Raises ValueError for a case of another level.
    """
    if case.level != "full":
        raise ValueError(f"this is a case of level {case.level!r}; run it with seatrial.sim.{case.level}")
    warm()
    full_run = FullRun(case, trace=trace, unsafe=unsafe)
    full_run.cluster.observer.stops_at_first = stops_at_first
    return full_run.carry_out()
