"""A node whose disk fills up, for real: it refuses records and says why, serves the rest, and needs no restart."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from server_processes import HTTP, Server, servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MIB = 1 << 20
DISK, RESERVE, VALUE = 160 * MIB, 32 * MIB, 900_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK bytes; its data directory for node 1 below `tmp_path`."""
    place = tmp_path / "node1"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a disk of its own takes root: mount -t tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Writer:
    """Sends one record after the other, each once."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "retries": 0, "message.max.bytes": MIB})
        self.acknowledged = 0

    def send(self) -> int | None:
        """None, or the code of the error that the broker gave."""
        told: list[KafkaError | None] = []
        self._producer.produce("t", bytes(VALUE), partition=0, on_delivery=lambda error, _: told.append(error))
        assert self._producer.flush(20) == 0
        if told[0] is not None:
            return told[0].code()
        self.acknowledged += 1
        return None

    def until_refused(self) -> None:
        for _ in range(DISK // VALUE):
            error = self.send()
            if error is not None:
                assert error == KafkaError.KAFKA_STORAGE_ERROR
                return
        raise AssertionError(f"{self.acknowledged} records of {VALUE} bytes were taken by a disk of {DISK}")


def read(bootstrap: str, offset: int, count: int) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition("t", 0, offset)])
    try:
        messages = consumer.consume(count, 30)
    finally:
        consumer.close()
    assert all(message.error() is None for message in messages)
    return len(messages)


def resident(node: Server) -> int:
    assert node.process is not None
    found: int = psutil.Process(node.process.pid).memory_info().rss
    return found


def test_a_full_disk_refuses_records_serves_reads_and_takes_records_again_when_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    with servers(tmp_path, 1, "--disk-reserve-bytes", str(RESERVE)) as cluster:
        node = cluster.nodes[1]
        admin = AdminClient({"bootstrap.servers": node.kafka})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(20)
        writer = Writer(node.kafka)
        ballast = small_disk / "somebody-elses"
        assert writer.send() is None
        ballast.write_bytes(bytes(DISK - RESERVE))
        until(lambda: writer.send() == KafkaError.KAFKA_STORAGE_ERROR, node.info)
        assert read(node.kafka, 0, 1) == 1
        ballast.unlink()
        assert writer.send() is None

        writer.until_refused()
        before = resident(node)
        assert {writer.send() for _ in range(20)} == {KafkaError.KAFKA_STORAGE_ERROR}
        assert resident(node) - before < 32 * MIB
        assert read(node.kafka, 0, writer.acknowledged) == writer.acknowledged

        kept = writer.acknowledged - 1
        admin.delete_records([TopicPartition("t", 0, kept)])
        until(lambda: writer.send() is None, node.info)
        assert read(node.kafka, kept, 2) == 2
        assert node.is_running()
        assert [len(node.events(name)) >= 2 for name in ("disk_low", "disk_has_room")] == [True, True]
        assert len(node.events("starting")) == 1


def test_a_follower_whose_disk_is_full_stays_up_and_catches_up_when_records_are_deleted(
    tmp_path: Path, small_disk: Path
) -> None:
    """It ended with status 14, and could not start again before somebody had made room."""
    calm = ("--durability", "os", "--heartbeat-ms", "200", "--election-timeout-ms", "2000")
    with servers(tmp_path, 3, "--disk-reserve-bytes", str(RESERVE), *calm) as cluster:
        follower, leader = cluster.nodes[1], cluster.nodes[2]
        admin = AdminClient({"bootstrap.servers": leader.kafka})
        admin.create_topics([NewTopic("t", 1, replica_assignment=[[2, 3, 1]])])["t"].result(20)
        assert HTTP.put(f"{follower.http}/api/v1/kv/k", content=b"v", timeout=20).status_code == 200
        writer = Writer(leader.kafka)
        for _ in range(DISK // VALUE + 20):
            until(lambda: writer.send() is None, leader.info)
        until(lambda: follower.events("disk_full"), follower.info)
        assert follower.is_running() and psutil.disk_usage(str(small_disk)).free > RESERVE // 4

        def disk() -> object:
            return follower.info()["disk"]["state"], follower.info()["disk"]["free_bytes"]

        assert follower.info()["disk"]["state"] == "full"
        assert HTTP.get(f"{follower.http}/api/v1/kv/k", timeout=20).content == b"v", "linearizable"
        refused = HTTP.put(f"{follower.http}/api/v1/kv/k", content=b"w", timeout=20)
        assert (refused.status_code, refused.json()["definite"]) == (503, True)
        assert "nearly full" in refused.json()["error"]
        applied = group_of(follower)["last_applied"]
        assert applied < group_of(leader)["last_applied"]

        admin.delete_records([TopicPartition("t", 0, writer.acknowledged - 3)])
        until(lambda: group_of(follower)["last_applied"] == group_of(leader)["last_applied"], disk, 60)
        until(lambda: follower.info()["disk"]["state"] == "ok", disk)
        assert writer.send() is None
        until(lambda: group_of(follower)["last_applied"] == group_of(leader)["last_applied"], disk)
        assert HTTP.put(f"{follower.http}/api/v1/kv/k", content=b"w", timeout=20).status_code == 200
        assert len(follower.events("starting")) == 1


def group_of(node: Server) -> dict[str, Any]:
    found: dict[str, Any] = HTTP.get(f"{node.http}/api/v1/raft/groups/t/0", timeout=20).json()
    return found
