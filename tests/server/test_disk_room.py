"""When records are refused for want of room, on a disk of three lines."""

from __future__ import annotations

import json
from typing import Any

from seatrial import marks
from seatrial.env import RealClock
from seatrial.server.disk_room import LOOK_BYTES, LOOK_US, DiskRoom, DiskState
from seatrial.server.logs import Logger

MIB = 1 << 20


class Disk:
    def __init__(self, free: int, reserve: int = 64 * MIB) -> None:
        self.free = free
        self.asked = 0
        self.now_us = 0
        self.lines: list[dict[str, Any]] = []
        logger = Logger(lambda line: self.lines.append(json.loads(line)), RealClock(), "info")
        self.room = DiskRoom(self.ask, reserve, lambda: self.now_us, logger)

    def ask(self) -> int:
        self.asked += 1
        return self.free

    def append(self, size: int) -> bool:
        """Whether it was taken; what is taken is written at once."""
        taken = self.room.refusal(size) is None
        if taken:
            self.free -= size
        return taken


def test_records_get_all_but_the_reserve_and_nothing_of_it() -> None:
    disk = Disk(264 * MIB)
    while disk.append(MIB):
        pass
    assert disk.free == 64 * MIB
    assert disk.asked <= 2 + 200 * MIB // LOOK_BYTES, "once in so many bytes"
    refusal = disk.room.refusal(MIB)
    assert refusal is not None and "nearly full" in refusal and "delete records or free some space" in refusal


def test_they_are_taken_again_as_soon_as_there_is_room() -> None:
    disk = Disk(64 * MIB)
    marks.taken()
    assert not disk.append(100) and not disk.append(100)
    assert marks.taken() == {"records were refused because the disk was nearly full": 1}
    disk.free += MIB
    assert disk.append(100)
    assert [line["event"] for line in disk.lines] == ["disk_low", "disk_has_room"]


def test_what_others_write_to_the_disk_is_seen_within_a_second() -> None:
    disk = Disk(1 << 40)
    assert disk.append(100)
    disk.free = 0
    assert disk.append(100)
    disk.now_us += LOOK_US
    assert not disk.append(100)


def test_without_a_reserve_the_disk_is_not_asked() -> None:
    disk = Disk(0, reserve=0)
    assert disk.append(1 << 30)
    assert disk.asked == 0


def test_what_leaders_send_is_taken_until_half_of_the_reserve_is_left_and_each_change_is_told_once() -> None:
    disk = Disk(96 * MIB)
    marks.taken()
    while disk.room.takes(MIB):
        disk.free -= MIB
    assert disk.free == 32 * MIB
    assert (disk.room.state, disk.room.refusal(1) is None) == (DiskState.FULL, False)
    for free, state in ((40, DiskState.LOW), (10, DiskState.FULL), (100, DiskState.OK), (0, DiskState.FULL)):
        disk.free = free * MIB
        disk.now_us += LOOK_US
        disk.room.look()
        assert disk.room.state is state
    assert [line["event"] for line in disk.lines] == [
        *("disk_low", "disk_full", "disk_full_no_more", "disk_full", "disk_has_room", "disk_low", "disk_full"),
    ]
    assert marks.taken()["records of a leader were not taken because the disk was nearly full"] == 3
