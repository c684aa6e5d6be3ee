"""Finishing what has to be finished, cancelled or not.

Rule: undoing a fault or ending a process is never left half done because someone stopped waiting for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even if we are cancelled meanwhile; the cancellation is raised afterwards.

    `work` must have a deadline of its own.  If it fails after we were cancelled, its error is the cancellation's cause.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            # Ours, unless the work itself was cancelled; also when it was done already and we were about to return.
            if not task.cancelled():
                cancelled = error
        except BaseException:  # the task's own: raised by result() below
            break
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()
