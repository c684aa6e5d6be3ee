"""How clients are run: retirement after `info`, stopping, broken clients, final reads, reads of many keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from seatrial.checkers.base import Checker
from seatrial.env import RealClock, Rng
from seatrial.history import Op, OpType
from seatrial.workloads.base import Completion, Endpoint, Request
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

NODES = (Endpoint(node=1), Endpoint(node=2))


class ScriptedClient:
    """Answers as the script says; keeps what it was asked."""

    def __init__(self, answer: Callable[[Request], Completion]) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self.reconnects = 0
        self.closed = False

    async def perform(self, request: Request) -> Completion:
        self.asked.append(request)
        await asyncio.sleep(0)
        return self.answer(request)

    async def reconnect(self) -> None:
        self.reconnects += 1

    async def close(self) -> None:
        self.closed = True


class ScriptedWorkload:
    """Clients that write 1, 2, 3, … to one key; each number up to `limit`, then nothing."""

    name = "scripted"

    def __init__(
        self, answer: Callable[[Request], Completion], *, clients: int = 2, rate: float = 0.0, limit: int = 20
    ) -> None:
        self.clients = clients
        self.rate = rate
        self.limit = limit
        self.answer = answer
        self.made: list[ScriptedClient] = []
        self.told: list[Completion] = []
        self.exhausted = asyncio.Event()
        self.finals: Sequence[Request] = ()
        self._value = 0

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None: ...

    def generator(self, rng: Rng) -> ScriptedWorkload:
        return self

    def next(self, client: int) -> Request | None:
        if self._value == self.limit:
            self.exhausted.set()
            return None
        self._value += 1
        return Request(f="write", key="x", value=self._value)

    def completed(self, request: Request, completion: Completion) -> None:
        self.told.append(completion)

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> ScriptedClient:
        self.made.append(ScriptedClient(self.answer))
        return self.made[-1]

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        return self.finals

    def checkers(self) -> Sequence[Checker]:
        return ()


def ok(request: Request) -> Completion:
    return Completion(type=OpType.OK, value=request.value)


async def until_exhausted(workload: ScriptedWorkload, record: Recorder) -> None:
    stop = asyncio.Event()
    running = asyncio.ensure_future(run_workload(workload, NODES, record=record, rng=Rng(1), stop=stop))
    async with asyncio.timeout(10):
        await workload.exhausted.wait()
    stop.set()
    await running


def test_every_operation_is_recorded_from_invocation_to_completion() -> None:
    async def scenario() -> None:
        workload, record = ScriptedWorkload(ok), Recorder(RealClock())
        await until_exhausted(workload, record)
        pairs = list(record.history.pairs())
        assert sorted(invoked.value for invoked, _ in pairs) == list(range(1, 21))
        assert all(completed is not None and completed.type is OpType.OK for _, completed in pairs)
        assert len(workload.told) == 20
        assert all(client.closed for client in workload.made)

    asyncio.run(scenario())


def test_a_client_number_is_never_used_again_after_info() -> None:
    async def scenario() -> None:
        workload = ScriptedWorkload(lambda request: Completion(type=OpType.INFO, error="lost"), limit=6)
        record = Recorder(RealClock())
        await until_exhausted(workload, record)
        invocations = [op.client for op in record.history if op.type is OpType.INVOKE]
        assert len(set(invocations)) == len(invocations) == 6
        assert sum(client.reconnects for client in workload.made) == 6

    asyncio.run(scenario())


def test_a_client_keeps_its_number_after_fail() -> None:
    async def scenario() -> None:
        workload = ScriptedWorkload(lambda request: Completion(type=OpType.FAIL, error="refused"), clients=1, limit=4)
        record = Recorder(RealClock())
        await until_exhausted(workload, record)
        assert {op.client for op in record.history} == {0}
        assert workload.made[0].reconnects == 0

    asyncio.run(scenario())


def test_workloads_that_run_at_once_share_a_history_and_no_client_number() -> None:
    async def scenario() -> None:
        record = Recorder(RealClock())
        first, second = ScriptedWorkload(ok), ScriptedWorkload(ok)
        await asyncio.gather(until_exhausted(first, record), until_exhausted(second, record))
        assert len({op.client for op in record.history}) == 4
        assert len(record.history) == 80

    asyncio.run(scenario())


def test_a_client_that_raises_ends_the_workload_and_leaves_its_operation_as_info() -> None:
    def broken(request: Request) -> Completion:
        raise ZeroDivisionError("a defect of the client")

    async def scenario() -> Recorder:
        record = Recorder(RealClock())
        with pytest.raises(ZeroDivisionError):
            await run_workload(ScriptedWorkload(broken), NODES, record=record, rng=Rng(1), stop=asyncio.Event())
        return record

    record = asyncio.run(scenario())
    completed = [op for op in record.history if op.type is not OpType.INVOKE]
    assert completed
    assert {op.type for op in completed} == {OpType.INFO}


def test_an_operation_in_flight_when_the_run_is_cancelled_is_info() -> None:
    class Hanging(ScriptedClient):
        async def perform(self, request: Request) -> Completion:
            await asyncio.Event().wait()
            raise AssertionError("never reached")

    class HangingWorkload(ScriptedWorkload):
        def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> ScriptedClient:
            return Hanging(ok)

    async def scenario() -> Recorder:
        record = Recorder(RealClock())
        workload = HangingWorkload(ok, clients=1)
        running = asyncio.ensure_future(run_workload(workload, NODES, record=record, rng=Rng(1), stop=asyncio.Event()))
        async with asyncio.timeout(5):
            while not len(record.history):
                await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return record

    record = asyncio.run(scenario())
    assert [op.type for op in record.history] == [OpType.INVOKE, OpType.INFO]


def test_the_rate_bounds_all_clients_together() -> None:
    async def scenario() -> float:
        workload = ScriptedWorkload(ok, clients=4, rate=400.0, limit=40)
        record = Recorder(RealClock())
        await until_exhausted(workload, record)
        return record.history[-1].time_ns / 1e9

    # 40 operations at 400 a second need 0.1 s less one interval; a slow machine may take longer, never shorter.
    assert asyncio.run(scenario()) >= 0.085


def test_final_reads_are_retried_until_they_are_answered() -> None:
    attempts: dict[int | None, int] = {}

    def third_time(request: Request) -> Completion:
        attempts[request.node] = attempts.get(request.node, 0) + 1
        if attempts[request.node] < 3:
            return Completion(type=OpType.FAIL, error="no leader")
        return Completion(type=OpType.OK, value=7)

    async def scenario() -> None:
        workload, record = ScriptedWorkload(third_time), Recorder(RealClock())
        workload.finals = [Request(f="read", key="x", node=node) for node in (1, 2)]
        outcome = await run_final(workload, NODES, record=record, rng=Rng(1), timeout=5.0)
        assert (outcome.complete, outcome.missing) == (2, ())
        assert attempts == {1: 3, 2: 3}
        assert {op.node for op in record.history if op.type is OpType.OK} == {1, 2}

    asyncio.run(scenario())


def test_final_reads_that_are_never_answered_are_named_with_their_last_error() -> None:
    def answer(request: Request) -> Completion:
        return ok(request) if request.node == 1 else Completion(type=OpType.FAIL, error="node 2 is deaf")

    async def scenario() -> None:
        workload, record = ScriptedWorkload(answer), Recorder(RealClock())
        workload.finals = [Request(f="read", key="x", node=node) for node in (1, 2)]
        outcome = await run_final(workload, NODES, record=record, rng=Rng(1), timeout=0.1)
        assert outcome.complete == 1
        assert [(request.node, error) for request, error in outcome.missing] == [(2, "node 2 is deaf")]

    asyncio.run(scenario())


def test_a_read_of_many_keys_is_one_operation_a_key_over_the_same_interval() -> None:
    async def scenario() -> list[Op]:
        workload = ScriptedWorkload(lambda request: Completion(type=OpType.OK, value={"a": 1, "b": None}, node=2))
        record = Recorder(RealClock())
        workload.finals = [Request(f="read", keys=("a", "b"), node=2)]
        await run_final(workload, NODES, record=record, rng=Rng(1), timeout=5.0)
        assert len(workload.made[0].asked) == 1
        return list(record.history)

    history = asyncio.run(scenario())
    completed = {op.key: op for op in history if op.type is OpType.OK}
    assert {key: op.value for key, op in completed.items()} == {"a": 1, "b": None}
    assert {op.node for op in completed.values()} == {2}
    assert [op.type for op in history] == [OpType.INVOKE, OpType.INVOKE, OpType.OK, OpType.OK]
    assert len({op.client for op in history}) == 2
