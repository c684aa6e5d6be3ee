"""The server's own storage on a simulated disk: what it acknowledged survives every crash; damage is never served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seatrial.env import Rng
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import Entry, HardState
from seatrial.server.directory import start_directory
from seatrial.sim.clocks import HostClock
from seatrial.storage import DamagedLog, StorageError, StorageFailed
from seatrial.storage.snapshots import write_snapshot

GROUP = GroupId(7)
MakeBench = Callable[..., Any]


class Model:
    """What one group may hold after a crash: everything acknowledged, and any beginning of what was not."""

    def __init__(self) -> None:
        self.logs: list[dict[int, tuple[int, bytes]]] = [{}]  # possible logs, the acknowledged one first
        self.states: list[HardState] = [HardState(Term(0), None, Index(0))]
        self.acknowledged = [0, 0]  # places in `logs` and `states`
        self.snapshot = 0  # index of the last one that is acknowledged
        self.committed = 0  # a snapshot was asked for: nothing up to here may ever be replaced
        self.life = 0

    @property
    def log(self) -> dict[int, tuple[int, bytes]]:
        return self.logs[-1]

    def save(self, state: HardState, entries: list[Entry]) -> Callable[[], None]:
        for entry in entries:
            kept = {index: value for index, value in self.log.items() if index < entry.index}
            self.logs.append({**kept, int(entry.index): (int(entry.term), entry.data)})
        self.states.append(state)
        places, life = [len(self.logs) - 1, len(self.states) - 1], self.life

        def done() -> None:
            if life == self.life:  # the loop of the test outlives the process
                self.acknowledged = places

        return done

    def check(self, group: Any, log: dict[int, Entry]) -> None:
        found = {index: (int(entry.term), entry.data) for index, entry in log.items()}
        possible = self.logs[self.acknowledged[0] :]
        first = int(group.first_index)
        assert any({i: v for i, v in p.items() if i >= first} == found for p in possible), (
            f"the log {sorted(found)} is none that could be left of {[sorted(p) for p in possible]}"
        )
        votes = [(state.term, state.voted_for) for state in self.states[self.acknowledged[1] :]]
        assert (group.hard_state.term, group.hard_state.voted_for) in votes
        held = group.snapshot_meta.last_included_index if group.snapshot_meta else 0
        assert held >= self.snapshot, f"the snapshot at {self.snapshot} was acknowledged, and {held} was found"
        assert first <= held + 1, f"entries {held + 1} to {first - 1} are nowhere"
        self.logs = [next(p for p in reversed(possible) if {i: v for i, v in p.items() if i >= first} == found)]
        self.states = [group.hard_state]
        self.acknowledged = [0, 0]
        self.snapshot = int(held)
        self.life += 1


class Fuzz:
    """Random saves to a few groups, random crashes, over several lives of one disk."""

    def __init__(self, bench: Any, seed: int) -> None:
        self.bench = bench
        self.chance = Rng(seed).child("fuzz")
        self.models = {GroupId(n): Model() for n in (1, 2, 9)}
        self.term = 1
        self.crashes = 0

    async def life(self) -> None:
        storage = self.bench.storage(segment_bytes=self.chance.choice([600, 2_000, 1 << 16]))
        groups = {}
        for number, model in self.models.items():
            groups[number] = group = storage.open_group(number)
            model.check(group, self.bench.log(group))
        for _ in range(self.chance.integer(1, 40)):
            number = self.chance.choice(list(self.models))
            self.act(groups[number], self.models[number])
            for _ in range(self.chance.integer(0, 3)):
                await self.bench.step()
        assert self.bench.fatal == []
        self.bench.disk.crash(power=self.chance.chance(0.7))
        self.crashes += 1

    def act(self, group: Any, model: Model) -> None:
        if self.chance.chance(0.1) and len(model.log) > 3:
            self.make_snapshot(group, model)
            return
        self.term += self.chance.chance(0.2)
        last = max(model.log, default=int(group.snapshot_meta.last_included_index) if group.snapshot_meta else 0)
        newest = model.log[last][0] if last in model.log else 0
        first = last + 1
        if newest < self.term and self.chance.chance(0.3):  # a new leader's entries take the place of others
            first = max(first - self.chance.integer(0, 3), model.committed + 1)
            first = min(first, last + 1)
        entries = self.bench.entries(
            first, first + self.chance.integer(-1, 4), max(self.term, newest), self.chance.choice([8, 60, 700])
        )
        vote = NodeId(self.chance.integer(1, 3)) if self.chance.chance(0.5) else None
        state = HardState(Term(max(self.term, newest)), vote, Index(0))
        group.save(hard_state=state, entries=entries, snapshot=None, done=model.save(state, entries))

    def make_snapshot(self, group: Any, model: Model) -> None:
        durable = model.logs[model.acknowledged[0]]
        index = self.chance.integer(int(group.first_index), max(model.log) - 2)
        if index <= model.committed or durable.get(index, 0) != model.log.get(index):
            return

        model.committed = index
        life = model.life

        def done() -> None:
            if life != model.life:
                return
            model.snapshot = max(model.snapshot, index)
            if index + 1 >= group.first_index:
                group.compact(Index(index + 1))

        group.save_snapshot(self.bench.snapshot(index, model.log[index][0]), done=done)


def fuzz(make_bench: MakeBench, seed: int) -> None:
    modes = ("lost", "prefix", "some", "kept")
    bench = make_bench(seed, unsynced=modes[seed % 4], sync_us=(50, 2_000))

    async def scenario() -> None:
        run = Fuzz(bench, seed)
        for _ in range(5):
            await run.life()
        assert run.crashes == 5

    bench.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, 50))
def test_everything_acknowledged_is_there_after_any_crash(bench: MakeBench, first: int) -> None:
    for seed in range(first, first + 50):
        try:
            fuzz(bench, seed)
        except BaseException as error:
            raise AssertionError(f"seed {seed}") from error


def test_a_storage_that_acknowledges_before_the_sync_is_caught(bench: MakeBench) -> None:
    """The fuzz's own proof: with durability "os" an acknowledgement promises nothing, and the model notices."""

    async def scenario(seed: int) -> bool:
        made = bench(seed, unsynced="lost")
        storage = made.storage(durability="os")
        model, group = Model(), storage.open_group(GROUP)
        entries = made.entries(1, 3)
        state = HardState(Term(1), None, Index(0))
        acknowledge = model.save(state, entries)
        await made.save(group, entries, state)
        acknowledge()
        made.disk.crash(power=True)
        reopened = made.storage().open_group(GROUP)
        try:
            model.check(reopened, made.log(reopened))
        except AssertionError:
            return True
        return False

    assert bench().run(scenario(1))


