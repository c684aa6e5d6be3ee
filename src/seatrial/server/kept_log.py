"""A partition's log as its Raft group sees it: entries where they are kept, and a state where they are not.

Rule: a snapshot holds no records, so it may only ever stand for entries whose records nobody needs.  A replica that is
behind the first entry kept is therefore sent the state just before that (`PartitionLog.base`), whichever snapshot is
stored here: that one is for this node's own next start, and stands for entries that are still in the log beside it.
Knows nothing of what is old, and of who decides that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatrial.machines.partition_log import LogBase, PartitionLog
from seatrial.marks import reached
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.membership import decode_configuration
from seatrial.raft.messages import Configuration, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.storage.base import GroupStorage


class KeptLog:
    """A `raft.log.StableLog` over a partition's storage.

    founders: with whom the group began, asked for where no entry that is gone had changed its members.
    """

    def __init__(self, storage: GroupStorage, machine: PartitionLog, founders: Callable[[], Sequence[NodeId]]) -> None:
        self._storage = storage
        self._machine = machine
        self._founders = founders

    @property
    def hard_state(self) -> HardState:
        return self._storage.hard_state

    @property
    def first_index(self) -> Index:
        return self._storage.first_index

    @property
    def last_index(self) -> Index:
        return self._storage.last_index

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        return self._storage.entries(first, last, max_bytes)

    def configuration_indexes(self) -> Sequence[Index]:
        return self._storage.configuration_indexes()

    def term(self, index: Index) -> Term | None:
        term = self._storage.term(index)
        if term is None and self._base_counts:
            base = self._machine.base()
            return base.term if base.entry_index == index else None
        return term

    @property
    def _base_counts(self) -> bool:
        """Not at the start, nor while a snapshot is installed: the machine is restored from what is stored then."""
        meta = self._storage.snapshot_meta
        applied = self._machine.applied_index
        return applied > 0 and (meta is None or meta.last_included_index <= applied)

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        if not self._base_counts:
            return self._storage.snapshot_meta
        return self._meta(self._machine.base())

    def _meta(self, base: LogBase) -> SnapshotMeta | None:
        if base.entry_index == 0:
            return None
        members = base.configuration
        configuration = Configuration(tuple(self._founders())) if members is None else decode_configuration(members)
        return SnapshotMeta(base.entry_index, base.term, configuration)

    def read_snapshot(self) -> Snapshot | None:
        if not self._base_counts:
            return self._storage.read_snapshot()
        meta = self._meta(self._machine.base())
        if meta is None:
            return None
        reached("a replica was sent the state before the first record that is kept")
        return Snapshot(meta, self._machine.snapshot_at_base())
