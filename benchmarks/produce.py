"""Throughput and latency of acks=all produce into three nodes on this machine, for both durabilities.

1 KB records in 64 KB batches, by confluent-kafka's own producer in a process of its own, topic with one partition and
replication factor 3; with 5 requests in flight, the most of an idempotent producer, and with 16, more than which the
producer's queue of 1,000 records does not hold.  Everything shares this machine's cores and disk: figures are lower
bounds for separate hosts.
Usage: python benchmarks/produce.py [--seconds 8] [--durability fsync|os|both] [--in-flight N ...]
    [--directory DIR] [--profile DIR]
With --profile each node runs under cProfile, which makes it several times slower, and leaves
DIR/<durability>-<node>, of the last depth alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

RECORD = os.urandom(1000)
TOPIC = "produce-benchmark"


@contextmanager
def cluster(
    directory: Path, durability: str, profiles: Path | None = None
) -> Iterator[tuple[list[str], list[psutil.Process]]]:
    """Three nodes: their Kafka addresses and processes."""
    prefix = f"127.{100 + os.getpid() % 20}.{1 + os.getpid() // 20 % 250}"
    peers = ",".join(f"{n}@{prefix}.{n}:7101" for n in (1, 2, 3))
    processes = []
    for node in (1, 2, 3):
        host = f"{prefix}.{node}"
        profiler = ["-m", "cProfile", "-o", str(profiles / f"{durability}-{node}")] if profiles else []
        command = [
            sys.executable, *profiler, "-m", "seatrial.server", "--node-id", str(node), "--peers", peers,
            "--raft-addr", f"{host}:7101", "--kafka-addr", f"{host}:9092", "--http-addr", f"{host}:9644",
            "--data-dir", str(directory / str(node)), "--durability", durability, "--log-level", "warning",
        ]  # fmt: skip
        processes.append(subprocess.Popen(command))
    try:
        addresses = [f"{prefix}.{n}:9092" for n in (1, 2, 3)]
        for address in addresses:
            wait_for_port(address)
        yield addresses, [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(address: str) -> None:
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def create_topic(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    deadline = time.monotonic() + 20
    while True:
        future = admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=3)])[TOPIC]
        try:
            future.result(5)
            return
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def measure(bootstrap: str, seconds: float, in_flight: int) -> tuple[float, float, list[float]]:
    """(MB sent in all, MB/s, delivery latencies in seconds of every 64th record)."""
    latencies: list[float] = []
    failed = 0
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "linger.ms": 5,
            "batch.size": 65_536,
            "batch.num.messages": 64,
            "max.in.flight.requests.per.connection": in_flight,
            "queue.buffering.max.messages": 1_000,
        }
    )

    def delivered_at(begun: float) -> Callable[[object, object], None]:
        def delivered(error: object, _message: object) -> None:
            nonlocal failed
            if error is not None:
                failed += 1
            latencies.append(time.perf_counter() - begun)

        return delivered

    def run(until: float) -> int:
        sent = 0
        while time.perf_counter() < until:
            try:
                if sent % 64 == 0:
                    producer.produce(TOPIC, RECORD, on_delivery=delivered_at(time.perf_counter()))
                else:
                    producer.produce(TOPIC, RECORD)
                sent += 1
                if sent % 256 == 0:
                    producer.poll(0)
            except BufferError:
                producer.poll(0.001)
        return sent

    warmed_up = run(time.perf_counter() + 1.0)
    producer.flush(30)
    latencies.clear()
    begun = time.perf_counter()
    sent = run(begun + seconds)
    left = producer.flush(30)
    took = time.perf_counter() - begun
    assert left == 0 and failed == 0, f"{left} records not delivered, {failed} failed"
    megabytes = (warmed_up + sent) * len(RECORD) / 1e6
    return megabytes, sent * len(RECORD) / took / 1e6, latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--durability", choices=("fsync", "os", "both"), default="both")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[5, 16], help="requests not yet answered")
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None, help="where to leave each node's cProfile output")
    options = parser.parse_args()
    durabilities = ("fsync", "os") if options.durability == "both" else (options.durability,)
    for durability, in_flight in itertools.product(durabilities, options.in_flight):
        with (
            tempfile.TemporaryDirectory(dir=options.directory) as directory,
            cluster(Path(directory), durability, options.profile) as (addresses, processes),
        ):
            bootstrap = ",".join(addresses)
            create_topic(bootstrap)
            before = [sum(process.cpu_times()[:2]) for process in processes]
            megabytes, rate, latencies = measure(bootstrap, options.seconds, in_flight)
            used = sorted(sum(p.cpu_times()[:2]) - cpu for p, cpu in zip(processes, before, strict=True))
            cuts = statistics.quantiles(latencies, n=100)
            print(
                f"produce durability={durability:5} nodes=3 acks=all 1KB/64KB in flight {in_flight:2}: {rate:6.1f} MB/s"
                f"  delivery p50 {cuts[49] * 1e3:.1f} ms  p99 {cuts[98] * 1e3:.1f} ms"
                f"  CPU per MB: leader {used[-1] / megabytes * 1e3:.1f} ms, followers "
                + ", ".join(f"{cpu / megabytes * 1e3:.1f} ms" for cpu in used[:-1]),
                flush=True,
            )


if __name__ == "__main__":
    main()