async def after_saves(made: Any, count: int = 5, size: int = 200) -> None:
    """A few acknowledged saves of their own, then the process ends."""
    storage = made.storage()
    group = storage.open_group(GROUP)
    for index in range(1, count + 1):
        await made.save(group, made.entries(index, index, size=size), HardState(Term(1), NodeId(2), Index(index - 1)))
    made.disk.crash(power=False)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("damage", ["rot", "truncate", "roll back", "lost", "misdirected"])
def test_damage_is_refused_or_harmless_and_never_served(bench: MakeBench, damage: str, seed: int) -> None:
    """Every kind, on any file: the group opens with all that was acknowledged, or not at all."""
    made = bench(seed, unsynced="lost")

    async def scenario() -> None:
        if damage == "lost":
            made.disk.lose_next_write()
        elif damage == "misdirected":
            await after_saves(made, 2)
            made.disk.misdirect_next_write(seed / 12)
        if damage == "misdirected":
            storage = made.storage()
            group = storage.open_group(GROUP)
            for index in range(3, 6):
                await made.save(group, made.entries(index, index, size=200))
            made.disk.crash(power=True)
        else:
            await after_saves(made)
        bit = {
            "rot": lambda: made.disk.rot(seed / 12),
            "truncate": lambda: made.disk.truncate_file(seed / 12),
            "roll back": made.disk.roll_back_file,
        }.get(damage, lambda: made.disk.counts["silent-write"] > 0)()
        assert bit
        try:
            group = made.storage().open_group(GROUP)
        except StorageError:
            return
        assert sorted(made.log(group)) == [1, 2, 3, 4, 5]
        assert (group.hard_state.term, group.hard_state.voted_for) == (1, 2)

    made.run(scenario())


def test_most_damage_to_a_log_is_refused(bench: MakeBench) -> None:
    """Beside the test above, which silence would pass as well."""
    refused = 0

    async def scenario(made: Any, seed: int) -> bool:
        await after_saves(made)
        assert made.disk.rot(seed / 20)
        try:
            made.storage().open_group(GROUP)
        except StorageError:
            return True
        return False

    for seed in range(20):
        made = bench(seed)
        refused += made.run(scenario(made, seed))
    assert refused > 10


def test_a_failed_sync_ends_the_process_and_acknowledges_nothing(bench: MakeBench) -> None:
    made = bench(unsynced="lost")
    acknowledged: list[bool] = []

    async def scenario() -> None:
        storage = made.storage()
        group = storage.open_group(GROUP)
        await made.save(group, made.entries(1, 1))
        made.disk.fail_next("sync")
        group.save(hard_state=None, entries=made.entries(2, 2), snapshot=None, done=lambda: acknowledged.append(True))
        await made.settle()
        assert isinstance(made.fatal[0], StorageFailed)
        made.disk.crash(power=False)
        made.fatal.clear()
        assert 1 in made.log(made.storage().open_group(GROUP))

    made.run(scenario())
    assert acknowledged == []


