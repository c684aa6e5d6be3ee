"""The record-level disk: when saves are durable, what a crash leaves, and how it fails."""

from __future__ import annotations

from typing import Literal

import pytest

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import COMMAND, Configuration, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.sim.case import Disk
from seatrial.sim.core.disk import RecordDisk
from seatrial.sim.world import World

Unsynced = Literal["lost", "prefix", "some", "kept"]


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(Term(term), Index(index), COMMAND, b"%d" % index) for index in range(first, last + 1)]


def state(term: int) -> HardState:
    return HardState(Term(term), NodeId(1), Index(0))


def snapshot(index: int, term: int = 1) -> Snapshot:
    return Snapshot(SnapshotMeta(Index(index), Term(term), Configuration([NodeId(1)])), b"state")


class Bench:
    """A disk in a world of its own, and the order in which its saves were done."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.disk = RecordDisk(self.world, self.world.stream("disk 1"), Disk(sync_us=(100, 200)))
        self.done: list[str] = []

    def save(self, name: str, first: int = 0, last: int = 0, *, term: int = 1, hard_state: int = 0) -> None:
        new = entries(first, last, term) if first else []
        self.disk.save(state(hard_state) if hard_state else None, new, None, lambda: self.done.append(name))

    def finish(self) -> None:
        self.world.run(self.world.now_us + 1_000)

    def durable(self) -> list[tuple[int, int]]:
        return [(entry.term, entry.index) for entry in self.disk.durable.entries]


def test_a_save_is_seen_at_once_and_durable_only_after_the_sync() -> None:
    bench = Bench()
    bench.save("a", 1, 3, hard_state=1)
    assert (bench.disk.last_index, bench.disk.hard_state.term) == (3, 1)
    assert (bench.durable(), bench.done) == ([], [])
    bench.finish()
    assert bench.durable() == [(1, 1), (1, 2), (1, 3)]
    assert bench.done == ["a"]


def test_saves_that_wait_for_a_sync_share_the_next_one_and_are_done_in_order() -> None:
    bench = Bench()
    for index in range(1, 6):
        bench.save(str(index), index, index)
    bench.finish()
    assert bench.done == ["1", "2", "3", "4", "5"]
    assert bench.disk.syncs == 2, "the first save alone, and all others together"


def test_a_save_replaces_the_suffix_from_its_first_entry_on() -> None:
    bench = Bench()
    bench.save("a", 1, 5)
    bench.save("b", 3, 4, term=2)
    bench.finish()
    assert bench.durable() == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert bench.disk.term(Index(4)) == 2
    assert bench.disk.term(Index(5)) is None


def test_a_received_snapshot_replaces_a_log_that_does_not_hold_its_last_entry() -> None:
    bench = Bench()
    bench.save("a", 1, 5)
    bench.disk.save(None, [], snapshot(4, term=2), lambda: None)
    bench.finish()
    assert (bench.disk.first_index, bench.disk.last_index, bench.disk.term(Index(4))) == (5, 4, 2)


def test_a_received_snapshot_keeps_the_entries_behind_one_that_it_holds() -> None:
    bench = Bench()
    bench.save("a", 1, 5)
    bench.disk.save(None, [], snapshot(4), lambda: None)
    bench.finish()
    assert (bench.disk.first_index, bench.durable()) == (5, [(1, 5)])


def test_a_snapshot_made_here_leaves_the_log_until_it_is_compacted() -> None:
    bench = Bench()
    bench.save("a", 1, 5)
    bench.disk.save_snapshot(snapshot(4), lambda: bench.done.append("snapshot"))
    assert bench.disk.snapshot_meta is None, "it is read only when it is durable"
    bench.finish()
    assert bench.done == ["a", "snapshot"]
    assert bench.disk.first_index == 1
    bench.disk.compact(4)
    assert (bench.disk.first_index, bench.durable()) == (4, [(1, 4), (1, 5)])


def test_entries_that_no_snapshot_covers_are_not_compacted() -> None:
    bench = Bench()
    bench.save("a", 1, 5)
    bench.finish()
    with pytest.raises(AssertionError, match="the snapshot is at 0"):
        bench.disk.compact(3)


def crashed(unsynced: Unsynced, seed: int) -> Bench:
    """Two entries durable, then a crash with three more and a later term under way."""
    bench = Bench(seed)
    bench.save("durable", 1, 2, hard_state=1)
    bench.finish()
    bench.save("one", 3, 4, hard_state=2)
    bench.save("two", 5, 5)
    bench.disk.crash(unsynced)
    bench.finish()
    return bench


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("unsynced", ["lost", "prefix", "some", "kept"])
def test_a_crash_keeps_what_is_durable_and_a_prefix_of_what_was_under_way(unsynced: Unsynced, seed: int) -> None:
    bench = crashed(unsynced, seed)
    indexes = [index for _, index in bench.durable()]
    assert indexes == list(range(1, len(indexes) + 1))
    assert len(indexes) >= 2
    assert bench.done == ["durable"], "nothing is acknowledged after a crash"
    if len(indexes) > 2:
        assert bench.disk.hard_state.term == 2, "the state is written before the entries"
    assert bench.disk.last_index == len(indexes), "what is read is what survived"


def test_what_survives_is_nothing_or_all_where_the_case_says_so_and_varies_where_it_does_not() -> None:
    survivors = {
        mode: {len(crashed(mode, seed).durable()) for seed in range(40)} for mode in ("lost", "prefix", "some", "kept")
    }
    assert survivors["lost"] == {2}
    assert survivors["kept"] == {5}
    assert survivors["prefix"] == survivors["some"] == {2, 3, 4, 5}


def test_what_was_lost_is_counted() -> None:
    assert crashed("lost", 1).disk.lost_records == 4, "one state and three entries"
    assert crashed("kept", 1).disk.lost_records == 0


def test_with_some_a_snapshot_may_survive_without_the_saves_before_it() -> None:
    seen = set()
    for seed in range(40):
        bench = Bench(seed)
        bench.save("a", 1, 4)
        bench.finish()
        bench.save("b", 5, 5)
        bench.disk.save_snapshot(snapshot(4), lambda: None)
        bench.disk.crash("some")
        seen.add((bench.disk.last_index, bench.disk.snapshot_meta is not None))
    assert (4, True) in seen
    assert (5, False) in seen


@pytest.mark.parametrize(("fault", "error"), [("write", "EIO"), ("sync", "EIO"), ("full", "ENOSPC")])
def test_a_failing_disk_reports_once_and_acknowledges_nothing(fault: str, error: str) -> None:
    bench = Bench()
    failures: list[str] = []
    bench.disk.failed = failures.append
    bench.disk.fault = fault
    bench.save("a", 1, 1)
    bench.finish()
    assert (failures, bench.done, bench.disk.failures) == ([error], [], 1)


def test_a_slow_sync_takes_longer_and_is_counted() -> None:
    bench = Bench()
    bench.disk.sync_more_us = 5_000
    bench.save("a", 1, 1)
    bench.finish()
    assert (bench.done, bench.disk.slow_syncs) == ([], 1)
    bench.world.run(10_000)
    assert bench.done == ["a"]


def test_a_stalled_sync_ends_when_the_stall_does() -> None:
    bench = Bench()
    bench.disk.stalled = True
    bench.save("a", 1, 1)
    bench.world.run(1_000_000)
    assert (bench.done, bench.durable(), bench.disk.held_syncs) == ([], [], 1)
    bench.disk.resume()
    assert (bench.done, bench.durable()) == (["a"], [(1, 1)])


def test_a_wiped_disk_is_a_new_one() -> None:
    bench = crashed("kept", 1)
    bench.disk.wipe()
    assert (bench.disk.last_index, bench.disk.hard_state.term, bench.disk.snapshot_meta) == (0, 0, None)
