"""Carries out a trial: cluster, clients, faults, healing, final reads, verdict, report.

Rule: whatever happens, what was recorded so far is in the run directory and nothing that was started is left; what
could not be finished makes the verdict UNKNOWN, never VALID.
Knows nothing of any particular system, fault or workload.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Anomaly, Checker, Evidence, Validity, Verdict, run_checkers
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.cluster.cluster import Cluster
from seatrial.cluster.drivers import registry as systems
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.env import RealClock, Rng
from seatrial.faults.nemesis import run_plan
from seatrial.faults.plan import FaultPlan, generate, parse_kinds
from seatrial.history import FaultEvent, Json, OpType
from seatrial.report.console import Console, Progress
from seatrial.report.html import render
from seatrial.rundir import RecordWriter, RunDirectory
from seatrial.trial import verdict as verdicts_module
from seatrial.trial.model import BadTrial, Trial
from seatrial.trial.poll import StatusPoll
from seatrial.workloads.base import Endpoint, Workload
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.registry import by_names
from seatrial.workloads.runner import run_final, run_workload

LEADER_TIMEOUT_S = 20.0
SETUP_TIMEOUT_S = 30.0
SETTLE_S = 1.0  # load goes on for so long after the last heal, so that recovery can be seen
CONSENSUS_TIMEOUT_S = 30.0
FINAL_TIMEOUT_S = 60.0
PROGRESS_INTERVAL_S = 0.5


class CouldNotRun(Exception):
    """The trial did not come as far as its first fault; the message says why and what to do."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """What is being collected while the cluster lives."""

    recorder: Recorder
    faults: list[FaultEvent] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    crashes: list[NodeExited] = field(default_factory=list)
    faults_ns: int = 0  # when the phase with faults ended
    active: dict[int, str] = field(default_factory=dict)  # faults that are on now


async def run_trial(trial: Trial, run: RunDirectory, *, console: Console) -> dict[str, Json]:
    """Carry the trial out.  Returns the JSON object of verdict.json; raises CouldNotRun or BadTrial."""
    workloads, plan = plan_of(trial)
    if trial.environment != "local":
        raise CouldNotRun(f"environment {trial.environment!r} is not available; use local")
    run.root.mkdir(parents=True, exist_ok=True)
    trial.save(run.trial)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    async with AsyncExitStack() as stack:
        console.phase("starting the cluster")
        try:
            cluster = await stack.enter_async_context(spawn_cluster(_spec(trial, run, plan)))
            await cluster.wait_for_leader(LEADER_TIMEOUT_S)
            endpoints = endpoints_of(cluster)
            console.phase("preparing the workloads")
            for workload in workloads:
                await workload.setup(endpoints, timeout=SETUP_TIMEOUT_S)
        except (ClusterError, ValueError, TimeoutError, OSError) as error:
            raise CouldNotRun(str(error)) from error
        collected, poll = await _carry_out(trial, run, cluster, workloads, endpoints, plan, console)
    console.phase("checking")
    evidence = Evidence(
        history=collected.recorder.history,
        faults=collected.faults,
        statuses=poll.samples,
        nodes=cluster.nodes,
        duration_ns=collected.faults_ns,
    )
    return conclude(
        trial,
        run,
        workloads,
        evidence,
        collected.unfinished,
        collected.crashes,
        started,
        status_is_atomic=cluster.driver.status_is_atomic,
    )


def plan_of(trial: Trial) -> tuple[tuple[Workload, ...], FaultPlan]:
    """What the trial's names mean.  Raises BadTrial."""
    try:
        systems.by_name(trial.system, trial.version, trial.options)
        workloads = by_names(",".join(trial.workloads))
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


def endpoints_of(cluster: Cluster) -> list[Endpoint]:
    """Where clients reach each node."""
    places = {node: cluster.addresses(node) for node in cluster.nodes}
    return [Endpoint(node=node, kafka=at.kafka, http=at.http, rack=at.rack) for node, at in places.items()]


async def _carry_out(
    trial: Trial,
    run: RunDirectory,
    cluster: Cluster,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    plan: FaultPlan,
    console: Console,
) -> tuple[_Run, StatusPoll]:
    """Everything between the first operation and the last final read."""
    async with AsyncExitStack() as stack:
        writers = [RecordWriter(path) for path in (run.history, run.faults, run.status)]
        for writer in writers:
            stack.callback(writer.close)
        recorder = Recorder(RealClock(), writers[0].write)
        collected = _Run(recorder=recorder)
        poll = StatusPoll(cluster, writers[2].write, recorder.now_ns)
        background = [asyncio.ensure_future(poll.run())]
        background.append(asyncio.ensure_future(_show_progress(trial, console, collected, poll)))
        stack.push_async_callback(_cancelled, background)

        def emit(event: FaultEvent) -> None:
            collected.faults.append(event)
            writers[1].write(event)
            if event.type == "inject":
                collected.active[event.id] = event.description
            else:
                collected.active.pop(event.id, None)

        console.phase("under faults" if plan.faults else "under load")
        rng = Rng(trial.seed)
        stop = asyncio.Event()
        load = [
            asyncio.ensure_future(
                run_workload(w, endpoints, record=recorder, rng=rng.child(f"workload {w.name}"), stop=stop)
            )
            for w in workloads
        ]
        stack.push_async_callback(_cancelled, load)
        enough = asyncio.Event()
        nemesis = run_plan(plan, cluster, emit, now_ns=recorder.now_ns, rng=rng.child("faults"), stop=enough)
        await _until(trial.duration_s, nemesis, enough, load, collected)
        collected.faults_ns = recorder.now_ns()
        await asyncio.sleep(SETTLE_S)
        stop.set()
        collected.unfinished.extend(await _broken_clients(load))
        await _finish(cluster, workloads, endpoints, collected, poll, rng, console)
        return collected, poll


