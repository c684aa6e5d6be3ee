"""Whole nodes as processes: real clients across a leader's death, bad input of every kind, and the ways to stop."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from server_processes import HTTP, Server, Servers, leased_network, servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def create_topic(cluster: Servers, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(name, partitions, min(3, len(cluster.nodes)))])[name].result(20)


def consume_all(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """By assignment from the beginning; at least `count` values."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    try:
        while len(found) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                value = message.value()
                assert value is not None
                found.append(value)
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("idempotent", [False, True])
def test_confluent_produces_across_a_leader_kill_and_reads_everything_acknowledged(
    tmp_path: Path, idempotent: bool
) -> None:
    with servers(tmp_path) as cluster:
        create_topic(cluster, "t")
        acknowledged: list[bytes] = []
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                value = message.value()
                assert value is not None
                acknowledged.append(value)

        producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "acks": "all",
                "enable.idempotence": idempotent,
                "linger.ms": 2,
                "topic.metadata.refresh.interval.ms": 500,
            }
        )
        for number in range(300):
            producer.produce("t", b"%d" % number, on_delivery=delivered)
            producer.poll(0.005)
            if number == 100:
                cluster.leader("t/0").kill()
        assert producer.flush(30) == 0
        assert not failures
        found = consume_all(cluster.bootstrap, "t", len(acknowledged))
        assert set(acknowledged) <= set(found)
        if idempotent:
            assert found == [b"%d" % number for number in range(300)]


def test_aiokafka_produces_and_consumes_across_a_leader_kill(tmp_path: Path) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from aiokafka import TopicPartition as AioPartition

    async def scenario(cluster: Servers) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=cluster.bootstrap, acks="all", enable_idempotence=True, metadata_max_age_ms=500
        )
        await producer.start()
        offsets = []
        try:
            for number in range(60):
                if number == 20:
                    (await asyncio.to_thread(cluster.leader, "t/0")).kill()
                sent = await asyncio.wait_for(producer.send_and_wait("t", b"%d" % number), 30)
                offsets.append(sent.offset)
        finally:
            await producer.stop()
        assert offsets == list(range(60))
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([AioPartition("t", 0)])
            found = [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(60)]
        finally:
            await consumer.stop()
        assert found == [b"%d" % number for number in range(60)]

    with servers(tmp_path) as cluster:
        create_topic(cluster, "t")
        asyncio.run(scenario(cluster))


def test_compare_and_set_with_sessions_counts_exactly_once_across_a_leader_kill(tmp_path: Path) -> None:
    """Each increment is retried, with its session, until it has an answer: the count must be the number of them."""

    def attempt(server: Server, sequence: int, number: int, version: int) -> httpx.Response | None:
        headers = {"Seatrial-Client-Id": "counter", "Seatrial-Sequence": str(sequence)}
        headers |= {"If-Match": f'"{version}"'} if version else {"If-None-Match": "*"}
        try:
            answer = HTTP.put(
                f"{server.http}/api/v1/kv/count?timeout_ms=2000", content=b"%d" % number, headers=headers, timeout=5
            )
        except httpx.HTTPError:
            return None
        return answer if answer.status_code in (200, 412) else None

    def until_answered(running: list[Server], number: int, version: int) -> httpx.Response:
        turns = itertools.cycle(running)
        answer: httpx.Response = until(lambda: attempt(next(turns), number, number, version), cluster.describe)
        return answer

    with servers(tmp_path) as cluster:
        version = 0
        for number in range(1, 61):
            if number == 20:
                cluster.leader("kv").kill()
            running = [server for server in cluster if server.is_running()]
            answer = until_answered(running, number, version)
            assert answer.status_code == 200, f"increment {number} met {answer.text}: it was applied twice, or another"
            version = answer.json()["version"]
        for server in cluster:
            if server.is_running():
                assert HTTP.get(f"{server.http}/api/v1/kv/count", timeout=10).content == b"60"


