"""The numbers of Raft, each a type of its own so that they cannot be mixed up."""

from __future__ import annotations

from typing import NamedTuple, NewType

NodeId = NewType("NodeId", int)  # 1-based; 0 means "none" on the wire only
GroupId = NewType("GroupId", int)  # which Raft group of a multi-raft node
Term = NewType("Term", int)  # 0 before the first election
Index = NewType("Index", int)  # Raft log position, 1-based; 0 is the position before the first entry


class EntryId(NamedTuple):
    """What identifies an entry for ever (Log Matching Property, Raft §5.3)."""

    term: Term
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody misses
