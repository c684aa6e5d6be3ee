"""Our server and Apache Kafka side by side: same client, same topics, three nodes, replication 3, acks=all.

For each measure, rounds in turn (ours, Kafka, ours, Kafka, …), each on nodes and directories of its own; then medians,
ratios and aims in one table.  librdkafka's mock cluster stands beside them where it has what a measure needs: what the
client alone can reach.  Needs java, and mvn for the first run, which fetches Kafka's jars into the cache directory.
Usage: python benchmarks/kafka/run.py [--measure NAME ...] [--peer NAME ...] [--rounds 3] [--small] [--json]
Nothing survives the run: not when it fails, is interrupted, or is killed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from typing import Any

from client import MeasureFailed
from comparison import HEADER, Results
from confluent_kafka import KafkaException
from measures import MEASURES, Measure
from nodes import prepared
from peers import KAFKA_VERSION, PEERS, Peer
from sizes import SMALL, WHOLE, Sizes

from seatrial.cluster.errors import ClusterError


def once(measure: Measure, peer: Peer, sizes: Sizes, results: Results) -> None:
    """One round of one measure on one peer, into the results."""
    begun = time.monotonic()
    try:
        with prepared(peer, measure.durability) as nodes:
            try:
                figures = measure.run(nodes, sizes)
            except (MeasureFailed, KafkaException, ClusterError) as error:
                raise MeasureFailed(f"{error}\n{nodes.last_words()}") from error
    except (MeasureFailed, ClusterError) as error:
        results.fail(measure.name, peer.name, str(error))
        progress(f"{measure.name} {peer.name}: FAILED: {error}")
        return
    results.add(measure.name, peer.name, figures)
    told = "  ".join(f"{key}={value:.4g}" for key, value in figures.items())
    progress(f"{measure.name} {peer.name}: {told}  ({time.monotonic() - begun:.0f} s)")


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def available(names: list[str]) -> dict[str, Peer]:
    """The peers that can run here, ready to; the others are named with their reason."""
    found: dict[str, Peer] = {}
    for name in names:
        peer = PEERS[name]
        reason = peer.unavailable()
        if reason is not None:
            progress(f"{name} is left out: {reason}")
            continue
        peer.prepare()
        found[name] = peer
    return found


def circumstances_now(rounds: int) -> dict[str, str | float]:
    """What figures depend on beside the code: others' load on the machine makes them worth nothing."""
    return {
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "confluent-kafka": importlib.metadata.version("confluent-kafka"),
        "kafka": KAFKA_VERSION,
        "load_before": os.getloadavg()[0],
    }


def end_by_exception(number: int, _frame: Any) -> None:
    sys.exit(128 + number)


def main() -> int:
    names = [measure.name for measure in MEASURES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--peer", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--small", action="store_true", help="small sizes, to see that it runs; its figures say nothing"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every round instead of the table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least one")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_exception)
    peers, sizes, results = available(options.peer), SMALL if options.small else WHOLE, Results()
    circumstances = circumstances_now(options.rounds)
    measures = [measure for measure in MEASURES if measure.name in options.measure]
    if not options.json:
        print(HEADER, flush=True)
    for measure in measures:
        for _ in range(options.rounds):
            for name in measure.peers:
                if name in peers:
                    once(measure, peers[name], sizes, results)
        if not options.json:
            print(results.rows(measure), flush=True)
    circumstances["load_after"] = os.getloadavg()[0]
    if options.json:
        told = {"circumstances": circumstances, "figures": results.as_json(measures), "failures": results.failures}
        print(json.dumps(told, indent=1))
    else:
        print("\n" + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in circumstances.items()))
    for failure in results.failures:
        progress(f"FAILED: {failure}")
    return 1 if results.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
