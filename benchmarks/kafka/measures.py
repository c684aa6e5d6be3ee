"""What is measured, on which peers, and what the figures are to be: issue's table as data.

Rule: a figure's aim compares our median with Kafka's of the same rounds, or stands alone as a limit of ours.
Knows nothing of how a measure is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import many
import producing
import reading
from nodes import Nodes
from sizes import Sizes

BOTH: Final = ("seatrial", "Kafka")
ALL: Final = ("seatrial", "Kafka", "mock")


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound for our median: `times` Kafka's, or the number itself where there is nothing to compare with."""

    is_floor: bool
    bound: float
    of_kafka: bool

    def text(self) -> str:
        sign = "≥" if self.is_floor else "≤"
        return f"{sign} {self.bound:.2g}{' × Kafka' if self.of_kafka else ''}"

    def is_met(self, ours: float, kafka: float | None) -> bool | None:
        """None where Kafka's figure is needed and missing."""
        if self.of_kafka and kafka is None:
            return None
        bound = self.bound * kafka if self.of_kafka and kafka is not None else self.bound
        return ours >= bound if self.is_floor else ours <= bound


def at_least(bound: float) -> Aim:
    return Aim(True, bound, True)


def at_most(bound: float) -> Aim:
    return Aim(False, bound, True)


def limit(bound: float) -> Aim:
    return Aim(False, bound, False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a measure: its key in what the measure returns, what it is called, its aim if it has one."""

    key: str
    title: str
    aim: Aim | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    title: str
    run: Callable[[Nodes, Sizes], dict[str, float]]
    figures: tuple[Figure, ...]
    durability: str = "os"
    peers: tuple[str, ...] = BOTH


_PRODUCE = (Figure("p99_ms", "p99 of a delivery, ms"), Figure("cpu_ms_per_mb", "CPU of the three, ms/MB"))
_LATENCY = (Figure("p50_ms", "p50, ms"), Figure("cores", "CPU of the three, cores"))

MEASURES: Final = (
    Measure(
        "produce",
        "produce, 1 KB records, 64 KB batches, page cache",
        producing.throughput,
        (Figure("mb_s", "MB/s", at_least(1)), *_PRODUCE),
        peers=ALL,
    ),
    Measure(
        "produce-fsync",
        "the same, fsync before acknowledging",
        producing.throughput,
        (Figure("mb_s", "MB/s", at_least(2)), *_PRODUCE),
        durability="fsync",
    ),
    Measure(
        "latency",
        "one record at 1,000 records/s, page cache",
        producing.latency,
        (Figure("p99_ms", "p99, ms", at_most(0.5)), *_LATENCY),
        peers=ALL,
    ),
    Measure(
        "latency-fsync",
        "the same, fsync before acknowledging",
        producing.latency,
        (Figure("p99_ms", "p99, ms"), *_LATENCY),
        durability="fsync",
    ),
    Measure(
        "consume",
        "three consumers of one partition",
        reading.throughput,
        (
            Figure("leader_mb_s", "all from the leader, MB/s", at_least(1)),
            Figure("replicas_mb_s", "each from a replica of its own, MB/s", at_least(1)),
            Figure("leader_cpu_percent", "CPU of the leader a MB then, % of leader-only", limit(40)),
            Figure("cpu_ms_per_mb", "CPU of the three, leader-only, ms/MB"),
            Figure("replicas_cpu_ms_per_mb", "CPU of the three, from replicas, ms/MB"),
        ),
    ),
    Measure(
        "follower-delay",
        "from produce to consumer at 200 records/s",
        reading.follower_delay,
        (
            Figure("added_p99_ms", "added by a follower at p99, ms", limit(10)),
            Figure("added_p50_ms", "added at p50, ms"),
            Figure("leader_p99_ms", "p99 at the leader, ms"),
            Figure("follower_p99_ms", "p99 at the follower, ms"),
        ),
    ),
    Measure(
        "start",
        "spawn of three nodes",
        producing.start,
        (
            Figure("seconds", "to the first acknowledged record, s", at_most(0.1)),
            Figure("memory_mb", "memory of the three, MB", at_most(0.2)),
        ),
        peers=ALL,
    ),
    Measure(
        "failover",
        "leader killed to next acknowledged record",
        producing.failover,
        (Figure("median_s", "median, s", at_most(1 / 3)), Figure("longest_s", "longest, s")),
    ),
    Measure(
        "idle",
        "1,000 partitions idle",
        many.idle,
        (
            Figure("percent_of_core", "CPU of a node, % of a core", limit(5)),
            Figure("memory_mb", "memory of the three, MB"),
        ),
    ),
    Measure(
        "create",
        "500 topics × 3 partitions created at once",
        many.create,
        (Figure("led_s", "all led, s", limit(30)), Figure("taking_records_s", "each has taken a record, s", limit(30))),
    ),
    Measure(
        "crowd",
        "1 M records of 100 B read by a group of 100 consumers",
        many.crowd,
        (
            Figure("seconds", "all read, s"),
            Figure("errors", "errors", limit(0)),
            Figure("read_twice", "records read twice"),
            Figure("peak_memory_mb", "peak memory of the three, MB"),
        ),
    ),
)
