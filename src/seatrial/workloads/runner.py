"""Runs a workload's clients against a cluster and records everything they do.

Rule: the event loop is never blocked, a client has one operation at a time, nothing waits without a deadline, and an
operation that was begun is always completed in the history (as `info` when nobody knows).

Clients are closed loops: each waits for its answer before it asks again.  While the cluster is stalled there are
therefore *fewer* operations, not more slow ones (coordinated omission): judge a stall by the gap between acknowledged
operations, not by the latency percentiles.  A client that fell behind its schedule does not try to catch up.
Knows nothing of what the operations mean, nor of faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.workloads.base import Client, Completion, Endpoint, Generator, Request, Workload
from seatrial.workloads.recorder import Recorder

IDLE_S = 0.01
ERROR_PAUSE_MIN_S = 0.005
ERROR_PAUSE_MAX_S = 0.1
GRACE_S = 5.0  # after the stop, for operations in flight: more than any client's own time limit
FINAL_CLIENTS_PER_NODE = 4
FINAL_PAUSE_MAX_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalOutcome:
    """How the final reads ended: how many are complete, and which are not, each with its last error."""

    complete: int
    missing: tuple[tuple[Request, str], ...] = ()


async def run_workload(
    workload: Workload, endpoints: Sequence[Endpoint], *, record: Recorder, rng: Rng, stop: asyncio.Event
) -> None:
    """Drive all clients of a prepared workload until `stop` is set, then let what is in flight end.

    A client that raises is a defect of the harness: the others are stopped and the exception is raised here.
    """
    generator = workload.generator(rng.child("generator"))
    interval_s = workload.clients / workload.rate if workload.rate else 0.0
    slots = [
        _Slot(
            number=number,
            client=workload.client(endpoints, number, rng.child(f"client {number}")),
            generator=generator,
            record=record,
            interval_s=interval_s,
            # Spread over one interval, so that clients do not march in step.
            offset_s=interval_s * number / workload.clients,
        )
        for number in range(workload.clients)
    ]
    tasks = [asyncio.ensure_future(slot.run(stop)) for slot in slots]
    try:
        await _all_ended(tasks, stop)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(slot.client.close() for slot in slots))
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _all_ended(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Return when all tasks have ended, one has failed, or the grace after `stop` is over."""

    async def grace() -> None:
        await stop.wait()
        await asyncio.sleep(GRACE_S)

    watch = asyncio.ensure_future(grace())
    pending: set[asyncio.Task[None]] = set(tasks)
    try:
        while pending and not watch.done():
            done, _ = await asyncio.wait({*pending, watch}, return_when=asyncio.FIRST_COMPLETED)
            pending -= done
            if any(task.exception() for task in done if not task.cancelled()):
                return
    finally:
        watch.cancel()


@dataclass(slots=True, kw_only=True)
class _Slot:
    """One client's place: it survives reconnects and changes of the logical client number."""

    number: int
    client: Client
    generator: Generator
    record: Recorder
    interval_s: float
    offset_s: float

    async def run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        logical = self.record.new_client()
        due = loop.time() + self.offset_s
        errors = 0
        while True:
            await asyncio.sleep(max(due - loop.time(), _pause_s(errors)))
            if stop.is_set():
                return
            due = max(due + self.interval_s, loop.time())
            request = self.generator.next(self.number)
            if request is None:
                await asyncio.sleep(IDLE_S)
                continue
            completion = await _attempt(self.client, request, self.record, logical)
            self.generator.completed(request, completion)
            errors = 0 if completion.type is OpType.OK else errors + 1
            if completion.type is OpType.INFO:
                logical = self.record.new_client()
                await self.client.reconnect()


def _pause_s(errors: int) -> float:
    """How long to wait after so many errors in a row: a dead cluster is not flooded, a new leader is found at once."""
    return min(ERROR_PAUSE_MIN_S * 2 ** min(errors - 1, 10), ERROR_PAUSE_MAX_S) if errors else 0.0


async def _attempt(client: Client, request: Request, record: Recorder, logical: int) -> Completion:
    """Perform one request and record it, whatever comes; the exception of a broken client is passed on."""
    keyed = (
        [(record.new_client(), key, replace(request, key=key, keys=())) for key in request.keys]
        if request.keys
        else [(logical, "", request)]
    )
    for number, _, one in keyed:
        record.invoke(number, one)
    completion = Completion(type=OpType.INFO, error="cut off: the run ended or the client failed")
    try:
        completion = await client.perform(request)
    finally:
        for number, key, _ in keyed:
            answered = request.keys and completion.type is OpType.OK
            record.complete(number, replace(completion, value=completion.value[key]) if answered else completion)
    return completion


async def run_final(
    workload: Workload, endpoints: Sequence[Endpoint], *, record: Recorder, rng: Rng, timeout: float
) -> FinalOutcome:
    """Perform the workload's final reads after everything is healed; each is retried until it is `ok` or time is up.

    What is missing is in the outcome, with the last error: a run whose final reads are incomplete proves less.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    queues: dict[int | None, list[Request]] = {}
    for request in workload.final(endpoints):
        queues.setdefault(request.node, []).append(request)
    missing: list[tuple[Request, str]] = []
    complete = sum(len(queue) for queue in queues.values())
    readers = [queue for queue in queues.values() for _ in range(min(FINAL_CLIENTS_PER_NODE, len(queue)))]
    await asyncio.gather(
        *(
            # Numbers from `clients` up: readers that are no part of the load.
            _read_all(
                workload.client(endpoints, workload.clients + place, rng.child(f"final {place}")),
                queue,
                record=record,
                deadline=deadline,
                missing=missing,
            )
            for place, queue in enumerate(readers)
        )
    )
    return FinalOutcome(complete=complete - len(missing), missing=tuple(missing))


async def _read_all(
    client: Client, queue: list[Request], *, record: Recorder, deadline: float, missing: list[tuple[Request, str]]
) -> None:
    """Take requests off a queue that other readers share, until it is empty."""
    try:
        while queue:
            request = queue.pop(0)
            error = await _read_until_ok(client, request, record=record, deadline=deadline)
            if error is not None:
                missing.append((request, error))
    finally:
        await client.close()


async def _read_until_ok(client: Client, request: Request, *, record: Recorder, deadline: float) -> str | None:
    """None when the read was answered; otherwise the last error."""
    loop = asyncio.get_running_loop()
    errors = 0
    last = "no time was left to try"
    while (left := deadline - loop.time()) > 0:
        try:
            async with asyncio.timeout(left):
                # Every attempt has a number of its own: an attempt may end as `info`.
                completion = await _attempt(client, request, record, record.new_client())
        except TimeoutError:
            return f"no answer when time was up; before that: {last}"
        if completion.type is OpType.OK:
            return None
        errors += 1
        last = completion.error or completion.type.value
        await client.reconnect()
        await asyncio.sleep(min(_pause_s(errors) * errors, FINAL_PAUSE_MAX_S))
    return last
