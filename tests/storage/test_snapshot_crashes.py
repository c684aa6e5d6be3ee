"""A crash at every disk call of installing, making and compacting with snapshots: the old state or the new one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.raft.ids import GroupId, Index

GROUP = GroupId(7)


async def turns(count: int = 30) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def survivors(disk: Any) -> list[Any]:
    """The disk after a kill, after a power cut, and after power cuts that kept some of what was not synced."""
    torn = [disk.after_power_cut(random.Random(seed)) for seed in range(4)]
    return [disk.after_kill(), disk.after_power_cut(), *torn]


def crash_at_every_call(
    kit: Any, life: Callable[[Any, list[str]], Any], check: Callable[[Any, list[str]], None]
) -> int:
    """Run `life` again and again, with one more disk call each time; returns how many it takes."""
    for calls in range(1, 200):
        disk, done = kit.disk(), list[str]()
        kit.fatal.clear()

        async def scenario(disk: Any = disk, done: list[str] = done, calls: int = calls) -> None:
            storage = kit.storage(disk, segment_bytes=400)
            group = storage.open_group(GROUP)
            await kit.save(group, kit.entries(1, 6), kit.state(2, voted_for=2))
            disk.fail_at = len(disk.calls) + calls
            await life(group, done)
            for survivor in survivors(disk):
                group = kit.storage(survivor).open_group(GROUP)
                check(group, done)
                # And whatever it is, it goes on from there.
                more = kit.entries(group.last_index + 1, group.last_index + 2, term=9)
                await kit.save(group, more, kit.state(9))
                again = kit.storage(survivor.after_power_cut()).open_group(GROUP)
                assert kit.log(again)[-2:] == more

        kit.run(scenario())
        if not kit.fatal:
            return calls
    raise AssertionError("the life never ended")


@pytest.mark.slow
def test_installing_a_snapshot_that_the_log_lacks(kit: Any) -> None:
    async def life(group: Any, done: list[str]) -> None:
        group.save(
            hard_state=kit.state(5, commit=20),
            entries=kit.entries(21, 22, term=5),
            snapshot=kit.snapshot(20, term=4, data=b"theirs"),
            done=lambda: done.append("installed"),
        )
        await turns()

    def check(group: Any, done: list[str]) -> None:
        if group.snapshot_meta is None:
            assert done == []
            assert (kit.log(group), group.hard_state) == (kit.entries(1, 6), kit.state(2, voted_for=2))
            return
        assert group.read_snapshot().data == b"theirs"
        assert (group.first_index, group.term(Index(20))) == (21, 4)
        log = kit.log(group)
        assert log == kit.entries(21, 22, term=5)[: len(log)]
        # Between the snapshot and its HardState the node takes up the snapshot's term, with its vote free.
        assert group.hard_state in (kit.state(5, commit=20), kit.state(4, commit=20))
        if done:
            assert (len(log), group.hard_state) == (2, kit.state(5, commit=20))

    assert crash_at_every_call(kit, life, check) >= 8


@pytest.mark.slow
def test_installing_a_snapshot_that_the_log_contains(kit: Any) -> None:
    async def life(group: Any, done: list[str]) -> None:
        group.save(hard_state=None, entries=[], snapshot=kit.snapshot(4), done=lambda: done.append("installed"))
        await turns()

    def check(group: Any, done: list[str]) -> None:
        assert kit.log(group)[-2:] == kit.entries(5, 6)
        assert (group.snapshot_meta is not None) >= bool(done)
        assert (group.hard_state.term, group.hard_state.voted_for) == (2, 2)

    assert crash_at_every_call(kit, life, check) >= 5


@pytest.mark.slow
def test_making_a_snapshot_and_compacting_behind_it(kit: Any) -> None:
    async def life(group: Any, done: list[str]) -> None:
        for index in (3, 9, 12):
            last = group.last_index
            group.save(
                hard_state=kit.state(2, 2, commit=last),
                entries=kit.entries(last + 1, last + 4),
                snapshot=None,
                done=lambda last=last: done.append(f"entries {last + 4}"),
            )
            await turns()
            group.save_snapshot(kit.snapshot(index), done=lambda index=index: done.append(f"snapshot {index}"))
            await turns()
            if f"snapshot {index}" in done:
                group.compact(Index(index + 1))
            await turns()

    def check(group: Any, done: list[str]) -> None:
        snapshots = [int(what.split()[1]) for what in done if what.startswith("snapshot")]
        saved = max([6, *(int(what.split()[1]) for what in done if what.startswith("entries"))])
        covered = group.snapshot_meta.last_included_index if group.snapshot_meta else 0
        assert covered >= max(snapshots, default=0)
        assert group.last_index >= saved
        assert group.first_index <= covered + 1
        assert kit.log(group) == kit.entries(group.first_index, group.last_index)
        assert (group.hard_state.term, group.hard_state.voted_for) == (2, 2)

    assert crash_at_every_call(kit, life, check) >= 15


def test_a_snapshot_of_ones_own_may_be_ahead_of_what_is_durable(kit: Any) -> None:
    """A leader commits with its followers' acknowledgements; its own disk may be the slowest."""

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(3, voted_for=1))
        disk.workers[0].finish = lambda: None  # the log's worker hangs; the snapshots' one does not
        group.save(hard_state=None, entries=kit.entries(4, 9), snapshot=None, done=lambda: None)
        await kit.save_snapshot(group, kit.snapshot(7))
        group.compact(Index(8))
        assert kit.log(group) == kit.entries(8, 9)
        await turns()
        survivor = kit.storage(disk.after_power_cut()).open_group(GROUP)
        assert (survivor.first_index, survivor.last_index, survivor.hard_state.term) == (8, 7, 3)
        await kit.save(survivor, kit.entries(8, 8, term=4), kit.state(4))
        assert kit.log(survivor) == kit.entries(8, 8, term=4)

    kit.run(scenario())


def test_a_local_snapshot_older_than_a_received_one_is_dropped(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 6), kit.state(1))
        await kit.save(group, snapshot=kit.snapshot(20, data=b"theirs"))
        await kit.save_snapshot(group, kit.snapshot(5, data=b"ours"))
        await turns()
        assert group.snapshot_meta == kit.snapshot(20).meta
        assert group.read_snapshot().data == b"theirs"
        assert [n for n in disk.list_directory("data/groups/7") if n.startswith("snapshot")] == [f"snapshot-{20:020d}"]

    kit.run(scenario())
