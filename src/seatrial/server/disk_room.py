"""Whether the disk has room for more records: a leader refuses them long before a write fails.

A write that fails ends the node (`storage`), and with it reads, elections and the very deletions that would make room.
So the last part of the disk is kept for these: clients' records are refused while less is free, and taken again once
there is more, without anybody's doing.
Rule: an append costs an addition; the disk is asked once a second and once in so many bytes.
Knows nothing of what is written, and of other nodes' disks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from seatrial.marks import reached
from seatrial.server.logs import Logger

LOOK_US: Final = 1_000_000
LOOK_BYTES: Final = 16 << 20


class DiskRoom:
    """One data directory's.  free_bytes: asks the disk; reserve_bytes: not for records, 0: they may fill the disk."""

    def __init__(
        self, free_bytes: Callable[[], int], reserve_bytes: int, now_us: Callable[[], int], logger: Logger
    ) -> None:
        self._free_bytes = free_bytes
        self._reserve_bytes = reserve_bytes
        self._now_us = now_us
        self._logger = logger
        self._left = 0  # bytes to take until the disk is asked again
        self._asked_us: int | None = None
        self._is_low = False

    def refusal(self, size: int) -> str | None:
        """Why so many bytes of records cannot be taken now, with what to do about it; None: they can, and are."""
        if self._reserve_bytes == 0:
            return None
        now_us = self._now_us()
        self._left -= size
        if self._is_low or self._left < 0 or self._asked_us is None or now_us - self._asked_us >= LOOK_US:
            self._ask(now_us, size)
        if not self._is_low:
            return None
        return (
            f"the disk is nearly full: the last {self._reserve_bytes >> 20} MiB are not for records "
            "(--disk-reserve-bytes); delete records or free some space, and they are taken again"
        )

    def _ask(self, now_us: int, size: int) -> None:
        self._asked_us = now_us
        free = self._free_bytes()
        room = free - self._reserve_bytes - size
        self._left = min(room, LOOK_BYTES)
        if self._is_low != (room < 0):
            self._is_low = room < 0
            if self._is_low:
                reached("records were refused because the disk was nearly full")
                self._logger.warning("disk_low", free_bytes=free, reserve_bytes=self._reserve_bytes)
            else:
                self._logger.info("disk_has_room", free_bytes=free, reserve_bytes=self._reserve_bytes)
