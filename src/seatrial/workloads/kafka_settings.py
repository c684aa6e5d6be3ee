"""librdkafka's settings for a cluster whose leaders die and pause: how long a client may wait, and for what.

Rule: an operation ends within about 2 s, and a client notices a new leader within about 1 s of it.
Source: librdkafka's CONFIGURATION.md (the names and their limits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatrial.history import Json
from seatrial.workloads.base import Endpoint, Unsupported

OPERATION_MS = 1500  # an append is unknown after this
POLL_S = 0.25  # a poll that finds nothing returns after this


def bootstrap(endpoints: Sequence[Endpoint]) -> str:
    """The bootstrap list of every node that speaks Kafka."""
    return ",".join(endpoint.kafka for endpoint in endpoints if endpoint.kafka is not None)


def speakers(endpoints: Sequence[Endpoint], workload: str) -> list[Endpoint]:
    """The nodes that speak Kafka.  Raises Unsupported where none does, in the name of the workload that needs it."""
    speaking = [endpoint for endpoint in endpoints if endpoint.kafka is not None]
    if not speaking:
        raise Unsupported(f"workload {workload} needs Kafka, and no node of this system has a Kafka address")
    return speaking


def split_key(key: str | None) -> tuple[str, int]:
    """("log", 2) from "log/2"."""
    assert key is not None, "an operation on a log names its partition"
    topic, _, partition = key.rpartition("/")
    return topic, int(partition)


def admin_settings(servers: str) -> dict[str, Json]:
    """For creating topics and asking for metadata."""
    return _shared(servers, "seatrial-admin")


def _shared(servers: str, client_id: str) -> dict[str, Json]:
    return {
        "bootstrap.servers": servers,
        "client.id": client_id,
        "broker.address.family": "v4",
        "socket.timeout.ms": 1000,
        "socket.connection.setup.timeout.ms": 1000,  # its minimum
        "socket.nagle.disable": True,
        "api.version.request.timeout.ms": 1000,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "retry.backoff.ms": 20,
        "retry.backoff.max.ms": 200,
        "topic.metadata.refresh.fast.interval.ms": 100,
        # A paused leader closes no connection: only asking again tells that another one was elected.
        "topic.metadata.refresh.interval.ms": 500,
        "metadata.recovery.strategy": "rebootstrap",
        # librdkafka logs every lost connection to stderr; errors reach us through each operation instead.
        "log_level": 0,
    }


def producer_settings(servers: str, client_id: str, *, idempotent: bool) -> dict[str, Json]:
    """An appender: idempotent with librdkafka's own retries, or plain with none."""
    settings = _shared(servers, client_id) | {
        "acks": "all",
        "linger.ms": 0,
        "message.timeout.ms": OPERATION_MS,
        "request.timeout.ms": 1000,
        "enable.idempotence": idempotent,
    }
    if not idempotent:
        settings |= {"message.send.max.retries": 0, "max.in.flight.requests.per.connection": 1}
    return settings


def consumer_settings(
    servers: str, client_id: str, *, rack: str | None = None, statistics: Callable[[str], None] | None = None
) -> dict[str, Json]:
    """A reader of assigned partitions: no group is joined, no offset committed, no offset reset silently.

    `rack`: lets the leader name a replica in that rack to read from (KIP-392).
    """
    settings = _shared(servers, client_id) | {
        "group.id": client_id,  # required by the library, never used
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "isolation.level": "read_uncommitted",
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 20,
        "fetch.queue.backoff.ms": 20,
        "check.crcs": True,
    }
    if rack is not None:
        settings["client.rack"] = rack
    if statistics is not None:
        settings |= {"statistics.interval.ms": 50, "stats_cb": statistics}
    return settings
