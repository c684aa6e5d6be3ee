"""The log of one node: what is durable, read from storage, and the tail that is kept in memory.

    first_index … last_applied … commit_index …      last_index
    └──── StableLog ─────────┘└──── tail (in memory) ────────┘
                                  … durable_index … unsaved

With it goes what its entries say of who takes part (`configurations`), which follows every append and truncation.

Rule: an entry leaves the tail only when it is durable, committed and handed out to be applied; committed entries are
never replaced.  Knows nothing of roles, terms' meaning or other nodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from seatrial.marks import reached
from seatrial.raft.ids import Index, Term
from seatrial.raft.membership import ConfigurationHistory, decode_configuration
from seatrial.raft.messages import CONFIGURATION, Configuration, Entry, HardState, Snapshot, SnapshotMeta

ENTRY_OVERHEAD_BYTES: Final = 16  # so that a batch of empty commands is bounded as well


class StableLog(Protocol):
    """What the core reads of its storage; `seatrial.storage.base.GroupStorage` is one.

    Reads see every entry that was passed to `save`, also before it is durable.
    """

    @property
    def hard_state(self) -> HardState: ...

    @property
    def snapshot_meta(self) -> SnapshotMeta | None: ...

    @property
    def first_index(self) -> Index: ...

    @property
    def last_index(self) -> Index: ...

    def term(self, index: Index) -> Term | None: ...

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]: ...

    def configuration_indexes(self) -> Sequence[Index]:
        """Of the entries of kind CONFIGURATION, ascending; asked for once, at the start, to spare a read of the log."""

    def read_snapshot(self) -> Snapshot | None: ...


# One save on its way to the disk: what will be durable when it is done, the last entry (0: none) and a snapshot's last
# index (0: no snapshot).  A tuple, because one is made for every entry.
Save: TypeAlias = tuple[int, int]


class RaftLog:
    """Entries [first_index, last_index], of which [.., durable_index] survive a crash."""

    __slots__ = (
        "_base_term",
        "_saves",
        "_stable",
        "_tail",
        "commit_index",
        "configuration_changed",
        "configurations",
        "durable_index",
        "installing",
        "last_applied",
        "last_index",
        "last_term",
        "replaced_term",
        "snapshot_to_save",
        "tail_first",
        "unsaved",
        "unsaved_first",
    )

    def __init__(self, stable: StableLog, initial: Configuration) -> None:
        """`initial`: who takes part where neither a snapshot nor an entry says so."""
        meta = stable.snapshot_meta
        snapshot_index = 0 if meta is None else meta.last_included_index
        last = max(stable.last_index, snapshot_index)
        self._stable = stable
        self._tail: list[Entry] = []
        self.tail_first = last + 1
        self.last_index = last  # always tail_first + len(_tail) - 1
        self._base_term: int = self._stable_term(last, meta)  # of the entry before the tail
        self.last_term: int = self._base_term
        self.unsaved = False  # is there anything to save?
        self.unsaved_first = last + 1
        self._saves: deque[Save] = deque()
        self.snapshot_to_save: Snapshot | None = None
        self.installing: SnapshotMeta | None = None  # received, and not yet durable
        self.durable_index = last
        self.commit_index = min(max(stable.hard_state.commit_index, snapshot_index), last)
        self.last_applied = snapshot_index  # up to where committed entries were handed out
        self.configurations = ConfigurationHistory(initial)
        self.replaced_term = 0  # of the first entry that a leader replaced, since the last look at it; 0: none
        self.configuration_changed = False  # since the last look at it: the latest of `configurations` is another
        if meta is not None:
            self.configurations.restart_at(snapshot_index, meta.configuration)
        for index in stable.configuration_indexes():
            if index > snapshot_index:
                entry = stable.entries(index, index, 1)[0]
                self.configurations.append(index, decode_configuration(entry.data))

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self.installing.last_included_index + 1 if self.installing is not None else self._stable.first_index

    def _stable_term(self, index: int, meta: SnapshotMeta | None) -> int:
        """Of an entry that storage must know."""
        if index == 0:
            return 0
        if meta is not None and index == meta.last_included_index:
            return meta.last_included_term
        term = self._stable.term(Index(index))
        assert term is not None, f"the log has lost entry {index}"
        return term

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        """Of the newest snapshot, installed or being installed."""
        return self.installing if self.installing is not None else self._stable.snapshot_meta

    def read_snapshot(self) -> Snapshot | None:
        return self._stable.read_snapshot()

    def term(self, index: int) -> int | None:
        """Of an entry or of the snapshot's last one; 0 before the first; None where it is compacted or not there."""
        if index == self.last_index:
            return self.last_term
        first = self.tail_first
        if index >= first:
            offset = index - first
            return self._tail[offset].term if offset < len(self._tail) else None
        if index == first - 1:
            return self._base_term
        if index <= 0:
            return 0 if index == 0 else None
        meta = self.installing
        if meta is not None:
            return meta.last_included_term if index == meta.last_included_index else None
        return self._stable.term(Index(index))

    def entries(self, first: int, max_bytes: int) -> list[Entry]:
        """From `first` on, at least one (where there is one), then as many as fit.  `first` must not be compacted."""
        return self._read(first, self.last_index, max_bytes)

    def _read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if first > last:
            return []
        tail_first = self.tail_first
        if first >= tail_first:
            return _fitting(self._tail, first - tail_first, last - tail_first + 1, max_bytes)
        stable_last = min(last, tail_first - 1)
        found = self._stable.entries(Index(first), Index(stable_last), max_bytes)
        if len(found) == stable_last - first + 1 and last > stable_last:
            room = max_bytes - sum(len(entry.data) + ENTRY_OVERHEAD_BYTES for entry in found)
            if room > 0:
                more = _fitting(self._tail, 0, last - tail_first + 1, room)
                if more and len(more[0].data) + ENTRY_OVERHEAD_BYTES <= room:
                    found = found + more
        return found

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Is a log that ends so at least as up-to-date as this one (§5.4.1)?"""
        own = self.last_term
        return last_log_term > own or (last_log_term == own and last_log_index >= self.last_index)

    def last_not_after(self, index: int, term: int, *, floor: int) -> int:
        """The last position in [floor, index] whose term is at most `term`; `floor` is known to agree.

        Below it two logs cannot agree, given that one has `term` at `index` and the other has not (§5.3, end).  Stops
        where the log is compacted.
        """
        while index > floor:
            own = self.term(index)
            if own is None or own <= term:
                return index
            index -= 1
        return floor

    # -- writing ---------------------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """A leader's own new entry, at last_index + 1."""
        assert entry.index == self.last_index + 1, f"{entry} does not follow {self.last_index}"
        self._tail.append(entry)
        self.unsaved = True
        self.last_index += 1
        self.last_term = entry.term
        if entry.kind == CONFIGURATION:
            self._take_configuration(entry)

    def _take_configuration(self, entry: Entry) -> None:
        """In effect from here on, committed or not (§6)."""
        meta = self.snapshot_meta
        if meta is not None:
            self.configurations.forget_before(meta.last_included_index)
        self.configurations.append(entry.index, decode_configuration(entry.data))
        self.configuration_changed = True

    def try_append(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """A leader's entries after (`prev_index`, `prev_term`): the last index known to be equal to the leader's.

        None if there is no such previous entry.  Entries that are already there stay; from the first that conflicts
        on, all are replaced (§5.3).
        """
        commit_index = self.commit_index
        if prev_index < commit_index:
            # What is committed here is in every later leader's log (§5.4), so it needs no look, and may be compacted.
            entries = entries[commit_index - prev_index :]
            prev_index = commit_index
        elif self.term(prev_index) != prev_term:
            return None
        index = prev_index
        last = self.last_index
        if index == last:
            self._extend(entries)
            return self.last_index
        for position, entry in enumerate(entries):
            index += 1
            if index > last:
                self._extend(entries[position:])
                break
            if self.term(index) != entry.term:
                self._replace_from(index, entries[position:])
                break
        return prev_index + len(entries)

    def _extend(self, entries: Sequence[Entry]) -> None:
        """A leader's new entries, behind the last one."""
        if not entries:
            return
        self._tail.extend(entries)
        self.unsaved = True
        self.last_index += len(entries)
        self.last_term = entries[-1].term
        for entry in entries:
            if entry.kind == CONFIGURATION:
                self._take_configuration(entry)

    def _replace_from(self, index: int, entries: Sequence[Entry]) -> None:
        assert index > self.commit_index, f"entry {index} is committed (to {self.commit_index}) and cannot be replaced"
        self.replaced_term = self.term(index) or 0
        if index >= self.tail_first:
            del self._tail[index - self.tail_first :]
            self._tail.extend(entries)
        else:
            self._base_term = self.term(index - 1) or 0
            self._tail = list(entries)
            self.tail_first = index
        self.last_term = entries[-1].term
        self.last_index = self.tail_first + len(self._tail) - 1
        if self.configurations.truncate_from(index):
            reached("a configuration was rolled back by truncation")
            self.configuration_changed = True
        for entry in entries:
            if entry.kind == CONFIGURATION:
                self._take_configuration(entry)
        self._forget_saves_from(index)
        self.unsaved = True
        if self.unsaved_first > index:
            self.unsaved_first = index

    def _forget_saves_from(self, index: int) -> None:
        # A save under way still writes the replaced entries.  When it is done they say nothing about their successors,
        # not even about equal ones that came back later: those are in a later save.
        self._saves = deque((min(durable_index, index - 1), snapshot) for durable_index, snapshot in self._saves)
        if self.durable_index >= index:
            self.durable_index = index - 1

    def commit_to(self, index: int) -> bool:
        """True if that moved the commit index, which never goes back."""
        if index <= self.commit_index:
            return False
        assert index <= self.last_index, f"commit index {index} is beyond the last entry {self.last_index}"
        self.commit_index = index
        return True

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot that is ahead of the commit index and not in the log."""
        meta = snapshot.meta
        assert meta.last_included_index > self.commit_index, f"{meta} is not ahead of {self.commit_index}"
        self.snapshot_to_save = snapshot
        self.unsaved = True
        self.installing = meta
        self._tail = []
        self.tail_first = meta.last_included_index + 1
        self.unsaved_first = self.tail_first
        self.last_index = meta.last_included_index
        self._base_term = self.last_term = meta.last_included_term
        self._forget_saves_from(1)
        self.commit_index = meta.last_included_index
        self.configurations.restart_at(meta.last_included_index, meta.configuration)
        self.configuration_changed = True

    # -- what the driver does for it ---------------------------------------------------------------------------------

    def has_committed(self) -> bool:
        """Is there anything to apply?"""
        applied = self.last_applied
        return self.commit_index > applied and self.durable_index > applied and self.installing is None

    def begin_save(self) -> tuple[list[Entry], Snapshot | None]:
        """What was not yet handed out to be saved; if that is anything, a `finish_save` follows, in order."""
        if not self.unsaved:
            return [], None
        self.unsaved = False
        last = self.last_index
        offset = self.unsaved_first - self.tail_first
        assert offset >= 0, f"entries from {self.unsaved_first} left the tail unsaved"
        entries = self._tail[offset:]
        self.unsaved_first = last + 1
        snapshot = self.snapshot_to_save
        if snapshot is None:
            if entries:
                self._saves.append((last, 0))
        else:
            self.snapshot_to_save = None
            self._saves.append((last if entries else 0, snapshot.meta.last_included_index))
        return entries, snapshot

    def finish_save(self) -> None:
        """The oldest save is durable."""
        durable_index, snapshot_index = self._saves.popleft()
        if snapshot_index:
            if snapshot_index > self.last_applied:
                self.last_applied = snapshot_index
            if self.installing is not None and self.installing.last_included_index == snapshot_index:
                self.installing = None
                self.durable_index = max(self.durable_index, snapshot_index)
        if durable_index > self.durable_index:
            self.durable_index = durable_index

    def take_committed(self, max_bytes: int) -> list[Entry]:
        """The next entries to apply: committed, durable here, not behind a snapshot that is being installed."""
        last = self.commit_index if self.commit_index < self.durable_index else self.durable_index
        if last <= self.last_applied or self.installing is not None:
            return []
        first = self.last_applied + 1
        if first == last == self.tail_first:  # the usual case; the rest of this function does the same for it
            entry = self._tail.pop(0)
            self._base_term = entry.term
            self.tail_first = first + 1
            self.last_applied = first
            return [entry]
        entries = self._read(first, last, max_bytes)
        assert entries, f"committed entry {self.last_applied + 1} cannot be read"
        self.last_applied = entries[-1].index
        surplus = self.last_applied + 1 - self.tail_first
        if surplus > 0:
            self._base_term = entries[-1].term
            del self._tail[:surplus]
            self.tail_first += surplus
        return entries


def _fitting(entries: list[Entry], start: int, stop: int, max_bytes: int) -> list[Entry]:
    """entries[start:stop], cut so that their size fits, but never to none."""
    size = 0
    for position in range(start, stop):
        size += len(entries[position].data) + ENTRY_OVERHEAD_BYTES
        if size > max_bytes and position > start:
            return entries[start:position]
    return entries[start:stop]
