"""What happens to a running cluster in a trial: load, faults, healing, final reads; the same in every environment.

Rule: it waits on the running event loop alone and reads no clock but the one it is given, so that it runs in virtual
time as it does in real time; what could not be finished is told, never left out.
Knows nothing of any particular system, environment, fault or workload.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited
from seatrial.env import Clock, Rng
from seatrial.faults.nemesis import run_plan
from seatrial.faults.plan import FaultPlan
from seatrial.history import FaultEvent, Op, OpType, StatusSample
from seatrial.report.console import Progress
from seatrial.rundir import RecordWriter, RunDirectory
from seatrial.trial.model import Trial
from seatrial.trial.poll import StatusPoll
from seatrial.workloads.base import Endpoint, Workload
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

LEADER_TIMEOUT_S = 20.0
SETUP_TIMEOUT_S = 30.0
SETTLE_S = 1.0  # load goes on for so long after the last heal, so that recovery can be seen
CONSENSUS_TIMEOUT_S = 30.0
FINAL_TIMEOUT_S = 60.0
PROGRESS_INTERVAL_S = 0.5


class CouldNotRun(Exception):
    """The trial did not come as far as its first fault; the message says why and what to do."""


class Audience(Protocol):
    """Who is told how far a run has come; `report.console.Console` is one."""

    def phase(self, name: str) -> None:
        """What is being done from now on."""

    def progress(self, progress: Progress) -> None:
        """A moment of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Where records go as they come."""

    history: Callable[[Op], None]
    faults: Callable[[FaultEvent], None]
    status: Callable[[StatusSample], None]


@contextmanager
def files_of(run: RunDirectory) -> Iterator[Sinks]:
    """The run directory's files; closed at the end."""
    with ExitStack() as stack:
        writers = [RecordWriter(path) for path in (run.history, run.faults, run.status)]
        for writer in writers:
            stack.callback(writer.close)
        yield Sinks(history=writers[0].write, faults=writers[1].write, status=writers[2].write)


@dataclass(slots=True, kw_only=True)
class Collected:
    """What is collected while the cluster lives."""

    recorder: Recorder
    statuses: list[StatusSample] = field(default_factory=list)
    faults: list[FaultEvent] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    crashes: list[NodeExited] = field(default_factory=list)
    faults_ns: int = 0  # when the phase with faults ended
    active: dict[int, str] = field(default_factory=dict)  # faults that are on now


async def prepare(cluster: Cluster, workloads: Sequence[Workload], audience: Audience) -> list[Endpoint]:
    """Wait for a leader, prepare every workload; where clients reach each node.  Raises CouldNotRun."""
    try:
        await cluster.wait_for_leader(LEADER_TIMEOUT_S)
        endpoints = endpoints_of(cluster)
        audience.phase("preparing the workloads")
        for workload in workloads:
            await workload.setup(endpoints, timeout=SETUP_TIMEOUT_S)
    except (ClusterError, ValueError, TimeoutError, OSError) as error:
        raise CouldNotRun(str(error)) from error
    return endpoints


def endpoints_of(cluster: Cluster) -> list[Endpoint]:
    """Where clients reach each node."""
    places = {node: cluster.addresses(node) for node in cluster.nodes}
    return [Endpoint(node=node, kafka=at.kafka, http=at.http, rack=at.rack) for node, at in places.items()]


async def carry_out(
    trial: Trial,
    cluster: Cluster,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    plan: FaultPlan,
    *,
    clock: Clock,
    sinks: Sinks,
    audience: Audience,
    begun: Callable[[Collected], None] = lambda collected: None,
) -> Collected:
    """Everything between the first operation and the last final read.

    begun: told at once of what is returned in the end, for the case that there is no end.
    """
    async with AsyncExitStack() as stack:
        recorder = Recorder(clock, sinks.history)
        poll = StatusPoll(cluster, sinks.status, recorder.now_ns)
        collected = Collected(recorder=recorder, statuses=poll.samples)
        begun(collected)
        background = [asyncio.ensure_future(poll.run())]
        background.append(asyncio.ensure_future(_show_progress(trial, audience, collected, poll)))
        stack.push_async_callback(_cancelled, background)

        def emit(event: FaultEvent) -> None:
            collected.faults.append(event)
            sinks.faults(event)
            if event.type == "inject":
                collected.active[event.id] = event.description
            else:
                collected.active.pop(event.id, None)

        audience.phase("under faults" if plan.faults else "under load")
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
        await _finish(cluster, workloads, endpoints, collected, poll, rng, audience)
        return collected


async def _until(
    duration_s: float,
    nemesis: Coroutine[Any, Any, None],
    enough: asyncio.Event,
    load: Sequence[asyncio.Future[None]],
    collected: Collected,
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


async def _heal_result(faults: asyncio.Future[None], collected: Collected) -> None:
    try:
        await faults
    except (ClusterError, TimeoutError) as error:
        collected.unfinished.append(f"the faults could not be carried out or healed: {error}")


async def _finish(
    cluster: Cluster,
    workloads: Sequence[Workload],
    endpoints: Sequence[Endpoint],
    collected: Collected,
    poll: StatusPoll,
    rng: Rng,
    audience: Audience,
) -> None:
    """After the last heal: all nodes agree, everything is read, every replica tells its digest."""
    audience.phase("waiting for consensus")
    try:
        await cluster.wait_for_consensus(CONSENSUS_TIMEOUT_S)
    except DeadlineExceeded as error:
        collected.unfinished.append(str(error))
    audience.phase("final reads")
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


async def _show_progress(trial: Trial, audience: Audience, collected: Collected, poll: StatusPoll) -> None:
    recorder = collected.recorder
    while True:
        audience.progress(
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
