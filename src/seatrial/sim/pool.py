"""A function over many items in a few forked processes, several items at a time; a dead process costs one item.

Rule: results come as they are ready, each with its item; nothing outlives the caller: not when it is interrupted, not
when it is killed.  For work that leaves its process as it was; else `zygote`.  About the real process: it forks.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCH: Final = 4
AHEAD: Final = 3  # batches on their way for each process
_PR_SET_PDEATHSIG: Final = 1


def in_batches(
    items: Iterable[Item], function: Callable[[Item], Result], jobs: int
) -> Iterator[tuple[Item, Result | str]]:
    """Each item with its result, or with how its process died (a sentence).

    The function and what it returns must survive pickling; what it raises is raised here.
    """
    waiting = iter(items)
    suspects: list[Item] = []
    while True:
        died = False
        with _Pool(max(1, jobs)) as pool:
            running: dict[Future[list[Result]], list[Item]] = {}
            while True:
                while not died and len(running) < AHEAD * jobs and (batch := list(islice(waiting, BATCH))):
                    running[pool.submit(_all_of, function, batch)] = batch
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    batch = running.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        died = True
                        suspects += batch
                    else:
                        yield from zip(batch, future.result(), strict=True)
        if not died:
            return
        yield from _one_by_one(suspects, function)
        suspects.clear()


def _one_by_one(items: Iterable[Item], function: Callable[[Item], Result]) -> Iterator[tuple[Item, Result | str]]:
    """Each item in a process of its own, so that it is known which one kills it."""
    for item in items:
        with _Pool(1) as pool:
            try:
                (result,) = pool.submit(_all_of, function, [item]).result()
            except BrokenProcessPool:
                yield item, "the process that ran it died without a word"
            else:
                yield item, result


class _Pool(ProcessPoolExecutor):
    """Forked processes that die with this one, and at once when it is interrupted."""

    def __init__(self, jobs: int) -> None:
        super().__init__(
            jobs, mp_context=multiprocessing.get_context("fork"), initializer=_begin, initargs=(os.getpid(),)
        )

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            for process in list((self._processes or {}).values()):
                process.kill()
        self.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int) -> None:
    """Leave interrupts to the parent, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _all_of(function: Callable[[Item], Result], batch: list[Item]) -> list[Result]:
    return [function(item) for item in batch]
