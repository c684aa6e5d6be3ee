"""Many partitions on three nodes: how long they take to be created, the first consumer group among them, idle CPU.

Each case on a cluster of its own, replication factor 3, default timers:
  create   500 topics of 3 partitions in one request, until every partition has a leader; and then, at once, the time
           from a first consumer's start to its assignment (the groups' own topic is made by that)
  idle     1,000 partitions: after they have fallen quiet, the CPU time (user and system, of the processes, so that a
           busy machine does not matter much) of each node over --seconds, as a share of one core; the first consumer's
           time; and the CPU time again with a group of one member that has nothing to read
Usage: python benchmarks/idle.py [--case create|idle|both] [--topics 500] [--partitions 1000] [--seconds 30]
    [--directory DIR] [--profile DIR]
With --profile each node runs under cProfile, which makes it several times slower, and leaves DIR/os-<node>.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from produce import cluster

DEADLINE_S = 300.0
SETTLE_S = 5.0  # idle groups fall quiet after 20 heartbeats, which is a second
LOOK_S = 0.1


def wait_for_nodes(admin: AdminClient) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if len(admin.list_topics(timeout=5).brokers) == 3:
                return
        except KafkaException:
            pass
        assert time.monotonic() < deadline, "the three nodes did not find each other"
        time.sleep(LOOK_S)


def create(admin: AdminClient, topics: int, partitions: int) -> tuple[float, float]:
    """Seconds until the answer, and until every partition has a leader."""
    begun = time.perf_counter()
    wanted = [NewTopic(f"t{number}", partitions, 3) for number in range(topics)]
    for created in admin.create_topics(wanted, operation_timeout=60, request_timeout=DEADLINE_S).values():
        created.result(DEADLINE_S)
    answered = time.perf_counter() - begun
    while leaderless := without_leader(admin, topics * partitions):
        assert time.perf_counter() - begun < DEADLINE_S, f"{leaderless} partitions without a leader"
        time.sleep(LOOK_S)
    return answered, time.perf_counter() - begun


def without_leader(admin: AdminClient, expected: int) -> int:
    """By the metadata of whichever node is asked."""
    listed = admin.list_topics(timeout=30).topics.values()
    return expected - sum(p.leader >= 0 for topic in listed for p in topic.partitions.values() if topic.error is None)


def first_group(bootstrap: str) -> tuple[float, Consumer]:
    """Seconds from a consumer's start to its assignment; it stays a member until it is closed."""
    assigned: list[float] = []
    begun = time.perf_counter()
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "first", "log_level": 0})
    consumer.subscribe(["t0"], on_assign=lambda *_: assigned.append(time.perf_counter() - begun))
    while not assigned:
        assert time.perf_counter() - begun < DEADLINE_S, "the first member has no assignment"
        consumer.poll(0.05)
    return assigned[0], consumer


def shares_of_a_core(processes: Sequence[psutil.Process], seconds: float) -> list[float]:
    """CPU time of each process over so many seconds, in percent of one core."""
    time.sleep(SETTLE_S)
    before = [process.cpu_times() for process in processes]
    begun = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - begun
    after = [process.cpu_times() for process in processes]
    return [100 * (b.user - a.user + b.system - a.system) / took for a, b in zip(before, after, strict=True)]


def create_case(bootstrap: str, topics: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wait_for_nodes(admin)
    answered, led = create(admin, topics, 3)
    print(f"create topics={topics} partitions=3: answered {answered:.1f} s  all led {led:.1f} s", flush=True)
    joined, consumer = first_group(bootstrap)
    consumer.close()
    print(f"create topics={topics} partitions=3: first consumer, at once: assigned after {joined:.1f} s", flush=True)


def idle_case(bootstrap: str, processes: Sequence[psutil.Process], partitions: int, seconds: float) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wait_for_nodes(admin)
    _, led = create(admin, partitions // 10, 10)
    print(f"idle partitions={partitions}: all led {led:.1f} s", flush=True)
    del admin  # it would ask for metadata now and then
    report(f"idle partitions={partitions} groups=0", shares_of_a_core(processes, seconds))
    joined, consumer = first_group(bootstrap)
    print(f"idle partitions={partitions}: first consumer, at rest: assigned after {joined:.1f} s", flush=True)
    report(f"idle partitions={partitions} groups=1", shares_of_a_core(processes, seconds))
    consumer.close()


def report(case: str, shares: Sequence[float]) -> None:
    each = "  ".join(f"{share:.1f}" for share in shares)
    print(f"{case}: CPU of each node, % of a core: {each}  mean {sum(shares) / len(shares):.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=("create", "idle", "both"), default="both")
    parser.add_argument("--topics", type=int, default=500)
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None, help="where to leave each node's cProfile output")
    options = parser.parse_args()
    for case in ("create", "idle") if options.case == "both" else (options.case,):
        with (
            tempfile.TemporaryDirectory(dir=options.directory) as directory,
            cluster(Path(directory), "fsync", options.profile) as (addresses, processes),
        ):
            bootstrap = ",".join(addresses)
            if case == "create":
                create_case(bootstrap, options.topics)
            else:
                idle_case(bootstrap, processes, options.partitions, options.seconds)


if __name__ == "__main__":
    main()
