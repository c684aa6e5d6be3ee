"""One Raft group's log on disk: what was saved, what of it is written, and where.

Runs on the event loop, which also decides every position, so that the worker only writes and syncs.
Rule: an entry is in `_recent` from its save until after it was written; from then on its place on disk is known.
Knows nothing of other groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from seatrial.env import Buffer, Files
from seatrial.raft.ids import GroupId, Index, Term
from seatrial.raft.messages import CONFIGURATION, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.storage.batch_write import GroupWrite, Settings
from seatrial.storage.errors import DamagedLog
from seatrial.storage.frames import BATCH_SIZE, FRAME, NOWHERE, Batch, Place, pack_entries, seed_of, unpack_entry
from seatrial.storage.log_index import LogIndex
from seatrial.storage.recovery import RecoveredLog, segment_name
from seatrial.storage.segment import Segment
from seatrial.storage.snapshots import read_snapshot, snapshot_name, write_snapshot

_GAP_MAX: Final = 4096  # bytes of batch frames that a read of neighbouring entries may span
_NEVER: Final = 1 << 63


class SegmentGroup:
    """Implements GroupStorage on segment files."""

    def __init__(self, group: GroupId, directory: str, settings: Settings, recovered: RecoveredLog | None) -> None:
        self.id = group
        self.removed = False
        self._directory = directory
        self._settings = settings
        self._index = LogIndex()
        self._hard_state = HardState(Term(0), None, Index(0))
        self._meta: SnapshotMeta | None = None
        self._held: Snapshot | None = None  # recovered and not yet asked for, or not yet durable
        self._held_is_durable = False
        self._snapshots: list[int] = []  # indexes of snapshot files
        self._segments: dict[int, Segment] = {}  # by sequence, in order
        self._sequence = 0  # of the segment being written
        self._offset = 0  # where its next batch goes
        self._written = NOWHERE  # as of the last batch that was written; in "fsync" mode, durable
        self._durable = NOWHERE
        self._next_index = 1  # of the frame that would be written next
        self._synced = 0  # segments before it are on disk, with durability "os" too
        self._resets = False  # the next batch begins the log anew
        self._recent: dict[int, Entry] = {}
        self._pending: list[Entry] = []
        self._pending_first = self._in_flight_first = _NEVER
        self._pending_snapshot: Snapshot | None = None
        self._state_on_disk: HardState | None = None
        self._cold: Segment | None = None  # the older segment that is open for reading
        if recovered is not None:
            self._take_over(recovered)

    def _take_over(self, recovered: RecoveredLog) -> None:
        self._index = recovered.index
        self._hard_state = self._state_on_disk = recovered.hard_state
        for sequence, name in recovered.segments.items():
            self._segments[sequence] = self._segment(sequence, name, is_new=False)
        self._sequence, self._offset = recovered.end
        self._written, self._durable = recovered.end, recovered.durable
        self._next_index = self._index.last + 1
        if recovered.snapshot is not None:
            self._held, self._held_is_durable = recovered.snapshot, True
            self._meta = recovered.snapshot.meta
            self._snapshots = [self._meta.last_included_index]
            if recovered.obsolete:
                self._begin_behind(self._meta.last_included_index)

    def _segment(self, sequence: int, name: str, *, is_new: bool) -> Segment:
        settings = self._settings
        path = f"{self._directory}/{name}"
        return Segment(settings.files, path, sequence, size_max=settings.segment_bytes, is_new=is_new)

    # Reading.

    @property
    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        return self._meta

    @property
    def first_index(self) -> Index:
        return Index(self._index.first)

    @property
    def last_index(self) -> Index:
        return Index(self._index.last)

    def term(self, index: Index) -> Term | None:
        term = self._index.term(index)
        if term is None and self._meta is not None and index == self._meta.last_included_index:
            return self._meta.last_included_term
        return None if term is None else Term(term)

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        """As in GroupStorage; raises DamagedLog where an entry cannot be read back."""
        assert self._index.first <= first <= last <= self._index.last, (
            f"entries {first} to {last} of [{self._index.first}, {self._index.last}]"
        )
        recent, found, size, at = self._recent, list[Entry](), 0, int(first)
        while at <= last:
            entry = recent.get(at)
            part = [entry] if entry is not None else self._read(at, last, max_bytes - size)
            for entry in part:
                size += len(entry.data)
                if size > max_bytes and found:
                    return found
                found.append(entry)
            at += len(part)
        return found

    def _read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries from disk, from `first` on: at least one, then its neighbours on disk, of about `max_bytes`."""
        index, recent = self._index, self._recent
        sequence, start = index.place(first)
        spans = [(start, index.length(first))]
        end = start + spans[0][1]
        for at in range(first + 1, last + 1):
            if at in recent:
                break
            place, length = index.place(at), index.length(at)
            near = place.sequence == sequence and 0 <= place.offset - end <= _GAP_MAX
            if not near or place.offset + length - start > max_bytes + FRAME.size * len(spans):
                break
            spans.append((place.offset, length))
            end = place.offset + length
        segment = self._readable(sequence)
        try:
            content = segment.read(start, end - start)
        except OSError as error:
            raise DamagedLog(segment.path, start, f"entry {first} cannot be read: {error}") from error
        found, seed = list[Entry](), seed_of(self.id, sequence)
        for at, (offset, length) in enumerate(spans, first):
            entry = unpack_entry(content, offset - start, length, seed)
            if entry is None or entry.index != at:
                raise DamagedLog(segment.path, offset, f"entry {at} was written here, and is not here any more")
            found.append(entry)
        return found

    def _readable(self, sequence: int) -> Segment:
        """The segment; of older ones only one is kept open, for the sake of the limit on open files."""
        segment = self._segments[sequence]
        if sequence != self._sequence and segment is not self._cold:
            if self._cold is not None:
                self._cold.close()
            self._cold = segment
        return segment

    def configuration_indexes(self) -> Sequence[Index]:
        return [Index(index) for index in self._index.configurations]

    def read_snapshot(self) -> Snapshot | None:
        """Raises DamagedLog where it cannot be read back."""
        if self._meta is None:
            return None
        held = self._held
        if held is not None:
            if self._held_is_durable:
                self._held = None  # read on start to check it; not worth its memory for longer
            return held
        index = self._meta.last_included_index
        return read_snapshot(self._settings.files, f"{self._directory}/{snapshot_name(index)}", self.id, index)

    # Saving.

    def save(
        self,
        *,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
        done: Callable[[], None],
    ) -> None:
        """As in GroupStorage.  A commit index alone is not worth a write: it goes with the next one."""
        assert not self.removed, f"group {self.id} was removed"
        must_write = bool(entries) or snapshot is not None
        if hard_state is not None:
            old = self._hard_state
            must_write |= (hard_state.term, hard_state.voted_for) != (old.term, old.voted_for)
            self._hard_state = hard_state
        if snapshot is not None:
            self._install(snapshot)
        if entries:
            self._append(entries)
        self._settings.enqueue(self.id if must_write else None, done)

    def _append(self, entries: Sequence[Entry]) -> None:
        first, index, recent = entries[0].index, self._index, self._recent
        assert entries[-1].index == first + len(entries) - 1, f"entries from {first} on are not contiguous"
        for superseded in range(first, index.last + 1):
            recent.pop(superseded, None)
        index.extend(first, [entry.term for entry in entries])
        for entry in entries:
            recent[entry.index] = entry
            if entry.kind == CONFIGURATION:
                index.mark_configuration(entry.index)
        self._pending.extend(entries)
        self._pending_first = min(self._pending_first, first)

    def _install(self, snapshot: Snapshot) -> None:
        meta = snapshot.meta
        last = meta.last_included_index
        if self._index.term(last) == meta.last_included_term:
            self._drop_before(last + 1)
        else:
            self._begin_behind(last)
        self._meta, self._held, self._held_is_durable = meta, snapshot, False
        self._pending_snapshot = snapshot

    def _begin_behind(self, last: int) -> None:
        """The log is empty from here on, and its next entry is `last` + 1."""
        self._index.reset(last + 1)
        self._recent.clear()
        self._pending.clear()
        self._pending_first = _NEVER
        self._next_index = last + 1
        self._resets = True

    def save_snapshot(self, snapshot: Snapshot, *, done: Callable[[], None]) -> None:
        """As in GroupStorage.  Goes by the slow worker, so that it holds up no save; ends in no order with them.

        With durability "os" the log is synced first: after a power cut it must not end before a snapshot of its own.
        """
        assert not self.removed, f"group {self.id} was removed"
        files, directory, group = self._settings.files, self._directory, self.id
        unsynced = [] if self._settings.synced else self._written_since(self._synced)
        self._synced = self._written.sequence

        def job() -> None:
            for path in unsynced:
                _sync(files, path)
            if unsynced:
                files.sync_directory(directory)
            write_snapshot(files, directory, group, snapshot, origin="made")

        def then() -> None:
            index = snapshot.meta.last_included_index
            if index not in self._snapshots:
                self._snapshots.append(index)
            if self._meta is None or index > self._meta.last_included_index:
                self._meta, self._held = snapshot.meta, None
            self._remove_old_snapshots()
            done()

        self._settings.background(job, then)

    def _written_since(self, sequence: int) -> list[str]:
        written = self._written.sequence
        return [segment.path for at, segment in self._segments.items() if sequence <= at <= written]

    def compact(self, first_kept: Index) -> None:
        covered = self._meta.last_included_index if self._meta is not None else 0
        assert first_kept <= covered + 1, f"entries up to {first_kept - 1} dropped, but the snapshot is at {covered}"
        self._drop_before(min(int(first_kept), self._index.last + 1))
        self._remove_old_segments()

    def _drop_before(self, first: int) -> None:
        for dropped in range(self._index.first, first):
            self._recent.pop(dropped, None)
        self._index.drop_before(first)

    # Group commit: `take` on the loop, then the worker, then `written` on the loop.

    @property
    def has_unwritten_state(self) -> bool:
        """Whether the last known commit index is not on disk."""
        return self._state_on_disk is not None and self._state_on_disk != self._hard_state

    def take(self) -> GroupWrite:
        """Everything saved since the last one, as one write."""
        entries, self._pending = self._pending, []
        size = BATCH_SIZE + sum([FRAME.size + len(entry.data) for entry in entries])
        previous_end, resets, creates = self._offset, self._resets, not self._segments
        segment = self._segments.get(self._sequence)
        if segment is None or resets or self._offset + size > self._settings.segment_bytes:
            segment = self._roll()
        elif not segment.is_new:
            segment.open()
        offset = self._offset
        batch = Batch(
            group=self.id,
            place=Place(segment.sequence, offset),
            durable=self._durable,
            previous_end=previous_end,
            resets=resets,
            next_index=Index(self._next_index),
            hard_state=self._hard_state,
        )
        buffers: list[Buffer] = [batch.packed()]
        lengths = pack_entries(entries, seed_of(self.id, segment.sequence), buffers)
        at, put, sequence = offset + BATCH_SIZE, self._index.put, segment.sequence
        for entry, length in zip(entries, lengths, strict=True):
            put(entry.index, sequence, at, length)
            at += length
        if entries:
            self._next_index = entries[-1].index + 1
        self._offset, self._resets, self._state_on_disk = at, False, self._hard_state
        self._in_flight_first = min(self._in_flight_first, self._pending_first)
        self._pending_first = _NEVER
        snapshot, self._pending_snapshot = self._pending_snapshot, None
        return GroupWrite(
            group=self.id,
            directory=self._directory,
            settings=self._settings,
            snapshot=snapshot,
            segment=segment,
            offset=offset,
            end=at,
            buffers=buffers,
            entries=entries,
            last_index=self._next_index - 1,
            watermark_slot=self._settings.watermarks.slot(self.id),
            creates_directory=creates,
        )

    def _roll(self) -> Segment:
        self._sequence += 1
        self._offset = 0
        segment = self._segment(self._sequence, segment_name(self._sequence, self._next_index), is_new=True)
        self._segments[self._sequence] = segment
        return segment

    def written(self, write: GroupWrite) -> None:
        """The write is done, and durable in "fsync" mode."""
        if self.removed:
            return
        place = Place(write.segment.sequence, write.end)
        rolled = place.sequence > self._written.sequence
        if rolled and (old := self._segments.get(self._written.sequence)) is not None:
            old.close()
        self._written = place
        if self._settings.synced:
            self._durable = place
        self._in_flight_first = _NEVER
        self._settings.cache.admit(self, write.entries)
        if write.snapshot is not None:
            self._snapshots.append(write.snapshot.meta.last_included_index)
            if self._held is write.snapshot:
                self._held = None
            self._remove_old_snapshots()
        if rolled or write.snapshot is not None:
            self._remove_old_segments()

    def forget(self, entry: Entry) -> None:
        """Of the cache: the entry is on disk, so it need not stay in memory."""
        index = entry.index
        if index < self._pending_first and index < self._in_flight_first and self._recent.get(index) is entry:
            del self._recent[index]

    # Removing what is no longer needed.

    def _remove_old_segments(self) -> None:
        """Those before the first entry's, once a later one is written: it holds the HardState."""
        keep = self._index.sequence_of_first_place() or self._sequence
        limit = min(keep, self._written.sequence)
        doomed = [sequence for sequence in self._segments if sequence < limit]
        if not doomed:
            return
        paths = []
        for sequence in doomed:
            segment = self._segments.pop(sequence)
            if segment is self._cold:
                self._cold = None
            segment.close()
            paths.append(segment.path)
        files, directory = self._settings.files, self._directory
        newest = None if self._settings.synced else self._segments[self._written.sequence]

        def job() -> None:
            if newest is not None and newest.is_open:
                newest.sync()  # with durability "os" the only copy of the HardState may still be in the page cache
                files.sync_directory(directory)
            for path in paths:
                files.remove(path)

        self._settings.background(job, lambda: None)

    def _remove_old_snapshots(self) -> None:
        newest = max(self._snapshots)
        doomed = [f"{self._directory}/{snapshot_name(index)}" for index in self._snapshots if index < newest]
        self._snapshots = [newest]
        files = self._settings.files

        def job() -> None:
            for path in doomed:
                files.remove(path)

        if doomed:
            self._settings.background(job, lambda: None)

    # Closing.

    @property
    def is_empty(self) -> bool:
        """Nothing was ever written."""
        return not self._segments

    def settle(self) -> None:
        """On a clean shutdown with durability "os", on the worker while the loop waits: sync all, and note it apart."""
        for sequence, segment in self._segments.items():
            if sequence >= self._durable.sequence:
                segment.open()
                segment.sync()
        self._settings.files.sync_directory(self._directory)
        place, watermarks = Place(self._sequence, self._offset), self._settings.watermarks
        watermarks.write(watermarks.slot(self.id), self.id, place, self._next_index - 1)

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()


def _sync(files: Files, path: str) -> None:
    file = files.open(path)
    try:
        file.sync()
    finally:
        file.close()
