"""Which writes run on the event loop, and that they keep every promise that the worker's writes keep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seatrial.raft.ids import GroupId
from seatrial.storage import StorageFailed
from seatrial.storage.inline_writes import INLINE_BYTES_MAX, REST_US, SLOW_US

GROUP = GroupId(7)


class SlowClock:
    """Moves by `step_us` whenever it is looked at, so a write seems to take that long."""

    def __init__(self) -> None:
        self.time_us = 0
        self.step_us = 0

    def now_us(self) -> int:
        self.time_us += self.step_us
        return self.time_us


async def begun(kit: Any, disk: Any, **options: Any) -> tuple[Any, SlowClock, Any]:
    """A group whose segment exists (the first write, which creates it, is the worker's), and the disk held."""
    clock = SlowClock()
    storage = kit.storage(disk, now_us=clock.now_us, segment_bytes=8 << 20, **options)
    group = storage.open_group(GROUP)
    await kit.save(group, kit.entries(1, 1), kit.state(1))
    disk.held = True
    return group, clock, storage


async def save_while_held(kit: Any, disk: Any, group: Any, data: bytes = b"x") -> list[str]:
    """What reaches the log while the worker does nothing."""
    since = len(disk.calls)
    entry = kit.entry(group.last_index + 1, data=data)
    group.save(hard_state=None, entries=[entry], snapshot=None, done=lambda: disk.calls.append(("done", "segment")))
    for _ in range(10):
        await asyncio.sleep(0)
    return [what for what, path in disk.calls[since:] if "segment" in path]


def test_with_durability_os_a_small_write_needs_no_worker(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, _, _ = await begun(kit, disk, durability="os")
        assert await save_while_held(kit, disk, group) == ["write", "done"]
        assert kit.log(kit.storage(disk.after_kill()).open_group(GROUP)) == kit.log(group)

    kit.run(scenario())


def test_with_durability_fsync_only_the_sync_is_left_to_the_worker_and_done_waits_for_it(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, _, _ = await begun(kit, disk)
        assert await save_while_held(kit, disk, group) == ["write"]
        since = len(disk.calls)
        disk.release()
        for _ in range(10):
            await asyncio.sleep(0)
        assert [what for what, path in disk.calls[since:] if "segment" in path] == ["sync", "done"]

    kit.run(scenario())


def test_a_large_write_goes_to_the_worker(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, _, _ = await begun(kit, disk, durability="os")
        assert await save_while_held(kit, disk, group, bytes(INLINE_BYTES_MAX)) == []

    kit.run(scenario())


def test_after_a_slow_write_the_worker_waits_for_the_disk_for_a_while(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, clock, _ = await begun(kit, disk, durability="os")
        clock.step_us = SLOW_US + 1
        assert await save_while_held(kit, disk, group) == ["write", "done"]
        clock.step_us = 0
        assert await save_while_held(kit, disk, group) == []
        disk.release()
        await asyncio.sleep(0.01)
        disk.held = True
        clock.time_us += REST_US
        assert await save_while_held(kit, disk, group) == ["write", "done"]

    kit.run(scenario())


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_after_a_failed_write_on_the_loop_nothing_is_reported_durable(kit: Any, durability: str) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, _, _ = await begun(kit, disk, durability=durability)
        disk.held = False
        disk.fail_at, disk.recovers = len(disk.calls), True
        assert await save_while_held(kit, disk, group) == ["write"]
        assert await save_while_held(kit, disk, group) == []
        assert [type(error) for error in kit.fatal] == [StorageFailed]

    kit.run(scenario())


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_closing_while_the_worker_still_writes_keeps_the_order(kit: Any, durability: str) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group, _, storage = await begun(kit, disk, durability=durability)
        await save_while_held(kit, disk, group, bytes(INLINE_BYTES_MAX))  # the worker's, and not begun
        await save_while_held(kit, disk, group)  # queued behind it
        storage.close()
        disk.held = False
        assert kit.log(kit.storage(disk.after_power_cut()).open_group(GROUP)) == kit.log(group)

    kit.run(scenario())
