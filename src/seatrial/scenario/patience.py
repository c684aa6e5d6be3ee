"""Waiting for something to become so, and trying again: on the running loop, in virtual time where that is virtual.

Rule: every wait has a deadline, and on its expiry says what it last saw.
Knows nothing of clusters.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from seatrial.scenario.errors import NotDone

T = TypeVar("T")
TIMEOUT_S = 10.0  # of every wait of a scenario that names none
PAUSE_S = 0.04
PAUSE_S_MAX = 0.2


class NeverSo(AssertionError, TimeoutError):
    """What `eventually` waited for did not come."""


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = ..., *, every: float = ...) -> T: ...


@overload
async def eventually(condition: Callable[[], T], timeout: float = ..., *, every: float = ...) -> T: ...


async def eventually(condition: Callable[[], Any], timeout: float = TIMEOUT_S, *, every: float = PAUSE_S) -> Any:
    """Ask again and again until the answer is true, and return it.

    The condition may be a coroutine function.  An AssertionError, and an operation that was not done, count as "not
    yet".  Raises NeverSo with the last answer, or from the last error.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        error: Exception | None = None
        try:
            answer = condition()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        except (AssertionError, NotDone) as not_yet:
            error = not_yet
        if loop.time() >= deadline:
            seen = f"it last failed with: {error}" if error is not None else f"it last was {answer!r}"
            raise NeverSo(f"not so within {timeout:g} s; {seen}") from error
        await asyncio.sleep(every)


@overload
async def retry(
    action: Callable[[], Awaitable[T]],
    on: type[Exception] | tuple[type[Exception], ...] = ...,
    timeout: float = ...,
    *,
    pause: float = ...,
) -> T: ...


@overload
async def retry(
    action: Callable[[], T],
    on: type[Exception] | tuple[type[Exception], ...] = ...,
    timeout: float = ...,
    *,
    pause: float = ...,
) -> T: ...


async def retry(
    action: Callable[[], Any],
    on: type[Exception] | tuple[type[Exception], ...] = NotDone,
    timeout: float = TIMEOUT_S,
    *,
    pause: float = PAUSE_S,
) -> Any:
    """Do it until it raises none of these errors; pauses grow from `pause` to 0.2 s.

    At the deadline the last error is raised as it is, with a note.  Other errors are raised at once.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    attempts = 0
    while True:
        attempts += 1
        try:
            result = action()
            return await result if inspect.isawaitable(result) else result
        except on as error:
            if loop.time() >= deadline:
                error.add_note(f"tried {attempts} times in {timeout:g} s")
                raise
        await asyncio.sleep(min(pause * attempts, PAUSE_S_MAX))
