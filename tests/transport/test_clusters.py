"""Real clusters of three processes, through one proxy a directed link, on each transport and with mutual TLS."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from wired_nodes import certificates

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
DEADLINE_S = 30.0
PEERS = "peers.cluster.test"
X = "/api/v1/kv/x"


def secured(directory: Path, authority: trustme.CA) -> dict[str, str]:
    """Options for mutual TLS; by name, because each node dials its peers through proxies."""
    files = certificates(directory, authority, PEERS).files
    assert files.authority is not None
    return {
        "raft_tls_cert": files.certificate,
        "raft_tls_key": files.key,
        "raft_tls_ca": files.authority,
        "raft_tls_name": PEERS,
    }


async def asked(cluster: Cluster, node: int, method: str, path: str, value: str | None = None) -> str:
    """One request to a node's HTTP API, repeated until it is answered with success."""
    url = f"{cluster.addresses(node).http}{path}"
    end, last = asyncio.get_running_loop().time() + DEADLINE_S, ""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        while asyncio.get_running_loop().time() < end:
            try:
                answer = await http.request(method, url, content=value)
                if answer.is_success:
                    return answer.text
                last = answer.text
            except httpx.HTTPError as error:
                last = repr(error)
            await asyncio.sleep(0.02)
    raise AssertionError(f"{method} {path} on node {node}: not within {DEADLINE_S} s; last {last}")


def create_topic(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic("t", 1, 3)])["t"].result(DEADLINE_S)


def produce(bootstrap: str, values: list[bytes]) -> None:
    """All of them acknowledged by all replicas in sync."""
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": int(DEADLINE_S * 1000)})
    for value in values:
        producer.produce("t", value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(DEADLINE_S) == 0
    assert not failures, failures


def consume(bootstrap: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition("t", 0, 0)])
    try:
        messages = consumer.consume(count, DEADLINE_S)
        return [value for message in messages if (value := message.value()) is not None]
    finally:
        consumer.close()


async def survives_a_leader_kill(cluster: Cluster) -> None:
    def bootstrap(*nodes: int) -> str:
        return ",".join(str(cluster.addresses(node).kafka) for node in nodes or cluster.nodes)

    leader = await cluster.wait_for_leader(timeout=DEADLINE_S)
    await asked(cluster, leader, "PUT", X, "before")
    for node in cluster.nodes:
        await asked(cluster, node, "GET", "/readyz")
    await asyncio.to_thread(create_topic, bootstrap())
    await asyncio.to_thread(produce, bootstrap(), [b"1", b"2", b"3"])
    await cluster.kill(leader)
    left = tuple(node for node in cluster.nodes if node != leader)
    await cluster.wait_for_leader(timeout=DEADLINE_S, among=list(left))
    assert await asked(cluster, left[0], "GET", X) == "before"
    await asked(cluster, left[1], "PUT", X, "after")
    await asyncio.to_thread(produce, bootstrap(*left), [b"4"])
    await cluster.start(leader)
    await cluster.wait_for_consensus(timeout=DEADLINE_S)
    assert await asked(cluster, leader, "GET", X) == "after"
    assert await asyncio.to_thread(consume, bootstrap(), 4) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("options", ["grpc", "framed with TLS", "grpc with TLS"])
def test_three_processes_serve_and_survive_a_leader_kill(options: str, authority: trustme.CA, tmp_path: Path) -> None:
    transport, _, tls = options.partition(" with ")
    settings = {"transport": transport, **(secured(tmp_path, authority) if tls else {})}

    async def run() -> None:
        async with spawn_cluster(ClusterSpec(options=settings)) as cluster:
            try:
                await survives_a_leader_kill(cluster)
            except Exception:
                for node in cluster.nodes:
                    print(f"node {node}: {cluster.log_tail(node)}")
                raise

    asyncio.run(run())


@pytest.mark.parametrize("transport", ["framed", "grpc"])
def test_a_cut_link_of_one_direction_is_one_on_each_transport(transport: str) -> None:
    """A leader whose words do not get out, though it hears the others, is replaced; it follows after the heal."""

    async def run() -> None:
        async with spawn_cluster(ClusterSpec(options={"transport": transport})) as cluster:
            leader = await cluster.wait_for_leader(timeout=DEADLINE_S)
            others = [node for node in cluster.nodes if node != leader]
            async with cluster.cut_links([link for link in cluster.all_links() if link[0] == leader]):
                await cluster.wait_for_leader(timeout=DEADLINE_S, among=others)
                await asked(cluster, others[0], "PUT", X, "in the cut")
            await cluster.wait_for_consensus(timeout=DEADLINE_S)
            assert await asked(cluster, leader, "GET", X) == "in the cut"

    asyncio.run(run())


def serve(tmp_path: Path, *options: str) -> tuple[int, str]:
    """Exit status and log of a node that is to refuse its settings."""
    command = [sys.executable, "-m", "seatrial.server", "--node-id", "1", "--data-dir", str(tmp_path / "data")]
    addresses = [word for name in ("raft", "kafka", "http") for word in (f"--{name}-addr", "127.0.0.1:0")]
    ended = subprocess.run([*command, *addresses, *options], capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stderr


def test_a_node_with_bad_tls_files_refuses_to_start_and_leaves_nothing_behind(
    authority: trustme.CA, tmp_path: Path
) -> None:
    files = certificates(tmp_path / "tls", authority).files
    nothing = str(tmp_path / "nothing.key")
    status, log = serve(tmp_path, "--raft-tls-cert", files.certificate, "--raft-tls-key", nothing)
    assert status == 64
    assert re.search(r"--raft-tls-key \S*nothing.key: No such file", log), log
    assert not (tmp_path / "data").exists()
    status, log = serve(tmp_path, "--raft-tls-cert", files.certificate)
    assert (status, "--raft-tls-cert and --raft-tls-key go together" in log) == (64, True), log
