"""The nemesis: carries out a plan on a real cluster, and leaves the cluster whole.

Rule: whatever happens (the plan ends, `stop` is set, we are cancelled, a fault fails), every fault is undone, and at
the end all nodes are up and all links clean, or DeadlineExceeded says what is not.  Never more nodes are out at once
than a minority, unless the plan says so.
Knows nothing of workloads and verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.completion import to_the_end
from seatrial.cluster.errors import ClusterError
from seatrial.env import Rng
from seatrial.faults.base import Fault, Injection, NothingToHit, aim
from seatrial.faults.plan import FaultPlan, PlannedFault
from seatrial.faults.registry import build
from seatrial.faults.targets import budget_of
from seatrial.history import FaultEvent

HEAL_TIMEOUT_S = 30.0
# How long a fault waits for those before it to be healed: on a slow machine a plan is late rather than thinned out.
PATIENCE_S = 15.0
# What is left of the plan's calm, at least, between one fault's heal and the next that had to wait for it.
CALM_S = 0.3
POLL_S = 0.01


async def run_plan(
    plan: FaultPlan,
    cluster: Cluster,
    emit: Callable[[FaultEvent], None],
    *,
    now_ns: Callable[[], int],
    rng: Rng,
    stop: asyncio.Event | None = None,
    heal_timeout: float = HEAL_TIMEOUT_S,
    patience: float = PATIENCE_S,
) -> None:
    """Carry out every fault of the plan at its time; return when all are healed and the cluster is whole.

    `now_ns`: nanoseconds since the run began, the clock of the plan and of the events.  `stop`: end early.
    `patience`: how many seconds a fault waits for those before it to be healed, before it is skipped.
    Raises ValueError, before anything is done, for a setting that a fault does not have, and DeadlineExceeded when the
    cluster is not whole `heal_timeout` seconds after the last fault.
    """
    nemesis = _Nemesis(cluster, emit, now_ns, rng, stop or asyncio.Event(), patience)
    faults = [(planned, build(planned)) for planned in plan.faults]
    tasks = [asyncio.ensure_future(nemesis.carry_out(number, *fault)) for number, fault in enumerate(faults)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await to_the_end(_finish(tasks, cluster, heal_timeout))


async def _finish(tasks: Sequence[asyncio.Future[None]], cluster: Cluster, timeout: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout)
    await cluster.heal_everything(timeout)


class _Stopped(Exception):
    """The run is over before the fault could begin."""


class _Nemesis:
    """One run of a plan: who is out at this time, and the events."""

    def __init__(
        self,
        cluster: Cluster,
        emit: Callable[[FaultEvent], None],
        now_ns: Callable[[], int],
        rng: Rng,
        stop: asyncio.Event,
        patience_s: float,
    ) -> None:
        self._cluster = cluster
        self._emit = emit
        self._now_ns = now_ns
        self._rng = rng
        self._stop = stop
        self._patience_s = patience_s
        self._out: dict[int, tuple[int, ...]] = {}  # fault number -> nodes that it takes out, healing included
        self._aiming = asyncio.Lock()  # two faults must not share the same room; it is given in order of arrival
        self._healed_ns = 0
        self._planned_end_ns: dict[int, int] = {}  # of the faults by number

    async def carry_out(self, number: int, planned: PlannedFault, fault: Fault) -> None:
        """Wait for its time, aim, inject, wait, heal; one `skip` event, or an `inject` and a `heal`."""
        await self._until_ns(planned.at_us * 1000)
        if self._stop.is_set():
            return
        rng = self._rng.child(f"fault/{number}")
        try:
            reason = fault.unavailable(self._cluster)
            if reason is not None:
                raise NothingToHit(reason)
            async with self._aiming:
                targets = await self._aim(number, planned, fault, rng)
        except _Stopped:
            return
        except ClusterError as error:
            self._event("skip", number, planned.kind, description=planned.kind, reason=str(error))
            return
        try:
            await self._inject(number, planned, fault, targets, rng)
        finally:
            self._out.pop(number, None)

    async def _inject(
        self, number: int, planned: PlannedFault, fault: Fault, targets: tuple[int, ...], rng: Rng
    ) -> None:
        injection: Injection | None = None
        reason: str | None = None
        try:
            async with fault.injected(self._cluster, rng, targets) as injection:
                self._event(
                    "inject", number, planned.kind, description=injection.description, targets=injection.targets
                )
                await self._until_ns(self._now_ns() + planned.duration_us * 1000)
        except ClusterError as error:
            reason = str(error)
        except asyncio.CancelledError:
            reason = "the run was ended"
            raise
        finally:
            if injection is None:
                description = f"{planned.kind} {targets}"
                self._event("skip", number, planned.kind, description=description, targets=targets, reason=reason)
            else:
                self._out.pop(number, None)
                self._healed_ns = self._now_ns()
                self._event(
                    "heal",
                    number,
                    planned.kind,
                    description=injection.description,
                    targets=injection.targets,
                    bit=injection.bit,
                    evidence=injection.evidence,
                    reason=reason,
                )

    async def _aim(self, number: int, planned: PlannedFault, fault: Fault, rng: Rng) -> tuple[int, ...]:
        """Choose targets within the budget, waiting a while for room.  Raises NothingToHit with the reason."""
        if not fault.takes_out or planned.over_budget:
            if fault.takes_out:
                await self._others_healed()
            targets = await aim(fault.target, self._cluster, rng)
        else:
            room = await self._room()
            targets = await aim(fault.target, self._cluster, rng, room=room)
            left = budget_of(len(self._cluster.nodes)) - len(self._lost() - set(targets))
            if len(targets) > left:
                raise NothingToHit(
                    f"it would take out {len(targets)} of {len(self._cluster.nodes)} nodes; "
                    f"the budget leaves {max(0, left)}, nodes {sorted(self._lost())} are out"
                )
        if fault.takes_out:
            self._out[number] = targets
            self._planned_end_ns[number] = (planned.at_us + planned.duration_us) * 1000
        return targets

    async def _others_healed(self) -> None:
        """Wait a while for those that should be over: a node that comes back would be hit in that.  Raises _Stopped."""
        deadline_ns = self._now_ns() + int(self._patience_s * 1e9)
        while any(self._planned_end_ns[other] <= self._now_ns() < deadline_ns for other in self._out):
            if self._stop.is_set():
                raise _Stopped
            await asyncio.sleep(POLL_S)

    async def _room(self) -> int:
        """How many more nodes may go out, once it is at least one and has been calm.  Raises NothingToHit, _Stopped."""
        budget = budget_of(len(self._cluster.nodes))
        deadline_ns = self._now_ns() + int(self._patience_s * 1e9)
        while (room := budget - len(self._lost())) < 1 or self._now_ns() < self._healed_ns + int(CALM_S * 1e9):
            if self._stop.is_set():
                raise _Stopped
            if self._now_ns() >= deadline_ns:
                raise NothingToHit(f"nodes {sorted(self._lost())} were still out after {self._patience_s:g} s")
            await asyncio.sleep(POLL_S)
        return room

    def _lost(self) -> set[int]:
        """Nodes that are out: hit by a fault that is not healed yet, or not running for another reason."""
        hit = {node for targets in self._out.values() for node in targets}
        return hit | (set(self._cluster.nodes) - set(self._cluster.running()))

    async def _until_ns(self, at_ns: int) -> None:
        """Wait until this time of the run, or until `stop`."""
        seconds = (at_ns - self._now_ns()) / 1e9
        if seconds > 0:
            try:
                await asyncio.wait_for(self._stop.wait(), seconds)
            except TimeoutError:
                return

    def _event(self, type: str, number: int, kind: str, **fields: Any) -> None:
        self._emit(
            FaultEvent(
                time_ns=self._now_ns(),
                type=type,
                id=number,
                fault=kind,
                majority=self._cluster.connected_majority(),
                **fields,
            )
        )
