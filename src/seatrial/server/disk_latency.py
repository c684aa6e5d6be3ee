"""How long the disk takes to make writes durable, measured where it is asked: a wrapper around `env.Files`.

Rule: it adds nothing but the clock; every error passes through untouched.  Knows nothing of what files hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatrial.env import Clock, File, Files, Worker
from seatrial.server.latency import Histogram


class TimedFile:
    """A File whose syncs are timed."""

    __slots__ = ("_clock", "_file", "_histogram", "allocate", "close", "read", "size", "truncate", "write")

    def __init__(self, file: File, clock: Clock, histogram: Histogram) -> None:
        self._file = file
        self._clock = clock
        self._histogram = histogram
        # Bound methods of the file itself: only `sync` costs anything more.
        self.write = file.write
        self.read = file.read
        self.size = file.size
        self.truncate = file.truncate
        self.allocate = file.allocate
        self.close = file.close

    def sync(self) -> None:
        begun_us = self._clock.now_us()
        self._file.sync()
        self._histogram.observe((self._clock.now_us() - begun_us) / 1e6)


class TimedFiles:
    """Files whose files' syncs are timed, all into one histogram."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self.sync_latency = Histogram()

    def open(self, path: str, *, create: bool = False) -> File:
        return TimedFile(self._files.open(path, create=create), self._clock, self.sync_latency)

    def exists(self, path: str) -> bool:
        return self._files.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return self._files.list_directory(path)

    def make_directory(self, path: str) -> None:
        self._files.make_directory(path)

    def replace(self, source: str, target: str) -> None:
        self._files.replace(source, target)

    def remove(self, path: str) -> None:
        self._files.remove(path)

    def remove_directory(self, path: str) -> None:
        self._files.remove_directory(path)

    def sync_directory(self, path: str) -> None:
        self._files.sync_directory(path)

    def side_by_side(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Of two syncs that end at the very same time one may go uncounted: a histogram can bear it, a lock is dear."""
        self._files.side_by_side(jobs)

    def lock(self, path: str) -> File:
        return self._files.lock(path)

    def worker(self, name: str) -> Worker:
        return self._files.worker(name)
