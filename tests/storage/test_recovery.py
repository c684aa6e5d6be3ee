"""Damage at every byte of a small log: torn tails are cut, rot is refused, and no entry ever reads wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import pytest

from seatrial.raft.ids import GroupId, Index
from seatrial.raft.messages import Entry, HardState
from seatrial.storage import DamagedLog
from seatrial.storage.frames import BATCH_SIZE, FRAME, NOWHERE, Place, pack_entries, seed_of, unpack_entry
from seatrial.storage.recovery import RecoveredLog, Recovery
from seatrial.storage.watermarks import Watermarks

GROUP = GroupId(7)
DIRECTORY = f"data/groups/{GROUP}"
WATERMARKS = "data/watermarks"


class Reached(NamedTuple):
    """What the log is, up to a frame's end."""

    end: Place
    entries: list[Entry]
    hard_state: HardState


class Built(NamedTuple):
    """A log on a disk that its process was killed on, and what each prefix of it means."""

    disk: Any
    segments: list[str]
    reached: list[Reached]

    @property
    def end(self) -> Place:
        return self.reached[-1].end

    def before(self, place: Place) -> Reached:
        return next(r for r in reversed(self.reached) if r.end <= place)

    def last_batch(self) -> Place:
        """Where the last batch begins."""
        return self.batches[-1]

    @property
    def batches(self) -> list[Place]:
        return [r.end for r, after in zip(self.reached, self.reached[1:], strict=False) if is_batch(r, after)]


def is_batch(before: Reached, after: Reached) -> bool:
    return before.hard_state is not after.hard_state


SAVES: list[tuple[int, list[tuple[int, int]]]] = [
    # term of the HardState, and (index, term) of entries
    (1, [(1, 1), (2, 1)]),
    (2, []),
    (2, [(3, 2)]),
    (3, [(2, 3), (3, 3), (4, 3)]),
    (4, [(5, 4)]),
    (5, []),
    (6, [(6, 6), (7, 6)]),
]


def data_of(index: int, term: int) -> bytes:
    return b"%d/%d" % (index, term) * index


def build(kit: Any, segment_bytes: int, saves: Any = SAVES) -> Built:
    """`Reached` is worked out from the sizes of frames alone, not from the code under test."""
    disk = kit.disk()

    async def scenario() -> Any:
        group = kit.storage(disk, segment_bytes=segment_bytes).open_group(GROUP)
        for term, ids in saves:
            batch = [kit.entry(index, t, data_of(index, t)) for index, t in ids]
            await kit.save(group, batch, kit.state(term, voted_for=term))
        return disk.after_kill()

    image = kit.run(scenario())
    segments = [name for name in image.list_directory(DIRECTORY) if name.startswith("segment")]
    place, entries = Place(1, 0), list[Entry]()
    reached = [Reached(place, [], kit.state(0))]
    for term, ids in saves:
        lengths = [FRAME.size + len(data_of(*i)) for i in ids]
        if place.offset + BATCH_SIZE + sum(lengths) > segment_bytes and place.offset:
            place = Place(place.sequence + 1, 0)
            reached.append(Reached(place, list(entries), reached[-1].hard_state))
        hard_state = kit.state(term, voted_for=term)
        ends = list(accumulate([place.offset + BATCH_SIZE, *lengths]))
        reached.append(Reached(Place(place.sequence, ends[0]), list(entries), hard_state))
        for (index, t), end in zip(ids, ends[1:], strict=True):
            entries = [*entries[: index - 1], kit.entry(index, t, data_of(index, t))]
            reached.append(Reached(Place(place.sequence, end), list(entries), hard_state))
        place = Place(place.sequence, ends[-1])
    return Built(image, segments, reached)


def recover(disk: Any) -> tuple[RecoveredLog | None, list[str]]:
    watermark = Watermarks(disk.open(WATERMARKS, create=True)).found(GROUP)
    recovery = Recovery(disk, DIRECTORY, GROUP, watermark)
    return recovery.recover(settle=True), recovery.reports


def check(built: Built, disk: Any, expected: Reached | None, where: str, *, kit: Any) -> None:
    """Recovery gives exactly `expected`, or DamagedLog for None; and then the same again, with nothing to report."""
    names = {name: bytes(node.content) for name, node in disk.names.items()}
    try:
        found, _ = recover(disk)
    except DamagedLog as error:
        assert expected is None, f"{where}: {error}"
        assert error.file.startswith(DIRECTORY), f"{where}: {error}"
        changed = {name for name, node in disk.names.items() if names.get(name) != bytes(node.content)}
        assert changed <= {WATERMARKS}, f"{where}: a refused log was changed: {changed}"
        return
    assert expected is not None, f"{where}: not refused"
    for _ in range(2):
        if found is None:
            assert (expected.entries, expected.hard_state) == ([], HardState(0, None, 0)), where  # type: ignore[arg-type]
        else:
            assert found.hard_state == expected.hard_state, where
            assert read_back(disk, found) == expected.entries, where
        found, reports = recover(disk)
        assert not reports, f"{where}: reported again: {reports}"


