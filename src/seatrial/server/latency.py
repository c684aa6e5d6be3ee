"""How long things took, as histograms that cost a microsecond to feed.

Rule: bounds are fixed, so that histograms of different nodes can be added.  Knows nothing of what is measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip


class Histogram:
    """Counts by upper bound (seconds, the last one without bound), and the sum."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


class LatencyTable:
    """A histogram for each key, made at first use; at most 256 keys, the rest count as -1."""

    __slots__ = ("_histograms",)

    def __init__(self) -> None:
        self._histograms: dict[int, Histogram] = {}

    def observe(self, key: int, seconds: float) -> None:
        histogram = self._histograms.get(key)
        if histogram is None:
            key = key if len(self._histograms) < 256 else -1
            histogram = self._histograms.setdefault(key, Histogram())
        histogram.observe(seconds)

    @property
    def by_key(self) -> Mapping[int, Histogram]:
        return self._histograms
