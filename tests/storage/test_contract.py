"""What every LogStorage does, with or without a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import CONFIGURATION, Configuration, Entry, Snapshot, SnapshotMeta

GROUP = GroupId(7)


def test_a_new_group_is_empty(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        assert (group.first_index, group.last_index, group.snapshot_meta) == (1, 0, None)
        assert group.hard_state == kit.state(0)
        assert group.read_snapshot() is None
        assert group.term(Index(0)) is None
        assert group.term(Index(1)) is None
        storage.close()

    kit.run(scenario())


def test_saved_entries_and_state_survive_reopen(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        saved = [*kit.entries(1, 5), *kit.entries(6, 9, term=2)]
        await kit.save(group, saved[:3], kit.state(1, voted_for=3))
        await kit.save(group, saved[3:], kit.state(2, voted_for=1, commit=4))
        assert kit.log(group) == saved
        storage.close()
        again = reopen()
        group = again.open_group(GROUP)
        assert kit.log(group) == saved
        assert group.hard_state == kit.state(2, voted_for=1, commit=4)
        assert [group.term(Index(i)) for i in (5, 6, 10)] == [1, 2, None]
        assert list(again.groups()) == [GROUP]
        again.close()

    kit.run(scenario())


def test_reads_see_what_is_not_durable_yet(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        called: list[int] = []
        group.save(hard_state=kit.state(1, 2), entries=kit.entries(1, 2), snapshot=None, done=lambda: called.append(1))
        assert called == [], "done was called inside save"
        assert kit.log(group) == kit.entries(1, 2)
        assert group.hard_state == kit.state(1, 2)
        storage.close()

    kit.run(scenario())


def test_a_conflicting_suffix_is_replaced(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 6), kit.state(1))
        await kit.save(group, kit.entries(3, 4, term=2), kit.state(2))
        expected = [*kit.entries(1, 2), *kit.entries(3, 4, term=2)]
        assert kit.log(group) == expected
        await kit.save(group, kit.entries(2, 2, term=3), kit.state(3))
        await kit.save(group, kit.entries(3, 9, term=3))
        expected = [*kit.entries(1, 1), *kit.entries(2, 9, term=3)]
        assert kit.log(group) == expected
        storage.close()
        again = reopen()
        assert kit.log(again.open_group(GROUP)) == expected
        again.close()

    kit.run(scenario())


def test_conflicts_queued_behind_each_other_end_with_the_last(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        order: list[int] = []
        batches = [kit.entries(1, 6), kit.entries(4, 8, term=2), kit.entries(2, 3, term=3), kit.entries(4, 4, term=3)]
        for number, batch in enumerate(batches):
            state = kit.state(batch[0].term)
            group.save(hard_state=state, entries=batch, snapshot=None, done=lambda n=number: order.append(n))
        await kit.save(group, hard_state=kit.state(4, voted_for=1))
        assert order == [0, 1, 2, 3]
        expected = [*kit.entries(1, 1), *kit.entries(2, 4, term=3)]
        assert kit.log(group) == expected
        storage.close()
        again = reopen()
        assert kit.log(again.open_group(GROUP)) == expected
        again.close()

    kit.run(scenario())


@pytest.mark.parametrize(("max_bytes", "count"), [(0, 1), (1, 1), (10, 1), (20, 2), (29, 2), (30, 3), (1000, 10)])
def test_entries_are_as_many_as_fit_but_at_least_one(
    kit: Any, reopen: Callable[[], Any], max_bytes: int, count: int
) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, [kit.entry(i, data=bytes(10)) for i in range(1, 13)], kit.state(1))
        found = group.entries(Index(3), Index(12), max_bytes)
        assert [e.index for e in found] == list(range(3, 3 + count))
        storage.close()

    kit.run(scenario())


def test_a_snapshot_of_ones_own_lets_the_log_be_compacted(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 9), kit.state(1, commit=9))
        await kit.save_snapshot(group, kit.snapshot(6))
        assert group.first_index == 1
        assert group.snapshot_meta == kit.snapshot(6).meta
        group.compact(Index(5))
        assert (group.first_index, group.term(Index(4)), group.term(Index(5))) == (5, None, 1)
        group.compact(Index(7))
        assert kit.log(group) == kit.entries(7, 9)
        assert (group.first_index, group.term(Index(6))) == (7, 1)
        storage.close()
        again = reopen()
        group = again.open_group(GROUP)
        assert group.first_index <= 7
        assert kit.log(group)[7 - group.first_index :] == kit.entries(7, 9)
        found = group.read_snapshot()
        assert (found.meta, found.data) == (kit.snapshot(6).meta, b"machine")
        assert group.read_snapshot().data == b"machine"
        again.close()

    kit.run(scenario())


@pytest.mark.parametrize("last", [0, 3, 9])
def test_a_received_snapshot_replaces_a_log_that_lacks_its_last_entry(
    kit: Any, reopen: Callable[[], Any], last: int
) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, last), kit.state(2))
        await kit.save(group, snapshot=kit.snapshot(6, term=2, data=b"theirs"), hard_state=kit.state(2, commit=6))
        assert (group.first_index, group.last_index, group.term(Index(6))) == (7, 6, 2)
        await kit.save(group, kit.entries(7, 8, term=2))
        storage.close()
        again = reopen()
        group = again.open_group(GROUP)
        assert (group.first_index, group.term(Index(6)), group.hard_state.commit_index) == (7, 2, 6)
        assert kit.log(group) == kit.entries(7, 8, term=2)
        assert group.read_snapshot().data == b"theirs"
        again.close()

    kit.run(scenario())


def test_a_received_snapshot_keeps_the_log_behind_an_entry_that_it_shares(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 9), kit.state(1))
        await kit.save(group, snapshot=kit.snapshot(6))
        assert kit.log(group) == kit.entries(7, 9)
        storage.close()
        again = reopen()
        group = again.open_group(GROUP)
        assert kit.log(group)[-3:] == kit.entries(7, 9)
        assert group.snapshot_meta == kit.snapshot(6).meta
        again.close()

    kit.run(scenario())


def test_a_snapshot_and_the_entries_behind_it_may_come_in_one_save(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        group.save(hard_state=None, entries=kit.entries(1, 3), snapshot=None, done=lambda: None)
        await kit.save(group, kit.entries(7, 9, term=2), kit.state(2), kit.snapshot(6, term=2))
        assert kit.log(group) == kit.entries(7, 9, term=2)
        storage.close()
        again = reopen()
        group = again.open_group(GROUP)
        assert (kit.log(group), group.hard_state.term) == (kit.entries(7, 9, term=2), 2)
        again.close()

    kit.run(scenario())


def test_groups_do_not_mix_and_a_removed_one_is_gone(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        groups = {n: storage.open_group(GroupId(n)) for n in (3, 1, 2)}
        await asyncio.gather(*(kit.save(g, kit.entries(1, n), kit.state(n)) for n, g in groups.items()))
        assert list(storage.groups()) == [1, 2, 3]
        storage.remove_group(GroupId(2))
        assert list(storage.groups()) == [1, 3]
        storage.close()
        again = reopen()
        assert list(again.groups()) == [1, 3]
        for n in (1, 3):
            assert kit.log(again.open_group(GroupId(n))) == kit.entries(1, n)
        fresh = again.open_group(GroupId(2))
        assert fresh.last_index == 0
        await kit.save(fresh, kit.entries(1, 1), kit.state(1))
        again.close()
        last = reopen()
        assert kit.log(last.open_group(GroupId(2))) == kit.entries(1, 1)
        last.close()

    kit.run(scenario())


def test_entries_of_any_size_and_kind_come_back(kit: Any, reopen: Callable[[], Any]) -> None:
    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        sizes = [0, 1, 27, 28, 4095, 4096, 4097, 100_000]
        saved = [kit.entry(i, data=bytes([i]) * size) for i, size in enumerate(sizes, 1)]
        for entry in saved:
            entry.kind = entry.index % 3
            await kit.save(group, [entry], kit.state(1))
        assert kit.log(group) == saved
        storage.close()
        again = reopen()
        assert kit.log(again.open_group(GROUP)) == saved
        again.close()

    kit.run(scenario())


def test_the_entries_that_changed_the_members_are_known_without_reading_the_log(
    kit: Any, reopen: Callable[[], Any]
) -> None:
    def log(first: int, last: int, term: int, changes: set[int]) -> list[Entry]:
        return [
            Entry(entry.term, entry.index, CONFIGURATION if entry.index in changes else entry.kind, entry.data)
            for entry in kit.entries(first, last, term)
        ]

    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        assert list(group.configuration_indexes()) == []
        await kit.save(group, log(1, 10, 1, {2, 5, 9}), kit.state(1))
        assert list(group.configuration_indexes()) == [2, 5, 9]
        await kit.save(group, log(8, 12, 2, {11}), kit.state(2))
        assert list(group.configuration_indexes()) == [2, 5, 11], "what replaced entry 9 is none"
        await kit.save_snapshot(group, kit.snapshot(4))
        group.compact(Index(4))
        assert list(group.configuration_indexes()) == [5, 11]
        storage.close()
        again = reopen()
        found = again.open_group(GROUP)
        assert [index for index in found.configuration_indexes() if index > 4] == [5, 11]
        assert all(found.entries(index, index, 1)[0].kind == CONFIGURATION for index in found.configuration_indexes())
        await kit.save(found, snapshot=kit.snapshot(20, term=3))
        assert list(found.configuration_indexes()) == []
        again.close()

    kit.run(scenario())


def test_a_snapshot_keeps_all_of_a_joint_configuration(kit: Any, reopen: Callable[[], Any]) -> None:
    one, two, three, four = (NodeId(n) for n in (1, 2, 3, 4))
    joint = Configuration([two, three], [one, two], [four], [one], auto_leave=True)

    async def scenario() -> None:
        storage = reopen()
        group = storage.open_group(GROUP)
        await kit.save(group, kit.entries(1, 5), kit.state(1))
        await kit.save_snapshot(group, Snapshot(SnapshotMeta(Index(3), Term(1), joint), b"machine"))
        storage.close()
        again = reopen()
        assert again.open_group(GROUP).snapshot_meta.configuration == joint
        again.close()

    kit.run(scenario())
