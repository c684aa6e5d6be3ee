"""What the server wants of durable storage: one log, one HardState and one snapshot for each Raft group.

Rule: `done` is called only after everything that the save wrote survives a power cut (with durability "fsync").
Knows nothing of elections or of what entries mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from seatrial.raft.ids import GroupId, Index, Term
from seatrial.raft.messages import Entry, HardState, Snapshot, SnapshotMeta


class GroupStorage(Protocol):
    """One group's durable state; also the `StableLog` that the Raft core reads.

    Reads see every entry passed to `save`, also before it is durable.
    """

    @property
    def hard_state(self) -> HardState: ...

    @property
    def snapshot_meta(self) -> SnapshotMeta | None: ...

    @property
    def first_index(self) -> Index:
        """Index of the first entry kept; `last_index + 1` when there is none."""

    @property
    def last_index(self) -> Index: ...

    def term(self, index: Index) -> Term | None:
        """Of an entry that is kept, or of the snapshot's last; None otherwise."""

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        """Entries [first, last], at least one, then as many as fit `max_bytes`.

        Raises DamagedLog where one that was written cannot be read back.
        """

    def configuration_indexes(self) -> Sequence[Index]:
        """Of the entries of kind CONFIGURATION that are kept, ascending; known without reading the log."""

    def read_snapshot(self) -> Snapshot | None:
        """The newest durable snapshot, read from disk."""

    def save(
        self,
        *,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
        done: Callable[[], None],
    ) -> None:
        """Queue it behind earlier saves.  `entries[0].index` may be ≤ last_index: the suffix from there is replaced.

        `snapshot` here is one received from a leader: it replaces the log up to its index (all of the log where
        the log does not hold its last entry).
        """

    def save_snapshot(self, snapshot: Snapshot, *, done: Callable[[], None]) -> None:
        """Keep a snapshot that the local state machine made; the log stays until `compact`."""

    def compact(self, first_kept: Index) -> None:
        """Forget entries before `first_kept`; at most the snapshot's index + 1.  Never blocks."""


class LogStorage(Protocol):
    """All groups of one node, with group commit across them."""

    def groups(self) -> Sequence[GroupId]:
        """Groups found at start, sorted."""

    def open_group(self, group: GroupId) -> GroupStorage:
        """Open or create.  Raises DamagedLog (file and offset) where damage is not a torn tail."""

    def remove_group(self, group: GroupId, *, done: Callable[[], None] = lambda: None) -> None:
        """Forget it and what is stored of it; `done` is called when that survives a power cut."""

    def close(self) -> None:
        """Finish queued saves, then close the files."""
