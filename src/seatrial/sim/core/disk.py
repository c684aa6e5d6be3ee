"""One node's disk at the level of records: saves that take time, and what a crash leaves of those under way.

    save ──► queue ──► sync under way (one for all that waited: group commit) ──► durable, `done` in order

Rule: `done` is called only when everything of the save is durable, and saves are done in the order in which they came.
What recovery finds after a crash is the durable log and, of the saves under way, what `Disk.unsynced` says: a log is
read up to its first hole, so also what survives out of order is a prefix of records; a snapshot is a file of its own.
Knows nothing of Raft beyond its records.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import TypeAlias

from seatrial.env import Rng
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import CONFIGURATION, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.sim.case import Disk
from seatrial.sim.world import World

_NO_STATE = HardState(Term(0), None, Index(0))


class ReadFailed(Exception):
    """A read gave EIO: the node has ended, and whatever it was doing with it."""


class Records:
    """A log, a hard state and a snapshot: as the node sees them, or as they are durable."""

    __slots__ = ("entries", "first", "hard_state", "snapshot")

    def __init__(self) -> None:
        self.hard_state = _NO_STATE
        self.entries: list[Entry] = []
        self.first = 1  # index of entries[0]
        self.snapshot: Snapshot | None = None

    def last_index(self) -> int:
        return self.first + len(self.entries) - 1

    def term(self, index: int) -> int | None:
        at = index - self.first
        if 0 <= at < len(self.entries):
            return self.entries[at].term
        if self.snapshot is not None and self.snapshot.meta.last_included_index == index:
            return self.snapshot.meta.last_included_term
        return None

    def write_entries(self, entries: list[Entry]) -> None:
        """After the last one, or in the place of those from the first one's index on."""
        kept = self.entries
        at = entries[0].index - self.first
        if at != len(kept):
            assert 0 <= at < len(kept), f"entry {entries[0].index} does not fit [{self.first}, {self.last_index()}]"
            del kept[at:]
        kept.extend(entries)

    def install(self, snapshot: Snapshot) -> None:
        """A leader's snapshot takes the place of the log up to it, and of all of it where it does not fit."""
        last = snapshot.meta.last_included_index
        fits = last >= self.first and self.term(last) == snapshot.meta.last_included_term
        self.entries = self.entries[last + 1 - self.first :] if fits else []
        self.first = last + 1
        self.snapshot = snapshot

    def compact(self, first_kept: int) -> None:
        kept = min(max(first_kept, self.first), self.last_index() + 1)
        del self.entries[: kept - self.first]
        self.first = kept

    def copy(self) -> Records:
        other = Records()
        other.hard_state = self.hard_state
        other.entries = list(self.entries)
        other.first = self.first
        other.snapshot = self.snapshot
        return other


# One save under way: a hard state, entries, a snapshot, whether that is the node's own (which leaves the log alone),
# and whom to tell when it is done.  A tuple, because one is made for every entry on every node.
Save: TypeAlias = tuple[HardState | None, list[Entry], Snapshot | None, bool, Callable[[], None]]


def _write(save: Save, records: Records) -> None:
    hard_state, entries, snapshot, made_here, _ = save
    if hard_state is not None:
        records.hard_state = hard_state
    if snapshot is not None:
        if not made_here:
            records.install(snapshot)
        elif records.snapshot is None or records.snapshot.meta.last_included_index < snapshot.meta.last_included_index:
            records.snapshot = snapshot
    if entries:
        records.write_entries(entries)


def _records_count(save: Save) -> int:
    hard_state, entries, snapshot, _, _ = save
    return (hard_state is not None) + (snapshot is not None) + len(entries)


