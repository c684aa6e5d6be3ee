"""Whether the disk has room for more records: they are refused long before a write fails.

A write that fails ends the node (`storage`), and with it reads, elections and the very deletions that would make room.
So the last part of the disk is kept for these: clients' records are refused while less is free, and taken again once
there is more, without anybody's doing.  A follower, too, stops taking records, but only when half of that is left:
what leaders had taken before they knew is stored, and the deletions behind it can be.
Rule: an append costs an addition; the disk is asked once a second and once in so many bytes.
Knows nothing of what is written, and of other nodes' disks (`room`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from seatrial.marks import reached
from seatrial.server.logs import Logger

LOOK_US: Final = 1_000_000
LOOK_BYTES: Final = 16 << 20


class DiskState(StrEnum):
    """OK; LOW: what is left is not for clients' records; FULL: nor for those that a leader sends."""

    OK = "ok"
    LOW = "low"
    FULL = "full"


class DiskRoom:
    """One data directory's.  free_bytes: asks the disk; reserve_bytes: not for records, 0: they may fill the disk."""

    def __init__(
        self, free_bytes: Callable[[], int], reserve_bytes: int, now_us: Callable[[], int], logger: Logger
    ) -> None:
        self.reserve_bytes = reserve_bytes
        self.state = DiskState.OK  # as of when the disk was last asked
        self.free_bytes = 0  # likewise
        self._free_bytes = free_bytes
        self._now_us = now_us
        self._logger = logger
        self._left = 0  # bytes to take until the disk is asked again
        self._asked_us: int | None = None

    def refusal(self, size: int) -> str | None:
        """Why so many bytes of records cannot be taken now, with what to do about it; None: they can, and are."""
        if self._state_with(size) is DiskState.OK:
            return None
        return (
            f"the disk is nearly full: the last {self.reserve_bytes >> 20} MiB are not for records "
            "(--disk-reserve-bytes); delete records or free some space, and they are taken again"
        )

    def takes(self, size: int) -> bool:
        """Whether so many bytes of records that a leader sends can be taken now, and are."""
        return self._state_with(size) is not DiskState.FULL

    def look(self) -> None:
        """To be called about once a second, so that it is known how things stand where nothing is written."""
        self._state_with(0)

    def _state_with(self, size: int) -> DiskState:
        if self.reserve_bytes == 0:
            return DiskState.OK
        now_us = self._now_us()
        self._left -= size
        if (
            self.state is not DiskState.OK
            or self._left < 0
            or self._asked_us is None
            or now_us - self._asked_us >= LOOK_US
        ):
            self._ask(now_us, size)
        return self.state

    def _ask(self, now_us: int, size: int) -> None:
        self._asked_us = now_us
        self.free_bytes = free = self._free_bytes()
        room = free - self.reserve_bytes - size
        self._left = min(room, LOOK_BYTES)
        full = free - size < self.reserve_bytes // 2
        state = DiskState.OK if room >= 0 else DiskState.FULL if full else DiskState.LOW
        was, self.state = self.state, state
        if state is not was:
            self._tell(was, {"free_bytes": free, "reserve_bytes": self.reserve_bytes})

    def _tell(self, was: DiskState, figures: dict[str, int]) -> None:
        """Of a state that is another than it was."""
        if was is DiskState.OK:
            reached("records were refused because the disk was nearly full")
            self._logger.warning("disk_low", **figures, message="no records are taken from clients")
        if self.state is DiskState.FULL:
            reached("records of a leader were not taken because the disk was nearly full")
            self._logger.warning("disk_full", **figures, message="nor any that leaders send")
        elif self.state is DiskState.OK:
            self._logger.info("disk_has_room", **figures)
        elif was is DiskState.FULL:
            self._logger.info("disk_full_no_more", **figures, message="what leaders send is taken again")
