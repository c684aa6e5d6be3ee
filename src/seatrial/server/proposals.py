"""The proposals of one group that were made here and have no fate yet.

Rule: a proposal ends in the machine's result only when this very entry (index and term), or the command of this very
request id, was applied here; it is surely lost only when an entry of a later term was applied in or before its place;
everything else ends as unknown.  What another node passed on, and sends once, is taken once, however often its message
comes: a write that is carried out again after a later one would take that one back.
Knows nothing of how entries are replicated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from seatrial.marks import reached
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, Entry
from seatrial.server.errors import OutcomeUnknown, ProposalLost

TAKEN_MAX: Final = 4096  # of the commands that others passed on, so many are known again


class Waiter:
    """A proposal of this node that is not applied yet."""

    __slots__ = ("future", "index", "term")

    def __init__(self, term: Term, index: Index, future: asyncio.Future[Any]) -> None:
        self.term = term
        self.index = index
        self.future = future


class OpenProposals:
    """Those appended here, in the order of their indexes, and those passed on to a leader, by request id.

    `request_id`: the id by which a command that was passed on is known again, from its bytes.
    `once_id`: the same of a command that its sender sends but once; None: there are none, or this is not one.
    """

    __slots__ = ("_name", "_once_id", "_request_id", "_requests", "_taken", "waiters")

    def __init__(
        self,
        name: str,
        request_id: Callable[[bytes], bytes | None] | None,
        once_id: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self.waiters: deque[Waiter] = deque()
        self._name = name
        self._request_id = request_id
        self._requests: dict[bytes, asyncio.Future[Any]] = {}
        self._once_id = once_id
        self._taken: dict[bytes, None] = {}  # oldest first

    def __bool__(self) -> bool:
        return bool(self.waiters) or bool(self._requests)

    @property
    def forwarded(self) -> int:
        """How many wait for a command that was passed on."""
        return len(self._requests)

    def appended(self, term: Term, index: Index, future: asyncio.Future[Any]) -> None:
        """`future` waits for the entry with this id."""
        self.waiters.append(Waiter(term, index, future))

    def passed_on(self, request_id: bytes, future: asyncio.Future[Any]) -> None:
        """`future` waits for the command with this request id; forgotten when it is cancelled."""
        self._requests[request_id] = future
        future.add_done_callback(lambda ended: self._forget(request_id, ended))

    def _forget(self, request_id: bytes, ended: asyncio.Future[Any]) -> None:
        if self._requests.get(request_id) is ended:  # it may have been sent again under the same id
            del self._requests[request_id]

    def was_taken(self, data: bytes) -> bool:
        """Whether this command, which another node passed on and sends once, came before; from now on it has.

        A copy can only come to where the first went; what is forgotten in a restart came over a connection of before.
        """
        name = None if self._once_id is None else self._once_id(data)
        if name is None:
            return False
        if name in self._taken:
            return True
        self._taken[name] = None
        if len(self._taken) > TAKEN_MAX:
            del self._taken[next(iter(self._taken))]
        return False

    def applied(self, entry: Entry, result: Any) -> None:
        """`entry` was applied here with this result."""
        waiters = self.waiters
        if waiters and waiters[0].index == entry.index:
            waiter = waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_result(result)
        elif self._requests and self._request_id is not None and entry.kind == COMMAND:
            request_id = self._request_id(entry.data)
            future = self._requests.pop(request_id, None) if request_id is not None else None
            if future is not None and not future.done():
                reached("a command that was passed on to the leader was applied where it was asked")
                future.set_result(result)

    def term_begun(self, entry: Entry) -> None:
        """Terms never fall along a log, so no entry of an older term can follow `entry`: those proposals are lost."""
        kept: deque[Waiter] = deque()
        for waiter in self.waiters:
            if waiter.term < entry.term:
                reached("a proposal was surely lost: another leader's entry took its place")
                fail(waiter.future, ProposalLost(f"another leader took the place of {self._name}/{waiter.index}"))
            else:
                kept.append(waiter)
        self.waiters.clear()
        self.waiters.extend(kept)

    def skipped_to(self, index: Index) -> None:
        """A snapshot up to `index` took the place of entries that were never seen here."""
        while self.waiters and self.waiters[0].index <= index:
            reached("a snapshot was installed over an open proposal")
            hidden = OutcomeUnknown(f"{self._name} caught up by a snapshot that hides the entry's fate")
            fail(self.waiters.popleft().future, hidden)

    def give_up(self, term: Term) -> None:
        """The lead of `term` was lost a while ago: what is still open of it, and before it, is unknown."""
        while self.waiters and self.waiters[0].term <= term:
            waiter = self.waiters.popleft()
            reached("a proposal's fate stayed unknown after the lead was lost")
            fail(waiter.future, OutcomeUnknown(f"lost the lead of {self._name} with entry {waiter.index} open"))

    def close(self) -> None:
        """Nothing more will be applied here."""
        gone = OutcomeUnknown(f"{self._name} was closed on this node")
        for waiter in self.waiters:
            reached("a group was closed with a proposal open")
            fail(waiter.future, gone)
        self.waiters.clear()
        for future in list(self._requests.values()):
            fail(future, gone)


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """End a future in an error, unless it has ended or nobody waits any more."""
    if not future.done():
        future.set_exception(error)