class RecordDisk:
    """A `StableLog` for the node, and a queue of saves.

    failed: called, once, when an operation fails (EIO, ENOSPC), instead of `done`; the node cannot go on.
    sync_more_us, stalled, fault: what is wrong with it now; see `faults.KINDS`.  fault is "", or what the next failing
        operation is: "read", "write", "sync" or "full".
    """

    __slots__ = (
        "_batch",
        "_queue",
        "_random",
        "_seen",
        "_settings",
        "_stalled_batch",
        "_stream",
        "_sync_low",
        "_sync_spread",
        "_world",
        "durable",
        "failed",
        "failures",
        "fault",
        "held_syncs",
        "lost_records",
        "slow_syncs",
        "stalled",
        "sync_more_us",
        "syncs",
    )

    def __init__(self, world: World, stream: Rng, settings: Disk) -> None:
        self._world = world
        self._stream = stream
        self._random = stream.random
        self._settings = settings
        low, high = settings.sync_us
        self._sync_low = low
        self._sync_spread = high - low
        self.durable = Records()
        self._seen = Records()
        self._queue: list[Save] = []
        self._batch: list[Save] | None = None  # under sync
        self._stalled_batch: list[Save] | None = None
        self.failed: Callable[[str], None] | None = None
        self.fault = ""
        self.stalled = False
        self.sync_more_us = 0
        self.syncs = self.held_syncs = self.slow_syncs = self.failures = self.lost_records = 0

    # -- what the node reads -----------------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        return self._seen.hard_state

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        snapshot = self._seen.snapshot
        return None if snapshot is None else snapshot.meta

    @property
    def first_index(self) -> Index:
        return Index(self._seen.first)

    @property
    def last_index(self) -> Index:
        return Index(self._seen.last_index())

    def term(self, index: Index) -> Term | None:
        seen = self._seen
        at = index - seen.first
        if 0 <= at < len(seen.entries):
            return seen.entries[at].term
        meta = self.snapshot_meta
        return meta.last_included_term if meta is not None and meta.last_included_index == index else None

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        self._check_read()
        seen = self._seen
        assert seen.first <= first <= last <= seen.last_index(), f"[{first}, {last}] of {seen.first}.."
        found: list[Entry] = []
        for entry in seen.entries[first - seen.first : last - seen.first + 1]:
            max_bytes -= len(entry.data)
            if max_bytes < 0 and found:
                break
            found.append(entry)
        return found

    def configuration_indexes(self) -> list[Index]:
        return [entry.index for entry in self.configurations()]

    def configurations(self) -> list[Entry]:
        """The entries that change the configuration, in order."""
        return [entry for entry in self._seen.entries if entry.kind == CONFIGURATION]

    def read_snapshot(self) -> Snapshot | None:
        self._check_read()
        return self._seen.snapshot

    def _check_read(self) -> None:
        if self.fault == "read":
            self._fail("EIO")
            raise ReadFailed

    # -- what it writes ----------------------------------------------------------------------------------------------

    def save(
        self,
        hard_state: HardState | None,
        entries: list[Entry],
        snapshot: Snapshot | None,
        done: Callable[[], None],
    ) -> None:
        """Queue it behind earlier saves; reads see it at once."""
        seen = self._seen
        if hard_state is not None:
            seen.hard_state = hard_state
        if snapshot is not None:
            seen.install(snapshot)
        if entries:
            seen.write_entries(entries)
        if self.fault:
            self._enqueue((hard_state, entries, snapshot, False, done))
            return
        # As _enqueue, without the call: this is done for every entry on every node.
        if self._batch is None:
            self._begin_sync([(hard_state, entries, snapshot, False, done)])
        else:
            self._queue.append((hard_state, entries, snapshot, False, done))

    def save_snapshot(self, snapshot: Snapshot, done: Callable[[], None]) -> None:
        """Keep a snapshot of the local state machine; read from when it is durable."""
        self._enqueue((None, [], snapshot, True, done))

    def compact(self, first_kept: int) -> None:
        """Forget the entries before; the snapshot stands for them."""
        snapshot = self.durable.snapshot
        covered = 0 if snapshot is None else snapshot.meta.last_included_index
        assert first_kept <= covered + 1, f"entries to {first_kept - 1} dropped, but the snapshot is at {covered}"
        self._seen.compact(first_kept)
        self.durable.compact(first_kept)

    def _enqueue(self, save: Save) -> None:
        if self.fault and self.fault != "sync" and self.fault != "read":
            self._fail("EIO" if self.fault == "write" else "ENOSPC")
            return
        if self._batch is None:
            self._begin_sync([save])
        else:
            self._queue.append(save)

    def _begin_sync(self, batch: list[Save]) -> None:
        self._batch = batch
        delay = self._sync_low + int(self._random() * self._sync_spread)
        if self.sync_more_us:
            delay += self.sync_more_us
            self.slow_syncs += 1
        world = self._world
        world.sequence = number = world.sequence + 1
        heappush(world.queue, (world.now_us + delay, number, self._synced, batch))

    def _synced(self, batch: list[Save]) -> None:
        if batch is not self._batch:
            return  # of a life that a crash has ended
        if self.stalled:
            self.held_syncs += 1
            self._stalled_batch = batch
            return
        if self.fault == "sync":
            self._fail("EIO")
            return
        self.syncs += 1
        durable = self.durable
        for save in batch:
            hard_state, entries, snapshot, made_here, _ = save
            if snapshot is None:
                if hard_state is not None:
                    durable.hard_state = hard_state
                if entries:
                    durable.write_entries(entries)
            else:
                _write(save, durable)
                if made_here:
                    _write(save, self._seen)
        queue = self._queue
        if queue:
            self._queue = []
            self._begin_sync(queue)
        else:
            self._batch = None
        for _, _, _, _, done in batch:
            done()

    def resume(self) -> None:
        """The stall is over."""
        self.stalled = False
        batch, self._stalled_batch = self._stalled_batch, None
        if batch is not None:
            self._synced(batch)

    def _fail(self, error: str) -> None:
        self.fault = ""
        self.failures += 1
        assert self.failed is not None, "a disk that fails has a node"
        self.failed(error)

    # -- crashes -----------------------------------------------------------------------------------------------------

    def unsynced(self) -> int:
        """Records that are under way."""
        return sum(_records_count(save) for save in self._under_way())

    def _under_way(self) -> list[Save]:
        return [*(self._batch or ()), *self._queue]

    def crash(self, mode: str) -> None:
        """The node is gone; `mode` as `case.Disk.unsynced` (a killed process alone keeps what it wrote)."""
        saves = self._under_way()
        total = sum(_records_count(save) for save in saves)
        left = {"lost": 0, "kept": total}.get(mode)
        if left is None:
            left = self._stream.integer(0, total)
        kept = 0
        for save in saves:
            made_here = save[3]
            if mode == "some" and made_here:
                written = self._write_some(save, 1 if self._stream.chance(0.5) else 0)
            else:
                written = self._write_some(save, left)
                left = left - written if written == _records_count(save) else 0
            kept += written
        self.lost_records += total - kept
        self._queue = []
        self._batch = self._stalled_batch = None
        self._seen = self.durable.copy()
        self.failed = None
        self.fault = ""

    def _write_some(self, save: Save, most: int) -> int:
        """The first records of a save, at most so many; how many it was.  A snapshot is whole or not there."""
        if most >= _records_count(save):
            _write(save, self.durable)
            return _records_count(save)
        hard_state, entries, snapshot, _, _ = save
        written = 0
        if most and hard_state is not None:
            self.durable.hard_state = hard_state
            written = 1
        if most > written and snapshot is None and entries:
            self.durable.write_entries(entries[: most - written])
            written = most
        return written

    def wipe(self) -> None:
        """Everything on it is lost."""
        assert self._batch is None, "a disk is wiped while its node is down"
        self.durable = Records()
        self._seen = Records()
