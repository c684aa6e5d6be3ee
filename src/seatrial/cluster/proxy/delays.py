"""Toxics that keep bytes for a while and lose none.

Toxiproxy's: latency, bandwidth, slow_close, slicer.  Ours: hold (a cut that TCP survives), clog (hold, then a
burst), stall (what packet loss looks like above TCP).  Times are milliseconds unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from seatrial.cluster.proxy.stages import Item, QueueStage


class Latency(QueueStage):
    """`latency` +/- `jitter`.  Order is kept: a piece with little jitter waits for the one before it."""

    # The product of 100 MB/s and 0.6 s: below that, latency must not limit throughput.
    buffered_max = 64 * 1024 * 1024

    def due(self, item: Item, previous: float) -> float:
        attributes = self.toxic.attributes
        jitter = max(0, attributes["jitter"]) * (2 * item.draw - 1)
        return max(previous, item.arrived + max(0.0, attributes["latency"] + jitter) / 1000)


class Bandwidth(QueueStage):
    """At most `rate` KB (1,000 bytes) a second.  A rate of 0 lets nothing through, as Toxiproxy's does in
    effect.
    """

    buffered_max = 64 * 1024

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Pieces of a tenth of a second: at a low rate bytes trickle rather than come in one lump."""
        size = max(1, int(self.toxic.attributes["rate"] * 100))
        if size == 1 or len(data) <= size:
            yield data
        else:
            for start in range(0, len(data), size):
                yield data[start : start + size]

    def due(self, item: Item, previous: float) -> float:
        if item.data is None:
            return previous
        rate = self.toxic.attributes["rate"]
        return max(previous, item.arrived) + item.size / (rate * 1000) if rate > 0 else math.inf


class SlowClose(QueueStage):
    """The end of the stream comes `delay` later; bytes are not delayed."""

    def due(self, item: Item, previous: float) -> float:
        return item.arrived + self.milliseconds("delay") if item.data is None else previous


class Slicer(QueueStage):
    """Cuts what comes into pieces of `average_size` +/- `size_variation` bytes, `delay` microseconds apart.

    Each piece gets a turn of the event loop of its own, so that pieces do not meet again in one write.  With
    an average size of 0 (where Toxiproxy recurses without end) nothing is cut.
    """

    passes_directly = False
    buffered_max = 64 * 1024

    def pieces(self, data: bytes) -> Iterator[bytes]:
        average = int(self.toxic.attributes["average_size"])
        variation = int(min(max(0, self.toxic.attributes["size_variation"]), max(0, average - 1)))
        start = 0
        while start < len(data):
            size = average + self.rng.integer(-variation, variation) if average > 0 else len(data)
            yield data[start : start + size]
            start += size

    def due(self, item: Item, previous: float) -> float:
        delay = max(0.0, self.toxic.attributes["delay"] / 1_000_000)
        return max(item.arrived, previous + delay) if item.data is not None else max(item.arrived, previous)


class Hold(QueueStage):
    """A cut: keeps all bytes and the end, delivers them in order when it is removed, as TCP does when a cut
    heals.

    Connections are still accepted; with a hold on their upstream stream they reach the server only after it.
    """

    counter = "bytes_held"
    holds_connects = True

    def due(self, item: Item, previous: float) -> float:
        return math.inf


class Clog(QueueStage):
    """Keeps everything for `duration`, then lets it go in one burst; again every `interval` (0: only once).

    Counted from when the toxic met the connection.
    """

    counter = "bytes_held"

    def due(self, item: Item, previous: float) -> float:
        duration, interval = self.milliseconds("duration"), self.milliseconds("interval")
        elapsed = item.arrived - self.started
        begun = elapsed // interval * interval if interval > 0 else 0.0
        return max(item.arrived, self.started + begun + duration)


class Stall(QueueStage):
    """What a lost packet does above TCP: with `probability` for each 1,448-byte segment the stream stops for
    `duration`.

    Bytes behind it wait, none are lost.  200 ms is Linux's smallest retransmission time-out.
    """

    SEGMENT_BYTES = 1448

    def due(self, item: Item, previous: float) -> float:
        probability = min(1.0, max(0.0, float(self.toxic.attributes["probability"])))
        segments = max(1, math.ceil(item.size / self.SEGMENT_BYTES))
        lost = item.draw < 1 - (1 - probability) ** segments
        return max(previous, item.arrived + (self.milliseconds("duration") if lost else 0.0))
