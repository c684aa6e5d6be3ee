"""How often the disk is written and synced, and what happens when it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import Any

import pytest

from seatrial.raft.ids import GroupId, Index
from seatrial.storage import DiskFull, StorageFailed

GROUP = GroupId(7)


def log_calls(disk: Any, since: int) -> list[str]:
    """What the disk was asked for, of log files only."""
    return [what for what, path in disk.calls[since:] if "segment" in path]


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_write_and_one_sync_for_a_vote_and_its_entries(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 1), kit.state(1))
        since = len(disk.calls)
        await kit.save(group, kit.entries(2, 9), kit.state(2, voted_for=3))
        assert log_calls(disk, since) == ["write", "sync"]

    kit.run(scenario())


def test_saves_queued_behind_a_write_go_as_one(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        groups = [storage.open_group(GroupId(n)) for n in (1, 2)]
        await asyncio.gather(*(kit.save(g, kit.entries(1, 1), kit.state(1)) for g in groups))
        disk.held = True
        order: list[int] = []
        for n in range(2, 30):
            group = groups[n % 2]
            index = group.last_index + 1
            group.save(hard_state=None, entries=[kit.entry(index)], snapshot=None, done=lambda n=n: order.append(n))
            await turns(2)
        assert order == []
        since = len(disk.calls)
        disk.release()
        while len(order) < 28:
            await turns(1)
        # The first save went alone, as nothing was being written; all others wait for it and go together.
        assert log_calls(disk, since) == ["write", "sync", "write", "write", "sync", "sync"]
        assert order == list(range(2, 30))

    kit.run(scenario())


def test_new_groups_that_are_written_together_share_the_sync_of_their_parent(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        disk.held = True
        saved = [kit.save(storage.open_group(GroupId(n)), kit.entries(1, 1), kit.state(1)) for n in range(1, 7)]
        waiting = [asyncio.ensure_future(one) for one in saved]
        await turns()
        since = len(disk.calls)
        disk.release()
        await asyncio.gather(*waiting)
        parents = [path for what, path in disk.calls[since:] if what == "sync_directory" and path.endswith("/groups")]
        assert len(parents) == 1, disk.calls[since:]

    kit.run(scenario())


def test_a_commit_index_alone_is_not_worth_a_write(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(1))
        since = len(disk.calls)
        await kit.save(group, hard_state=kit.state(1, commit=3))
        assert disk.calls[since:] == []
        assert group.hard_state.commit_index == 3
        storage.close()
        assert kit.storage(disk).open_group(GROUP).hard_state.commit_index == 3, "a clean shutdown keeps it"

    kit.run(scenario())


def test_durability_os_never_syncs_until_it_is_closed(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk, durability="os", segment_bytes=300)
        group = storage.open_group(GROUP)
        since = len(disk.calls)
        for n in range(1, 9):
            await kit.save(group, [kit.entry(n, data=bytes(50))], kit.state(1))
        assert "sync" not in [what for what, _ in disk.calls[since:]]
        lost = kit.storage(disk.after_power_cut(), durability="os")
        assert lost.open_group(GROUP).last_index == 0
        storage.close()
        kept = kit.storage(disk.after_power_cut())
        assert kept.open_group(GROUP).last_index == 8

    kit.run(scenario())


def test_durability_os_survives_any_power_cut_with_a_prefix(kit: Any) -> None:
    """Nothing is promised but that what is left is a prefix: damage of the unsynced part is a torn tail."""
    import random

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, durability="os", segment_bytes=700).open_group(GROUP)
        for n in range(1, 20):
            await kit.save(group, [kit.entry(n, data=bytes([n]) * 60)], kit.state(1))
        for name in list(disk.names):
            disk.sync_directory(name.rpartition("/")[0])
        for seed in range(100):
            survivor = kit.storage(disk.after_power_cut(random.Random(seed)), durability="os").open_group(GROUP)
            assert kit.log(survivor) == [kit.entry(n, data=bytes([n]) * 60) for n in range(1, survivor.last_index + 1)]

    kit.run(scenario())


def test_with_durability_os_a_snapshot_survives_a_power_cut_only_with_the_log_that_it_stands_for(kit: Any) -> None:
    """One of a partition holds no records: those of entries that it stands for are in the log alone."""

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, durability="os", segment_bytes=300).open_group(GROUP)
        for n in range(1, 9):
            await kit.save(group, [kit.entry(n, data=bytes(50))], kit.state(1))
        group.save_snapshot(kit.snapshot(6), done=lambda: None)
        await turns()
        survivor = kit.storage(disk.after_power_cut(), durability="os").open_group(GROUP)
        assert survivor.snapshot_meta.last_included_index == 6
        assert kit.log(survivor)[:6] == [kit.entry(n, data=bytes(50)) for n in range(1, 7)]

    kit.run(scenario())


def test_a_cut_that_is_itself_cut_short_is_finished_the_next_time(kit: Any) -> None:
    """Several segments behind the tear, and a power cut during each step of removing them."""

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, durability="os", segment_bytes=1).open_group(GROUP)
        for n in range(1, 7):
            await kit.save(group, [kit.entry(n)], kit.state(1))
        image = disk.after_kill()
        second = next(name for name in image.names if "segment-00000002" in name)
        image.names[second].content[60] ^= 1
        for calls in range(12):
            torn = image.after_kill()
            storage = kit.storage(torn, durability="os")
            torn.fail_at = len(torn.calls) + calls
            with contextlib.suppress(StorageFailed):
                storage.open_group(GROUP)
            for survivor in (torn.after_kill(), torn.after_power_cut()):
                assert kit.log(kit.storage(survivor, durability="os").open_group(GROUP)) == kit.entries(1, 1)

    kit.run(scenario())


@pytest.mark.parametrize("nth", range(12))
@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StorageFailed), (errno.ENOSPC, DiskFull)])
def test_after_a_failed_call_nothing_is_reported_durable(kit: Any, nth: int, number: int, kind: type) -> None:
    """The n-th call of a life that creates, writes, syncs, rolls and snapshots fails, and all after it."""

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, segment_bytes=300).open_group(GROUP)
        disk.fail_at, disk.fail_with = len(disk.calls) + nth, number
        done: list[int] = []
        for n in range(1, 9):
            group.save(
                hard_state=kit.state(1),
                entries=[kit.entry(n, data=bytes(100))],
                snapshot=None,
                done=lambda n=n: done.append(n),
            )
            await turns()
        assert len(kit.fatal) == 1, "told once"
        (error,) = kit.fatal
        assert type(error) is kind
        assert "data" in str(error)
        if kind is DiskFull:
            assert "full" in str(error)
        before = list(done)
        disk.fail_at = None  # a disk that recovers must not be believed
        group.save(hard_state=kit.state(2), entries=[], snapshot=None, done=lambda: done.append(99))
        await turns()
        assert done == before
        survivor = kit.storage(disk.after_power_cut()).open_group(GROUP)
        assert survivor.last_index >= len(done)

    kit.run(scenario())


def test_what_was_queued_behind_a_failed_write_is_not_durable_even_on_close(kit: Any) -> None:
    """The disk recovers at once, and closing has more to write: none of it may be believed."""

    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk)
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 1), kit.state(1))
        disk.held = True
        done: list[int] = []
        for n in (2, 3):
            group.save(hard_state=None, entries=kit.entries(n, n), snapshot=None, done=lambda n=n: done.append(n))
            await turns()
        disk.fail_at, disk.recovers = len(disk.calls), True
        storage.close()
        await turns()
        assert done == []
        assert [type(e) for e in kit.fatal] == [StorageFailed]
        # Nor may the watermark claim it: the log would be taken for damaged.
        for survivor in (disk.after_kill(), disk.after_power_cut()):
            assert kit.log(kit.storage(survivor).open_group(GROUP)) == kit.entries(1, 1)

    kit.run(scenario())


def test_an_entry_on_its_way_to_disk_is_read_from_memory(kit: Any) -> None:
    """It was on disk before, was forgotten by the cache meanwhile, and is being written again, to another place."""

    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, cache_bytes=300).open_group(GROUP)
        first, second = kit.entries(1, 2)
        await kit.save(group, [first], kit.state(1))
        disk.held = True
        group.save(hard_state=None, entries=[second], snapshot=None, done=lambda: None)
        await turns()
        group.save(hard_state=None, entries=[first], snapshot=None, done=lambda: None)
        disk.release()
        disk.held = True
        await turns()
        assert group.entries(Index(1), Index(1), 100) == [first]
        disk.release()
        await turns()
        assert group.entries(Index(1), Index(1), 100) == [first]

    kit.run(scenario())


def test_a_snapshot_that_cannot_be_written_is_fatal(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(1))
        disk.fail_at, disk.fail_with = len(disk.calls), errno.ENOSPC
        group.save_snapshot(kit.snapshot(2), done=lambda: pytest.fail("reported durable"))
        await turns()
        assert [type(e) for e in kit.fatal] == [DiskFull]
        assert group.snapshot_meta is None

    kit.run(scenario())


def test_a_file_system_without_preallocation_is_used_without(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        disk.can_allocate = False
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(1))
        await kit.save(group, kit.entries(4, 5))
        assert [what for what, _ in disk.calls].count("allocate") == 1
        assert kit.log(kit.storage(disk.after_power_cut()).open_group(GROUP)) == kit.entries(1, 5)
        assert kit.fatal == []

    kit.run(scenario())


def test_a_disk_without_room_for_a_step_ahead_is_used_to_its_end(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        disk.room = 1_000
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(1))
        await kit.save(group, kit.entries(4, 5))
        assert kit.log(kit.storage(disk.after_power_cut()).open_group(GROUP)) == kit.entries(1, 5)
        assert kit.fatal == []
        group.save(hard_state=None, entries=[kit.entry(6, data=bytes(1_000))], snapshot=None, done=lambda: None)
        await turns()
        assert [type(error) for error in kit.fatal] == [DiskFull]

    kit.run(scenario())


def test_compaction_removes_whole_segments_and_old_snapshots(kit: Any) -> None:
    async def scenario() -> None:
        disk = kit.disk()
        group = kit.storage(disk, segment_bytes=300).open_group(GROUP)
        for n in range(1, 10):
            await kit.save(group, [kit.entry(n, data=bytes(100))], kit.state(1))
        names = disk.list_directory("data/groups/7")
        assert len(names) == 9
        for index in (4, 8):
            await kit.save_snapshot(group, kit.snapshot(index))
            group.compact(Index(index + 1))
        await turns(30)
        assert disk.list_directory("data/groups/7") == [names[-1], f"snapshot-{8:020d}"]
        survivor = kit.storage(disk.after_kill()).open_group(GROUP)
        assert (survivor.first_index, survivor.last_index) == (9, 9)
        # Removals need not be durable: what a power cut brings back is the same log, longer.
        survivor = kit.storage(disk.after_power_cut()).open_group(GROUP)
        assert survivor.first_index <= 9
        assert survivor.last_index == 9

    kit.run(scenario())


def test_cold_entries_are_read_from_disk_and_checked(kit: Any) -> None:
    from seatrial.storage import DamagedLog

    async def scenario() -> None:
        disk = kit.disk()
        storage = kit.storage(disk, cache_bytes=2000, segment_bytes=3000)
        group = storage.open_group(GROUP)
        saved = [kit.entry(n, data=bytes([n]) * 300) for n in range(1, 21)]
        for entry in saved:
            await kit.save(group, [entry], kit.state(1))
        assert kit.log(group) == saved
        first = next(path for path in disk.names if "segment-00000001" in path)
        disk.names[first].content[700] ^= 1
        with pytest.raises(DamagedLog, match="segment-00000001"):
            group.entries(Index(1), Index(9), 1 << 20)
        assert group.entries(Index(15), Index(20), 1 << 20) == saved[14:]

    kit.run(scenario())
