"""How much of everything a measure takes: whole, for figures, or small, to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Times in seconds, the rest in what the name says."""

    warm_up_s: float  # not counted: the JVM compiles, connections open
    seconds: float
    settle_s: float  # after the last request, before memory or idle CPU is looked at
    idle_s: float
    kills: int  # of a leader, in one round
    filled_records: int  # of 1 KB, that throughput readers go round in
    partitions: int  # idle
    topics: int  # of three partitions, created at once
    crowd_records: int
    crowd_consumers: int


WHOLE: Final = Sizes(
    warm_up_s=20.0,
    seconds=10.0,
    settle_s=5.0,
    idle_s=30.0,
    kills=3,
    filled_records=300_000,
    partitions=1_000,
    topics=500,
    crowd_records=1_000_000,
    crowd_consumers=100,
)
SMALL: Final = Sizes(
    warm_up_s=0.5,
    seconds=1.5,
    settle_s=1.0,
    idle_s=2.0,
    kills=1,
    filled_records=20_000,
    partitions=30,
    topics=10,
    crowd_records=20_000,
    crowd_consumers=5,
)
