"""The log's clients on aiokafka: against librdkafka's mock cluster, nobody, a silent broker, and our own server."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from seatrial.checkers.base import Evidence, Validity, run_checkers
from seatrial.cluster.spawn import spawn_cluster
from seatrial.env import RealClock, Rng
from seatrial.history import OpType
from seatrial.workloads.base import Client, Completion, Endpoint, Request, SetupFailed
from seatrial.workloads.kafka_asyncio import AsyncAppendClient, AsyncPollClient, stopped
from seatrial.workloads.kafka_asyncio_final import AsyncFinalReadClient, create_topic
from seatrial.workloads.kafka_group import GroupMemberClient
from seatrial.workloads.kafka_log import LogWorkload
from seatrial.workloads.kafka_settings import bootstrap
from seatrial.workloads.recorder import Recorder
from seatrial.workloads.runner import run_final, run_workload

pytestmark = pytest.mark.slow
ASSIGN, POLL = Request(f="assign", key="log/0"), Request(f="poll", key="log/0")
FINAL = Request(f="final-read", key="log/0")
API_VERSIONS = 18


@pytest.fixture
def mock_servers() -> Iterator[str]:
    """Three brokers inside librdkafka; they live as long as the client that asked for them."""
    owner = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "unused", "log_level": 0})
    brokers = owner.list_topics("log", timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    owner.purge()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections into its queue and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TonguelessBroker:
    """Says which requests it knows, and answers none of them."""

    def __init__(self) -> None:
        self.requests = 0
        self.address = ""
        self._server: asyncio.Server | None = None

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                api_key, _, correlation = struct.unpack_from(">hhi", await reader.readexactly(size))
                if api_key == API_VERSIONS:
                    known = [(key, 0, 0) for key in (0, 1, 2, 3, 10, 11, 18)]
                    ranges = b"".join(struct.pack(">hhh", *one) for one in known)
                    answer = struct.pack(">ihi", correlation, 0, len(known)) + ranges
                    writer.write(struct.pack(">i", len(answer)) + answer)
                else:
                    self.requests += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def start(self) -> TonguelessBroker:
        self._server = await asyncio.start_server(self._called, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self


def with_clients(scenario: Callable[..., Awaitable[None]], *make: Callable[[], Client]) -> None:
    """Run the scenario on clients that are closed at the end; nothing may be left uncaught in the loop."""

    async def run() -> None:
        uncaught: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: uncaught.append(context))
        clients = [one() for one in make]
        try:
            await scenario(*clients)
        finally:
            for client in clients:
                await client.close()
        for _ in range(3):  # by which the library notices what was left open, when its tasks have let go of it
            gc.collect()
            await asyncio.sleep(0)
        assert not uncaught, uncaught

    asyncio.run(run())


def append(value: int, key: str = "log/0") -> Request:
    return Request(f="append", key=key, value=value)


async def polled(client: Client, count: int) -> list[object]:
    found: list[object] = []
    for _ in range(40):
        completion = await client.perform(POLL)
        assert completion.type is OpType.OK, completion
        found += completion.value
        if len(found) >= count:
            return found
    raise AssertionError(f"only {found} after 40 polls")


@pytest.mark.parametrize("idempotent", [True, False])
def test_an_acknowledged_append_has_its_offset(mock_servers: str, idempotent: bool) -> None:
    async def scenario(client: Client) -> None:
        completions = [await client.perform(append(value)) for value in (11, 12, 13)]
        assert [c.type for c in completions] == [OpType.OK] * 3, completions
        assert [c.value for c in completions] == [[0, 11], [1, 12], [2, 13]]

    with_clients(scenario, lambda: AsyncAppendClient(mock_servers, "append", idempotent=idempotent))


def test_a_poller_reads_in_order_and_goes_on_where_it_left_a_partition(mock_servers: str) -> None:
    async def scenario(appender: Client, poller: Client) -> None:
        for value in (1, 2):
            await appender.perform(append(value))
        assert (await poller.perform(ASSIGN)).value == 0
        assert await polled(poller, 2) == [[0, 1], [1, 2]]
        assert (await poller.perform(Request(f="assign", key="log/1"))).value == 0
        assert (await appender.perform(append(3))).value == [2, 3]
        await poller.reconnect()
        assert (await poller.perform(ASSIGN)).value == 2
        assert await polled(poller, 1) == [[2, 3]]
        assert await poller.perform(POLL) == Completion(type=OpType.OK, value=[])

    with_clients(
        scenario,
        lambda: AsyncAppendClient(mock_servers, "append", idempotent=False),
        lambda: AsyncPollClient(mock_servers, "poll"),
    )


def test_with_nobody_there_nothing_was_sent_and_so_surely_failed() -> None:
    async def scenario(appender: Client, poller: Client, reader: Client) -> None:
        for client, request in ((appender, append(1)), (poller, POLL), (reader, FINAL)):
            completion = await client.perform(request)
            assert completion.type is OpType.FAIL and completion.error, completion
            await client.reconnect()

    servers = "127.0.0.1:1"
    with_clients(
        scenario,
        lambda: AsyncAppendClient(servers, "append", idempotent=True),
        lambda: AsyncPollClient(servers, "poll"),
        lambda: AsyncFinalReadClient(servers, "final"),
    )


def test_a_broker_that_never_answers_holds_nobody_up(silent_server: str) -> None:
    async def scenario(*clients: Client) -> None:
        for client, request in zip(clients, (append(1), append(1), POLL), strict=True):
            async with asyncio.timeout(6):
                completion = await client.perform(request)
                await client.reconnect()
            assert completion.type is OpType.FAIL, completion  # no connection was ready: nothing was sent

    with_clients(
        scenario,
        lambda: AsyncAppendClient(silent_server, "idempotent", idempotent=True),
        lambda: AsyncAppendClient(silent_server, "plain", idempotent=False),
        lambda: AsyncPollClient(silent_server, "poll"),
    )


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda at: AsyncAppendClient(at, "append", idempotent=True).perform(append(1)), id="append"),
        pytest.param(lambda at: AsyncPollClient(at, "poll").perform(POLL), id="poll"),
        pytest.param(lambda at: AsyncFinalReadClient(at, "final").perform(FINAL), id="final read"),
        pytest.param(
            lambda at: GroupMemberClient(at, "member", group="g", topic="log").perform(Request(f="consume")),
            id="member",
        ),
        pytest.param(
            lambda at: create_topic([Endpoint(node=1, kafka=at)], "log", partitions=1, replication=1, timeout=60),
            id="create a topic",
        ),
    ],
)
def test_a_client_that_is_cut_off_as_it_asks_a_first_node_leaves_no_connection_open(
    begin: Callable[[str], Coroutine[Any, Any, object]],
) -> None:
    """ "Unclosed AIOKafkaConnection": the library forgets it."""

    async def scenario() -> None:
        broker = await TonguelessBroker().start()
        while True:
            task = asyncio.create_task(begin(broker.address))
            while not broker.requests and not task.done():
                await asyncio.sleep(0.001)
            if not task.done():  # else its own time was up on a machine that is busy
                break
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with_clients(scenario)


class Clinging:
    """A consumer, or its parts, that waits for a coordinator who is gone, and whose tasks wait as well."""

    def __init__(self) -> None:
        self._coordinator = self._fetcher = self._client = self
        self._heartbeat_task = asyncio.create_task(asyncio.Event().wait())
        self._fetch_task = asyncio.create_task(asyncio.Event().wait())
        self.is_closed = False

    async def stop(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.is_closed = self._heartbeat_task.done() and self._fetch_task.done()


def test_a_consumer_that_cannot_say_good_bye_hangs_up_all_the_same() -> None:
    """Its tasks went on with its connections, and nobody knew of them."""

    async def scenario() -> None:
        consumer = Clinging()
        await stopped(consumer)
        assert consumer.is_closed

    with_clients(scenario)


def test_set_up_says_what_it_last_saw() -> None:
    async def scenario() -> None:
        nobody = [Endpoint(node=1, kafka="127.0.0.1:1")]
        with pytest.raises(SetupFailed, match=r"topic log was not ready within 1 s: .+"):
            await create_topic(nobody, "log", partitions=1, replication=1, timeout=1)

    with_clients(scenario)


def test_an_append_that_nobody_answered_is_unknown_and_is_not_sent_again() -> None:
    """The leader is frozen with the request in its socket; once thawed it appends it, and that happens once."""

    async def scenario() -> None:
        async with spawn_cluster(1) as cluster:
            at = cluster.addresses(1)
            endpoints = [Endpoint(node=1, kafka=at.kafka, http=at.http, rack=at.rack)]
            workload = LogWorkload(replication=1, partitions=1, threads=False)
            await workload.setup(endpoints, timeout=20)
            servers = bootstrap(endpoints)
            for idempotent in (False, True):
                client = AsyncAppendClient(servers, "append", idempotent=idempotent)
                assert (await client.perform(append(10 + idempotent))).type is OpType.OK
                await cluster.pause(1)
                completion = await client.perform(append(20 + idempotent))
                assert completion.type is OpType.INFO, completion
                closing = asyncio.ensure_future(client.reconnect())
                await cluster.resume(1)
                await closing
                assert (await client.perform(append(30 + idempotent))).type is OpType.OK
                await client.close()
            read = await AsyncFinalReadClient(servers, "final").perform(Request(f="final-read", key="log/0", node=1))
            values = [value for _, value in read.value]
            assert len(values) == len(set(values)), values
            assert {10, 11, 30, 31} <= set(values)

    asyncio.run(scenario())


def test_a_whole_workload_across_a_leader_s_death_is_judged_valid() -> None:
    async def scenario() -> None:
        async with spawn_cluster(3) as cluster:
            leader = await cluster.wait_for_leader(10)
            places = {node: cluster.addresses(node) for node in cluster.nodes}
            endpoints = [Endpoint(node=node, kafka=at.kafka, http=at.http, rack=at.rack) for node, at in places.items()]
            workload = LogWorkload(threads=False, rate=150.0)
            await workload.setup(endpoints, timeout=20)
            record, stop = Recorder(RealClock()), asyncio.Event()
            load = asyncio.ensure_future(run_workload(workload, endpoints, record=record, rng=Rng(1), stop=stop))
            await until(lambda: record.counts["append", OpType.OK] > 50)
            await cluster.kill(leader)
            acknowledged = record.counts["append", OpType.OK]
            await until(lambda: record.counts["append", OpType.OK] > acknowledged + 50)
            await cluster.start(leader)
            stop.set()
            await load
            outcome = await run_final(workload, endpoints, record=record, rng=Rng(2), timeout=40)
            assert outcome.complete == 12 and not outcome.missing
            evidence = Evidence(
                history=record.history, faults=[], statuses=[], nodes=cluster.nodes, duration_ns=record.now_ns()
            )
            (verdict,) = run_checkers(workload.checkers(), evidence)
            assert verdict.validity is Validity.VALID, verdict

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)

    asyncio.run(scenario())
