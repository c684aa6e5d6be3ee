"""RaftLog: what is in memory, what is durable, what may be applied."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_network import Disk, entries_of

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from seatrial.raft.messages import Configuration, Entry, Snapshot, SnapshotMeta
from seatrial.raft.ready import Ready

ROOM = 1 << 20


def log_on(disk: Disk) -> RaftLog:
    return RaftLog(disk, Configuration([NodeId(1)]))


def save(log: RaftLog, disk: Disk) -> None:
    """Begin a save, without finishing it."""
    entries, snapshot = log.begin_save()
    disk.save(Ready(None, entries, snapshot, [], [], [], [], None))


def snapshot_at(index: int, term: int) -> Snapshot:
    return Snapshot(SnapshotMeta(Index(index), Term(term), Configuration([NodeId(1)])), b"state")


def terms(log: RaftLog) -> list[int | None]:
    return [log.term(index) for index in range(log.first_index, log.last_index + 1)]


def test_an_empty_log_ends_at_position_zero() -> None:
    log = log_on(Disk())
    assert (log.first_index, log.last_index, log.last_term, log.term(0), log.term(1)) == (1, 0, 0, 0, None)


def test_entries_are_read_from_storage_and_tail_alike() -> None:
    log = log_on(Disk([1, 1, 2]))
    log.try_append(3, 2, entries_of([2, 3], 4))
    assert log.entries(1, ROOM) == entries_of([1, 1, 2, 2, 3])
    assert log.entries(4, ROOM) == entries_of([2, 3], 4)
    assert log.entries(6, ROOM) == []


@settings(deadline=None)
@given(first=st.integers(1, 8), fitting=st.integers(0, 9), in_tail=st.integers(0, 7))
def test_reading_is_bounded_in_bytes_but_gives_at_least_one_entry(first: int, fitting: int, in_tail: int) -> None:
    all_terms = [1] * 8
    disk = Disk(all_terms[: 8 - in_tail])
    log = log_on(disk)
    log.try_append(8 - in_tail, 1, entries_of(all_terms[8 - in_tail :], 9 - in_tail))
    one = len(b"1.1") + ENTRY_OVERHEAD_BYTES
    found = log.entries(first, fitting * one)
    assert found == entries_of(all_terms)[first - 1 : first - 1 + max(1, fitting)]


def test_a_conflict_replaces_the_tail_and_also_what_is_durable() -> None:
    disk = Disk([1, 1, 1])
    log = log_on(disk)
    assert log.try_append(1, 1, entries_of([2, 2], 2)) == 3
    assert terms(log) == [1, 2, 2]
    assert log.durable_index == 1
    save(log, disk)
    assert [disk.term(Index(i)) for i in (1, 2, 3)] == [1, 2, 2]


def test_a_committed_entry_is_never_replaced() -> None:
    log = log_on(Disk([1, 1]))
    log.commit_to(2)
    assert log.try_append(1, 1, entries_of([2, 2], 2)) == 3, "entry 2 is taken as equal, whatever its term"
    assert terms(log) == [1, 1, 2]


def test_committing_beyond_the_end_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="beyond the last entry"):
        log_on(Disk([1])).commit_to(2)


def test_entries_become_durable_in_the_order_of_their_saves() -> None:
    disk = Disk()
    log = log_on(disk)
    log.try_append(0, 0, entries_of([1, 1]))
    save(log, disk)
    log.try_append(2, 1, entries_of([1], 3))
    save(log, disk)
    assert log.durable_index == 0
    log.finish_save()
    assert log.durable_index == 2
    log.finish_save()
    assert log.durable_index == 3


def test_a_late_save_says_nothing_of_entries_that_replaced_its_own() -> None:
    """Not even when equal ones came back: they are in a later save, and between the two the others may be on disk."""
    disk = Disk()
    log = log_on(disk)
    log.try_append(0, 0, entries_of([1, 1]))
    save(log, disk)
    log.try_append(1, 1, entries_of([2], 2))
    save(log, disk)
    log.try_append(1, 1, entries_of([1], 2))
    save(log, disk)
    log.finish_save()
    assert log.durable_index == 1
    log.finish_save()
    assert log.durable_index == 1
    log.finish_save()
    assert log.durable_index == 2


def test_only_what_is_committed_and_durable_is_applied() -> None:
    disk = Disk()
    log = log_on(disk)
    log.try_append(0, 0, entries_of([1, 1]))
    save(log, disk)
    log.try_append(2, 1, entries_of([1], 3))
    save(log, disk)
    log.commit_to(3)
    assert log.take_committed(ROOM) == []
    log.finish_save()
    assert log.take_committed(ROOM) == entries_of([1, 1])
    log.finish_save()
    assert log.take_committed(ROOM) == entries_of([1], 3)
    assert log.take_committed(ROOM) == []


def test_applying_is_bounded_in_bytes_and_goes_on_where_it_stopped() -> None:
    log = log_on(Disk([1] * 5))
    log.commit_to(5)
    taken = []
    while log.has_committed():
        batch = log.take_committed(2 * (3 + ENTRY_OVERHEAD_BYTES))
        assert len(batch) <= 2
        taken += batch
    assert taken == entries_of([1] * 5)


def test_the_tail_leaves_memory_once_it_is_applied() -> None:
    disk = Disk()
    log = log_on(disk)
    log.try_append(0, 0, entries_of([1, 1, 1]))
    save(log, disk)
    disk.finish_one()
    log.finish_save()
    log.commit_to(2)
    log.take_committed(ROOM)
    assert log._tail == entries_of([1], 3)
    assert log.entries(1, ROOM) == entries_of([1, 1, 1])


def test_a_restart_begins_after_the_snapshot_and_knows_the_saved_commit_index() -> None:
    disk = Disk([1, 1, 1, 2])
    disk.save_snapshot(snapshot_at(2, 1), first_kept=2)
    log = log_on(disk)
    assert (log.first_index, log.last_index, log.commit_index, log.last_applied) == (2, 4, 2, 2)
    assert log.term(1) is None


def test_a_restored_snapshot_replaces_the_log_and_blocks_applying_until_it_is_durable() -> None:
    disk = Disk([1, 1])
    log = log_on(disk)
    log.restore(snapshot_at(10, 3))
    assert (log.first_index, log.last_index, log.last_term, log.commit_index) == (11, 10, 3, 10)
    assert log.term(9) is None
    log.try_append(10, 3, entries_of([3], 11))
    log.commit_to(11)
    save(log, disk)
    assert log.take_committed(ROOM) == []
    disk.finish_one()
    log.finish_save()
    assert (log.last_applied, log.durable_index) == (10, 11)
    assert log.take_committed(ROOM) == entries_of([3], 11)


def test_a_save_from_before_a_snapshot_does_not_count_after_it() -> None:
    disk = Disk()
    log = log_on(disk)
    log.try_append(0, 0, entries_of([1] * 20))
    save(log, disk)
    log.restore(snapshot_at(10, 3))
    log.finish_save()
    assert log.durable_index == 0


@pytest.mark.parametrize(
    ("index", "term", "floor", "expected"), [(7, 3, 0, 5), (7, 4, 0, 7), (5, 2, 0, 4), (5, 1, 0, 2), (7, 1, 3, 3)]
)
def test_looking_back_for_a_term_skips_later_terms(index: int, term: int, floor: int, expected: int) -> None:
    log = log_on(Disk([1, 1, 2, 2, 3, 4, 4]))
    assert log.last_not_after(index, term, floor=floor) == expected


LOGS = st.lists(st.integers(0, 1), max_size=8).map(lambda steps: [1 + sum(steps[: n + 1]) for n in range(len(steps))])


@settings(deadline=None)
@given(own=LOGS, leaders=LOGS, prev=st.integers(0, 8), kept=st.integers(0, 8))
def test_appending_agrees_with_the_paper_word_for_word(
    own: list[int], leaders: list[int], prev: int, kept: int
) -> None:
    """Figure 2, "AppendEntries RPC, receiver implementation", 2 to 4, on plain lists."""
    prev = min(prev, len(leaders))
    new = entries_of(leaders)[prev : prev + kept]
    prev_term = leaders[prev - 1] if prev else 0
    log = log_on(Disk(own))
    matched = log.try_append(prev, prev_term, new)

    model: list[Entry] = entries_of(own)
    if prev and (len(model) < prev or model[prev - 1].term != prev_term):
        assert matched is None
    else:
        for entry in new:
            if len(model) >= entry.index and model[entry.index - 1].term != entry.term:
                del model[entry.index - 1 :]
            if len(model) < entry.index:
                model.append(entry)
        assert matched == prev + len(new)
    assert log.entries(1, ROOM) == model
