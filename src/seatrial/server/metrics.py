"""What Prometheus is told; gathered when it asks, so that the hot path only counts.

Rule: the names are part of the interface (Kafka's and Redpanda's meanings where one exists).
Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from seatrial.server.disk_room import DiskState
from seatrial.server.latency import BOUNDS_S, Histogram

if TYPE_CHECKING:
    from seatrial.server.node import Node


class NodeCollector(Collector):
    """Reads the node's counters and states."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        yield from self._groups()
        yield from self._lag()
        yield from self._partitions()
        yield from self._transport()
        yield from self._requests()
        yield from self._clients()
        yield from self._disk()

    def _groups(self) -> Iterator[Metric]:
        names = {
            "term": "Raft term",
            "is_leader": "1 where this node leads the group",
            "commit_index": "Raft commit index",
            "last_applied": "index of the last entry applied to the state machine",
        }
        gauges = {
            name: GaugeMetricFamily(f"seatrial_raft_{name}", text, labels=["group"]) for name, text in names.items()
        }
        for replica in self._node.multiraft.replicas.values():
            values = {
                "term": replica.node.term,
                "is_leader": int(replica.node.is_leader),
                "commit_index": replica.node.commit_index,
                "last_applied": replica.last_applied,
            }
            for name, value in values.items():
                gauges[name].add_metric([replica.name], value)
        yield from gauges.values()
        changes = CounterMetricFamily("seatrial_raft_role_changes", "changes of role, term or leader seen here")
        changes.add_metric([], self._node.broker.role_changes_seen)
        yield changes

    def _lag(self) -> Iterator[Metric]:
        labels = ["topic", "partition", "follower"]
        offsets = GaugeMetricFamily("seatrial_raft_follower_lag_offsets", "records it lacks", labels=labels)
        seconds = GaugeMetricFamily("seatrial_raft_follower_lag_seconds", "age of what a follower has", labels=labels)
        now_us = self._node.multiraft.now_us()
        for hosted in self._node.broker.partitions():
            if hosted.is_leader:
                for peer, lag in sorted(hosted.follower_lag(now_us).items()):
                    values = [hosted.topic, str(hosted.partition), str(peer)]
                    offsets.add_metric(values, lag.offsets)
                    seconds.add_metric(values, lag.seconds)
        yield offsets
        yield seconds

    def _partitions(self) -> Iterator[Metric]:
        labels = ["topic", "partition"]
        produced = CounterMetricFamily("seatrial_kafka_produce_bytes", "record batches taken", labels=labels)
        fetched = CounterMetricFamily("seatrial_kafka_fetch_bytes", "record batches read", labels=labels)
        watermark = GaugeMetricFamily("seatrial_kafka_high_watermark", "next offset to be committed", labels=labels)
        for hosted in self._node.broker.partitions():
            values = [hosted.topic, str(hosted.partition)]
            produced.add_metric(values, hosted.appended_bytes)
            fetched.add_metric(values, hosted.read_bytes)
            watermark.add_metric(values, hosted.high_watermark)
        yield from (produced, fetched, watermark)

    def _transport(self) -> Iterator[Metric]:
        sent = CounterMetricFamily("seatrial_transport_sent_bytes", "to a peer", labels=["peer"])
        received = CounterMetricFamily("seatrial_transport_received_bytes", "from a peer", labels=["peer"])
        dropped = CounterMetricFamily("seatrial_transport_dropped_messages", "not sent", labels=["peer"])
        connected = GaugeMetricFamily("seatrial_transport_connected", "1 while connected", labels=["peer"])
        for peer, status in sorted(self._node.multiraft.transport.peers().items()):
            sent.add_metric([str(peer)], status.bytes_sent)
            received.add_metric([str(peer)], status.bytes_received)
            dropped.add_metric([str(peer)], status.messages_dropped)
            connected.add_metric([str(peer)], int(status.connected))
        yield from (sent, received, dropped, connected)

    def _requests(self) -> Iterator[Metric]:
        listener = self._node.listener
        received = CounterMetricFamily("seatrial_kafka_received_bytes", "requests, frames whole")
        received.add_metric([], listener.received_bytes)
        sent = CounterMetricFamily("seatrial_kafka_sent_bytes", "responses, frames whole")
        sent.add_metric([], listener.sent_bytes)
        latency = HistogramMetricFamily(
            "seatrial_kafka_request_latency_seconds", "request parsed to response written", labels=["api_key"]
        )
        for api_key, histogram in sorted(listener.latencies.by_key.items()):
            latency.add_metric([str(api_key)], buckets_of(histogram), histogram.sum_s)
        sync = HistogramMetricFamily("seatrial_storage_sync_latency_seconds", "one file made durable")
        sync.add_metric([], buckets_of(self._node.files.sync_latency), self._node.files.sync_latency.sum_s)
        yield from (received, sent, latency, sync)

    def _disk(self) -> Iterator[Metric]:
        room = self._node.room
        held = CounterMetricFamily(
            "seatrial_raft_held_appends", "appends whose records were not taken, for want of room"
        )
        held.add_metric([], room.appends_held)
        yield held
        if room.disk is not None:
            free = GaugeMetricFamily("seatrial_disk_free_bytes", "of the data directory's disk, when last asked")
            free.add_metric([], room.disk.free_bytes)
            state = GaugeMetricFamily("seatrial_disk_state", "1 for the state that it is in", labels=["state"])
            for one in DiskState:
                state.add_metric([str(one)], int(room.disk.state is one))
            yield from (free, state)

    def _clients(self) -> Iterator[Metric]:
        for name, clients in (("kafka", self._node.listener.clients), ("http", self._node.http)):
            connections = GaugeMetricFamily(f"seatrial_{name}_connections", "open client connections")
            connections.add_metric([], len(clients.open))
            refused = CounterMetricFamily(f"seatrial_{name}_refused_connections", "closed for what the client did")
            refused.add_metric([], clients.refused)
            turned_away = CounterMetricFamily(
                f"seatrial_{name}_turned_away_connections", "closed, for there were too many"
            )
            turned_away.add_metric([], clients.turned_away)
            yield from (connections, refused, turned_away)


def buckets_of(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    total = 0
    buckets = []
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def metrics_text(node: Node) -> bytes:
    """The exposition format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    return generate_latest(registry)
