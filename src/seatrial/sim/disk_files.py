"""A simulated disk as one life of a process sees it: `env.Files`, `env.File` and `env.Worker`.

Rule: nothing here blocks and there is no thread: a worker's job runs when its virtual time has passed, whole, in the
order of submission; its outcome is told on the event loop that the worker was made on.  A call on the loop costs that
host's time, where the host counts it.  After the end of its life no operation does anything.
Knows nothing of what is written.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from seatrial.env import Buffer
from seatrial.sim.disk_content import Content
from seatrial.sim.disk_tree import Directory, os_error

if TYPE_CHECKING:
    from seatrial.sim.disk import SimDisk

CALL_US: Final = 5  # what a call that does not sync costs


class LifeEnded(BaseException):
    """The process that called is gone: nothing of it runs any further."""


class SimFile:
    """One open file."""

    __slots__ = ("_content", "_files", "_lock", "_path")

    def __init__(self, files: SimFiles, path: str, content: Content, *, lock: bool = False) -> None:
        self._files = files
        self._path = path
        self._content: Content | None = content
        self._lock = lock

    def _opened(self) -> Content:
        if self._content is None:
            raise os_error(errno.EBADF, self._path)
        return self._content

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self._files.begin("write", self._path)
        self._files.disk.write(self._opened(), offset, b"".join(buffers))

    def read(self, offset: int, size: int) -> bytes:
        self._files.begin("read", self._path)
        return bytes(self._opened().live[offset : offset + size])

    def sync(self) -> None:
        try:
            self._files.begin("sync", self._path)
        except OSError:
            self._opened().fail_sync()
            raise
        self._opened().sync()
        self._files.synced(self._path)

    def size(self) -> int:
        return len(self._opened().live)

    def truncate(self, size: int) -> None:
        self._files.begin("truncate", self._path)
        self._opened().resize(size)

    def allocate(self, size: int) -> None:
        self._files.begin("allocate", self._path)
        content = self._opened()
        if size > len(content.live):
            content.resize(size)

    def close(self) -> None:
        if self._content is not None:
            self._content = None
            if self._lock:
                self._files.unlock(self._path)


class SimFiles:
    """All files of a disk, for one life of its machine's process."""

    def __init__(self, disk: SimDisk, charge: Callable[[int], None] | None) -> None:
        self.disk = disk
        self._charge = charge
        self._locked: set[str] = set()
        self._workers: list[SimWorker] = []
        self._ended = False
        self._left: int | None = None  # operations until the life ends, in the middle of a job
        self._job_syncs: int | None = None  # of the job that runs now; None while the loop's own code does
        self._job_saved = False

    # ---- what every operation goes through -------------------------------------------------------------------------

    def begin(self, operation: str, path: str) -> None:
        """Raises the OSError of a fault that is on; LifeEnded where the process is gone."""
        if self._ended or self._left == 0:
            raise LifeEnded(f"{operation} {path}: the process is gone")
        if self._left is not None:
            self._left -= 1
        if self._job_syncs is None and self._charge is not None:
            self._charge(self.disk.sync_takes_us() if operation == "sync" else CALL_US)
        self.disk.check(operation, path)

    def synced(self, path: str) -> None:
        """Count a sync; what the disk's settings say that it costs was paid, or will be when the job ends."""
        if self._job_syncs is not None:
            self._job_syncs += 1
            self._job_saved |= "segment-" in path

    def point(self, name: str) -> None:
        """Tell the disk's listener that a job came here; raises LifeEnded if that was the end."""
        listener = self.disk.on_point
        if self._job_syncs is not None and listener is not None and self._left is None and listener(name):
            raise LifeEnded(name)

    def run_job(self, job: Callable[[], Any]) -> tuple[Any, int]:
        """On a worker: the result, or the exception that it raised; and how often it synced.  Raises LifeEnded."""
        self._job_syncs, self._job_saved = 0, False
        try:
            self.point("before-save")
            try:
                result = job()
            except Exception as error:  # handed to `done`, which decides; nothing is swallowed
                result = error
            if self._job_saved:
                self.point("after-save")
            return result, self._job_syncs
        finally:
            self._job_syncs = None

    def end(self, cut_after: Callable[[], int] | None = None) -> None:
        """The process is gone; a job that runs is cut off after so many operations, if that is asked for."""
        if self._ended:
            return
        if cut_after is not None and self._job_syncs is None:
            for worker in self._workers:
                if worker.is_running:
                    self._left = cut_after()
                    worker.cut()
        self._ended = True

    @property
    def has_ended(self) -> bool:
        return self._ended

    def release(self) -> None:
        """A stall is over: jobs that it held go on."""
        for worker in self._workers:
            worker.resume()

    def unlock(self, path: str) -> None:
        self._locked.discard(path)

    # ---- env.Files -------------------------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> SimFile:
        found = self.disk.tree.find(path)
        if found is None and create:
            self.begin("create", path)
            directory, name = self.disk.tree.parent(path)
            made = Content()
            directory.change((name, made))
            return SimFile(self, path, made)
        self.begin("open", path)
        return SimFile(self, path, self.disk.tree.content(path))

    def exists(self, path: str) -> bool:
        self.begin("exists", path)
        return self.disk.tree.find(path) is not None

    def list_directory(self, path: str) -> list[str]:
        self.begin("list", path)
        found = self.disk.tree.find(path)
        return sorted(found.entries) if isinstance(found, Directory) else []

    def make_directory(self, path: str) -> None:
        at = self.disk.tree.root
        for part in path.split("/"):
            if not part:
                continue
            found = at.entries.get(part)
            if found is None:
                self.begin("create", path)
                found = Directory()
                at.change((part, found))
            if not isinstance(found, Directory):
                raise os_error(errno.ENOTDIR, path)
            at = found

    def replace(self, source: str, target: str) -> None:
        if "snapshot-" in target:
            self.point("during-snapshot")
        self.begin("replace", target)
        content = self.disk.tree.content(source)
        directory, name = self.disk.tree.parent(source)
        into, new_name = self.disk.tree.parent(target)
        assert directory is into, f"a rename from {source} to {target}: only within a directory is it one change"
        content.renamed = True
        directory.change((name, None), (new_name, content))

    def remove(self, path: str) -> None:
        self.begin("remove", path)
        self.disk.tree.content(path)  # raises where it is missing, or no file
        directory, name = self.disk.tree.parent(path)
        directory.change((name, None))

    def remove_directory(self, path: str) -> None:
        directory = self.disk.tree.directory(path)
        for name, entry in sorted(directory.entries.items()):
            if isinstance(entry, Directory):
                self.remove_directory(f"{path}/{name}")
            else:
                self.remove(f"{path}/{name}")
        self.begin("remove", path)
        parent, name = self.disk.tree.parent(path)
        parent.change((name, None))

    def sync_directory(self, path: str) -> None:
        self.begin("sync", path)
        self.disk.tree.directory(path).sync()
        self.synced(path)

    def side_by_side(self, jobs: Sequence[Callable[[], None]]) -> None:
        """In their order: what a crash leaves of them is decided job by job all the same."""
        for job in jobs:
            job()

    def lock(self, path: str) -> SimFile:
        if path in self._locked:
            raise os_error(errno.EWOULDBLOCK, path)
        opened = self.open(path, create=True)
        self._locked.add(path)
        return SimFile(self, path, opened._opened(), lock=True)

    def worker(self, name: str) -> SimWorker:
        worker = SimWorker(self)
        self._workers.append(worker)
        return worker


