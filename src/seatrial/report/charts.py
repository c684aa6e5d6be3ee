"""Sums operations up into bins of time, and draws the bins: throughput, latency, and a strip per kind of operation.

Rule: the size of what is drawn depends on the number of bins, never on the number of operations.  Drawings use the
x-range 0 to WIDTH and are stretched by the page, so they hold no text.
Final reads have strips of their own and count for neither rate nor latency; latency also leaves out operations that
wait for data by design (`poll`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from seatrial.history import OpType
from seatrial.report.loading import Operation

WIDTH = 1000.0
BINS_MAX = 400
STRIPS_MAX = 16
WAITS_FOR_DATA = frozenset({"poll"})
NICE_BIN_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000)


@dataclass(slots=True)
class Counts:
    """How many operations ended in each bin, by outcome."""

    ok: list[int]
    info: list[int]
    fail: list[int]

    @classmethod
    def of(cls, bins: int) -> Counts:
        return cls([0] * bins, [0] * bins, [0] * bins)

    def add(self, outcome: OpType, place: int) -> None:
        column = self.ok if outcome is OpType.OK else self.fail if outcome is OpType.FAIL else self.info
        column[place] += 1

    @property
    def highest(self) -> int:
        return max((sum(column) for column in zip(self.ok, self.info, self.fail, strict=True)), default=0)


@dataclass(slots=True, kw_only=True)
class Bins:
    """A run's operations summed up over equal spans of time, by the time at which they ended."""

    width_ns: int
    all: Counts
    strips: dict[str, Counts]  # by "group operation": "kv read", "log append"
    p50_ms: list[float | None]
    p99_ms: list[float | None]
    outcomes: dict[OpType, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.p50_ms)


def bin_width_ns(end_ns: int) -> int:
    """The smallest round width that needs at most BINS_MAX bins."""
    for width_ms in NICE_BIN_MS:
        if end_ns / (width_ms * 1e6) <= BINS_MAX:
            return width_ms * 1_000_000
    return math.ceil(end_ns / BINS_MAX)


def sum_up(operations: Sequence[Operation], end_ns: int) -> Bins:
    """Operations without a completion count as `info` in the bin of their invocation."""
    width_ns = bin_width_ns(end_ns)
    count = end_ns // width_ns + 1
    latencies: list[list[float]] = [[] for _ in range(count)]
    bins = Bins(width_ns=width_ns, all=Counts.of(count), strips={}, p50_ms=[], p99_ms=[])
    outcomes = dict.fromkeys((OpType.OK, OpType.FAIL, OpType.INFO), 0)
    for operation in operations:
        invoked = operation.invoked
        if invoked.f == "assign":
            continue  # a consumer's own bookkeeping: nothing is asked of the cluster
        ended = operation.completed or invoked
        place = min(ended.time_ns // width_ns, count - 1)
        outcome = operation.outcome
        kind = "final read" if operation.is_final else invoked.f
        _strip(bins, invoked.key, kind, count).add(outcome, place)
        if operation.is_final:
            continue
        outcomes[outcome] += 1
        bins.all.add(outcome, place)
        if outcome is OpType.OK and invoked.f not in WAITS_FOR_DATA:
            latencies[place].append((ended.time_ns - invoked.time_ns) / 1e6)
    for column in latencies:
        column.sort()
        bins.p50_ms.append(percentile(column, 0.50))
        bins.p99_ms.append(percentile(column, 0.99))
    bins.outcomes = outcomes
    bins.strips = dict(sorted(bins.strips.items()))
    return bins


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted numbers; None of none."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def group_of(key: str | None) -> str:
    """The workload or topic that a key belongs to: "log" for "log/3", "kv" for "kv.17", "a.b" for "a.b/0", else ""."""
    if key is None:
        return ""
    cut = key.rfind("/") if "/" in key else key.find(".")
    return key[: max(cut, 0)]


def _strip(bins: Bins, key: str | None, kind: str, count: int) -> Counts:
    name = f"{group_of(key)} {kind}".strip()
    strip = bins.strips.get(name)
    if strip is None:
        if len(bins.strips) >= STRIPS_MAX:
            name = "other"
        strip = bins.strips.setdefault(name, Counts.of(count))
    return strip


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999999)


