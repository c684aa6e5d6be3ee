"""Rules for snapshots, which travel in chunks: held, gathered, repeated, replaced by older ones.

Two chunks are the same when sender, receiver, what the snapshot includes and the offset are: a leader repeats a chunk
that is not answered.

Rule: every chunk that goes on was sent by a leader at some time; only `DropSnapshotsReportSuccess` lies.
"""

from __future__ import annotations

from typing import TypeAlias

from seatrial.raft.messages import AppendEntries, InstallSnapshot, InstallSnapshotResponse, Message
from seatrial.transport.filters.verdicts import DROP, HOLD, PASS, Copy, Replace, Verdict

_Same: TypeAlias = tuple[int, int, int, int, int]


def _identity(chunk: InstallSnapshot) -> _Same:
    meta = chunk.meta
    return chunk.sender, chunk.to, meta.last_included_index, meta.last_included_term, chunk.offset


class DropSnapshotsReportSuccess:
    """Drops chunks, and answers in the receiver's name that the whole snapshot is installed.

    A lie: the leader believes that the follower holds what it does not.  Raft does not promise to live through it.
    """

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not isinstance(message, InstallSnapshot):
            return PASS
        answer = InstallSnapshotResponse(
            message.to, message.sender, message.term, message.meta.last_included_index, message.total_size
        )
        return Replace((answer,))


class CollectSnapshots:
    """Holds chunks until `count` different ones wait (repeated ones are swallowed), and lets all go at once."""

    def __init__(self, count: int = 2) -> None:
        self._count = count
        self._held: dict[_Same, InstallSnapshot] = {}

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not isinstance(message, InstallSnapshot):
            return PASS
        identity = _identity(message)
        if identity in self._held:
            return DROP
        if len(self._held) + 1 < self._count:
            self._held[identity] = message
            return HOLD
        released = (*self._held.values(), message)
        self._held.clear()
        return Replace(released) if len(released) > 1 else PASS

    def emptied(self) -> None:
        self._held.clear()


class LeadingSnapshot:
    """Holds the first chunk of all, and swallows its repetitions, until a different one comes.

    together: then both go, the older first; else the newer goes alone, and the older one behind the next message that
    passes: stale by then.  After that everything passes.
    """

    def __init__(self, *, together: bool) -> None:
        self._together = together
        self._held: InstallSnapshot | None = None
        self._overtaken = self._over = False

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if self._over:
            return PASS
        held = self._held
        if self._overtaken:
            self._over, self._held = True, None
            return Copy((held,)) if held is not None else PASS
        if not isinstance(message, InstallSnapshot):
            return PASS
        if held is None:
            self._held = message
            return HOLD
        if _identity(held) == _identity(message):
            return DROP
        if self._together:
            self._over, self._held = True, None
            return Replace((held, message))
        self._overtaken = True
        return PASS

    def emptied(self) -> None:
        self._held = None


class HoldSnapshotsUntilAppend:
    """Holds chunks until an AppendEntries comes, which goes first."""

    def __init__(self) -> None:
        self._held: dict[_Same, InstallSnapshot] = {}

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if isinstance(message, InstallSnapshot):
            identity = _identity(message)
            if identity in self._held:
                return DROP
            self._held[identity] = message
            return HOLD
        if isinstance(message, AppendEntries) and self._held:
            released = tuple(self._held.values())
            self._held.clear()
            return Copy(released)
        return PASS

    def emptied(self) -> None:
        self._held.clear()


class StaleSnapshot:
    """Lets the first snapshot's chunks arrive in the place of every later snapshot's."""

    def __init__(self) -> None:
        self._first: dict[int, InstallSnapshot] = {}  # by offset

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not isinstance(message, InstallSnapshot):
            return PASS
        first = next(iter(self._first.values()), None)
        if first is None or (first.to == message.to and first.meta == message.meta):
            self._first[message.offset] = message
            return PASS
        if first.to != message.to:
            return PASS
        return Replace((self._first.get(message.offset, first),))
