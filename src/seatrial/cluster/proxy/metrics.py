"""`GET /metrics`: the counters in Prometheus's text format.

The two names of Toxiproxy's METRICS.md keep their names and labels; the rest is ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from seatrial.cluster.proxy.registry import Registry
from seatrial.cluster.proxy.toxic import STREAMS

LINK_LABELS = ["direction", "proxy", "listener", "upstream"]
TOXIC_FIELDS = ("connections_affected", "connections_reset", "bytes_held", "bytes_delayed", "bytes_dropped")


class _Counters(Collector):
    """Reads the proxies' counters when Prometheus asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        received = CounterMetricFamily("toxiproxy_proxy_received_bytes", "Bytes read from a side.", labels=LINK_LABELS)
        sent = CounterMetricFamily("toxiproxy_proxy_sent_bytes", "Bytes written to a side.", labels=LINK_LABELS)
        opened = GaugeMetricFamily("seatrial_proxy_connections", "Open connections.", labels=["proxy"])
        toxic_labels = ["proxy", "toxic"]
        toxics = {
            field: CounterMetricFamily(f"seatrial_proxy_toxic_{field}", "What a toxic has done.", labels=toxic_labels)
            for field in TOXIC_FIELDS
        }
        for proxy in self._registry.proxies.values():
            opened.add_metric([proxy.name], proxy.counters.connections_open_now)
            for stream in STREAMS:
                labels = [stream, proxy.name, proxy.listen, proxy.upstream]
                received.add_metric(labels, proxy.counters.stream(stream).bytes_received)
                sent.add_metric(labels, proxy.counters.stream(stream).bytes_sent)
            for name, counters in proxy.counters.toxics.items():
                for field, family in toxics.items():
                    family.add_metric([proxy.name, name], getattr(counters, field))
        yield from (received, sent, opened, *toxics.values())


def exposition(registry: Registry, *, runtime: bool) -> tuple[bytes, str]:
    """(body, content type); `runtime` adds the process's memory, CPU and descriptors."""
    collected = CollectorRegistry()
    collected.register(_Counters(registry))
    if runtime:
        ProcessCollector(registry=collected)
    return generate_latest(collected), CONTENT_TYPE_LATEST
