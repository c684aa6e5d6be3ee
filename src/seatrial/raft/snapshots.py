"""A snapshot on its way from leader to follower, in chunks (§7).

Rule: one chunk is out at a time, and the follower says which byte it wants next, so a lost, repeated or late chunk
costs time and never correctness.  Chunks of different leaders' snapshots are never put together.
Knows nothing of the state machine's bytes.
"""

from __future__ import annotations

from seatrial.raft.ids import NodeId
from seatrial.raft.messages import InstallSnapshot, Snapshot, SnapshotMeta


class IncomingSnapshot:
    """What a follower has of a snapshot so far."""

    __slots__ = ("_data", "_meta", "_sender", "_term", "_total_size")

    def __init__(self, first: InstallSnapshot) -> None:
        self._sender: NodeId = first.sender
        self._term = first.term
        self._meta: SnapshotMeta = first.meta
        self._total_size = first.total_size
        self._data = bytearray()

    def belongs(self, chunk: InstallSnapshot) -> bool:
        """Is it a chunk of this very snapshot?"""
        return (chunk.sender, chunk.term, chunk.total_size, chunk.meta) == (
            self._sender,
            self._term,
            self._total_size,
            self._meta,
        )

    @property
    def next_offset(self) -> int:
        """The first byte that is missing."""
        return len(self._data)

    def add(self, chunk: InstallSnapshot) -> None:
        """Takes a chunk that begins where the last one ended; ignores any other."""
        if chunk.offset == len(self._data):
            self._data += chunk.data[: self._total_size - chunk.offset]

    def complete(self) -> Snapshot | None:
        if len(self._data) < self._total_size:
            return None
        return Snapshot(self._meta, bytes(self._data))
