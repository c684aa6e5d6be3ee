"""librdkafka's mock cluster of three brokers in a process of its own: writes its addresses to a file, and stays.

Rule: the addresses appear at once and whole.
Usage: python mock_cluster.py FILE
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from confluent_kafka import Producer


def main() -> None:
    addresses = Path(sys.argv[1])
    # The cluster lives inside a client, and as long as it.
    client = Producer({"test.mock.num.brokers": 3, "log_level": 0})
    brokers = client.list_topics(timeout=10).brokers.values()
    unfinished = addresses.with_suffix(".unfinished")
    unfinished.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    unfinished.rename(addresses)
    threading.Event().wait()


if __name__ == "__main__":
    main()
