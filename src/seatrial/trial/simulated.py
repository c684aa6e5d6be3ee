"""`seatrial run --env sim`: the same trial in virtual time, in one process, repeated exactly by its seed.

The simulation and the judging of it happen in a process that was started for replay (`sim.launch`): the same trial
gives the same history.jsonl to the byte, whatever ran before and whoever watches.

Rule: as in `run`.  Files are opened before simulated code runs: it may not open any.
Knows nothing of any particular fault or workload.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from seatrial.checkers.base import Anomaly, Validity, Verdict
from seatrial.cluster.drivers import registry as systems
from seatrial.env import Rng
from seatrial.faults.plan import FaultPlan
from seatrial.history import Json
from seatrial.report.console import Console, Progress
from seatrial.rundir import RunDirectory
from seatrial.sim.escape import SimEscape
from seatrial.sim.full.http import LeanHttp
from seatrial.sim.full.warm import warm
from seatrial.sim.network import run as run_world
from seatrial.sim.trial_hosts import TrialHosts, read_options
from seatrial.sim.world import EventStorm
from seatrial.sim.zygote import Died, run_forked
from seatrial.trial.conduct import Audience, Collected, CouldNotRun, Sinks, carry_out, files_of, prepare
from seatrial.trial.model import BadTrial, Trial
from seatrial.trial.run import begin, conclude, plan_of
from seatrial.trial.simulated_cluster import SimulatedCluster
from seatrial.workloads.base import Workload
from seatrial.workloads.registry import simulated

SLICE_US = 500_000  # of virtual time, between two looks at the progress
REAL_S_MAX = 24 * 3600.0
VIRTUAL_S_BESIDE_FAULTS = 600.0  # set-up, healing, final reads: each has a shorter limit of its own


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the other process is to do."""

    trial: Trial
    root: str
    quiet: bool


def run_simulated(trial: Trial, run: RunDirectory, *, quiet: bool) -> dict[str, Json]:
    """Carry the trial out in the simulator.

    Returns the JSON object of verdict.json; raises CouldNotRun or BadTrial.
    """
    named(trial)
    begin(trial, run)
    result = run_forked(
        in_replayable_process, Order(trial=trial, root=str(run.root), quiet=quiet), timeout_s=REAL_S_MAX
    )
    if isinstance(result, Died):
        raise CouldNotRun(f"the simulation ended without a verdict: {result.reason}")
    if "could_not_run" in result:
        raise CouldNotRun(result["could_not_run"])
    return result


def named(trial: Trial) -> tuple[tuple[Workload, ...], FaultPlan]:
    """What the trial's names mean in the simulator.  Raises BadTrial for what it cannot do."""
    if trial.system != "own":
        raise BadTrial(
            f"system {trial.system!r} cannot be simulated: it is a program of its own; use --env local, or --system own"
        )
    workloads, plan = plan_of(trial, lambda names: simulated(names, LeanHttp, read_from=trial.read_from))
    try:
        read_options(trial.options)
    except ValueError as error:
        raise BadTrial(str(error)) from error
    return workloads, plan


def in_replayable_process(order: Order) -> dict[str, Json]:
    """The whole of it, in the process that was made for it."""
    warm()
    run = RunDirectory(Path(order.root))
    console = Console(sys.stderr, quiet=order.quiet)
    try:
        return _simulate(order.trial, run, console)
    except CouldNotRun as error:
        return {"could_not_run": str(error)}
    finally:
        console.close()


def _simulate(trial: Trial, run: RunDirectory, console: Console) -> dict[str, Json]:
    workloads, plan = named(trial)
    started = begin(trial, run)
    hosts = TrialHosts(seed=trial.seed, nodes=trial.nodes, duration_s=trial.duration_s, options=trial.options)
    driver = systems.by_name(trial.system, None, {**trial.options, "test_hooks": "true"})
    cluster = SimulatedCluster(hosts, driver, Rng(trial.seed).child("simulated"))
    heard = Heard()
    console.phase("simulating")
    with files_of(run) as sinks:
        task = hosts.harness.spawn(_whole(trial, cluster, workloads, plan, sinks, heard), name="trial")
        failures = _run_to_the_end(hosts, task, trial, heard, console)
    if task.done() and isinstance(error := task.exception(), CouldNotRun):
        raise CouldNotRun(str(error))
    collected = task.result() if task.done() and task.exception() is None else heard.collected
    if collected is None:
        raise CouldNotRun("; ".join(failures) or _unfinished(task))
    if not task.done() or task.exception() is not None:
        collected.unfinished.append(_unfinished(task))
    collected.unfinished.extend(failures)
    console.phase("checking")
    more = [_verdict_of(hosts)]
    return conclude(trial, run, workloads, collected, cluster, started, more=more)


class Heard:
    """What the conduct of a trial told of itself; shown between two slices, never from simulated code."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.latest: Progress | None = None
        self.collected: Collected | None = None

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def progress(self, progress: Progress) -> None:
        self.latest = progress

    def begun(self, collected: Collected) -> None:
        """Told at the beginning of what is being collected: it is judged even when the run comes to no end."""
        self.collected = collected

    def show(self, console: Console) -> None:
        for name in self.phases:
            console.phase(name)
        self.phases.clear()
        if self.latest is not None:
            console.progress(self.latest)


async def _whole(
    trial: Trial,
    cluster: SimulatedCluster,
    workloads: Sequence[Workload],
    plan: FaultPlan,
    sinks: Sinks,
    heard: Heard,
) -> Collected:
    """All that the harness's host does."""
    await cluster.start_all()
    audience: Audience = heard
    endpoints = await prepare(cluster, workloads, audience)
    return await carry_out(
        trial,
        cluster,
        workloads,
        endpoints,
        plan,
        clock=cluster.clock,
        sinks=sinks,
        audience=audience,
        begun=heard.begun,
    )


def _run_to_the_end(hosts: TrialHosts, task: Any, trial: Trial, heard: Heard, console: Console) -> list[str]:
    """Let virtual time pass until the task is done; what kept it from that."""
    world = hosts.world
    until_us = int((trial.duration_s + VIRTUAL_S_BESIDE_FAULTS) * 1_000_000)
    try:
        while not task.done() and world.now_us < until_us:
            run_world(world, min(until_us, world.now_us + SLICE_US), until=task)
            heard.show(console)
    except EventStorm as storm:
        return [f"the simulation came to no end: {storm}"]
    except SimEscape as escaped:
        return [f"a defect of seatrial itself: the simulation was left: {escaped}"]
    return []


def _unfinished(task: Any) -> str:
    if not task.done():
        return f"the trial was not over {VIRTUAL_S_BESIDE_FAULTS:g} virtual seconds after its faults"
    return "a defect of seatrial itself:\n" + "".join(traceback.format_exception(task.exception()))


def _verdict_of(hosts: TrialHosts) -> Verdict:
    """What the simulator saw of the nodes' insides at every step, which no client could have seen."""
    anomalies = tuple(
        Anomaly(name=found.name, message=found.message, detail={"at_us": found.at_us, **found.detail})
        for found in hosts.observer.violations.values()
    )
    validity = Validity.INVALID if anomalies else Validity.VALID
    return Verdict(checker="every step", validity=validity, anomalies=anomalies)
