"""The seams: the one place that touches the real clock, randomness, files and threads.

Everything in the server wing and the simulator takes these as arguments, so that the simulator can give it
virtual ones.  Rule: no other module imports `time`, `random`, `secrets` or `threading`, or opens a file for the
server's data.  Sockets and timers come from the running asyncio event loop.
Knows nothing of Raft, Kafka or trials.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
Buffer: TypeAlias = bytes | bytearray | memoryview
_BUFFERS_MAX = 1024  # of one vectored write: IOV_MAX on Linux
# Fewer syncs than that are not worth waking other threads; more threads than that do not make a journal quicker.
SIDE_BY_SIDE_MIN: Final = 4
HELPERS: Final = 8


class Clock(Protocol):
    """What time it is, in two senses that must never be mixed."""

    def now_us(self) -> int:
        """Microseconds on a clock that never goes back; its zero means nothing."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970; may jump in either direction: for people and record timestamps only."""


class RealClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Rng:
    """A stream of randomness that is decided by its seed alone.

    `child(name)` gives an independent stream that is decided by (seed, name) and not by how much of the parent was
    used: drawing one number more for the disk never moves the network's draws.
    random: gives a float in [0, 1); an attribute and not a method, because the simulator calls it for every message.
    """

    __slots__ = ("_random", "random", "seed")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)
        self.random: Callable[[], float] = self._random.random

    def child(self, name: str) -> Rng:
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=8).digest()
        return Rng(int.from_bytes(digest, "big"))

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self.random()

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        return self._random.sample(items, count)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        self._random.shuffle(items)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


def fresh_seed() -> int:
    """A seed from the operating system, for runs that were given none; print it, so that they can be replayed."""
    return int.from_bytes(os.urandom(4), "big")


class File(Protocol):
    """One open data file.  Every method may raise OSError; none retries."""

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write all bytes of all buffers, one after the other, from `offset` on (a short write is continued)."""

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; fewer only at the end of the file."""

    def sync(self) -> None:
        """Return only when everything written (and the size) survives a power cut."""

    def size(self) -> int: ...

    def truncate(self, size: int) -> None: ...

    def allocate(self, size: int) -> None:
        """Reserve blocks up to `size` bytes and make the file that long (the new part reads as zeros)."""

    def close(self) -> None: ...


class Worker(Protocol):
    """Runs blocking jobs off the event loop, one at a time, in the order they were submitted."""

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """`done` is called on the event loop with the job's result, or with the exception that it raised."""

    def close(self) -> None:
        """Wait for the submitted jobs, then stop.  Their `done` callbacks still run on the loop."""


class Files(Protocol):
    """The file system below one data directory, and the worker that blocks on it."""

    def open(self, path: str, *, create: bool = False) -> File: ...

    def exists(self, path: str) -> bool: ...

    def list_directory(self, path: str) -> list[str]:
        """Names, sorted; empty if there is no such directory."""

    def make_directory(self, path: str) -> None:
        """With its parents; no error if it is there."""

    def replace(self, source: str, target: str) -> None:
        """Atomic rename; durable only after `sync_directory`."""

    def remove(self, path: str) -> None: ...

    def remove_directory(self, path: str) -> None:
        """With everything in it."""

    def sync_directory(self, path: str) -> None: ...

    def side_by_side(self, jobs: Sequence[Callable[[], None]]) -> None:
        """Run them all, in any order or at once; blocks until all have ended, then raises the first one's error.

        To be called on a worker: a journal makes the syncs of many files durable together only where they are asked
        for together.
        """

    def lock(self, path: str) -> File:
        """Take an exclusive lock that ends with this process, or raise BlockingIOError."""

    def worker(self, name: str) -> Worker: ...


class RealFile:
    """A file descriptor used by position, so that reads and writes need no shared cursor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        for first in range(0, len(buffers), _BUFFERS_MAX):
            pending = buffers[first : first + _BUFFERS_MAX]
            total = sum(len(b) for b in pending)
            written = os.pwritev(self._fd, pending, offset)
            if written < total:
                rest = memoryview(b"".join(pending))[written:]
                at = offset + written
                while rest:
                    count = os.pwrite(self._fd, rest, at)
                    rest, at = rest[count:], at + count
            offset += total

    def read(self, offset: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(self._fd, size, offset)
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def allocate(self, size: int) -> None:
        os.posix_fallocate(self._fd, 0, size)

    def close(self) -> None:
        os.close(self._fd)


class ThreadWorker:
    """A dedicated thread with a queue; results come back by `call_soon_threadsafe`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        self._queue.put((job, done))

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            job, done = item
            result: Any
            try:
                result = job()
            except BaseException as error:  # handed to `done`, which decides; nothing is swallowed
                result = error
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:  # the loop was closed under us: the process is going away
                return


class RealFiles:
    """The operating system's file system."""

    def __init__(self) -> None:
        self._helpers: ThreadPoolExecutor | None = None  # made when there is first something to do side by side

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return RealFile(os.open(path, flags, 0o644))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)  # noqa: PTH110

    def list_directory(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)  # noqa: PTH105

    def remove(self, path: str) -> None:
        os.remove(path)  # noqa: PTH107

    def remove_directory(self, path: str) -> None:
        for root, directories, names in os.walk(path, topdown=False):
            for name in names:
                os.remove(f"{root}/{name}")  # noqa: PTH107
            for name in directories:
                os.rmdir(f"{root}/{name}")  # noqa: PTH106
        os.rmdir(path)  # noqa: PTH106

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def side_by_side(self, jobs: Sequence[Callable[[], None]]) -> None:
        if len(jobs) < SIDE_BY_SIDE_MIN:
            for job in jobs:
                job()
            return
        if self._helpers is None:
            from concurrent.futures import ThreadPoolExecutor  # few groups never need it, and nodes should start soon

            self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="files")
        ended = [self._helpers.submit(job) for job in jobs]
        errors = [error for one in ended if (error := one.exception()) is not None]
        if errors:
            raise errors[0]

    def lock(self, path: str) -> File:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return RealFile(fd)

    def worker(self, name: str) -> Worker:
        return ThreadWorker(name)
