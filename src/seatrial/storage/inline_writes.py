"""Whether a group commit's bytes are handed to the page cache on the event loop itself, or on the worker.

A write of some hundred kilobytes into the page cache takes tens of microseconds; handing it to a thread and back costs
more than that: two thread switches, and a fight for the interpreter's lock at each call that releases it (measured: a
third of a follower's CPU time with durability "os").  But where the kernel makes writers wait (dirty pages above its
limit, a journal that is full) a write takes long, and a loop that waits misses heartbeats.
Rule: only small writes to segments that exist stay on the loop, and after one that took long none does for a while:
the worker waits instead.  Syncs never run on the loop.  Knows nothing of groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from seatrial.storage.batch_write import GroupWrite

INLINE_BYTES_MAX: Final = 1 << 20
SLOW_US: Final = 20_000  # well below the time after which a silent leader is given up
REST_US: Final = 1_000_000


class InlineWrites:
    """`now_us` None: every write goes to the worker."""

    __slots__ = ("_now_us", "_rests_until_us")

    def __init__(self, now_us: Callable[[], int] | None) -> None:
        self._now_us = now_us
        self._rests_until_us = 0

    def admits(self, writes: Sequence[GroupWrite]) -> bool:
        if self._now_us is None:
            return False
        size = 0
        for write in writes:
            if write.segment.is_new or write.snapshot is not None:
                return False
            size += write.end - write.offset
        return size <= INLINE_BYTES_MAX and self._now_us() >= self._rests_until_us

    def write(self, writes: Sequence[GroupWrite]) -> None:
        """All of them; raises OSError."""
        assert self._now_us is not None
        begun_us = self._now_us()
        for write in writes:
            write.write()
        ended_us = self._now_us()
        if ended_us - begun_us > SLOW_US:
            self._rests_until_us = ended_us + REST_US