class SimWorker:
    """Jobs that take virtual time, one after the other."""

    def __init__(self, files: SimFiles) -> None:
        self._files = files
        self._disk = files.disk
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._held = False  # by a stall, at the end of its time
        self.is_running = False

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._jobs.append((job, done))
        if not self.is_running:
            self._begin()

    def _begin(self) -> None:
        self.is_running = True
        self._disk.world.after(self._disk.sync_takes_us(), self._finish)

    def _finish(self, _: None = None) -> None:
        """The job's time has passed: it happens now, and further syncs of it take longer still."""
        if self._files.has_ended or not self._jobs:
            return
        if self._disk.is_stalled:
            if not self._held:
                self._held = True
                self._disk.counts["stall-sync"] += 1
            return
        job, done = self._jobs.popleft()
        try:
            result, syncs = self._files.run_job(job)
        except LifeEnded:
            return
        if syncs <= 1:
            self._tell((done, result))
            return
        more_us = sum(self._disk.sync_takes_us() for _ in range(syncs - 1))
        self._disk.world.after(more_us, self._tell, (done, result))

    def _tell(self, outcome: tuple[Callable[[Any], None], Any]) -> None:
        if self._files.has_ended:
            return
        done, result = outcome
        self._loop.call_soon_threadsafe(done, result)
        if self._jobs:
            self._begin()
        else:
            self.is_running = False

    def resume(self) -> None:
        if self._held:
            self._held = False
            self._disk.world.after(0, self._finish)

    def cut(self) -> None:
        """The machine stops while a job runs: as much of it happens as the files still allow."""
        if self._jobs:
            try:
                self._files.run_job(self._jobs.popleft()[0])
            except LifeEnded:
                return

    def close(self) -> None:
        """As in env.Worker: the loop stands still while the jobs run."""
        while self._jobs:
            job, done = self._jobs.popleft()
            result, _ = self._files.run_job(job)
            self._loop.call_soon(done, result)
        self.is_running = False
