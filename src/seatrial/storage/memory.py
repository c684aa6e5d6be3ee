"""The storage contract without a disk: for tests, and for the simulator's core level.

Rule: as durable as the object; `done` is never called inside the call that it belongs to.
Knows nothing of files, loss or damage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from seatrial.raft.ids import GroupId, Index, Term
from seatrial.raft.messages import CONFIGURATION, Entry, HardState, Snapshot, SnapshotMeta

Defer = Callable[[Callable[[], None]], object]


def _on_running_loop(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(callback)


class MemoryGroup:
    """Implements GroupStorage on a list."""

    __slots__ = ("_defer", "_entries", "_first", "_hard_state", "_snapshot")

    def __init__(self, defer: Defer) -> None:
        self._defer = defer
        self._entries: list[Entry] = []
        self._first = 1
        self._hard_state = HardState(Term(0), None, Index(0))
        self._snapshot: Snapshot | None = None

    @property
    def hard_state(self) -> HardState:
        return self._hard_state

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        return self._snapshot.meta if self._snapshot is not None else None

    @property
    def first_index(self) -> Index:
        return Index(self._first)

    @property
    def last_index(self) -> Index:
        return Index(self._first + len(self._entries) - 1)

    def term(self, index: Index) -> Term | None:
        at = index - self._first
        if 0 <= at < len(self._entries):
            return self._entries[at].term
        meta = self.snapshot_meta
        return meta.last_included_term if meta is not None and meta.last_included_index == index else None

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        assert self._first <= first <= last <= self.last_index, (
            f"entries {first} to {last} of [{self._first}, {self.last_index}]"
        )
        found: list[Entry] = []
        for entry in self._entries[first - self._first : last - self._first + 1]:
            max_bytes -= len(entry.data)
            if max_bytes < 0 and found:
                break
            found.append(entry)
        return found

    def configuration_indexes(self) -> Sequence[Index]:
        return [entry.index for entry in self._entries if entry.kind == CONFIGURATION]

    def read_snapshot(self) -> Snapshot | None:
        return self._snapshot

    def save(
        self,
        *,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
        done: Callable[[], None],
    ) -> None:
        if hard_state is not None:
            self._hard_state = hard_state
        if snapshot is not None:
            last = snapshot.meta.last_included_index
            keeps = self.term(last) == snapshot.meta.last_included_term and last >= self._first
            self._entries = self._entries[last + 1 - self._first :] if keeps else []
            self._first, self._snapshot = last + 1, snapshot
        if entries:
            at = entries[0].index - self._first
            assert 0 <= at <= len(self._entries), f"entry {entries[0].index} leaves a gap before it"
            del self._entries[at:]
            self._entries.extend(entries)
        self._defer(done)

    def save_snapshot(self, snapshot: Snapshot, *, done: Callable[[], None]) -> None:
        def keep() -> None:
            meta = self.snapshot_meta
            if meta is None or snapshot.meta.last_included_index > meta.last_included_index:
                self._snapshot = snapshot
            done()

        self._defer(keep)

    def compact(self, first_kept: Index) -> None:
        meta = self.snapshot_meta
        covered = meta.last_included_index if meta is not None else 0
        assert first_kept <= covered + 1, f"entries up to {first_kept - 1} dropped, but the snapshot is at {covered}"
        first = min(max(first_kept, self._first), self.last_index + 1)
        del self._entries[: first - self._first]
        self._first = first


class MemoryStorage:
    """Implements LogStorage.  `defer` runs a callback a little later; by default, on the running event loop."""

    def __init__(self, defer: Defer = _on_running_loop) -> None:
        self._defer = defer
        self._groups: dict[GroupId, MemoryGroup] = {}

    def groups(self) -> Sequence[GroupId]:
        return sorted(self._groups)

    def open_group(self, group: GroupId) -> MemoryGroup:
        return self._groups.setdefault(group, MemoryGroup(self._defer))

    def remove_group(self, group: GroupId, *, done: Callable[[], None] = lambda: None) -> None:
        self._groups.pop(group, None)
        self._defer(done)

    def close(self) -> None:
        """Nothing to finish: the groups stay, for whoever opens them again."""