def test_a_killed_node_comes_back_and_all_replicas_are_equal(tmp_path: Path) -> None:
    with servers(tmp_path) as cluster:
        create_topic(cluster, "t")
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
        victim = cluster.leader("t/0")
        for number in range(50):
            producer.produce("t", b"%d" % number)
        assert producer.flush(20) == 0
        victim.kill()
        survivor = cluster.leader("kv", victim)
        for number in range(50):
            producer.produce("t", b"%d" % number)
            HTTP.put(f"{survivor.http}/api/v1/kv/k{number % 5}", content=b"v", timeout=10)
        assert producer.flush(30) == 0
        victim.start()
        cluster.wait_until_ready()

        def states() -> list[dict[str, tuple[int, str]]]:
            infos = [server.info() for server in cluster]
            return [{g["group"]: (g["last_applied"], g["digest"]) for g in i["groups"]} if i else {} for i in infos]

        until(lambda: len({str(state) for state in states()}) == 1 and states()[0], states)
        info = victim.info()
        assert info is not None
        assert info["incarnation"] == 2


# ---- bad input -----------------------------------------------------------------------------------------------------


def framed(api_key: int, version: int, body: bytes, correlation: int = 7) -> bytes:
    """A request with header version 1 and a null client id."""
    content = struct.pack(">hhih", api_key, version, correlation, -1) + body
    return struct.pack(">i", len(content)) + content


def talk(server: Server, data: bytes, *, half: bool = False) -> bytes:
    """Everything the node answers until it closes, or nothing when it closes at once."""
    host, port = server.kafka.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(data)
        if half:
            return b""
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := sock.recv(65536):
            answer += part
        return answer


def test_bad_kafka_frames_end_their_own_connection_and_nothing_else(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as cluster:
        server = cluster.nodes[1]
        create_topic(cluster, "t")
        assert talk(server, b"GET / HTTP/1.1\r\n\r\n") == b""
        assert talk(server, struct.pack(">i", (100 << 20) + 1)) == b""
        assert talk(server, framed(3, 9, b"")[:11], half=True) == b""
        assert talk(server, framed(9999, 0, b"")) == b""
        assert talk(server, framed(3, 12, b"\x05")) == b""
        until(
            lambda: len(server.events("kafka_connection_closed")) == 4 and server.events("kafka_half_frame"),
            lambda: server.log.read_text()[-2000:],
        )
        unknown_version = talk(server, framed(18, 99, b""))
        size, correlation, error = struct.unpack_from(">iih", unknown_version)
        assert (correlation, error) == (7, 35), "UNSUPPORTED_VERSION, in the body of version 0"
        assert len(unknown_version) == size + 4
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
        producer.produce("t", b"still here")
        assert producer.flush(20) == 0
        assert consume_all(cluster.bootstrap, "t", 1) == [b"still here"]


def test_a_batch_with_a_wrong_checksum_is_refused_as_corrupt_and_not_appended(tmp_path: Path) -> None:
    from kafka.record.memory_records import MemoryRecordsBuilder

    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1 << 16)
    builder.append(timestamp=1, key=None, value=b"x" * 100, headers=[])
    builder.close()
    records = bytearray(builder.buffer())
    records[-1] ^= 1
    body = (
        struct.pack(">hhi", -1, -1, 5000)
        + struct.pack(">ih", 1, 1) + b"t" + struct.pack(">ii", 1, 0)
        + struct.pack(">i", len(records)) + bytes(records)
    )  # fmt: skip
    with servers(tmp_path, 1) as cluster:
        create_topic(cluster, "t")
        cluster.leader("t/0")
        answer = talk(cluster.nodes[1], framed(0, 3, body))
        *_, partition, error, offset = struct.unpack_from(">iiih1sIihq", answer)
        assert (partition, error, offset) == (0, 2, -1), "CORRUPT_MESSAGE"
        state = cluster.nodes[1].group("t/0")
        assert state is not None
        assert state["last_index"] == 1, "nothing but the new leader's own entry"


