"""The newest entries of all groups in memory, within one budget: followers that keep up never cause a read.

Rule: an entry is admitted once it is written, and forgotten oldest first; an entry that is not written yet is its
group's own affair.  Knows nothing of files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from seatrial.raft.messages import Entry


class Forgets(Protocol):
    def forget(self, entry: Entry) -> None:
        """Drop the entry from memory: it can be read from disk."""


class TailCache:
    """First in, first out; `bytes_max` counts payloads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: deque[tuple[Forgets, Entry]] = deque()

    def admit(self, owner: Forgets, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._entries.append((owner, entry))
            self._bytes += len(entry.data) + _ENTRY_OVERHEAD
        while self._bytes > self._bytes_max:
            holder, oldest = self._entries.popleft()
            self._bytes -= len(oldest.data) + _ENTRY_OVERHEAD
            holder.forget(oldest)


_ENTRY_OVERHEAD = 200  # bytes of Python objects for each entry held
