"""Which replica each consumer was last told to read a partition from, so that a leader can spread them.

Rule: only what this node itself decided, and no longer than consumers keep to it without asking again (5 minutes in
librdkafka, `metadata.max.age.ms` in the Java client).  Bounded: what does not fit is not counted.
Knows nothing of bytes and of what other leaders decided.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

KEPT_US: Final = 300_000_000
READERS_MAX: Final = 100_000

Reader: TypeAlias = tuple[str, str, int]  # client, topic, partition


class Readers:
    """Of one node, over all the partitions that it leads or led."""

    __slots__ = ("_counts", "_told")

    def __init__(self) -> None:
        self._told: dict[Reader, tuple[int, int]] = {}  # reader: (node, when), the oldest first
        self._counts: Counter[int] = Counter()

    def told(self, reader: Reader, node: int, now_us: int) -> None:
        """This reader is to read from that node."""
        self._forget(reader)
        self._expire(now_us)
        if len(self._told) < READERS_MAX:
            self._told[reader] = (node, now_us)
            self._counts[node] += 1

    def count(self, node: int, *, besides: Reader) -> int:
        """How many read from the node, not counting this one."""
        own = self._told.get(besides)
        return self._counts[node] - (own is not None and own[0] == node)

    def _forget(self, reader: Reader) -> None:
        before = self._told.pop(reader, None)
        if before is not None:
            self._counts[before[0]] -= 1

    def _expire(self, now_us: int) -> None:
        while self._told:
            reader, (_, at_us) = next(iter(self._told.items()))
            if now_us - at_us < KEPT_US:
                return
            self._forget(reader)
