"""What each node has told others of its own disk: votes, entries and snapshots that every later life must know.

Rule: a promise counts from the moment its message leaves; only the last of each kind is kept, because a later one of
the same node stands for those before it.  Sources: Raft figure 2 (persistent state), §5.3, §7.
Knows nothing of how a disk was damaged: who asks leaves those out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from seatrial.raft.ids import GroupId
from seatrial.raft.messages import (
    AppendEntriesResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
)

Place = tuple[int, GroupId]  # node, group


class Recovered(Protocol):
    """As much of a replica's storage as promises are about."""

    @property
    def hard_state(self) -> Any: ...

    @property
    def last_index(self) -> int: ...


class Promises:
    """Of all nodes of a run."""

    def __init__(self) -> None:
        self._votes: dict[Place, tuple[int, int]] = {}  # (term, candidate)
        self._acknowledged: dict[Place, tuple[int, int]] = {}  # (term, index): all up to there, in that term
        self._snapshot_bytes: dict[tuple[int, GroupId, int], int] = {}  # by sender, group and last index

    def leave(self, node_id: int, group: GroupId, messages: Sequence[Message]) -> None:
        """These leave the node."""
        for message in messages:
            if isinstance(message, AppendEntriesResponse):
                if message.success:
                    self._acknowledge((node_id, group), message.term, message.match_index)
            elif isinstance(message, RequestVote):
                self._votes[node_id, group] = (message.term, node_id)
            elif isinstance(message, RequestVoteResponse):
                if message.vote_granted:
                    self._votes[node_id, group] = (message.term, message.to)
            elif isinstance(message, InstallSnapshot):
                self._snapshot_bytes[node_id, group, message.meta.last_included_index] = message.total_size
            elif isinstance(message, InstallSnapshotResponse):
                index = message.last_included_index
                size = self._snapshot_bytes.get((message.to, group, index))
                if size is not None and message.next_offset >= size:
                    self._acknowledge((node_id, group), message.term, index)

    def _acknowledge(self, place: Place, term: int, index: int) -> None:
        self._acknowledged[place] = max(self._acknowledged.get(place, (0, 0)), (term, index))

    def forget(self, node_id: int, group: GroupId) -> None:
        """The node gives the replica up: one that comes back is another."""
        self._votes.pop((node_id, group), None)
        self._acknowledged.pop((node_id, group), None)

    def broken(self, node_id: int, group: GroupId, storage: Recovered) -> str | None:
        """What the node said of its disk, and what is on it, where that differs."""
        state = storage.hard_state
        term, candidate = self._votes.get((node_id, group), (0, 0))
        if term and (state.term < term or (state.term == term and state.voted_for != candidate)):
            return (
                f"voted for node {candidate} in term {term}, and after a restart it knows of a vote for "
                f"{state.voted_for or 'nobody'} in term {state.term}"
            )
        term, index = self._acknowledged.get((node_id, group), (0, 0))
        # A leader of a later term may have replaced what was not committed; that of the same term never does.
        if state.term < term or (state.term == term and storage.last_index < index):
            return (
                f"acknowledged everything up to {index} in term {term}, and after a restart it has entries up to "
                f"{storage.last_index}, and term {state.term}"
            )
        return None
