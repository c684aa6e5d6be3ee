"""Rules that know Raft's messages and change what is in them.

Rule: what they make up could have been sent by an honest node or is a weaker statement than what was sent (a lower
commit index, no read round): Raft must stay safe.  A message is never changed in place: its sender may still hold it.
"""

from __future__ import annotations

from seatrial.raft.ids import Index, NodeId
from seatrial.raft.messages import AppendEntries, Heartbeat, Message, PreVote, RequestVote, TimeoutNow
from seatrial.transport.filters.verdicts import DROP, PASS, Replace, Verdict


class EraseCommit:
    """Sets the leader's commit index to 0 in AppendEntries and Heartbeats: the follower learns of nothing new."""

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if isinstance(message, Heartbeat) and message.leader_commit:
            return Replace((Heartbeat(message.sender, message.to, message.term, Index(0), message.read_round),))
        if isinstance(message, AppendEntries) and message.leader_commit:
            erased = AppendEntries(
                message.sender,
                message.to,
                message.term,
                message.prev_log_index,
                message.prev_log_term,
                Index(0),
                message.entries,
            )
            return Replace((erased,))
        return PASS


class ReadRounds:
    """Records the read rounds on Heartbeats (`rounds`), and strips them off where `strip` is set: no answer comes."""

    def __init__(self, *, strip: bool) -> None:
        self._strip = strip
        self.rounds: list[int] = []

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not isinstance(message, Heartbeat) or not message.read_round:
            return PASS
        self.rounds.append(message.read_round)
        if not self._strip:
            return PASS
        return Replace((Heartbeat(message.sender, message.to, message.term, message.leader_commit, 0),))


class DivertTimeoutNow:
    """Sends each TimeoutNow to another node than was meant: one that nobody handed over to stands for election."""

    def __init__(self, to: NodeId) -> None:
        self._to = to

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not isinstance(message, TimeoutNow) or message.to == self._to or message.sender == self._to:
            return PASS
        return Replace((TimeoutNow(message.sender, self._to, message.term),))


class DropVotes:
    """Drops votes and pre-votes that are asked for with a last log index in this range, both ends included."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last

    def __call__(self, message: Message, now_us: int) -> Verdict:
        asked = isinstance(message, RequestVote | PreVote) and self._first <= message.last_log_index <= self._last
        return DROP if asked else PASS