def test_a_stalled_disk_acknowledges_nothing_until_it_goes_on(bench: MakeBench) -> None:
    made = bench()
    acknowledged: list[int] = []

    async def scenario() -> None:
        group = made.storage().open_group(GROUP)
        made.disk.stall()
        group.save(
            hard_state=None,
            entries=made.entries(1, 1),
            snapshot=None,
            done=lambda: acknowledged.append(made.world.now_us),
        )
        made.world.at(5_000_000, lambda _: made.disk.release())
        await made.settle(lambda: bool(acknowledged))

    made.run(scenario())
    assert acknowledged[0] >= 5_000_000
    assert made.disk.counts["stall-sync"] == 1


def test_slow_syncs_take_as_long_as_they_are_told_to(bench: MakeBench) -> None:
    made = bench(sync_us=(100, 100))

    async def scenario() -> None:
        group = made.storage().open_group(GROUP)
        await made.save(group, made.entries(1, 1))
        before = made.world.now_us
        made.disk.slow_sync_us = 80_000
        await made.save(group, made.entries(2, 2))
        assert made.world.now_us - before >= 80_000

    made.run(scenario())


@pytest.mark.parametrize("point", ["before-save", "after-save", "during-snapshot"])
def test_a_crash_at_a_named_point_of_a_save_loses_nothing_that_was_acknowledged(bench: MakeBench, point: str) -> None:
    made = bench(unsynced="lost")
    acknowledged: list[bool] = []

    async def scenario() -> None:
        group = made.storage().open_group(GROUP)
        await made.save(group, made.entries(1, 5))

        def crash_there(name: str) -> bool:
            if name == point:
                made.disk.on_point = None
                made.disk.crash(power=True)
            return name == point

        made.disk.on_point = crash_there
        if point == "during-snapshot":
            group.save_snapshot(made.snapshot(3, 1), done=lambda: acknowledged.append(True))
        else:
            group.save(
                hard_state=None, entries=made.entries(6, 6), snapshot=None, done=lambda: acknowledged.append(True)
            )
        await made.settle()
        assert acknowledged == []
        reopened = made.storage().open_group(GROUP)
        assert sorted(made.log(reopened)) == [1, 2, 3, 4, 5] + ([6] if point == "after-save" else [])
        assert reopened.snapshot_meta is None

    made.run(scenario())


def test_a_group_that_was_made_survives_a_power_cut_right_after_its_first_save(bench: MakeBench) -> None:
    """The directory of all groups was once never synced into the data directory: a power cut took them all."""
    made = bench(unsynced="lost")

    async def scenario() -> None:
        await made.save(made.storage().open_group(GROUP), made.entries(1, 2))
        made.disk.crash(power=True)
        assert sorted(made.log(made.storage().open_group(GROUP))) == [1, 2]

    made.run(scenario())


def test_a_log_cut_short_after_a_quiet_restart_is_refused(bench: MakeBench) -> None:
    """A power cut takes the watermark along; recovery writes it anew, so that rot before the next save is told."""
    made = bench(unsynced="lost")

    async def scenario() -> None:
        group = made.storage().open_group(GROUP)
        for index in range(1, 6):
            await made.save(group, made.entries(index, index, size=200))
        made.disk.crash(power=True)
        made.storage().open_group(GROUP)
        made.disk.crash(power=False)
        log = next(content for path, content in made.disk.tree.files() if "segment-" in path)
        assert log.truncate_to(0.5)
        with pytest.raises(DamagedLog, match="watermark"):
            made.storage().open_group(GROUP)

    made.run(scenario())


def test_starts_are_counted_across_power_cuts(bench: MakeBench) -> None:
    made = bench(unsynced="lost")
    counted = []
    for _ in range(3):
        directory = start_directory(made.disk.mount(), "data", Rng(1), HostClock(made.world), joins=False)
        counted.append(directory.incarnation)
        made.disk.crash(power=True)
    assert counted == [1, 2, 3]


def test_a_snapshot_that_recovery_took_up_survives_a_power_cut(bench: MakeBench) -> None:
    """The process was killed between its rename and the sync of its name: recovery relied on it, and did not sync."""
    made = bench(unsynced="lost")

    async def scenario() -> None:
        await made.save(made.storage().open_group(GROUP), made.entries(1, 5))
        made.disk.crash(power=False)
        files = made.disk.mount()
        files.sync_directory = lambda path: None
        write_snapshot(files, "data/groups/7", GROUP, made.snapshot(3, 1), origin="made")
        made.disk.crash(power=False)
        assert made.storage().open_group(GROUP).snapshot_meta.last_included_index == 3
        made.disk.crash(power=True)
        assert made.storage().open_group(GROUP).snapshot_meta.last_included_index == 3

    made.run(scenario())
