"""Trying an operation until it is done, or its time is up, and knowing at the end whether it can have happened.

Rule: an operation that was refused after an attempt without an answer is not surely undone: the refusal speaks of the
last attempt alone.
Knows nothing of what is attempted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from seatrial.scenario.errors import Refused, Unavailable
from seatrial.scenario.patience import PAUSE_S, PAUSE_S_MAX

T = TypeVar("T")


class NoAnswer(Exception):
    """The attempt did not come to an end; `definite`: it surely did nothing."""

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.definite = definite


async def until_done(
    what: str,
    attempt: Callable[[int, float], Awaitable[T]],
    *,
    timeout: float,
    attempt_s: float,
    retries: bool,
    again: bool,
) -> T:
    """What an attempt returns; it is given its number, from 0, and the seconds that it has.

    attempt_s: of the first of several attempts; one after an attempt that used all of its time has twice as much, and
    the only one (`retries` False) has it all.  again: an attempt whose outcome is unknown may be repeated; where it may
    not, none is cut short.
    Raises Refused, or Unavailable when time is up; anything that is not NoAnswer or Refused comes through.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    attempts, unknown = 0, False
    while True:
        begun = loop.time()
        seconds = max(0.001, min(attempt_s, deadline - begun) if retries and again else deadline - begun)
        try:
            return await attempt(attempts, seconds)
        except Refused as error:
            if unknown:
                raise Unavailable(f"{what}: {error}, after an attempt without an answer", definite=False) from error
            raise Refused(f"{what}: {error}", code=error.code) from error
        except NoAnswer as error:
            attempts += 1
            if loop.time() >= begun + seconds:
                attempt_s *= 2
            unknown = unknown or not error.definite
            left = deadline - loop.time()
            if not retries or left <= 0 or (unknown and not again):
                tried = "" if attempts == 1 else f" ({attempts} attempts in {timeout:g} s)"
                raise Unavailable(f"{what}: {error}{tried}", definite=not unknown) from error
        await asyncio.sleep(min(PAUSE_S * attempts, PAUSE_S_MAX, left))
