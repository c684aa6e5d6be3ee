"""The three brokers that a client is tried on, and what can be seen of them without that client.

Rule: what a claim rests on is seen by another way than through the client under test: the nodes' metrics, their Raft
status, and the record batches as they went over the wire (Fetch version 4, read here by hand).
Knows nothing of any client.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import httpx
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec

T = TypeVar("T")
DEADLINE_S = 60.0
NODES = 3
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")  # by their numbers in a batch's attributes

_FETCH_REQUEST = struct.Struct(">hhih iiiib i")
_PARTITION_REQUEST = struct.Struct(">i iqi")
_BATCH_HEADER = struct.Struct(">qiibIhiqqqhii")


class Batch(NamedTuple):
    """What a stored batch says of itself."""

    codec: str
    producer_id: int  # -1 where its producer is not idempotent
    records: int


def until(look: Callable[[], T], wanted: Callable[[T], bool]) -> None:
    """Look again and again, until what is seen is what is wanted; fails with what was last seen."""
    end = time.monotonic() + DEADLINE_S
    while not wanted(seen := look()):
        assert time.monotonic() < end, f"not within {DEADLINE_S} s; last seen: {seen}"
        time.sleep(0.02)


class Brokers:
    """The cluster, asked and steered from a test's main thread (clients may run in others)."""

    def __init__(self, runner: asyncio.Runner, cluster: Cluster) -> None:
        self._runner = runner
        self._cluster = cluster
        self._topics = itertools.count()
        self.addresses = {node: cluster.addresses(node) for node in cluster.nodes}
        self.bootstrap = ",".join(address.kafka or "" for address in self.addresses.values())
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap})
        # One for all: each loads this machine's certificates.  It keeps no connection, for what is there may die.
        self._http = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=5, trust_env=False)

    def wait_until_all_are_known(self) -> None:
        """Until every node counts every node among those that are up: clients ask any of them."""

        def known() -> dict[int, int]:
            members = {
                node: self._http.get(f"{address.http}/api/v1/members").json()["members"]
                for node, address in self.addresses.items()
            }
            return {node: sum(member["alive"] for member in told) for node, told in members.items()}

        until(known, lambda seen: set(seen.values()) == {len(self.addresses)})

    def unused_topic(self) -> str:
        return f"topic-{next(self._topics)}"

    def create_topic(self, partitions: int = 1) -> str:
        """A new topic on all nodes, with a leader for each partition; its name."""
        name = self.unused_topic()
        self._admin.create_topics([NewTopic(name, partitions, NODES)])[name].result(DEADLINE_S)
        for partition in range(partitions):
            self.leader_of(name, partition)
        return name

    def fill(self, topic: str, records: Sequence[tuple[bytes, int]], partitions: int = 1) -> None:
        """Values and their timestamps (ms since 1970; 0: now), spread over the partitions in turn."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number, (value, timestamp_ms) in enumerate(records):
            producer.produce(topic, value, partition=number % partitions, timestamp=timestamp_ms)
        assert producer.flush(DEADLINE_S) == 0

    def preferred_leader(self, topic: str) -> int:
        """The first of the replicas of the topic's partition 0."""
        first: int = self._admin.list_topics(topic, DEADLINE_S).topics[topic].partitions[0].replicas[0]
        return first

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """The node that leads, as all running nodes agree."""
        group = f"{topic}/{partition}"
        leader: int = self._runner.run(self._cluster.wait_for_leader(DEADLINE_S, group=group))
        return leader

    def move_leadership(self, topic: str, to: int) -> None:
        """Of the topic's partition 0; asked again for as long as the node is not ready to take it."""
        path = f"/api/v1/raft/groups/{topic}/0/transfer"

        def asked() -> int:
            leader = self.leader_of(topic)
            if leader != to:
                url = f"{self.addresses[leader].http}{path}"
                self._http.post(url, params={"to": to})
            return leader

        until(asked, lambda leader: leader == to)

    def rack_of(self, node: int) -> str:
        return self.addresses[node].rack or ""

    def kill(self, node: int) -> None:
        self._runner.run(self._cluster.kill(node))

    def start(self, node: int) -> None:
        self._runner.run(self._cluster.start(node))

    def metric(self, node: int, name: str, topic: str, partition: int = 0) -> float:
        """One of a partition's numbers on a node; 0 where it has none."""
        text = self._http.get(f"{self.addresses[node].http}/metrics").text
        found = re.search(rf'^{name}{{partition="{partition}",topic="{topic}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def high_watermark(self, node: int, topic: str, partition: int = 0) -> int:
        return int(self.metric(node, "seatrial_kafka_high_watermark", topic, partition))

    def fetched_bytes(self, node: int, topic: str) -> int:
        """How much of the topic's partition 0 this node has served."""
        return int(self.metric(node, "seatrial_kafka_fetch_bytes_total", topic))

    def wait_for_records(self, topic: str, count: int) -> None:
        """Until the topic's partition 0 has so many committed records on every node."""

        def seen() -> dict[int, int]:
            return {node: self.high_watermark(node, topic) for node in self.addresses}

        until(seen, lambda marks: min(marks.values()) >= count)

    def stored_batches(self, topic: str) -> list[Batch]:
        """The batches of the topic's partition 0, as its leader sends them."""
        leader = self.addresses[self.leader_of(topic)].kafka or ""
        host, _, port = leader.rpartition(":")
        name = topic.encode()
        body = _FETCH_REQUEST.pack(1, 4, 0, -1, -1, 100, 1, 1 << 24, 0, 1) + struct.pack(">h", len(name)) + name
        body += _PARTITION_REQUEST.pack(1, 0, 0, 1 << 24)
        with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
        # correlation id, throttle time, one topic with its name, one partition: number, error, two offsets, no aborted
        records = answer[4 + 4 + 4 + 2 + len(name) + 4 + 4 + 2 + 8 + 8 :]
        aborted, length = struct.unpack_from(">ii", records)
        assert aborted <= 0
        return list(_batches(records[8 : 8 + length]))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        received = connection.recv(count - len(data))
        assert received, "the broker closed the connection"
        data += received
    return data


def _batches(data: bytes) -> Iterator[Batch]:
    position = 0
    while position < len(data):
        header = _BATCH_HEADER.unpack_from(data, position)
        yield Batch(codec=CODECS[header[5] & 7], producer_id=header[9], records=header[12])
        position += 12 + header[1]


@contextmanager
def started_brokers() -> Iterator[Brokers]:
    """A cluster for as long as the context lasts; its loop runs while something is asked of it."""
    spec = ClusterSpec(nodes=NODES, links=False, start_timeout=60.0)
    with asyncio.Runner() as runner:
        context = spawn_cluster(spec)
        cluster = runner.run(context.__aenter__())
        try:
            brokers = Brokers(runner, cluster)
            brokers.wait_until_all_are_known()
            yield brokers
        finally:
            runner.run(context.__aexit__(None, None, None))