def read_back(disk: Any, found: RecoveredLog) -> list[Entry]:
    entries = []
    for index in range(found.index.first, found.index.last + 1):
        sequence, offset = found.index.place(index)
        content = disk.names[f"{DIRECTORY}/{found.segments[sequence]}"].content
        frame = bytes(content[offset : offset + found.index.length(index)])
        entry = unpack_entry(frame, 0, len(frame), seed_of(GROUP, sequence))
        assert entry is not None
        entries.append(entry)
    return entries


def damaged_by(kind: str, content: bytes, at: int) -> bytes:
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]
    if kind == "tear":  # a sector that was never written
        return content[:at] + bytes(min(16, len(content) - at)) + content[at + 16 :]
    assert kind == "scramble"
    return content[:at] + bytes(b ^ 0xA5 for b in content[at : at + 40]) + content[at + 40 :]


def first_difference(before: bytes, after: bytes) -> int | None:
    return next((i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b), None)


def all_damages(built: Built, kind: str) -> Iterator[tuple[str, Any, Place | None, int]]:
    """Each byte of each segment: the damaged disk, and the place of the first byte of a frame that differs."""
    for sequence, name in enumerate(built.segments, 1):
        path = f"{DIRECTORY}/{name}"
        content = bytes(built.disk.names[path].content)
        for at in range(min(len(content), 1200)):
            disk = built.disk.after_kill()
            changed = damaged_by(kind, content, at)
            disk.names[path].content[:] = changed
            end = max(r.end.offset for r in built.reached if r.end.sequence == sequence)
            difference = at if kind == "cut" else first_difference(content, changed)
            place = None if difference is None or difference >= end else Place(sequence, difference)
            yield f"{kind} of {name} at {at}", disk, place, at


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cut", "flip", "tear", "scramble"])
@pytest.mark.parametrize("segment_bytes", [100_000, 600, 1])
def test_what_the_watermark_knows_durable_is_never_cut(kit: Any, kind: str, segment_bytes: int) -> None:
    built = build(kit, segment_bytes)
    for where, disk, place, _ in all_damages(built, kind):
        check(built, disk, built.reached[-1] if place is None else None, where, kit=kit)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip", "tear", "scramble"])
@pytest.mark.parametrize("segment_bytes", [100_000, 600, 1])
def test_a_later_batch_proves_an_earlier_one_durable(kit: Any, kind: str, segment_bytes: int) -> None:
    """The power cut also lost the watermark: only the last batch may be taken for torn, and it is cut exactly."""
    built = build(kit, segment_bytes)
    del built.disk.names[WATERMARKS]
    last = built.last_batch()
    for where, disk, place, at in all_damages(built, kind):
        if place is None:
            expected: Reached | None = built.reached[-1]
        elif place >= last or (kind == "scramble" and at + 40 > last.offset and place.sequence == last.sequence):
            # The scramble of an earlier batch that reaches into the last one also takes away what proved it.
            before_last = place < last and not proven_behind(built, place)
            expected = built.before(place) if place >= last or before_last else None
        elif kind == "tear" and at + 16 > last.offset and place.sequence == last.sequence:
            expected = None if proven_behind(built, place) else built.before(place)
        else:
            expected = None
        check(built, disk, expected, where, kit=kit)


def proven_behind(built: Built, place: Place) -> bool:
    """Whether a batch that an overlapping damage left whole still proves `place` durable: batches it starts after."""
    starts = built.batches
    own = max(s for s in starts if s <= place)
    return own < starts[-2]


@pytest.mark.slow
@pytest.mark.parametrize("segment_bytes", [100_000, 600, 1])
def test_a_lost_tail_without_its_watermark_leaves_a_prefix(kit: Any, segment_bytes: int) -> None:
    """The tail of the last segment and the watermark are gone: nothing is left to tell, but no entry is wrong."""
    built = build(kit, segment_bytes)
    del built.disk.names[WATERMARKS]
    for where, disk, place, _ in all_damages(built, "cut"):
        if place is None:
            expected: Reached | None = built.reached[-1]
        elif place.sequence < len(built.segments):
            expected = None
        else:
            expected = built.before(place)
        check(built, disk, expected, where, kit=kit)


