"""A hundred consumers of one group in one process: reads a topic until every record has been read, then says how long.

Prints one JSON object: seconds from the first subscription, errors that clients were told, records read more than once
(a rebalance may do that, by Kafka's own rules).
Usage: python crowd.py BOOTSTRAP TOPIC CONSUMERS RECORDS
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Final

from confluent_kafka import Consumer

DEADLINE_S: Final = 300.0


def main() -> None:
    parent = os.getppid()
    bootstrap, topic = sys.argv[1:3]
    consumers, records = map(int, sys.argv[3:])
    # The client's own patience: a hundred eager ones are a storm, and nobody runs them so.
    settings = {"bootstrap.servers": bootstrap, "group.id": "crowd", "auto.offset.reset": "earliest", "log_level": 0}
    per_partition = -(-records // consumers)
    seen = [bytearray(per_partition) for _ in range(consumers)]
    read, twice, errors = 0, 0, 0
    begun = time.perf_counter()
    group = [Consumer(settings) for _ in range(consumers)]
    for consumer in group:
        consumer.subscribe([topic])
    while read < records:
        if time.perf_counter() - begun > DEADLINE_S or os.getppid() != parent:
            members = sum(bool(consumer.assignment()) for consumer in group)
            print(
                f"{read} of {records} records read after {DEADLINE_S:.0f} s by {members} of {consumers} consumers that"
                f" have partitions, {errors} errors",
                flush=True,
            )
            os._exit(1)
        heard = False
        for consumer in group:
            for message in consumer.consume(1_000, 0):
                heard = True
                partition, offset = message.partition(), message.offset()
                if message.error() is not None or partition is None or offset is None:
                    errors += 1
                    print(f"crowd: {message.error()}", file=sys.stderr, flush=True)
                elif seen[partition][offset]:
                    twice += 1
                else:
                    seen[partition][offset] = 1
                    read += 1
        if not heard:
            time.sleep(0.005)
    print(json.dumps({"seconds": time.perf_counter() - begun, "errors": errors, "read_twice": twice}), flush=True)
    os._exit(0)  # the group need not rebalance a hundred times more


if __name__ == "__main__":
    main()
