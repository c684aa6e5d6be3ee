"""Linearizable reads without log entries: ReadIndex and leases (dissertation §6.4).

A leader's read waits until (1) an entry of the leader's own term is committed, so that its commit index is up to date,
and (2) a quorum answered a heartbeat round that was sent after the read came, so that nobody else led then.  Reads that
come together share one round.  Rule: a read is answered once, with an index or with a refusal (index 0).
Knows nothing of messages; the caller sends the rounds.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from seatrial.raft.ids import Index, NodeId


class ReadState(NamedTuple):
    """A read may be served from a state that has applied `index`; index 0: refused, ask again."""

    context: int
    index: Index  # type: ignore[assignment]  # hides tuple.index, which nobody misses


class Read:
    """One read at its leader."""

    __slots__ = ("context", "index", "requester", "round")

    def __init__(self, requester: NodeId, context: int) -> None:
        self.requester = requester
        self.context = context
        self.index = 0  # the commit index when its round began
        self.round = 0


class ReadQueue:
    """The reads of one leadership that are not yet answered."""

    __slots__ = ("_confirming", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Read] = []
        self._confirming: deque[Read] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._confirming)

    def add(self, read: Read) -> None:
        self._waiting.append(read)

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def begin_round(self, number: int, commit_index: int) -> None:
        """Heartbeats of round `number` go out now; every read that waits is confirmed by them."""
        for read in self._waiting:
            read.round = number
            read.index = commit_index
            self._confirming.append(read)
        self._waiting = []

    def confirmed(self, number: int) -> list[Read]:
        """A quorum answered round `number`: the reads of it and of all earlier rounds."""
        answered = []
        while self._confirming and self._confirming[0].round <= number:
            answered.append(self._confirming.popleft())
        return answered

    def abandon(self) -> list[Read]:
        """The leadership ended: all of them, to be refused."""
        abandoned = [*self._confirming, *self._waiting]
        self._confirming.clear()
        self._waiting = []
        return abandoned


class ForwardedReads:
    """Reads that a follower sent to its leader: refused when they expire or the leader changes, so that none hangs."""

    __slots__ = ("_expiry",)

    def __init__(self) -> None:
        self._expiry: dict[int, int] = {}  # context -> deadline, in the order of deadlines

    def __len__(self) -> int:
        return len(self._expiry)

    def add(self, context: int, expires_us: int) -> None:
        self._expiry[context] = expires_us

    def answered(self, context: int) -> bool:
        """False if nobody waits for it (any more)."""
        return self._expiry.pop(context, None) is not None

    def next_expiry(self) -> int | None:
        return next(iter(self._expiry.values()), None)

    def expired(self, now_us: int) -> list[int]:
        due = []
        for context, expires_us in self._expiry.items():
            if expires_us > now_us:
                break
            due.append(context)
        for context in due:
            del self._expiry[context]
        return due

    def abandon(self) -> list[int]:
        contexts = list(self._expiry)
        self._expiry.clear()
        return contexts


class Lease:
    """Until when no other leader can have been elected: a quorum promised so by answering a heartbeat round.

    The promise counts from the round's sending, and is shortened by the clocks' greatest drift (`RaftConfig.lease_us`).
    """

    __slots__ = ("_broken", "_duration_us", "_sent", "_until_us", "is_on")

    def __init__(self, duration_us: int) -> None:
        self.is_on = duration_us > 0
        self._duration_us = duration_us
        self._sent: deque[tuple[int, int]] = deque()  # (round, when it was sent)
        self._until_us = 0
        self._broken = False

    def round_sent(self, number: int, now_us: int) -> None:
        if self.is_on:
            self._sent.append((number, now_us))

    def confirmed(self, number: int) -> None:
        while self._sent and self._sent[0][0] <= number:
            self._until_us = self._sent.popleft()[1] + self._duration_us

    def give_up(self) -> None:
        """For the rest of the leadership: a TimeoutNow that was sent may arrive, and break the promise, at any time."""
        self._broken = True

    def holds(self, now_us: int) -> bool:
        return now_us < self._until_us and not self._broken
