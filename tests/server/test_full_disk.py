"""A node whose disk fills up, for real: it refuses records and says why, serves the rest, and needs no restart."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from server_processes import Server, servers, until

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
