"""What every measure asks of a peer through the same client: readiness, topics, leaders, filling.

Rule: whatever waits has a deadline and says what it last saw (MeasureFailed); no setting of the client differs between
peers.
Knows nothing of processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

RECORD: Final = os.urandom(1000)
REPLICAS: Final = 3
DEADLINE_S: Final = 120.0
LOOK_S: Final = 0.02
# A peer that is coming up, or a new leader, is tried again soon: the client's own patience is not what is measured.
EAGER: Final[Mapping[str, Any]] = {
    "log_level": 0,
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 50,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 20,
    "topic.metadata.refresh.sparse": True,
}
NOT_READY_YET: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    }
)


class MeasureFailed(Exception):
    """A measure came to no figure; the message says what was last seen."""


def until(
    condition: Callable[[], bool],
    last_seen: Callable[[], object],
    deadline_s: float = DEADLINE_S,
    look_s: float = LOOK_S,
) -> None:
    """Returns when the condition holds.  Raises MeasureFailed with `last_seen` when it does not in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise MeasureFailed(f"not within {deadline_s:.0f} s; last seen: {last_seen()}")
        time.sleep(look_s)


class Broker:
    """The peer as its clients see it."""

    def __init__(self, bootstrap: str, has_admin: bool) -> None:
        self.bootstrap = bootstrap
        self._has_admin = has_admin
        self._admin = AdminClient({"bootstrap.servers": bootstrap, **EAGER})

    def wait_for_nodes(self) -> None:
        """Until all three are in the metadata."""
        seen: list[object] = [None]

        def all_there() -> bool:
            try:
                brokers = list(self._admin.list_topics(timeout=5).brokers)
            except KafkaException as error:
                seen[0] = error
                return False
            seen[0] = brokers
            return len(brokers) == REPLICAS

        until(all_there, lambda: seen[0])

    def create_topics(self, names: list[str], partitions: int) -> None:
        """Ask for topics with three replicas, again while the peer is not ready, until all are granted."""
        if not self._has_admin:
            for name in names:
                self._admin.list_topics(name, timeout=5)
            return
        missing, last = list(names), [""]

        def granted() -> bool:
            wanted = [NewTopic(name, partitions, REPLICAS) for name in missing]
            answers = self._admin.create_topics(wanted, operation_timeout=DEADLINE_S, request_timeout=DEADLINE_S)
            for name, answer in answers.items():
                try:
                    answer.result(DEADLINE_S)
                    missing.remove(name)
                except KafkaException as error:
                    code = error.args[0].code()
                    if code == KafkaError.TOPIC_ALREADY_EXISTS:  # an answer was lost
                        missing.remove(name)
                    elif code not in NOT_READY_YET:
                        raise
                    last[0] = str(error)
            return not missing

        until(granted, lambda: last[0])

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """A topic on all three, every partition led and, where the peer tells, every replica in sync."""
        self.create_topics([name], partitions)
        self.wait_for_replicas(name)

    def wait_for_replicas(self, name: str) -> None:
        """Until every partition of the topic has its leader and three replicas in sync, and all nodes are known."""
        seen: list[object] = [None]

        def complete() -> bool:
            try:
                listed = self._admin.list_topics(name, timeout=5)
            except KafkaException as error:
                seen[0] = error
                return False
            partitions = listed.topics[name].partitions
            seen[0] = {number: (found.leader, found.isrs) for number, found in partitions.items()}
            led = bool(partitions) and all(found.leader >= 0 for found in partitions.values())
            return led and len(listed.brokers) == REPLICAS and all(len(p.isrs) == REPLICAS for p in partitions.values())

        until(complete, lambda: seen[0])

    def leaderless(self, expected: int) -> int:
        """How many of so many partitions have no leader, by the metadata of whichever node is asked."""
        topics = self._admin.list_topics(timeout=30).topics
        listed = [topic.partitions.values() for name, topic in topics.items() if not name.startswith("__")]
        return expected - sum(partition.leader >= 0 for partitions in listed for partition in partitions)

    def leader_of(self, name: str) -> int:
        """The node that leads the topic's partition 0."""
        return int(self._admin.list_topics(name, timeout=10).topics[name].partitions[0].leader)

    def fill(self, name: str, count: int, value: bytes, partitions: int = 1) -> None:
        """Records of one value, spread over the partitions in turn; each of them there once."""
        failed: list[object] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failed.append(error)

        settings = {"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "linger.ms": 20}
        producer = Producer({**EAGER, **settings, "batch.size": 1_000_000, "queue.buffering.max.messages": 100_000})
        for number in range(count):
            while True:
                try:
                    producer.produce(name, value, partition=number % partitions, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.01)
            if number % 1024 == 0:
                producer.poll(0)
        left = producer.flush(DEADLINE_S)
        if left or failed:
            raise MeasureFailed(f"filling {name}: {left} records not delivered, {len(failed)} refused: {failed[:1]}")
