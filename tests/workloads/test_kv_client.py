"""The key-value client against a fake of the API: what is ok, fail and info, sessions, and moving on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from seatrial.checkers.base import Evidence, Validity, run_checkers
from seatrial.env import RealClock, Rng
from seatrial.history import OpType
from seatrial.workloads.base import Completion, Endpoint, Request, SetupFailed, Unsupported
from seatrial.workloads.kv_client import NO_VERSION, KvClient
from seatrial.workloads.kv_register import KvWorkload
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

WRITE = Request(f="write", key="kv.1", value=5)
READ = Request(f="read", key="kv.1")
CAS = Request(f="cas", key="kv.1", value=[5, 6])


def perform(store: Any, serve: Any, *requests: Request, session: bool = False, nodes: int = 1) -> list[Completion]:
    """The completions of one client's requests, one after the other."""

    async def scenario() -> list[Completion]:
        async with serve(store, nodes) as endpoints:
            client = KvClient(NodeChoice(endpoints, Rng(1)), Rng(2), session=session)
            try:
                return [await client.perform(request) for request in requests]
            finally:
                await client.close()

    return asyncio.run(scenario())


def test_a_value_that_was_written_is_read_back_and_the_node_is_named(store: Any, serve: Any) -> None:
    absent, written, read = perform(store, serve, READ, WRITE, READ)
    assert absent == Completion(type=OpType.OK, value=None, node=1)
    assert written == Completion(type=OpType.OK, value=5, node=1)
    assert read == Completion(type=OpType.OK, value=5, node=1)


def test_a_compare_and_set_swaps_only_from_the_expected_value(store: Any, serve: Any) -> None:
    _, swapped, again, read = perform(store, serve, WRITE, CAS, CAS, READ)
    assert (swapped.type, swapped.value) == (OpType.OK, [5, 6])
    assert (again.type, again.error) == (OpType.FAIL, "mismatch")
    assert read.value == 6


def test_a_compare_and_set_fails_when_another_write_comes_between_its_read_and_its_write(
    store: Any, serve: Any
) -> None:
    reads = 0

    def race(node: int) -> Response | None:
        nonlocal reads
        reads += 1
        if reads == 3:  # after the first write and the compare-and-set's own read
            store.write("kv.1", b"9", None, None)
        return None

    store.refuse = race
    _, swapped = perform(store, serve, WRITE, CAS)
    assert (swapped.type, swapped.error) == (OpType.FAIL, "mismatch")
    assert store.values["kv.1"][0] == b"9"


def test_a_compare_and_set_without_a_version_did_not_happen_and_says_nothing_of_the_value(
    store: Any, serve: Any
) -> None:
    """A system without ETag: what was recorded as a mismatch was taken for the word that the value is another one."""
    store.values["kv.1"] = (b"5", 1)
    store.refuse = lambda node: Response(b"5")
    (swapped,) = perform(store, serve, CAS)
    assert (swapped.type, swapped.error) == (OpType.FAIL, NO_VERSION)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (503, {"error": "no leader", "definite": True}, OpType.FAIL),
        (503, {"error": "leadership was lost", "definite": False}, OpType.INFO),
        (504, {"error": "out of time", "definite": False}, OpType.INFO),
        (500, {"error": "internal error"}, OpType.INFO),
        (500, ["not an object"], OpType.INFO),
        (413, {"error": "too large"}, OpType.FAIL),
    ],
)
def test_a_refused_write_is_fail_only_where_it_surely_did_nothing(
    store: Any, serve: Any, status: int, body: object, outcome: OpType
) -> None:
    store.refuse = lambda node: JSONResponse(body, status)
    (written,) = perform(store, serve, WRITE)
    assert written.type is outcome
    assert str(status) in (written.error or "")


def test_a_read_that_failed_is_fail_because_it_had_no_effect(store: Any, serve: Any) -> None:
    store.refuse = lambda node: JSONResponse({"error": "out of time", "definite": False}, 504)
    (read,) = perform(store, serve, READ)
    assert read.type is OpType.FAIL


def test_a_write_that_was_never_sent_is_fail() -> None:
    async def scenario() -> Completion:
        # Port 1 on loopback: nobody listens, the connection is refused.
        nodes = NodeChoice([Endpoint(node=1, http="http://127.0.0.1:1")], Rng(1))
        client = KvClient(nodes, Rng(2), session=False)
        try:
            return await client.perform(WRITE)
        finally:
            await client.close()

    written = asyncio.run(scenario())
    assert written.type is OpType.FAIL
    assert "ConnectError" in (written.error or "")


