"""How far behind a follower is, in offsets and in seconds, from the leader's memory of its own recent past.

Rule: the leader remembers now and then (index, offset, time); a follower's match index is looked up in that memory, so
that the hot path pays nothing.  Knows nothing of Raft beyond the index.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

SAMPLES_MAX: Final = 240


class Sample(NamedTuple):
    """From `since_us` to `until_us`, at least, everything up to index `at` was committed and nothing behind it, and the
    next offset was `offset`."""

    at: int  # Raft index
    offset: int
    since_us: int
    until_us: int


class Lag(NamedTuple):
    """`offsets` records and `seconds` behind; where the memory is too short for it, at least that much."""

    offsets: int
    seconds: float


class LagMemory:
    """One partition's recent past, newest last."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: list[Sample] = []

    def __len__(self) -> int:
        return len(self._samples)

    def remember(self, index: int, offset: int, now_us: int) -> None:
        """To be called now and then, and before the first thing that a follower may come to lack."""
        samples = self._samples
        if samples and samples[-1].at == index:
            samples[-1] = samples[-1]._replace(until_us=now_us)
            return
        samples.append(Sample(index, offset, now_us, now_us))
        if len(samples) > SAMPLES_MAX:
            del samples[0]

    def forget(self) -> None:
        """All of it: from here on somebody else may commit."""
        self._samples.clear()

    def of(self, match_index: int, commit_index: int, high_watermark: int, now_us: int) -> Lag:
        """The lag of a follower whose log is known to agree up to `match_index`."""
        if match_index >= commit_index:
            return Lag(0, 0.0)
        now = Sample(commit_index, high_watermark, now_us, now_us)
        after = bisect_right(self._samples, match_index, key=lambda sample: sample.at)
        if after == 0:
            oldest = self._samples[0] if self._samples else now
            return Lag(high_watermark - min(oldest.offset, high_watermark), (now_us - oldest.since_us) / 1e6)
        before = self._samples[after - 1]
        later = self._samples[after] if after < len(self._samples) else now
        share = (match_index - before.at) / max(later.at - before.at, 1)
        offset = before.offset + round((later.offset - before.offset) * share)
        # What it lacks first was committed after `before` and no later than `later`: as late as its place between them.
        lacking_us = before.until_us + (later.since_us - before.until_us) * share
        return Lag(high_watermark - offset, (now_us - lacking_us) / 1e6)
