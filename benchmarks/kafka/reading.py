"""Measures of reading: throughput from the leader and from three replicas at once, and what a follower adds in delay.

Rule: readers are processes of their own (reader.py), so that no interpreter holds up another; that a reader was served
by the node that it was meant to be is what the client itself says, and if not, the measure fails.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import DEADLINE_S, EAGER, RECORD, Broker, MeasureFailed
from confluent_kafka import Producer
from nodes import Nodes
from producing import started
from reader import END, MARK, SENT_AT
from sizes import Sizes

from seatrial.cluster.drivers.own import rack_of

TOPIC = "read"
DELAY_PACE_S = 0.005
MOVE_S = 2.0  # within which a reader that was told of a nearer replica has gone there


class ReaderProcess:
    """One reader, and what it says line by line."""

    def __init__(self, *arguments: str) -> None:
        script = Path(__file__).with_name("reader.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def line(self) -> str:
        """The next line that it prints.  Raises MeasureFailed when none comes."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], DEADLINE_S)[0]:
            raise MeasureFailed(f"a reader said nothing for {DEADLINE_S:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise MeasureFailed(f"a reader ended with status {self.process.wait(10)}")
        return line.strip()

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, float]:
        answer: dict[str, float] = json.loads(self.line())
        return answer


@contextmanager
def readers(arguments: Sequence[Sequence[str]]) -> Iterator[list[ReaderProcess]]:
    """One for each tuple of arguments, all of them at it; none outlives the context."""
    running = [ReaderProcess(*each) for each in arguments]
    try:
        for reader in running:
            if (said := reader.line()) != "reading":
                raise MeasureFailed(f"a reader said {said!r}")
        yield running
    finally:
        for reader in running:
            reader.process.kill()
        for reader in running:
            reader.process.communicate()


def throughput(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """Three consumers of all of one partition: first all from the leader, then each from a replica of its own."""
    broker = started(nodes)
    broker.create_topic(TOPIC)
    broker.fill(TOPIC, sizes.filled_records, RECORD)
    leader = broker.leader_of(TOPIC)
    alone = _read(nodes, broker, sizes, {leader: 3})
    spread = _read(nodes, broker, sizes, dict.fromkeys(nodes.nodes, 1))
    return {
        "leader_mb_s": alone["mb_s"],
        "replicas_mb_s": spread["mb_s"],
        "leader_cpu_percent": 100 * spread["leader_cpu_ms_per_mb"] / alone["leader_cpu_ms_per_mb"],
        "cpu_ms_per_mb": alone["cpu_ms_per_mb"],
        "replicas_cpu_ms_per_mb": spread["cpu_ms_per_mb"],
    }


def _read(nodes: Nodes, broker: Broker, sizes: Sizes, wanted: dict[int, int]) -> dict[str, float]:
    """So many readers at each node for the given time."""
    places = [node for node, count in wanted.items() for _ in range(count)]
    end = str(sizes.filled_records)
    with readers([("rate", broker.bootstrap, TOPIC, rack_of(node), end) for node in places]) as running:
        time.sleep(max(sizes.warm_up_s, MOVE_S))
        leader = broker.leader_of(TOPIC)
        cpu = nodes.cpu_seconds()
        for reader in running:
            reader.say(str(sizes.seconds))
        answers = [reader.answer() for reader in running]
        spent = {node: after - cpu[node] for node, after in nodes.cpu_seconds().items()}
    _check_brokers(answers, places)
    megabytes = sum(answer["bytes"] for answer in answers) / 1e6
    return {
        "mb_s": sum(answer["bytes"] / answer["seconds"] for answer in answers) / 1e6,
        "cpu_ms_per_mb": sum(spent.values()) / megabytes * 1e3,
        "leader_cpu_ms_per_mb": spent[leader] / megabytes * 1e3,
    }


def follower_delay(nodes: Nodes, sizes: Sizes) -> dict[str, float]:
    """200 records a second, read at the leader and at a follower at once: from `produce` to the consumer's hand."""
    broker = started(nodes)
    broker.create_topic(TOPIC)
    leader = broker.leader_of(TOPIC)
    follower = next(node for node in nodes.nodes if node != leader)
    producer = Producer({**EAGER, "bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 0})
    refused: list[Any] = []

    def send(value: bytes) -> None:
        producer.produce(
            TOPIC, value, partition=0, on_delivery=lambda error, _message: refused.append(error) if error else None
        )
        producer.poll(0)

    send(b"first")
    places = [leader, follower]
    with readers([("delay", broker.bootstrap, TOPIC, rack_of(node)) for node in places]) as running:
        # Records without a time warm everything up, and give the follower's reader the occasion to move there.
        for begun in (time.monotonic(), None):
            length = max(sizes.warm_up_s, MOVE_S) if begun is not None else sizes.seconds
            for _ in range(int(length / DELAY_PACE_S)):
                send(b"warm-up" if begun is not None else SENT_AT.pack(MARK, time.monotonic_ns()))
                time.sleep(DELAY_PACE_S)
        send(END)
        if producer.flush(DEADLINE_S) or refused:
            raise MeasureFailed(f"records were not acknowledged: {refused[:1]}")
        at_leader, at_follower = (reader.answer() for reader in running)
    _check_brokers([at_leader, at_follower], places)
    return {
        "leader_p99_ms": at_leader["p99_ms"],
        "follower_p99_ms": at_follower["p99_ms"],
        "added_p50_ms": at_follower["p50_ms"] - at_leader["p50_ms"],
        "added_p99_ms": at_follower["p99_ms"] - at_leader["p99_ms"],
    }


def _check_brokers(answers: Sequence[dict[str, float]], places: Sequence[int]) -> None:
    served = [int(answer["broker"]) for answer in answers]
    if served != list(places):
        raise MeasureFailed(f"readers meant for nodes {list(places)} were served by {served}")
