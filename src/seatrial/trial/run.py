"""Carries out a trial on real processes, and concludes one in any environment: verdict and report.

Rule: whatever happens, what was recorded so far is in the run directory and nothing that was started is left; what
could not be finished makes the verdict UNKNOWN, never VALID.
Knows nothing of any particular system, fault or workload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Anomaly, Checker, Evidence, Validity, Verdict, run_checkers
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.cluster.cluster import Cluster
from seatrial.cluster.drivers import registry as systems
from seatrial.cluster.errors import ClusterError, NodeExited
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.env import RealClock
from seatrial.faults.plan import FaultPlan, generate, parse_kinds
from seatrial.history import Json
from seatrial.report.console import Console
from seatrial.report.html import render
from seatrial.rundir import RunDirectory
from seatrial.trial import verdict as verdicts_module
from seatrial.trial.conduct import Collected, CouldNotRun, carry_out, files_of, prepare
from seatrial.trial.model import BadTrial, Trial
from seatrial.workloads.base import Workload
from seatrial.workloads.registry import by_names


async def run_trial(trial: Trial, run: RunDirectory, *, console: Console) -> dict[str, Json]:
    """Carry the trial out on real processes.

    Returns the JSON object of verdict.json; raises CouldNotRun or BadTrial.
    """
    workloads, plan = plan_of(trial)
    started = begin(trial, run)
    async with AsyncExitStack() as stack:
        console.phase("starting the cluster")
        try:
            cluster = await stack.enter_async_context(spawn_cluster(_spec(trial, run, plan)))
        except (ClusterError, ValueError, TimeoutError, OSError) as error:
            raise CouldNotRun(str(error)) from error
        endpoints = await prepare(cluster, workloads, console)
        sinks = stack.enter_context(files_of(run))
        collected = await carry_out(
            trial, cluster, workloads, endpoints, plan, clock=RealClock(), sinks=sinks, audience=console
        )
    console.phase("checking")
    return conclude(trial, run, workloads, collected, cluster, started)


def begin(trial: Trial, run: RunDirectory) -> str:
    """Make the run directory, with the trial in it; the time, for the verdict."""
    run.root.mkdir(parents=True, exist_ok=True)
    trial.save(run.trial)
    return datetime.now(UTC).isoformat(timespec="seconds")


def plan_of(
    trial: Trial, workloads_named: Callable[[str], tuple[Workload, ...]] | None = None
) -> tuple[tuple[Workload, ...], FaultPlan]:
    """What the trial's names mean.  Raises BadTrial."""
    try:
        systems.by_name(trial.system, trial.version, trial.options)
        names = ",".join(trial.workloads)
        workloads = workloads_named(names) if workloads_named else by_names(names, read_from=trial.read_from)
        choices = parse_kinds(",".join(trial.faults))
        duration_us = int(trial.duration_s * 1_000_000)
        return workloads, generate(choices, nodes=trial.nodes, duration_us=duration_us, seed=trial.seed)
    except ValueError as error:
        raise BadTrial(str(error)) from error


def options_of(trial: Trial, plan: FaultPlan) -> dict[str, str]:
    """The system's options: as the trial says, and with test hooks where our own server needs them for the plan."""
    needed = trial.system == "own" and any(fault.kind == "messages" for fault in plan.faults)
    return {"test_hooks": "true", **trial.options} if needed else dict(trial.options)


def _spec(trial: Trial, run: RunDirectory, plan: FaultPlan) -> ClusterSpec:
    return ClusterSpec(
        system=trial.system,
        nodes=trial.nodes,
        version=trial.version,
        environment=trial.environment,
        options=options_of(trial, plan),
        seed=trial.seed,
        directory=run.root,
    )


def conclude(
    trial: Trial,
    run: RunDirectory,
    workloads: Sequence[Workload],
    collected: Collected,
    cluster: Cluster,
    started: str,
    *,
    more: Sequence[Verdict] = (),
) -> dict[str, Json]:
    """Judge what was recorded, write verdict.json and the report.  more: verdicts of the environment itself."""
    evidence = Evidence(
        history=collected.recorder.history,
        faults=collected.faults,
        statuses=collected.statuses,
        nodes=cluster.nodes,
        duration_ns=collected.faults_ns,
    )
    checkers: list[Checker] = [checker for workload in workloads for checker in workload.checkers()]
    checkers += [
        RaftInvariants(atomic=cluster.driver.status_is_atomic),
        *((ReplicaEquality(),) if cluster.driver.gives_digests else ()),
        Availability(gap_max_s=trial.unavailability_max_s),
    ]
    verdicts = [
        *run_checkers(checkers, evidence),
        _crash_verdict(collected.crashes),
        *more,
        verdicts_module.check_assumptions(trial, evidence, collected.unfinished),
    ]
    document = verdicts_module.document(trial=trial, run=run, verdicts=verdicts, evidence=evidence, started=started)
    verdicts_module.write(run, document)
    render(run)
    return document


def _crash_verdict(crashes: Sequence[NodeExited]) -> Verdict:
    """A process that ended without being told to is a finding by itself."""
    anomalies = tuple(
        Anomaly(name="process-crashed", message=str(crash).splitlines()[0], detail={"log_tail": crash.log_tail})
        for crash in crashes
    )
    validity = Validity.INVALID if anomalies else Validity.VALID
    return Verdict(checker="processes", validity=validity, anomalies=anomalies)