@dataclass(frozen=True, slots=True)
class Drawing:
    """Paths of one chart by CSS class, and its labelled horizontal lines as (label, fraction from the top)."""

    paths: tuple[tuple[str, str], ...]
    ticks: tuple[tuple[str, float], ...]


def draw_throughput(counts: Counts, bins: Bins, end_ns: int, height: float) -> Drawing:
    """Stacked areas in operations a second: ok at the bottom, then info, then fail."""
    per_second = 1e9 / bins.width_ns
    top = nice_ceiling(counts.highest * per_second)
    base = [0.0] * bins.count
    paths: list[tuple[str, str]] = []
    for name, column in (("ok", counts.ok), ("info", counts.info), ("fail", counts.fail)):
        upper = [low + value * per_second for low, value in zip(base, column, strict=True)]
        paths.append((name, _area(base, upper, top, bins.width_ns, end_ns, height)))
        base = upper
    ticks = tuple((_short(top * share), 1 - share) for share in (1.0, 0.5, 0.0))
    return Drawing(tuple(paths), ticks)


def draw_strip(counts: Counts, bins: Bins, end_ns: int, height: float) -> Drawing:
    """Like the throughput, scaled to its own highest bin and without labels."""
    drawing = draw_throughput(counts, bins, end_ns, height)
    return Drawing(drawing.paths, ())


def draw_latency(bins: Bins, end_ns: int, height: float) -> Drawing:
    """p50 and p99 on a logarithmic scale, broken where nothing was acknowledged."""
    known = [value for value in (*bins.p50_ms, *bins.p99_ms) if value]
    low = math.floor(math.log10(min(known, default=1.0)))
    high = max(math.ceil(math.log10(max(known, default=10.0))), low + 1)

    def fraction(value: float) -> float:
        return 1 - (math.log10(max(value, 10.0**low)) - low) / (high - low)

    paths = tuple(
        (name, _line([None if v is None else fraction(v) * height for v in column], bins.width_ns, end_ns))
        for name, column in (("p99", bins.p99_ms), ("p50", bins.p50_ms))
    )
    ticks = tuple((_milliseconds(10.0**power), fraction(10.0**power)) for power in range(high, low - 1, -1))
    return Drawing(paths, ticks)


def x_of(time_ns: float, end_ns: int) -> float:
    return round(WIDTH * time_ns / end_ns, 2)


def _area(lower: Sequence[float], upper: Sequence[float], top: float, width_ns: int, end_ns: int, height: float) -> str:
    """Rectangles side by side between two step functions; runs of equal, empty bins are left out."""
    parts: list[str] = []
    for place, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if high <= low:
            continue
        x0, x1 = x_of(place * width_ns, end_ns), x_of(min((place + 1) * width_ns, end_ns), end_ns)
        y0, y1 = height * (1 - low / top), height * (1 - high / top)
        parts.append(f"M{x0:g} {y0:.1f}H{x1:g}V{y1:.1f}H{x0:g}Z")
    return "".join(parts)


def _line(ys: Sequence[float | None], width_ns: int, end_ns: int) -> str:
    parts: list[str] = []
    pen_down = False
    for place, y in enumerate(ys):
        if y is None:
            pen_down = False
            continue
        x = x_of(min((place + 0.5) * width_ns, end_ns), end_ns)
        # A lone point needs a length to be seen.
        parts.append(f"{'L' if pen_down else 'M'}{x:g} {y:.1f}" + ("" if pen_down else "h.5"))
        pen_down = True
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _milliseconds(value: float) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
