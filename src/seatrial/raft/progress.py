"""What a leader knows of one peer's log, and how much it may send to it.

    PROBE       where the logs agree is unknown: one message at a time until the peer accepts one
    REPLICATE   pipelining: `next_index` runs ahead of the answers, as far as the window allows
    SNAPSHOT    what the peer needs is compacted: chunks of a snapshot go out, entries wait

Rule: match_index < next_index always; match_index never goes back within one leadership.
Knows nothing of messages, of the log or of time's meaning.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Snapshot

PROBE: Final = 0
REPLICATE: Final = 1
SNAPSHOT: Final = 2

STATE_NAMES: Final = ("probe", "replicate", "snapshot")


class Window:
    """Entries sent and not yet acknowledged, bounded in messages and bytes."""

    __slots__ = ("_max_bytes", "_max_messages", "bytes", "sent")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.sent: deque[tuple[int, int]] = deque()  # (last index, bytes) of each message; for others to look at
        self.bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self.sent)

    def is_full(self) -> bool:
        return len(self.sent) >= self._max_messages or self.bytes >= self._max_bytes

    def clear(self) -> None:
        self.sent.clear()
        self.bytes = 0


class Progress:
    """One peer, seen from its leader."""

    __slots__ = (
        "acked_round",
        "caught_up",
        "commit_sent",
        "last_response_us",
        "leave_deadline_us",
        "left_index",
        "match_index",
        "next_index",
        "node_id",
        "paused",
        "probes",
        "proven_from",
        "responded",
        "sent_us",
        "snapshot",
        "snapshot_offset",
        "state",
        "window",
    )

    def __init__(self, node_id: NodeId, next_index: int, now_us: int, window: Window) -> None:
        self.node_id = node_id
        self.state = PROBE
        self.match_index = 0
        self.next_index = next_index
        self.window = window
        self.paused = False  # PROBE: one message is out and not yet answered
        self.probes = -1  # PROBE: how many messages it may be sent until the driver says more; -1: no such bound
        self.responded = True  # has anything been acknowledged since the last beat that it was not asked to answer?
        self.sent_us = 0  # when it was last sent anything but a beat
        self.commit_sent = 0  # the highest commit index it was sent
        self.acked_round = 0  # the highest heartbeat round that it answered
        self.last_response_us = now_us
        self.snapshot: Snapshot | None = None  # being sent
        self.snapshot_offset = 0  # where the chunk that is out begins
        self.caught_up = False  # has it acknowledged, in one stretch, all that was committed when its answer came?
        self.left_index = 0  # of the configuration that removed it; 0: it takes part
        self.leave_deadline_us = 0
        # Of a node that comes back: an acknowledgement below may be one of its former life, whose disk may be lost.
        self.proven_from = 0

    # -- leaving and coming back -------------------------------------------------------------------------------------

    def left_at(self, index: int, deadline_us: int) -> None:
        """The configuration at `index` removed it: it is to be told, and not counted."""
        self.left_index = index
        self.leave_deadline_us = deadline_us

    def is_leaving(self) -> bool:
        return self.left_index > 0

    def knows_that_it_left(self) -> bool:
        """It has the configuration that removed it, and was sent word that this is committed."""
        return self.match_index >= self.left_index and self.commit_sent >= self.left_index

    def unproven(self, match_index: int) -> bool:
        """An acknowledgement below `proven_from`: not counted, but gone on from; if it was wrong, the peer refuses
        what follows.  False if it says nothing new."""
        if self.state != PROBE or match_index < self.next_index:
            return False
        self.next_index = match_index + 1
        self.paused = False
        self.responded = True
        return True

    # -- its log -----------------------------------------------------------------------------------------------------

    def is_paused(self) -> bool:
        if self.state == REPLICATE:
            return self.window.is_full()
        return self.state == SNAPSHOT or self.paused

    def become_probe(self) -> None:
        """The peer is out of reach, or has just installed a snapshot."""
        self._enter(PROBE)
        self.next_index = self.match_index + 1

    def become_replicate(self) -> None:
        self._enter(REPLICATE)
        self.next_index = self.match_index + 1

    def become_snapshot(self, snapshot: Snapshot) -> None:
        self._enter(SNAPSHOT)
        self.snapshot = snapshot

    def _enter(self, state: int) -> None:
        self.state = state
        self.paused = False
        self.responded = True
        self.snapshot = None
        self.snapshot_offset = 0
        self.window.clear()
        self.caught_up = False

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to `last_index` went out."""
        if self.state == REPLICATE:
            self.next_index = last_index + 1
            window = self.window
            window.sent.append((last_index, size))
            window.bytes += size
        else:
            self.paused = True

    def acknowledged(self, match_index: int) -> bool:
        """The peer's durable log equals the leader's up to there.  False if that was known."""
        self.responded = True
        if match_index >= self.next_index:
            self.next_index = match_index + 1
        window = self.window
        sent = window.sent
        while sent and sent[0][0] <= match_index:  # an answer also answers every message before its own
            window.bytes -= sent.popleft()[1]
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        return True

    def refused(self, prev_log_index: int, agreed_at_most: int) -> bool:
        """The peer has no such previous entry; try at `agreed_at_most` next.  False if the refusal is out of date."""
        if self.state == SNAPSHOT or prev_log_index <= self.match_index or prev_log_index >= self.next_index:
            return False
        if self.state == PROBE and prev_log_index != self.next_index - 1:
            return False
        next_index = max(min(prev_log_index, agreed_at_most + 1), self.match_index + 1)
        self._enter(PROBE)
        self.next_index = next_index
        return True
