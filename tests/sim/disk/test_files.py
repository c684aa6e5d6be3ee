"""The simulated disk keeps the contract of `env.Files`: what was synced is there, what was not may be lost."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from seatrial.sim.case import Disk
from seatrial.sim.disk import SimDisk
from seatrial.sim.disk_content import SECTOR
from seatrial.sim.disk_files import LifeEnded
from seatrial.sim.world import World


def make(seed: int = 1, **settings: Any) -> SimDisk:
    return SimDisk(World(seed), "1", Disk(**settings))


def put(disk: SimDisk, path: str, data: bytes, *, sync: bool = True, name: bool = True) -> None:
    """A file in a life of its own."""
    files = disk.mount()
    file = files.open(path, create=True)
    file.write(0, [data])
    if sync:
        file.sync()
    if name:
        files.sync_directory(path.rpartition("/")[0])
    disk.unmount()


def read(disk: SimDisk, path: str) -> bytes | None:
    files = disk.mount()
    try:
        if not files.exists(path):
            return None
        file = files.open(path)
        return file.read(0, file.size())
    finally:
        disk.unmount()


def test_synced_data_under_a_synced_name_survives_a_power_cut() -> None:
    disk = make(unsynced="lost")
    put(disk, "data/a", b"kept")
    disk.crash(power=True)
    assert read(disk, "data/a") == b"kept"


def test_a_file_whose_directory_was_not_synced_is_gone_after_a_power_cut() -> None:
    disk = make(unsynced="lost")
    put(disk, "data/a", b"synced", name=False)
    disk.crash(power=True)
    assert read(disk, "data/a") is None


def test_unsynced_write_is_lost_in_a_power_cut_and_kept_when_the_process_is_killed() -> None:
    disk = make(unsynced="lost")
    put(disk, "data/a", b"old")
    put(disk, "data/a", b"new", sync=False)
    disk.crash(power=False)
    assert read(disk, "data/a") == b"new"
    disk.crash(power=True)
    assert read(disk, "data/a") == b"old"
    assert disk.counts["unsynced-lost"] == 1


def test_a_rename_that_was_not_synced_leaves_the_old_file_whole() -> None:
    disk = make(unsynced="lost")
    put(disk, "data/a", b"old")
    put(disk, "data/a.tmp", b"new")
    files = disk.mount()
    files.replace("data/a.tmp", "data/a")
    disk.unmount()
    disk.crash(power=True)
    assert read(disk, "data/a") == b"old"
    assert read(disk, "data/a.tmp") == b"new"


def test_a_removed_file_comes_back_unless_its_directory_was_synced() -> None:
    disk = make(unsynced="lost")
    put(disk, "data/a", b"x")
    put(disk, "data/b", b"y")
    files = disk.mount()
    files.remove("data/a")
    files.sync_directory("data")
    files.remove("data/b")
    disk.unmount()
    disk.crash(power=True)
    assert read(disk, "data/a") is None
    assert read(disk, "data/b") == b"y"


def test_a_directory_that_was_not_synced_in_its_parent_takes_its_files_with_it() -> None:
    disk = make(unsynced="lost")
    files = disk.mount()
    files.make_directory("data/inner")
    disk.unmount()
    put(disk, "data/inner/a", b"x")
    disk.crash(power=True)
    assert read(disk, "data/inner/a") is None


def test_prefix_keeps_the_first_writes_and_tears_one_at_a_sector() -> None:
    seen = set()
    for seed in range(60):
        disk = make(seed, unsynced="prefix")
        put(disk, "data/a", bytes(3 * SECTOR))
        files = disk.mount()
        file = files.open("data/a")
        file.write(0, [b"1" * SECTOR])
        file.write(SECTOR, [b"2" * (2 * SECTOR)])
        disk.crash(power=True)
        content = read(disk, "data/a")
        assert content is not None
        sectors = [content[at : at + SECTOR] for at in range(0, 3 * SECTOR, SECTOR)]
        assert all(len(set(sector)) == 1 for sector in sectors), "a sector is never torn"
        shape = "".join(chr(sector[0]) if sector[0] else "0" for sector in sectors)
        seen.add(shape)
    assert seen == {"000", "100", "120", "122"}


def test_some_keeps_any_writes_in_any_order() -> None:
    seen = set()
    for seed in range(120):
        disk = make(seed, unsynced="some")
        put(disk, "data/a", bytes(2 * SECTOR))
        files = disk.mount()
        file = files.open("data/a")
        file.write(0, [b"1" * SECTOR])
        file.write(SECTOR, [b"2" * SECTOR])
        disk.crash(power=True)
        content = read(disk, "data/a")
        assert content is not None
        seen.add((content[0], content[-1]))
    assert seen == {(0, 0), (49, 0), (0, 50), (49, 50)}


def test_after_a_failed_sync_the_data_reads_well_and_is_not_on_disk() -> None:
    disk = make(unsynced="kept")
    put(disk, "data/a", b"old")
    files = disk.mount()
    file = files.open("data/a")
    file.write(0, [b"new"])
    disk.fail_next("sync")
    with pytest.raises(OSError) as raised:
        file.sync()
    assert raised.value.errno == errno.EIO
    file.sync()
    assert file.read(0, 3) == b"new"
    disk.crash(power=True)
    assert read(disk, "data/a") == b"old"
    assert disk.counts["io-error"] == 1


@pytest.mark.parametrize("operation", ["read", "write"])
def test_an_io_error_hits_one_operation(operation: str) -> None:
    disk = make()
    put(disk, "data/a", b"x")
    file = disk.mount().open("data/a")
    disk.fail_next(operation)
    attempt = (lambda: file.read(0, 1)) if operation == "read" else (lambda: file.write(0, [b"y"]))
    with pytest.raises(OSError, match="Input/output error"):
        attempt()
    attempt()
    assert disk.counts["io-error"] == 1


def test_a_full_disk_refuses_writes_and_new_files_until_there_is_space() -> None:
    disk = make()
    put(disk, "data/a", b"x")
    files = disk.mount()
    file = files.open("data/a")
    disk.fills += 1
    for attempt in (
        lambda: file.write(0, [b"y"]),
        lambda: file.allocate(10),
        lambda: files.open("data/b", create=True),
    ):
        with pytest.raises(OSError, match="No space left"):
            attempt()
    assert disk.counts["disk-full"] == 3
    disk.heal()
    file.write(0, [b"y"])


def test_a_lock_is_exclusive_and_ends_with_the_process() -> None:
    disk = make()
    files = disk.mount()
    lock = files.lock("data/lock")
    with pytest.raises(BlockingIOError):
        files.lock("data/lock")
    lock.close()
    files.lock("data/lock")
    disk.crash(power=False)
    disk.mount().lock("data/lock")


def test_nothing_of_an_ended_life_reaches_the_disk() -> None:
    disk = make()
    put(disk, "data/a", b"x")
    file = disk.mount().open("data/a")
    disk.crash(power=False)
    with pytest.raises(LifeEnded):
        file.write(0, [b"y"])
    file.close()
    assert read(disk, "data/a") == b"x"


def test_missing_names_raise_what_the_operating_system_would() -> None:
    files = make().mount()
    with pytest.raises(FileNotFoundError):
        files.open("data/none")
    with pytest.raises(FileNotFoundError):
        files.open("nowhere/a", create=True)
    with pytest.raises(FileNotFoundError):
        files.remove("data/none")
    assert files.list_directory("data/none") == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        closed = files.open("data/a", create=True)
        closed.close()
        closed.size()


def test_rot_flips_one_durable_bit() -> None:
    disk = make()
    put(disk, "data/a", b"first")
    files = disk.mount()
    file = files.open("data/a")
    file.write(5, [b" second"])
    file.sync()
    assert disk.rot(1.0)
    content = bytes(file.read(0, 20))
    changed = [at for at in range(12) if content[at] != b"first second"[at]]
    assert len(changed) == 1
    assert changed[0] < 5, "the last write is spared: nobody could tell that it was ever there"
    assert disk.counts["bit-rot"] == 1


def test_rot_spares_a_file_that_was_synced_once() -> None:
    disk = make()
    put(disk, "data/a", b"only write")
    assert not disk.rot(0.0)


def test_a_lost_write_is_there_until_a_crash_shows_that_it_is_not() -> None:
    disk = make()
    put(disk, "data/a", b"-" * 300)
    file = disk.mount().open("data/a")
    disk.lose_next_write()
    file.write(300, [b"1" * 100])
    file.sync()
    file.write(400, [b"2" * 100])
    file.sync()
    assert file.read(300, 100) == b"1" * 100
    disk.crash(power=True)
    assert read(disk, "data/a") == b"-" * 300 + bytes(100) + b"2" * 100
    assert disk.counts["silent-write"] == 1


def test_a_misdirected_write_lands_on_an_earlier_place() -> None:
    disk = make()
    put(disk, "data/a", b"-" * 300)
    file = disk.mount().open("data/a")
    disk.misdirect_next_write(0.5)
    file.write(300, [b"1" * 100])
    file.sync()
    file.write(400, [b"2" * 100])
    file.sync()
    disk.crash(power=True)
    assert read(disk, "data/a") == b"-" * 100 + b"1" * 100 + b"-" * 100 + bytes(100) + b"2" * 100


def test_a_lost_write_that_was_the_last_one_is_no_damage() -> None:
    disk = make()
    put(disk, "data/a", b"-" * 300)
    file = disk.mount().open("data/a")
    disk.lose_next_write()
    file.write(300, [b"1" * 100])
    file.sync()
    disk.crash(power=True)
    assert read(disk, "data/a") == b"-" * 300 + b"1" * 100
    assert disk.counts["silent-write"] == 0


def test_a_truncated_file_loses_what_was_written_last() -> None:
    disk = make()
    put(disk, "data/a", b"0123456789" + bytes(50))
    assert disk.truncate_file(0.5)
    assert read(disk, "data/a") == b"01234"


def test_a_file_is_rolled_back_to_an_earlier_sync() -> None:
    disk = make()
    versions = [b"1", b"22", b"333"]
    for version in versions:
        put(disk, "data/a", version)
    assert disk.roll_back_file()
    assert read(disk, "data/a") in (b"", b"1", b"22")


def test_damage_hits_the_second_copy_or_the_rest_never_both() -> None:
    for seed in range(20):
        disk = make(seed)
        for name in ("data/watermarks", "data/log"):
            put(disk, name, b"0123456789")
        for _ in range(6):
            disk.truncate_file(0.5)
        whole = [name for name in ("data/watermarks", "data/log") if read(disk, name) == b"0123456789"]
        assert len(whole) == 1


def test_wiping_leaves_an_empty_disk() -> None:
    disk = make()
    put(disk, "data/a", b"x")
    disk.crash(power=True)
    disk.wipe()
    assert disk.mount().list_directory("data") == []