async def _until(
    duration_s: float,
    nemesis: Coroutine[Any, Any, None],
    enough: asyncio.Event,
    load: Sequence[asyncio.Future[None]],
    collected: _Run,
) -> None:
    """Faults and load for so long, then heal; on a slow machine the plan's last faults are left out.

    A client that raises is a defect of ours; it ends this phase early.
    """
    asyncio.get_running_loop().call_later(duration_s, enough.set)
    faults = asyncio.ensure_future(nemesis)
    calm = asyncio.ensure_future(enough.wait())
    pending: set[asyncio.Future[Any]] = {faults, calm}
    loaded = set(load)
    try:
        while pending:
            done, _ = await asyncio.wait(pending | loaded, return_when=asyncio.FIRST_COMPLETED)
            if loaded & done:
                enough.set()
                loaded = set()
            if faults in done:
                await _heal_result(faults, collected)
            pending -= done
    finally:
        await _cancelled([faults, calm])


async def _broken_clients(load: Sequence[asyncio.Future[None]]) -> list[str]:
    """What went wrong in the harness's own clients, one text each: the run proves less than it should."""
    results = await asyncio.gather(*load, return_exceptions=True)
    return [
        "a client of the harness failed:\n" + "".join(traceback.format_exception(result))
        for result in results
        if isinstance(result, Exception)
    ]


async def _heal_result(faults: asyncio.Future[None], collected: _Run) -> None:
    try:
        await faults
    except (ClusterError, TimeoutError) as error:
        collected.unfinished.append(f"the faults could not be carried out or healed: {error}")


async def _finish(
    cluster: Cluster,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    collected: _Run,
    poll: StatusPoll,
    rng: Rng,
    console: Console,
) -> None:
    """After the last heal: all nodes agree, everything is read, every replica tells its digest."""
    console.phase("waiting for consensus")
    try:
        await cluster.wait_for_consensus(CONSENSUS_TIMEOUT_S)
    except DeadlineExceeded as error:
        collected.unfinished.append(str(error))
    console.phase("final reads")
    for workload in workloads:
        outcome = await run_final(
            workload,
            endpoints,
            record=collected.recorder,
            rng=rng.child(f"final {workload.name}"),
            timeout=FINAL_TIMEOUT_S,
        )
        if outcome.missing:
            request, why = outcome.missing[0]
            collected.unfinished.append(
                f"{len(outcome.missing)} final reads of {workload.name} got no answer, e.g. {request.f} of "
                f"{request.key} on node {request.node}: {why}"
            )
    with suppress(DeadlineExceeded):  # seen by the checkers: the last samples differ
        await cluster.wait_for_consensus(CONSENSUS_TIMEOUT_S)
    await asyncio.gather(*(poll.ask(node, digest=True) for node in cluster.nodes))
    collected.crashes.extend(cluster.unexpected_exits)


async def _show_progress(trial: Trial, console: Console, collected: _Run, poll: StatusPoll) -> None:
    recorder = collected.recorder
    while True:
        console.progress(
            Progress(
                elapsed_s=recorder.now_ns() / 1e9,
                duration_s=trial.duration_s,
                ok=recorder.total(OpType.OK),
                fail=recorder.total(OpType.FAIL),
                info=recorder.total(OpType.INFO),
                faults=tuple(collected.active.values()),
                leaders=poll.leaders(),
            )
        )
        await asyncio.sleep(PROGRESS_INTERVAL_S)


async def _cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def conclude(
    trial: Trial,
    run: RunDirectory,
    workloads: Sequence[Workload],
    evidence: Evidence,
    unfinished: Sequence[str],
    crashes: Sequence[NodeExited],
    started: str,
    *,
    status_is_atomic: bool,
) -> dict[str, Json]:
    """Judge what was recorded, write verdict.json and the report."""
    checkers: list[Checker] = [checker for workload in workloads for checker in workload.checkers()]
    checkers += [
        RaftInvariants(atomic=status_is_atomic),
        ReplicaEquality(),
        Availability(gap_max_s=trial.unavailability_max_s),
    ]
    verdicts = [
        *run_checkers(checkers, evidence),
        _crash_verdict(crashes),
        verdicts_module.check_assumptions(trial, evidence, unfinished),
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
