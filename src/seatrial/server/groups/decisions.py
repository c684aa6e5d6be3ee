"""The records of a shard's groups on their way into its Raft log.

Rule: they are appended in the order in which they were decided: one that Raft is too full for holds up those behind it.
Knows nothing of what is in them, and of who waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from seatrial.marks import reached
from seatrial.raft.errors import NotLeader, ProposalDropped

RETRY_S: Final = 0.02  # a record that Raft is too full to take is offered again after this


class Decisions:
    """propose: into the Raft log, raising as `RaftNode.propose` does.

    on_committed: told the group whose last record has been committed, so that nothing of it is on its way.
    """

    def __init__(
        self,
        propose: Callable[[bytes], asyncio.Future[Any]],
        loop: asyncio.AbstractEventLoop,
        on_committed: Callable[[str], None],
    ) -> None:
        self._propose = propose
        self._loop = loop
        self._on_committed = on_committed
        self._last: dict[str, asyncio.Future[bool]] = {}  # of each group that has any
        self._refused: deque[tuple[bytes, asyncio.Future[bool]]] = deque()  # those that Raft was too full for
        self._is_closed = False

    def close(self) -> None:
        """The lead is lost: what is on its way has no end any more."""
        self._is_closed = True

    def under_way(self, group_id: str) -> asyncio.Future[bool] | None:
        """What ends when the group's last record is committed; None where all of them are."""
        return self._last.get(group_id)

    def write(self, group_id: str, command: bytes) -> asyncio.Future[bool]:
        """Replicate a decision about a group; the future ends when it is committed, or never if the lead is lost."""
        written: asyncio.Future[bool] = self._loop.create_future()
        self._last[group_id] = written
        written.add_done_callback(lambda done: self._written(group_id, done))
        if self._refused:
            self._refused.append((command, written))
        else:
            self._offer(command, written)
        return written

    def _offer(self, command: bytes, written: asyncio.Future[bool]) -> None:
        try:
            proposed = self._propose(command)
        except ProposalDropped:
            reached("a group's record had to wait until Raft could take it")
            self._refused.appendleft((command, written))
            self._loop.call_later(RETRY_S, self._offer_again)
        except NotLeader:
            return  # whoever made this coordinator is about to close it
        else:
            proposed.add_done_callback(partial(self._proposed, written))

    def _offer_again(self) -> None:
        """In their order: a later record must not be overtaken by an earlier one."""
        while self._refused and not self._is_closed:
            command, written = self._refused.popleft()
            before = len(self._refused)
            self._offer(command, written)
            if len(self._refused) > before:
                return

    def _proposed(self, written: asyncio.Future[bool], proposed: asyncio.Future[Any]) -> None:
        if proposed.exception() is None and not self._is_closed:
            written.set_result(True)

    def _written(self, group_id: str, written: asyncio.Future[bool]) -> None:
        if self._last.get(group_id) is written:
            del self._last[group_id]
            self._on_committed(group_id)
