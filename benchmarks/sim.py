"""How fast the simulator is: virtual seconds a second and events a second, on one core.

    .venv/bin/python benchmarks/sim.py                   # pure Python
    .venv-compiled/bin/python benchmarks/sim.py          # the same source compiled (make compiled)

The core level: 5 nodes, the default network, with the checkers of every step.  The full level: the server as shipped,
aiokafka and HTTP clients, each case in a process forked from a warmed one, as in a hunt, and whole: faults, recovery
after a power cut of everything, final reads, checkers.  CPU time of the process that ran it, the best of three (of the
swarm's mix: the sum over its seeds, with what forking costs the child); other programs on the machine still slow it
down by what they take of caches and of the other hyperthread.
"""

from __future__ import annotations

import gc
import platform
import sys
import time
from dataclasses import dataclass

import seatrial.raft.node
from seatrial.sim.case import Case, Fault, Load, Network, Outcome
from seatrial.sim.core import CoreCluster, run_case
from seatrial.sim.core.nemesis import Nemesis
from seatrial.sim.hunt import run_case_of, run_quietly
from seatrial.sim.swarm import draw_case
from seatrial.sim.zygote import Died, Zygote

SECOND_US = 1_000_000
NODES = 5
SWARM_SEEDS = range(1, 21)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    name: str
    virtual_s: float
    cpu_s: float
    events: int
    operations: int

    def line(self) -> str:
        virtual, events, operations = (n / self.cpu_s for n in (self.virtual_s, self.events, self.operations))
        return f"{self.name:<33} {virtual:>6,.0f} virtual s/s {events:>9,.0f} events/s {operations:>6,.0f} operations/s"


def faults_every(period_us: int, duration_us: int) -> tuple[Fault, ...]:
    """A crash, a power cut of all, a partition and a slow disk, one after the other."""
    everyone = tuple(range(1, NODES + 1))
    kinds = (
        Fault(at_us=0, kind="crash", mode="power", nodes=(2,), duration_us=period_us // 4),
        Fault(at_us=0, kind="cut", links=tuple((1, to) for to in everyone[1:]), duration_us=period_us // 2),
        Fault(at_us=0, kind="crash", mode="power", nodes=everyone, duration_us=period_us // 8),
        Fault(at_us=0, kind="slow-sync", nodes=(3, 4), value=5_000, duration_us=period_us // 2),
    )
    count = duration_us // period_us
    return tuple(
        Fault(
            at_us=period_us * (number + 1) - period_us // 2,
            kind=kind.kind,
            mode=kind.mode,
            nodes=kind.nodes,
            links=kind.links,
            value=kind.value,
            duration_us=kind.duration_us,
        )
        for number in range(count)
        for kind in (kinds[number % len(kinds)],)
    )


def measure(name: str, case: Case) -> Figure:
    """The phase of load and faults alone."""
    best: Figure | None = None
    for _ in range(3):
        cluster = CoreCluster(case)
        Nemesis(cluster)
        cluster.add_clients()
        gc.collect()
        began = time.process_time()
        cluster.run_for(case.duration_us)
        figure = Figure(
            name=name,
            virtual_s=case.duration_us / SECOND_US,
            cpu_s=time.process_time() - began,
            events=cluster.world.events,
            operations=sum(cluster.recorder.counts.values()),
        )
        if best is None or figure.cpu_s < best.cpu_s:
            best = figure
    assert best is not None
    return best


def measure_whole(name: str, case: Case) -> Figure:
    """A whole run: faults and load, recovery, a power cut, recovery, and all checkers."""
    began = time.process_time()
    outcome = run_case(case)
    assert outcome.violations == (), outcome.violations
    return Figure(
        name=name,
        virtual_s=outcome.virtual_us / SECOND_US,
        cpu_s=time.process_time() - began,
        events=outcome.events,
        operations=sum(outcome.operations.values()),
    )


def case(duration_s: int, rate: float, *, faults: bool = False) -> Case:
    duration_us = duration_s * SECOND_US
    return Case(
        level="core",
        seed=1,
        nodes=NODES,
        duration_us=duration_us,
        network=Network(loss=0.01, duplicate=0.005) if faults else Network(),
        load=Load(rate=rate, reads=0.0),
        faults=faults_every(2 * SECOND_US, duration_us) if faults else (),
    )


def core_level() -> None:
    print(measure("core, idle", case(100, 0.0)).line())
    print(measure("core, 100 writes/s", case(20, 100.0)).line())
    print(measure("core, 100 writes/s, faults", case(20, 100.0, faults=True)).line())
    print(measure("core, 1,000 writes/s", case(4, 1_000.0)).line())
    print(measure_whole("core, 100 writes/s, faults, whole", case(20, 100.0, faults=True)).line())


def full_case() -> Case:
    """Three nodes, 30 records/s by aiokafka and 10 key-value operations/s, a cut, a power cut, a slow disk, a kill."""
    faults = (
        Fault(at_us=2 * SECOND_US, kind="cut", links=((1, 2), (2, 1)), duration_us=SECOND_US),
        Fault(at_us=4 * SECOND_US, kind="crash", mode="power", nodes=(2,), duration_us=SECOND_US // 2),
        Fault(at_us=6 * SECOND_US, kind="slow-sync", nodes=(3,), value=5_000, duration_us=SECOND_US),
        Fault(at_us=8 * SECOND_US, kind="crash", mode="kill", nodes=(1,), duration_us=SECOND_US // 3),
    )
    load = Load(rate=10.0, kafka_rate=30.0)
    return Case(level="full", seed=1, nodes=3, network=Network(loss=0.002), load=load, faults=faults)


def timed(case: Case) -> tuple[Outcome, float]:
    """Run in a process of its own: with the CPU time of that process since it was forked."""
    return run_quietly(case), time.process_time()


def measure_forked(zygote: Zygote, name: str, case: Case) -> Figure:
    result = zygote.run(timed, case)
    assert not isinstance(result, Died), result.reason
    outcome, cpu_s = result
    assert outcome.violations == (), outcome.violations
    return Figure(
        name=name,
        virtual_s=outcome.virtual_us / SECOND_US,
        cpu_s=cpu_s,
        events=outcome.events,
        operations=sum(outcome.operations.values()),
    )


def full_level() -> None:
    with Zygote(timed, run_quietly, run_case_of("full")) as zygote:
        name = "full, 30 records/s, 10 KV, faults"
        runs = [measure_forked(zygote, name, full_case()) for _ in range(3)]
        print(min(runs, key=lambda run: run.cpu_s).line())
        began = time.monotonic()
        swarm = [measure_forked(zygote, "", draw_case(seed, "full")) for seed in SWARM_SEEDS]
        wall_s = time.monotonic() - began
    name = f"full, the swarm's mix, {len(swarm)} seeds"
    total = Figure(
        name=name,
        virtual_s=sum(run.virtual_s for run in swarm),
        cpu_s=sum(run.cpu_s for run in swarm),
        events=sum(run.events for run in swarm),
        operations=sum(run.operations for run in swarm),
    )
    print(total.line())
    cpu_s = total.cpu_s / len(swarm)
    print(f"{'':<33} {cpu_s:.2f} s of CPU a seed, {wall_s / len(swarm):.2f} s of wall time, one after the other")


def main() -> None:
    compiled = "compiled" if seatrial.raft.node.__file__.endswith(".so") else "pure Python"
    print(f"{platform.python_implementation()} {sys.version.split()[0]}, {compiled}, {NODES} nodes")
    core_level()
    full_level()


if __name__ == "__main__":
    main()