def with_snapshot(kit: Any) -> Any:
    disk = kit.disk()

    async def scenario() -> Any:
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 3), kit.state(1))
        await kit.save_snapshot(group, kit.snapshot(3, data=b"the machine's state"))
        group.compact(Index(4))
        await kit.save(group, kit.entries(4, 5), kit.state(1))
        return disk.after_kill()

    return kit.run(scenario())


@pytest.mark.parametrize("kind", ["cut", "flip", "scramble"])
def test_a_damaged_snapshot_is_refused_at_every_byte(kit: Any, kind: str) -> None:
    image = with_snapshot(kit)
    path = f"{DIRECTORY}/snapshot-{3:020d}"
    content = bytes(image.names[path].content)
    assert recover(image.after_kill())[0] is not None
    for at in range(len(content)):
        disk = image.after_kill()
        disk.names[path].content[:] = damaged_by(kind, content, at)
        with pytest.raises(DamagedLog) as caught:
            recover(disk)
        assert caught.value.file == path


def test_a_damaged_watermark_file_damages_nothing_else(kit: Any) -> None:
    built = build(kit, 600)
    content = bytes(built.disk.names[WATERMARKS].content)
    for at in range(len(content)):
        for kind in ("cut", "flip"):
            disk = built.disk.after_kill()
            disk.names[WATERMARKS].content[:] = damaged_by(kind, content, at)
            check(built, disk, built.reached[-1], f"{kind} of the watermarks at {at}", kit=kit)


def test_a_lost_segment_file_is_refused(kit: Any) -> None:
    built = build(kit, 1)
    assert len(built.segments) == len(SAVES)
    for name in built.segments:
        disk = built.disk.after_kill()
        del disk.names[f"{DIRECTORY}/{name}"]
        check(built, disk, None, f"{name} is gone", kit=kit)


def test_a_segment_of_another_group_or_place_is_refused(kit: Any) -> None:
    """A misdirected write, or a file copied to where it does not belong."""
    built = build(kit, 1)
    other = build(kit, 1)
    first, second = (f"{DIRECTORY}/{name}" for name in built.segments[:2])
    disk = built.disk.after_kill()
    disk.names[first].content[:] = other.disk.names[second].content
    check(built, disk, None, "the second segment's bytes in the first", kit=kit)


def test_another_groups_entry_in_this_groups_segment_is_refused(kit: Any) -> None:
    """The frame is whole, and of the right index and term: only the seed of its checksum gives it away."""
    built = build(kit, 1)
    path = f"{DIRECTORY}/{built.segments[0]}"
    entry = kit.entry(1, 1, data_of(1, 1)[::-1])
    frame: list[Any] = []
    pack_entries([entry], seed_of(GroupId(8), 1), frame)
    disk = built.disk.after_kill()
    at = BATCH_SIZE
    disk.names[path].content[at : at + FRAME.size + len(entry.data)] = b"".join(frame)
    check(built, disk, None, "another group's entry", kit=kit)


def test_a_segment_rolled_back_to_an_older_version_is_refused(kit: Any) -> None:
    built, older = build(kit, 100_000), build(kit, 100_000, SAVES[:-1])
    path = f"{DIRECTORY}/{built.segments[0]}"
    disk = built.disk.after_kill()
    disk.names[path].content[:] = older.disk.names[path].content
    check(built, disk, None, "rolled back", kit=kit)


def test_an_unreadable_segment_is_refused(kit: Any) -> None:
    built = build(kit, 600)
    disk = built.disk.after_kill()
    disk.unreadable.add(f"{DIRECTORY}/{built.segments[0]}")
    with pytest.raises(DamagedLog, match="cannot be read"):
        recover(disk)


def test_a_cut_is_reported_and_the_log_goes_on_behind_it(kit: Any) -> None:
    built = build(kit, 100_000)
    del built.disk.names[WATERMARKS]
    path = f"{DIRECTORY}/{built.segments[0]}"
    at = built.reached[-2].end.offset
    built.disk.names[path].content[at + 3] ^= 1

    async def scenario() -> None:
        storage = kit.storage(built.disk)
        group = storage.open_group(GROUP)
        assert [path in r and f"byte {at}" in r for r in kit.reports] == [True]
        assert kit.log(group) == built.reached[-2].entries
        more = kit.entries(group.last_index + 1, 20, term=7)
        await kit.save(group, more, kit.state(7))
        again = kit.storage(built.disk.after_power_cut(), "data")
        assert kit.log(again.open_group(GROUP)) == [*built.reached[-2].entries, *more]

    kit.run(scenario())


