"""Evidence: what a proxy and each of its toxics have done to real bytes and connections.

Rule: counters only grow (but for the `_now` gauges), and a toxic's survive its removal, so that whoever
injected a fault can take the difference of two readings and say whether it bit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class StreamCounters:
    """Bytes in one direction of one proxy, over all connections."""

    bytes_received: int = 0
    bytes_sent: int = 0
    bytes_dropped: int = 0


@dataclass(slots=True)
class ToxicCounters:
    """What toxics of one name have done on one proxy.

    `connections_matched` counts connections the toxic was put on (its toxicity was rolled, its caller
    agreed); `connections_affected` those where it then did something: kept, delayed, dropped, changed or
    closed.
    """

    connections_matched: int = 0
    connections_affected: int = 0
    connections_closed: int = 0
    connections_reset: int = 0
    bytes_seen: int = 0
    bytes_held: int = 0
    bytes_delayed: int = 0
    bytes_dropped: int = 0
    bits_flipped: int = 0
    ends_held: int = 0
    bytes_kept_now: int = 0


@dataclass(slots=True)
class ProxyCounters:
    """Everything one proxy has done since it was created; restarts of the proxy do not clear it."""

    connections_accepted: int = 0
    connections_open_now: int = 0
    connections_refused: int = 0
    connections_abandoned: int = 0
    connections_reset: int = 0
    callers_unknown: int = 0
    upstream: StreamCounters = field(default_factory=StreamCounters)
    downstream: StreamCounters = field(default_factory=StreamCounters)
    callers: Counter[str] = field(default_factory=Counter)
    toxics: dict[str, ToxicCounters] = field(default_factory=dict)

    def stream(self, name: str) -> StreamCounters:
        return self.upstream if name == "upstream" else self.downstream

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "callers": {name: n for name, n in sorted(self.callers.items()) if n}}
