"""The log's clients against librdkafka's mock cluster, and against brokers that are not there or never answer."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, Producer

from seatrial.checkers.base import Evidence, Validity, run_checkers
from seatrial.env import RealClock, Rng
from seatrial.history import OpType
from seatrial.workloads.base import Client, Completion, Endpoint, Request, SetupFailed, Unsupported
from seatrial.workloads.kafka_clients import REFUSED_BEFORE_APPEND, AppendClient, PollClient
from seatrial.workloads.kafka_final import FinalReadClient
from seatrial.workloads.kafka_log import LogWorkload
from seatrial.workloads.kafka_settings import bootstrap
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload


@pytest.fixture
def mock_cluster() -> Iterator[list[Endpoint]]:
    """Three brokers inside librdkafka; they live as long as the client that asked for them."""
    owner = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "unused", "log_level": 0})
    brokers = owner.list_topics(timeout=10).brokers.values()
    yield [Endpoint(node=broker.id, kafka=f"{broker.host}:{broker.port}") for broker in brokers]
    owner.purge()


def perform(client: Client, *requests: Request) -> list[Completion]:
    """The completions of a client's requests, one after the other; the client is closed."""

    async def scenario() -> list[Completion]:
        try:
            return [await client.perform(request) for request in requests]
        finally:
            await client.close()

    return asyncio.run(scenario())


def append(value: int, key: str = "log/0") -> Request:
    return Request(f="append", key=key, value=value)


ASSIGN, POLL = Request(f="assign", key="log/0"), Request(f="poll", key="log/0")


@pytest.mark.slow
@pytest.mark.parametrize("idempotent", [True, False])
def test_an_acknowledged_append_has_its_offset(mock_cluster: list[Endpoint], idempotent: bool) -> None:
    client = AppendClient(bootstrap(mock_cluster), "append", idempotent=idempotent)
    completions = perform(client, *(append(value) for value in (11, 12, 13)))
    assert [c.type for c in completions] == [OpType.OK] * 3
    assert [c.value for c in completions] == [[0, 11], [1, 12], [2, 13]]


@pytest.mark.slow
def test_a_poller_reads_in_order_and_goes_on_where_it_left_a_partition(mock_cluster: list[Endpoint]) -> None:
    servers = bootstrap(mock_cluster)
    perform(AppendClient(servers, "append", idempotent=False), append(1), append(2))

    async def scenario() -> None:
        poller, appender = PollClient(servers, "poll"), AppendClient(servers, "append", idempotent=False)
        try:
            assert (await poller.perform(ASSIGN)).value == 0
            assert await polled(poller, 2) == [[0, 1], [1, 2]]
            await poller.perform(Request(f="assign", key="log/1"))
            assert (await appender.perform(append(3))).value == [2, 3]
            await poller.reconnect()
            assert (await poller.perform(ASSIGN)).value == 2
            assert await polled(poller, 1) == [[2, 3]]
            assert await poller.perform(POLL) == Completion(type=OpType.OK, value=[])
        finally:
            await poller.close()
            await appender.close()

    async def polled(poller: PollClient, count: int) -> list[object]:
        records: list[object] = []
        async with asyncio.timeout(20):
            while len(records) < count:
                records += (await poller.perform(POLL)).value or []
        return records

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("idempotent", [True, False])
def test_an_append_that_nobody_answers_is_unknown_in_time(idempotent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = AppendClient(f"127.0.0.1:{silent.getsockname()[1]}", "append", idempotent=idempotent)
        began = time.monotonic()
        (completion,) = perform(client, append(1))
        assert completion.type is OpType.INFO
        assert "_MSG_TIMED_OUT" in (completion.error or "") or "no report" in (completion.error or "")
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_a_poll_that_nobody_answers_is_no_error_and_has_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = PollClient(f"127.0.0.1:{silent.getsockname()[1]}", "poll")
        _, completion = perform(client, ASSIGN, POLL)
        assert completion.type in (OpType.OK, OpType.FAIL)
        assert not completion.value


def test_errors_that_kafka_also_answers_after_an_append_are_never_definite() -> None:
    for code in (
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError._TRANSPORT,
        KafkaError._MSG_TIMED_OUT,
    ):
        assert code not in REFUSED_BEFORE_APPEND


@pytest.mark.slow
def test_a_final_read_proves_its_node_or_fails(mock_cluster: list[Endpoint]) -> None:
    """The mock's followers serve nothing by rack, so that only the leader's own read can be proven."""
    servers = bootstrap(mock_cluster)
    perform(AppendClient(servers, "append", idempotent=False), *(append(value) for value in range(50)))
    client = FinalReadClient(servers, "final", {e.node: f"rack-{e.node}" for e in mock_cluster})
    requests = [Request(f="final-read", key="log/0", node=endpoint.node) for endpoint in mock_cluster]
    unpinned, *pinned = perform(client, Request(f="final-read", key="log/0"), *requests)
    everything = [[value, value] for value in range(50)]
    assert (unpinned.type, unpinned.value, unpinned.node) == (OpType.OK, everything, None)
    proven = [completion for completion in pinned if completion.type is OpType.OK]
    assert [completion.value for completion in proven] == [everything]
    for completion in pinned:
        if completion not in proven:
            assert completion.type is OpType.FAIL
            assert "incomplete" in (completion.error or "")


@pytest.mark.slow
def test_the_workload_on_a_sound_cluster_is_valid_and_blocks_no_loop(mock_cluster: list[Endpoint]) -> None:
    async def scenario() -> Recorder:
        workload, record, stop = LogWorkload(rate=0.0), Recorder(RealClock()), asyncio.Event()
        running = asyncio.ensure_future(run_workload(workload, mock_cluster, record=record, rng=Rng(5), stop=stop))
        async with asyncio.timeout(60):
            while record.counts["append", OpType.OK] < 500 or record.counts["poll", OpType.OK] < 20:
                assert not running.done()
                await asyncio.sleep(0.01)
        stop.set()
        await running
        outcome = await run_final(workload, mock_cluster, record=record, rng=Rng(6), timeout=30.0)
        assert outcome.missing == ()
        assert outcome.complete == 4
        verdicts = run_checkers(workload.checkers(), Evidence(history=record.history))
        assert [verdict.validity for verdict in verdicts] == [Validity.VALID], verdicts
        return record

    record = asyncio.run(scenario())
    acknowledged = {op.value[1] for op in record.history if op.f == "append" and op.type is OpType.OK}
    read = {v for op in record.history if op.f == "final-read" and op.type is OpType.OK for _, v in op.value}
    assert acknowledged <= read


@pytest.mark.slow
def test_set_up_that_nobody_answers_says_so_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint(node=1, kafka=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SetupFailed, match=r"topic log was not ready within 0.5 s: .*[a-z]"):
            asyncio.run(LogWorkload().setup([endpoint], timeout=0.5))


def test_set_up_without_any_kafka_address_is_refused_at_once() -> None:
    with pytest.raises(Unsupported, match="no node of this system has a Kafka address"):
        asyncio.run(LogWorkload().setup([Endpoint(node=1, http="http://127.0.0.1:1")], timeout=5.0))
