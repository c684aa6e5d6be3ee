"""How old what one replica shows may be, by its leader's word: the lease of a follower's reads.

A read index that was asked for at a time, and is applied here, proves that everything committed by that time is shown.
So no clocks are compared: the age is the time that has passed here since the latest such question was asked.

Rule: the leader is asked only while somebody wants to know, and again when it did not answer.
Knows nothing of what is read.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, Protocol

from seatrial.marks import reached

RETRY_S: Final = 0.05
NEVER: Final = -1


class Asked(Protocol):
    """As much of a `Replica` as this is about."""

    @property
    def closed(self) -> bool: ...

    def now_us(self) -> int: ...

    def read_barrier(self) -> asyncio.Future[None]: ...

    def wake_watchers(self) -> None: ...


class Freshness:
    """Of one replica.  vouched_us: all that was committed by then, on the host's clock, is shown here (or NEVER)."""

    __slots__ = ("_pending_us", "_replica", "_retry", "_until_us", "_wanted_us", "vouched_us")

    def __init__(self, replica: Asked) -> None:
        self.vouched_us = NEVER
        self._replica = replica
        self._pending_us = NEVER  # when the latest question without an answer was asked
        self._wanted_us = NEVER
        self._until_us = NEVER
        self._retry: asyncio.TimerHandle | None = None

    def want(self, since_us: int, until_us: int) -> None:
        """Somebody waits until `until_us` for this to show all that was committed by `since_us`, which is no later than
        now.  Who waits for a change of the replica (`Replica.changed`) is woken when it does."""
        self._wanted_us = max(self._wanted_us, since_us)
        self._until_us = max(self._until_us, until_us)
        if max(self._pending_us, self.vouched_us) < since_us and self._retry is None:
            self._ask()

    def _ask(self) -> None:
        if self._replica.closed:
            return
        asked_us = self._pending_us = self._replica.now_us()
        self._replica.read_barrier().add_done_callback(partial(self._answered, asked_us))

    def _answered(self, asked_us: int, answer: asyncio.Future[None]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            if asked_us > self.vouched_us:
                self.vouched_us = asked_us
                self._replica.wake_watchers()
            return
        if asked_us == self._pending_us:
            self._pending_us = NEVER
        if self._is_waited_for() and self._retry is None:
            reached("a follower's leader did not vouch for it, and was asked again")
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._again)

    def _again(self) -> None:
        self._retry = None
        if self._is_waited_for():
            self._ask()

    def _is_waited_for(self) -> bool:
        return self.vouched_us < self._wanted_us and self._replica.now_us() < self._until_us