def run_to_end(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    command = [sys.executable, "-m", "seatrial.server", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, env={**os.environ, **(environment or {})}, check=False
    )
    return done.returncode, done.stderr


def addresses(prefix: str) -> tuple[str, ...]:
    host = f"{prefix}.1"
    return ("--raft-addr", f"{host}:7101", "--kafka-addr", f"{host}:9092", "--http-addr", f"{host}:9644")


def test_bad_peers_are_a_usage_error(tmp_path: Path) -> None:
    status, text = run_to_end("--node-id", "1", "--data-dir", str(tmp_path / "d"), "--peers", "127.0.0.1:1")
    assert status == 64
    assert "--peers: '127.0.0.1:1' is not NODE@host:port; write for example --peers 1@" in text
    assert not (tmp_path / "d").exists()


def test_optimised_python_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-O", "-m", "seatrial.server", "--node-id", "1", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "python -O" in done.stderr) == (64, True)


def only_line(text: str, event: str) -> str:
    lines = [line for line in text.splitlines() if f'"{event}"' in line]
    assert len(lines) == 1, text
    return lines[0]


def test_a_port_in_use_is_one_clear_line_and_its_own_status(tmp_path: Path) -> None:
    with leased_network() as prefix, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((f"{prefix}.1", 9092))
        taken.listen()
        status, text = run_to_end(
            "--node-id", "1", "--data-dir", str(tmp_path / "d"), *addresses(prefix)
        )  # fmt: skip
    assert status == 10
    assert f"--kafka-addr {prefix}.1:9092 is in use" in only_line(text, "fatal")


@pytest.mark.parametrize("change", [("--node-id", "2"), ("--cluster-id", "other")])
def test_a_data_directory_of_another_node_or_cluster_is_refused_and_left_alone(
    tmp_path: Path, change: tuple[str, str]
) -> None:
    with servers(tmp_path, 1) as cluster:
        server = cluster.nodes[1]
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        before = {p: p.read_bytes() for p in sorted(server.directory.rglob("*")) if p.is_file()}
        with leased_network() as prefix:
            status, text = run_to_end(
                "--node-id", "1", *change, "--data-dir", str(server.directory), *addresses(prefix)
            )  # fmt: skip
        assert status == 11
        assert str(server.directory) in only_line(text, "fatal")
        assert before == {p: p.read_bytes() for p in sorted(server.directory.rglob("*")) if p.is_file()}


def test_a_data_directory_in_use_is_refused(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as cluster, leased_network() as prefix:
        status, text = run_to_end(
            "--node-id", "1", "--data-dir", str(cluster.nodes[1].directory), *addresses(prefix)
        )  # fmt: skip
        assert status == 12
        assert "fatal" in only_line(text, "fatal")
        assert cluster.nodes[1].is_running()


def limited_files(size: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_node_that_cannot_write_stops_with_its_own_status_and_the_others_go_on(tmp_path: Path) -> None:
    with servers(tmp_path) as cluster:
        create_topic(cluster, "t")
        victim = cluster.leader("t/0")
        victim.signal(signal.SIGTERM)
        assert victim.ended() == 0
        victim.log.write_text("")
        biggest = max(p.stat().st_size for p in victim.directory.rglob("*") if p.is_file())
        victim.start(preexec=limited_files(biggest + 4096))
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0})
        tries = iter(range(100_000))

        def stopped() -> bool:
            producer.produce("t", os.urandom(20_000) + b"%d" % next(tries))
            producer.poll(0.01)
            return not victim.is_running()

        until(stopped, cluster.describe)
        assert victim.ended() in (14, 15)
        assert str(victim.directory) in victim.events("fatal")[0]["reason"]
        assert producer.flush(30) == 0, "the other two are a majority"


# ---- starting and stopping -----------------------------------------------------------------------------------------


def test_sigterm_hands_the_lead_over_and_exits_0_within_5_seconds(tmp_path: Path) -> None:
    with servers(tmp_path) as cluster:
        create_topic(cluster, "t", 3)
        leader = cluster.leader("kv")
        begun = time.monotonic()
        leader.signal(signal.SIGTERM)
        status = leader.ended()
        took = time.monotonic() - begun
        assert (status, took < 5) == (0, True), took
        for group in ("kv", "metadata", "t/0", "t/1", "t/2"):
            assert cluster.leader(group, leader).is_running()
        terms = [change["term"] for change in leader.events("role_changed") if change["group"] == "kv"]
        successor = cluster.leader("kv", leader).group("kv")
        assert successor is not None
        # Handed over in one election; a leader that is short of time may exit before it hears of the new term.
        assert successor["term"] <= max(terms) + 1, (successor, terms)


def test_ports_accept_connections_within_half_a_second_of_spawn(tmp_path: Path) -> None:
    """With three nodes starting at once on two cores that they have for themselves: three times the CPU time that a
    node needs until all its ports accept, shared by two.  (Wall time would measure who else uses this machine.)"""
    with leased_network() as prefix:
        cluster = Servers(prefix, tmp_path, 3, ())
        try:
            for server in cluster:
                server.start()
            needed_s = [cpu_until_listening(server) for server in cluster]
        finally:
            cluster.close()
    assert sum(needed_s) / 2 < 0.5, needed_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_told_to_stop_while_it_starts_exits_0(number: signal.Signals, tmp_path: Path) -> None:
    """Its ports accept before the rest of it is imported; a signal then ended it with -15."""
    with leased_network() as prefix:
        cluster = Servers(prefix, tmp_path, 1, ())
        try:
            (server,) = cluster
            server.start()
            until(lambda: accepts(server.raft), lambda: server.log.read_text())
            server.signal(number)
            assert server.ended() == 0
        finally:
            cluster.close()


def cpu_until_listening(server: Server) -> float:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    used_s = 0.0

    def listening() -> bool:
        nonlocal used_s
        times = process.cpu_times()
        used_s = times.user + times.system
        return all(accepts(address) for address in (server.kafka, server.raft, server.http.removeprefix("http://")))

    until(listening, lambda: server.log.read_text())
    return used_s


def accepts(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def test_unsafe_switches_print_a_loud_warning(tmp_path: Path) -> None:
    with servers(tmp_path, 1, "--unsafe", "stale-reads") as cluster:
        warning: dict[str, Any] = cluster.nodes[1].events("UNSAFE")[0]
        assert (warning["level"], warning["switches"]) == ("warning", "stale-reads")


@pytest.mark.parametrize("switches", [(), ("ack-before-commit",), ("stale-reads",)])
def test_planted_bugs_answer_without_a_majority_and_the_server_as_shipped_does_not(
    tmp_path: Path, switches: tuple[str, ...]
) -> None:
    flags = tuple(part for switch in switches for part in ("--unsafe", switch))
    with servers(tmp_path, 3, *flags) as cluster:
        leader = cluster.leader("kv")
        url = f"{leader.http}/api/v1/kv/k"
        assert HTTP.put(url, content=b"1", timeout=10).status_code == 200
        for server in cluster:
            if server is not leader:
                server.signal(signal.SIGSTOP)
        try:
            written = HTTP.put(f"{url}?timeout_ms=1000", content=b"2", timeout=10).status_code
            read = HTTP.get(f"{url}?timeout_ms=1000", timeout=10).status_code
        finally:
            for server in cluster:
                server.signal(signal.SIGCONT)
        assert (written == 200) == ("ack-before-commit" in switches), written
        assert (read == 200) == ("stale-reads" in switches), read


def test_metrics_are_prometheus_text_with_lag_on_the_leader(tmp_path: Path) -> None:
    with servers(tmp_path) as cluster:
        create_topic(cluster, "t")
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
        producer.produce("t", b"x" * 1000)
        assert producer.flush(20) == 0
        leader = cluster.leader("t/0")

        def caught_up() -> bool:
            text = HTTP.get(f"{leader.http}/metrics", timeout=5).text
            lags = [line for line in text.splitlines() if line.startswith("seatrial_raft_follower_lag_offsets{")]
            return len(lags) == 2 and all(line.endswith(" 0.0") for line in lags)

        until(caught_up, lambda: HTTP.get(f"{leader.http}/metrics", timeout=5).text)
        text = HTTP.get(f"{leader.http}/metrics", timeout=5).text
        assert 'seatrial_raft_is_leader{group="t/0"} 1.0' in text
        assert 'seatrial_kafka_request_latency_seconds_bucket{api_key="0",le="+Inf"} 1.0' in text
        assert re.search(r'seatrial_storage_sync_latency_seconds_bucket{le="\+Inf"} [1-9]', text)
        assert 'seatrial_kafka_high_watermark{partition="0",topic="t"} 1.0' in text