def test_what_was_read_is_made_durable_before_it_is_relied_on(kit: Any) -> None:
    """The process died between write and sync: its successor reads the page cache, and must sync it."""
    disk = kit.disk()

    async def scenario() -> None:
        group = kit.storage(disk).open_group(GROUP)
        await kit.save(group, kit.entries(1, 2), kit.state(1))
        disk.fail_at, disk.recovers = len(disk.calls) + 1, True  # the write succeeds, the sync fails
        group.save(hard_state=None, entries=kit.entries(3, 4), snapshot=None, done=lambda: None)
        while not kit.fatal:
            await kit.save(kit_idle)
        # Same pages, next process; to sync them would change nothing, as they count as clean.
        disk.locked.clear()
        group = kit.storage(disk).open_group(GROUP)
        assert kit.log(group) == kit.entries(1, 4)
        after = kit.storage(disk.after_power_cut()).open_group(GROUP)
        assert kit.log(after) == kit.entries(1, 4)

    from seatrial.storage import MemoryStorage

    kit_idle = MemoryStorage().open_group(GROUP)
    kit.run(scenario())


def random_save(kit: Any, rng: random.Random, model: list[Entry], term: int) -> list[Entry]:
    first = rng.randint(1, len(model) + 1) if rng.random() < 0.3 else len(model) + 1
    count = rng.randint(0, 4)
    return [kit.entry(i, term, rng.randbytes(rng.choice([0, 3, 40, 200]))) for i in range(first, first + count)]


def crash_run(kit: Any, seed: int, cut: Callable[[Any, random.Random], Any]) -> str:
    """Random saves; the disk fails at a random call; whatever was acknowledged must be there afterwards."""
    rng = random.Random(seed)
    disk = kit.disk()
    acknowledged: list[int] = []  # numbers of saves
    states: list[tuple[list[Entry], int]] = [([], 0)]

    async def scenario() -> None:
        storage = kit.storage(disk, segment_bytes=rng.choice([1, 500, 5000]), cache_bytes=rng.choice([0, 10_000]))
        group = storage.open_group(GROUP)
        disk.fail_at = len(disk.calls) + rng.randint(3, 60)
        for number in range(1, 30):
            model = list(states[-1][0])
            term = states[-1][1] + rng.randint(0, 1) or 1
            batch = random_save(kit, rng, model, term)
            if batch:
                model = model[: batch[0].index - 1] + batch
            states.append((model, term))
            group.save(
                hard_state=kit.state(term), entries=batch, snapshot=None, done=lambda n=number: acknowledged.append(n)
            )
            for _ in range(rng.randint(0, 6)):
                await kit.save(idle)
            if kit.fatal:
                break

    async def afterwards() -> str:
        survivor = cut(disk, rng)
        group = kit.storage(survivor).open_group(GROUP)
        found, term = kit.log(group), group.hard_state.term
        done = max(acknowledged, default=0)
        assert term >= states[done][1], f"seed {seed}: the term went back"
        # The log is that of a save at or after the last acknowledged one, or a prefix of its entries.
        candidates = [prefix(states, number, found) for number in range(done, len(states))]
        assert any(candidates), f"seed {seed}: {found} after save {done} was acknowledged: {states[done]}"
        return "failed" if kit.fatal else "finished"

    from seatrial.storage import MemoryStorage

    idle = MemoryStorage().open_group(GROUP)
    kit.run(scenario())
    return str(kit.run(afterwards()))


def prefix(states: list[tuple[list[Entry], int]], number: int, found: list[Entry]) -> bool:
    """Whether `found` is what save `number` left, or what it left after only some of its entries."""
    after, before = states[number][0], states[max(0, number - 1)][0]
    if found == after:
        return True
    shared = next((i for i, (a, b) in enumerate(zip(after, before, strict=False)) if a is not b), None)
    start = min(len(before), len(after)) if shared is None else shared
    return len(found) > start and found == after[: len(found)]


@pytest.mark.slow
def test_acknowledged_saves_survive_any_power_cut(kit: Any) -> None:
    outcomes = []
    for seed in range(300):
        kit.fatal.clear()
        outcomes.append(crash_run(kit, seed, lambda disk, rng: disk.after_power_cut(rng)))
    assert outcomes.count("failed") > 100, outcomes


@pytest.mark.slow
def test_acknowledged_saves_survive_a_kill(kit: Any) -> None:
    for seed in range(300, 400):
        kit.fatal.clear()
        crash_run(kit, seed, lambda disk, rng: disk.after_kill())


def test_a_group_never_written_recovers_as_new(kit: Any) -> None:
    disk = kit.disk()
    disk.make_directory("data")
    found, reports = recover(disk)
    assert found is None
    assert reports == []
    assert Watermarks(disk.open(WATERMARKS)).found(GROUP) == (NOWHERE, 0)
