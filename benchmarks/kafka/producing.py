"""Measures of writing: throughput, the latency of one record, from start to the first record, across a leader's death.

Rule: only what was acknowledged counts (`acks=all`), and one record refused fails the measure.
Each takes the nodes (all down) and the sizes, and returns its figures by name.
"""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from client import DEADLINE_S, EAGER, RECORD, Broker, MeasureFailed, until
from confluent_kafka import Producer
from nodes import Nodes
from sizes import Sizes

TOPIC = "produced"
IN_FLIGHT = 5  # the most of an idempotent producer, and the Java client's default
RATE = 1_000
FAILOVER_PACE_S = 0.005


def started(nodes: Nodes) -> Broker:
    """All nodes up and known to each other."""
    nodes.start()
    broker = Broker(nodes.bootstrap, nodes.peer.has_admin)
    broker.wait_for_nodes()
    return broker


class Deliveries:
    """Counts what a producer is told of its records; latencies are from `produce` to the report, in seconds."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.refused: list[Any] = []

    def report(self, error: Any, message: Any) -> None:
        if error is None:
            self.latencies.append(message.latency())
        else:
            self.refused.append(error)

    def check(self, left: int) -> None:
        if left or self.refused:
            raise MeasureFailed(f"{left} records not delivered, {len(self.refused)} refused: {self.refused[:1]}")


def throughput(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """1 KB records in 64 KB batches to one partition, five requests in flight."""
    broker = started(nodes)
    broker.create_topic(TOPIC)
    deliveries = Deliveries()
    producer = Producer(
        {
            **EAGER,
            "bootstrap.servers": broker.bootstrap,
            "acks": "all",
            "linger.ms": 5,
            "batch.size": 65_536,
            "batch.num.messages": 64,
            "max.in.flight.requests.per.connection": IN_FLIGHT,
            "queue.buffering.max.messages": 1_000,
        }
    )
    _send(producer, deliveries, sizes.warm_up_s)
    deliveries.latencies.clear()
    cpu = nodes.cpu_seconds()
    begun = time.perf_counter()
    sent = _send(producer, deliveries, sizes.seconds)
    megabytes = sent * len(RECORD) / 1e6
    rate = megabytes / (time.perf_counter() - begun)
    spent = sum(after - cpu[node] for node, after in nodes.cpu_seconds().items())
    cuts = statistics.quantiles(deliveries.latencies, n=100)
    return {"mb_s": rate, "p99_ms": cuts[98] * 1e3, "cpu_ms_per_mb": spent / megabytes * 1e3}


def _send(producer: Producer, deliveries: Deliveries, seconds: float) -> int:
    """Send as fast as records are taken, then wait for the last of them; how many."""
    until_s = time.perf_counter() + seconds
    sent = 0
    while time.perf_counter() < until_s:
        try:
            if sent % 64 == 0:
                producer.produce(TOPIC, RECORD, partition=0, on_delivery=deliveries.report)
            else:
                producer.produce(TOPIC, RECORD, partition=0)
            sent += 1
            if sent % 256 == 0:
                producer.poll(0)
        except BufferError:
            producer.poll(0.001)
    deliveries.check(producer.flush(DEADLINE_S))
    return sent


def latency(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """1,000 single records a second on a fixed schedule, whether or not the last one is answered (open loop)."""
    broker = started(nodes)
    broker.create_topic(TOPIC)
    deliveries = Deliveries()
    producer = Producer({**EAGER, "bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    finished = threading.Event()

    def hear() -> None:
        while not finished.is_set():
            producer.poll(0.05)

    # Reports are heard in a thread of their own: the schedule must not decide when an answer counts as arrived.
    listener = threading.Thread(target=hear)
    listener.start()
    try:
        _send_on_schedule(producer, deliveries, sizes.warm_up_s)
        deliveries.latencies.clear()
        cpu, begun = nodes.cpu_seconds(), time.perf_counter()
        _send_on_schedule(producer, deliveries, sizes.seconds)
        took = time.perf_counter() - begun
        spent = sum(after - cpu[node] for node, after in nodes.cpu_seconds().items())
    finally:
        finished.set()
        listener.join()
    cuts = statistics.quantiles(deliveries.latencies, n=100)
    return {"p50_ms": cuts[49] * 1e3, "p99_ms": cuts[98] * 1e3, "cores": spent / took}


def _send_on_schedule(producer: Producer, deliveries: Deliveries, seconds: float) -> None:
    begun = time.perf_counter()
    count = int(seconds * RATE)
    for number in range(count):
        ahead = begun + number / RATE - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        producer.produce(TOPIC, RECORD, partition=0, on_delivery=deliveries.report)
    deliveries.check(producer.flush(DEADLINE_S))


def start(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """From the first process's start to the first record acknowledged, of a topic made meanwhile; then the memory."""
    begun = time.perf_counter()
    nodes.start()
    broker = Broker(nodes.bootstrap, nodes.peer.has_admin)
    broker.create_topics([TOPIC], 1)
    deliveries = Deliveries()
    producer = Producer({**EAGER, "bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    producer.produce(TOPIC, RECORD, partition=0, on_delivery=deliveries.report)
    deliveries.check(producer.flush(DEADLINE_S))
    took = time.perf_counter() - begun
    broker.wait_for_nodes()
    time.sleep(sizes.settle_s)
    return {"seconds": took, "memory_mb": nodes.memory_mb()}


def failover(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """SIGKILL of the partition's leader, again and again, to the first ack of a record that was produced after it."""
    broker = started(nodes)
    broker.create_topic(TOPIC)
    took: list[float] = []
    for _ in range(sizes.kills):
        broker.wait_for_replicas(TOPIC)
        leader = broker.leader_of(TOPIC)
        took.append(_outage(nodes, broker, leader))
        nodes.wait_for_end(leader)
        nodes.start(leader)
    return {"median_s": statistics.median(took), "longest_s": max(took)}


def _outage(nodes: Nodes, broker: Broker, leader: int) -> float:
    """Seconds from the kill to the first ack of a record produced after it."""
    deliveries = Deliveries()
    producer = Producer({**EAGER, "bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    producer.produce(TOPIC, RECORD, partition=0, on_delivery=deliveries.report)
    deliveries.check(producer.flush(DEADLINE_S))
    acknowledged: list[float] = []

    def heard(error: Any, message: Any) -> None:
        deliveries.report(error, message)
        if error is None:
            acknowledged.append(time.perf_counter())

    def produce_one() -> bool:
        producer.produce(TOPIC, RECORD, partition=0, on_delivery=heard)
        producer.poll(FAILOVER_PACE_S)
        return bool(acknowledged)

    nodes.kill(leader)
    killed = time.perf_counter()
    until(produce_one, lambda: f"refused: {deliveries.refused[-1:]}", look_s=0)
    deliveries.check(producer.flush(DEADLINE_S))
    return acknowledged[0] - killed
