"""Measures of many things at once: partitions that rest, topics that are made, consumers in one group.

Rule: a topic counts as made when each of its partitions has acknowledged a record, not when the answer says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from client import DEADLINE_S, EAGER, Broker, MeasureFailed, until
from confluent_kafka import Producer
from nodes import Nodes
from producing import started
from sizes import Sizes

CROWD_RECORD = b"r" * 100
CROWD_DEADLINE_S = 400


def idle(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """CPU time of each node while its partitions rest and no client is connected, as a share of one core."""
    broker = started(nodes)
    broker.create_topics([f"idle-{number}" for number in range(sizes.partitions // 10)], 10)
    _wait_for_leaders(broker, sizes.partitions // 10 * 10)
    del broker  # it would ask for metadata now and then
    time.sleep(sizes.settle_s)
    before = nodes.cpu_seconds()
    begun = time.perf_counter()
    time.sleep(sizes.idle_s)
    took = time.perf_counter() - begun
    spent = sum(after - before[node] for node, after in nodes.cpu_seconds().items())
    return {"percent_of_core": 100 * spent / took / len(before), "memory_mb": nodes.memory_mb()}


def create(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """Topics of three partitions asked for at once: until all are led, and until each partition has taken a record."""
    broker = started(nodes)
    names = [f"made-{number}" for number in range(sizes.topics)]
    begun = time.perf_counter()
    broker.create_topics(names, 3)
    _wait_for_leaders(broker, len(names) * 3)
    led = time.perf_counter() - begun
    refused: list[Any] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer({**EAGER, "bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    for name in names:
        for partition in range(3):
            producer.produce(name, b"first", partition=partition, on_delivery=delivered)
        producer.poll(0)
    if producer.flush(DEADLINE_S) or refused:
        raise MeasureFailed(f"new partitions did not take a record: {refused[:1]}")
    return {"led_s": led, "taking_records_s": time.perf_counter() - begun}


def crowd(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """A group of many consumers, all at once, until every record has been read by one of them."""
    broker = started(nodes)
    broker.create_topic("crowded", sizes.crowd_consumers)
    broker.fill("crowded", sizes.crowd_records, CROWD_RECORD, sizes.crowd_consumers)
    script = Path(__file__).with_name("crowd.py")
    command = [sys.executable, str(script), broker.bootstrap, "crowded"]
    numbers = [str(sizes.crowd_consumers), str(sizes.crowd_records)]
    try:
        ended = subprocess.run([*command, *numbers], stdout=subprocess.PIPE, text=True, timeout=CROWD_DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        raise MeasureFailed(f"the crowd had not read everything within {CROWD_DEADLINE_S} s") from error
    if ended.returncode != 0:
        raise MeasureFailed(f"the crowd of consumers: {ended.stdout}")
    told = json.loads(ended.stdout)
    return {
        "seconds": told["seconds"],
        "errors": told["errors"],
        "read_twice": told["read_twice"],
        "peak_memory_mb": nodes.peak_memory_mb(),
    }


def _wait_for_leaders(broker: Broker, expected: int) -> None:
    until(lambda: broker.leaderless(expected) == 0, lambda: f"{broker.leaderless(expected)} partitions without leader")