def test_a_session_finds_out_what_became_of_a_write_whose_answer_was_lost(store: Any, serve: Any) -> None:
    lost = iter([JSONResponse({"error": "leadership was lost", "definite": False}, 503)])
    store.after = lambda node, status: next(lost, None)
    (written,) = perform(store, serve, WRITE, session=True, nodes=3)
    assert written.type is OpType.OK
    assert store.applied == 1
    assert len({node for node, method, _ in store.requests if method == "PUT"}) == 2


def test_without_a_session_a_lost_answer_is_info_and_nothing_is_sent_twice(store: Any, serve: Any) -> None:
    store.after = lambda node, status: JSONResponse({"error": "leadership was lost", "definite": False}, 503)
    (written,) = perform(store, serve, WRITE, session=False)
    assert written.type is OpType.INFO
    assert [method for _, method, _ in store.requests] == ["PUT"]


def test_a_refused_retry_does_not_turn_an_unknown_write_into_a_failed_one(store: Any, serve: Any) -> None:
    lost = iter([JSONResponse({"error": "leadership was lost", "definite": False}, 503)])
    store.after = lambda node, status: next(lost, None)
    asked = 0

    def no_leader_later(node: int) -> Response | None:
        nonlocal asked
        asked += 1
        return JSONResponse({"error": "no leader", "definite": True}, 503) if asked > 1 else None

    store.refuse = no_leader_later
    (written,) = perform(store, serve, WRITE, session=True, nodes=3)
    assert written.type is OpType.INFO
    assert store.applied == 1


def test_a_client_moves_to_another_node_after_an_error_and_stays_where_it_is_answered(store: Any, serve: Any) -> None:
    store.refuse = lambda node: JSONResponse({"error": "no leader", "definite": True}, 503) if node == 1 else None
    completions = perform(store, serve, *[WRITE] * 6, nodes=2)
    answered = [completion.node for completion in completions if completion.type is OpType.OK]
    assert len(answered) >= 5
    assert set(answered) == {2}


def test_a_pinned_read_asks_its_node_and_no_other(store: Any, serve: Any) -> None:
    perform(store, serve, *[Request(f="read", key="kv.1", node=3)] * 4, nodes=3)
    assert {node for node, _, _ in store.requests} == {3}


def judge(store: Any, serve: Any) -> tuple[Validity, Recorder]:
    """Run the workload on the fake until 300 operations were acknowledged, with final reads, and check it."""

    async def scenario() -> tuple[Validity, Recorder]:
        async with serve(store) as endpoints:
            workload, record, stop = KvWorkload(rate=0.0, clients=6), Recorder(RealClock()), asyncio.Event()
            await workload.setup(endpoints, timeout=5.0)
            running = asyncio.ensure_future(run_workload(workload, endpoints, record=record, rng=Rng(5), stop=stop))
            async with asyncio.timeout(60):
                while record.total(OpType.OK) < 300 and not running.done():
                    await asyncio.sleep(0.01)
            stop.set()
            await running
            outcome = await run_final(workload, endpoints, record=record, rng=Rng(6), timeout=5.0)
            assert outcome.missing == ()
            verdicts = run_checkers(workload.checkers(), Evidence(history=record.history, nodes=(1, 2, 3)))
            return max(verdict.validity for verdict in verdicts), record

    return asyncio.run(scenario())


@pytest.mark.slow
def test_a_sound_store_is_found_valid_and_read_from_every_node(store: Any, serve: Any) -> None:
    validity, record = judge(store, serve)
    assert validity is Validity.VALID
    keys = {op.key for op in record.history}
    finals = {(op.key, op.node) for op in record.history if op.f == "read" and op.type is OpType.OK}
    assert finals >= {(key, node) for key in keys for node in (1, 2, 3)}


@pytest.mark.slow
def test_a_store_with_stale_reads_on_one_node_is_found_invalid(store: Any, serve: Any) -> None:
    store.stale_node = 2
    validity, _ = judge(store, serve)
    assert validity is Validity.INVALID


@pytest.mark.slow
def test_a_store_that_denies_writes_which_it_made_is_found_invalid(store: Any, serve: Any) -> None:
    store.after = lambda node, status: (
        JSONResponse({"error": "no leader", "definite": True}, 503) if node == 1 else None
    )
    validity, _ = judge(store, serve)
    assert validity is Validity.INVALID


def test_set_up_without_any_http_address_is_refused_at_once() -> None:
    with pytest.raises(Unsupported, match="no node of this system has an HTTP address"):
        asyncio.run(KvWorkload().setup([Endpoint(node=1, kafka="127.0.0.1:9092")], timeout=5.0))


def test_set_up_says_what_each_node_answered_last() -> None:
    with pytest.raises(SetupFailed, match="node 1: ConnectError"):
        asyncio.run(KvWorkload().setup([Endpoint(node=1, http="http://127.0.0.1:1")], timeout=0.05))
