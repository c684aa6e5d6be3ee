"""Linearizable reads of one group: all that begin in one loop turn share one read index.

Rule: a read's future ends only after everything up to a read index that the leader vouched for, and that was asked
for after the read began, is applied here.  Knows nothing of what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from seatrial.marks import reached
from seatrial.raft.errors import NotLeader
from seatrial.raft.ids import Index
from seatrial.raft.node import RaftNode
from seatrial.raft.reads import ReadState
from seatrial.server.errors import DeadlinePassed, NoLeader
from seatrial.server.proposals import fail

READ_PATIENCE_US: Final = 2_000_000  # an index that was not answered by then is given up (the caller may ask again)
READ_ATTEMPT_S: Final = 0.5  # a read index request may be lost with its leader: ask again
RETRY_S: Final = 0.02  # between two attempts while no leader is known


class Readable(Protocol):
    """What waiting for a linearizable read needs of a replica."""

    def read_barrier(self) -> asyncio.Future[None]: ...

    def changed(self) -> asyncio.Future[None]: ...


async def until_current(replica: Readable, timeout_s: float) -> None:
    """Return when the replica has applied everything that was committed when this was called; asks again meanwhile.

    Raises DeadlinePassed (definite) when no leader could vouch for it in time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    last: Exception | None = None
    while (left := deadline - loop.time()) > 0:
        try:
            await asyncio.wait_for(replica.read_barrier(), min(READ_ATTEMPT_S, left))
            return
        except NoLeader as error:
            last = error
            await asyncio.wait([replica.changed()], timeout=min(RETRY_S, left))
        except TimeoutError:
            last = None
    seen = f" (last: {last})" if last else ""
    raise DeadlinePassed(f"no leader vouched for the read within {timeout_s:g} s{seen}", definite=True)


class ReadBatch:
    """All reads that joined one read index."""

    __slots__ = ("asked_us", "futures", "index")

    def __init__(self, asked_us: int) -> None:
        self.asked_us = asked_us
        self.futures: list[asyncio.Future[None]] = []
        self.index = 0


class ReadBarriers:
    """The reads that wait: for this turn's read index, for its answer, or for that index to be applied."""

    __slots__ = ("_asked", "_joining", "_name", "_ripening", "batches")

    def __init__(self, name: str) -> None:
        self.batches = 0  # read indexes asked for so far; also the context of the last one
        self._name = name
        self._joining: ReadBatch | None = None
        self._asked: dict[int, ReadBatch] = {}  # by context, oldest first
        self._ripening: list[ReadBatch] = []

    @property
    def must_ask(self) -> bool:
        return self._joining is not None

    @property
    def has_unanswered(self) -> bool:
        return bool(self._asked)

    def join(self, future: asyncio.Future[None], now_us: int) -> None:
        if self._joining is None:
            self._joining = ReadBatch(now_us)
        self._joining.futures.append(future)

    def ask(self, node: RaftNode, now_us: int) -> None:
        """Ask for one read index for all that joined."""
        batch, self._joining = self._joining, None
        assert batch is not None
        for context in list(self._asked):
            if now_us - self._asked[context].asked_us < READ_PATIENCE_US:
                break
            reached("a read index was never answered, and was given up")
            self._refuse(self._asked.pop(context), "no answer from the leader")
        self.batches += 1
        context = self.batches
        self._asked[context] = batch
        try:
            node.read_index(context, now_us)
        except NotLeader:
            self._refuse(self._asked.pop(context), "no leader is known")

    def answered(self, reads: Sequence[ReadState], last_applied: Index) -> None:
        for read in reads:
            batch = self._asked.pop(read.context, None)
            if batch is None:
                reached("a read index was answered after it had been given up")
                continue
            if read.index == 0:
                self._refuse(batch, "the leader could not vouch for it")
            else:
                batch.index = read.index
                self._ripening.append(batch)
        self.applied(last_applied)

    def applied(self, last_applied: Index) -> None:
        """Everything up to there is applied: end the reads that waited for it."""
        if not self._ripening:
            return
        ripe = [batch for batch in self._ripening if batch.index <= last_applied]
        self._ripening = [batch for batch in self._ripening if batch.index > last_applied]
        for batch in ripe:
            for future in batch.futures:
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        batches = [*self._asked.values(), *self._ripening, *([self._joining] if self._joining else [])]
        for batch in batches:
            self._refuse(batch, "it was closed on this node")
        self._asked.clear()
        self._ripening.clear()
        self._joining = None

    def _refuse(self, batch: ReadBatch, reason: str) -> None:
        for future in batch.futures:
            fail(future, NoLeader(f"{self._name}: {reason}"))
