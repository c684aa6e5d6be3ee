"""One consumer in a process of its own, told what to do by its standard input, in one of two ways.

rate   reads partition 0 from its first offset to END and again from the first, says "reading" once it is at it, and on
       a line "SECONDS" counts the bytes that arrive in so many seconds from then
delay  reads partition 0 from its first offset, says "reading" at the first record, and takes for every record that
       carries a time of sending how long ago that was, until a record "end"

Both print one JSON object at the end, with the broker that the client says it last fetched from, and end when their
standard input does, so that none survives its parent.
Usage: python reader.py rate|delay BOOTSTRAP TOPIC RACK [END]
"""

from __future__ import annotations

import json
import os
import select
import statistics
import struct
import sys
import threading
import time
from typing import Any, Final

from client import EAGER
from confluent_kafka import Consumer, TopicPartition

SENT_AT: Final = struct.Struct(">8sq")  # this mark and the monotonic clock, which is one for all processes
MARK: Final = b"sent at:"
END: Final = b"end"


class Reader:
    """A consumer assigned to partition 0, and the broker that serves it."""

    def __init__(self, bootstrap: str, topic: str, rack: str) -> None:
        self.broker = -1
        self._topic = topic
        settings = {"bootstrap.servers": bootstrap, "group.id": f"reader-{os.getpid()}", "enable.auto.commit": False}
        self._consumer = Consumer(
            {
                **EAGER,
                **settings,
                **({"client.rack": rack} if rack else {}),
                "statistics.interval.ms": 200,
                "stats_cb": self._look,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])

    def begin_again(self) -> None:
        self._consumer.seek(TopicPartition(self._topic, 0, 0))

    def read(self, most: int, timeout_s: float) -> list[Any]:
        messages: list[Any] = self._consumer.consume(most, timeout_s)
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"reader: {message.error()}")
        return messages

    def _look(self, told: str) -> None:
        topics = json.loads(told)["topics"]
        if self._topic in topics and "0" in topics[self._topic]["partitions"]:
            self.broker = topics[self._topic]["partitions"]["0"]["broker"]


def rate(reader: Reader, end: int) -> dict[str, float]:
    """Bytes in the seconds that a line on standard input asks for."""
    count, until_s, begun, said = 0, 0.0, 0.0, False
    while True:
        messages = reader.read(2_000, 0.05)
        now = time.monotonic()
        if messages and not said:
            said = True
            print("reading", flush=True)
        if until_s:
            count += sum(map(len, messages))
            if now >= until_s:
                return {"bytes": count, "seconds": now - begun, "broker": reader.broker}
        elif select.select([sys.stdin], [], [], 0)[0]:
            begun, until_s = now, now + float(sys.stdin.readline() or _gone())
        if messages and messages[-1].offset() >= end - 1:
            reader.begin_again()


def delay(reader: Reader) -> dict[str, float]:
    """From a record's sending to its arrival, in milliseconds."""
    took: list[float] = []
    said = False
    while True:
        for message in reader.read(1, 0.2):  # `consume` waits until it has as many as it was asked for
            now = time.monotonic_ns()
            value = message.value()
            if value == END:
                cuts = statistics.quantiles(took, n=100)
                return {"p50_ms": cuts[49], "p99_ms": cuts[98], "broker": reader.broker}
            if value.startswith(MARK):
                took.append((now - SENT_AT.unpack_from(value)[1]) / 1e6)
            if not said:
                said = True
                print("reading", flush=True)


def _gone() -> str:
    raise SystemExit("reader: its parent is gone")


def _end_with_parent() -> None:
    """For the way that takes nothing from standard input."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    mode, bootstrap, topic, rack, *rest = sys.argv[1:]
    reader = Reader(bootstrap, topic, rack)
    if mode == "rate":
        answer = rate(reader, int(rest[0]))
    else:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        answer = delay(reader)
    print(json.dumps(answer), flush=True)
    os._exit(0)  # nothing is committed, so there is nothing to close for


if __name__ == "__main__":
    main()
