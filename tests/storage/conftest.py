"""A disk in memory that forgets what was not synced, and fails when told to; and ways to open a storage on it."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from seatrial.env import Buffer, RealFiles
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import Configuration, Entry, HardState, Snapshot, SnapshotMeta
from seatrial.storage import MemoryStorage, SegmentStorage


class Node:
    """One file's bytes: as they read now, and as they would read after a power cut."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = b""
        self.unsynced: list[tuple[int, bytes | None]] = []  # writes in order; or a new size, with None

    def settle(self) -> None:
        """What was written since the last sync reaches the disk; nothing else does."""
        content = bytearray(self.durable)
        for offset, data in self.unsynced:
            apply(content, offset, data)
        self.durable = bytes(content)
        self.unsynced.clear()


def apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """A write at `offset`; or, with None, a change of size to it."""
    content.extend(bytes(max(0, offset - len(content))))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


class FakeFile:
    def __init__(self, disk: FakeDisk, path: str, node: Node) -> None:
        self.disk, self.path, self.node, self.is_open = disk, path, node, True

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.disk.call("write", self.path)
        assert self.is_open, f"write to the closed file {self.path}"
        data = b"".join(buffers)
        apply(self.node.content, offset, data)
        self.node.unsynced.append((offset, data))

    def read(self, offset: int, size: int) -> bytes:
        assert self.is_open, f"read from the closed file {self.path}"
        if self.path in self.disk.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        return bytes(self.node.content[offset : offset + size])

    def sync(self) -> None:
        assert self.is_open, f"sync of the closed file {self.path}"
        try:
            self.disk.call("sync", self.path)
        except OSError:
            # As Linux does: the pages count as clean now, can still be read, and are not on disk.
            self.node.unsynced.clear()
            raise
        self.node.settle()

    def size(self) -> int:
        return len(self.node.content)

    def truncate(self, size: int) -> None:
        self.disk.call("truncate", self.path)
        self._resize(size)

    def allocate(self, size: int) -> None:
        self.disk.call("allocate", self.path)
        if not self.disk.can_allocate:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), self.path)
        if self.disk.room is not None and size > self.disk.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self._resize(max(size, len(self.node.content)))

    def _resize(self, size: int) -> None:
        apply(self.node.content, size, None)
        self.node.unsynced.append((size, None))

    def close(self) -> None:
        self.is_open = False
        self.disk.locked.discard(self.path)


class FakeWorker:
    """Runs a job in a later turn of the loop; holds jobs back while the disk says so."""

    def __init__(self, disk: FakeDisk) -> None:
        self.disk = disk
        self.loop = asyncio.get_running_loop()
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))
        self.loop.call_soon(self.run)

    def run(self) -> None:
        if not self.disk.held:
            self.finish()

    def finish(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            try:
                result = job()
            except BaseException as error:
                result = error
            self.loop.call_soon(done, result)

    def close(self) -> None:
        self.finish()


class FakeDisk:
    """Files in memory.  `calls` counts what reached the disk; `fail_at` makes the n-th of them fail."""

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.durable_names: dict[str, Node] = {}
        self.directories: set[str] = set()
        self.locked: set[str] = set()
        self.unreadable: set[str] = set()
        self.can_allocate = True
        self.room: int | None = None  # for each file
        self.held = False
        self.workers: list[FakeWorker] = []
        self.calls: list[tuple[str, str]] = []
        self.fail_at: int | None = None
        self.fail_with = errno.EIO
        self.recovers = False  # only one call fails

    def call(self, what: str, path: str) -> None:
        self.calls.append((what, path))
        if self.fail_at is not None and len(self.calls) > self.fail_at:
            if self.recovers:
                self.fail_at = None
            raise OSError(self.fail_with, os.strerror(self.fail_with), path)

    def open(self, path: str, *, create: bool = False) -> FakeFile:
        if path not in self.names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            assert path.rpartition("/")[0] in self.directories, f"no directory for {path}"
            self.call("create", path)
            self.names[path] = Node()
        return FakeFile(self, path, self.names[path])

    def exists(self, path: str) -> bool:
        return path in self.names or path in self.directories

    def list_directory(self, path: str) -> list[str]:
        inside = [p for p in (*self.names, *self.directories) if p.rpartition("/")[0] == path]
        return sorted(p.rpartition("/")[2] for p in inside)

    def make_directory(self, path: str) -> None:
        while path:
            self.directories.add(path)
            path = path.rpartition("/")[0]

    def replace(self, source: str, target: str) -> None:
        self.call("replace", target)
        self.names[target] = self.names.pop(source)

    def remove(self, path: str) -> None:
        self.call("remove", path)
        del self.names[path]

    def remove_directory(self, path: str) -> None:
        for name in [p for p in self.names if p.startswith(path + "/")]:
            self.remove(name)
        self.directories.remove(path)

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path)
        for name in {*self.names, *self.durable_names}:
            directory = name.rpartition("/")[0]
            if directory == path or (directory.startswith(path) and directory not in self.directories):
                if name in self.names:
                    self.durable_names[name] = self.names[name]
                else:
                    del self.durable_names[name]

    def lock(self, path: str) -> FakeFile:
        if path in self.locked:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked", path)
        file = self.open(path, create=True)
        self.locked.add(path)
        return file

    def side_by_side(self, jobs: Sequence[Callable[[], None]]) -> None:
        for job in jobs:
            job()

    def worker(self, name: str) -> FakeWorker:
        self.workers.append(FakeWorker(self))
        return self.workers[-1]

    def release(self) -> None:
        """Let held jobs run."""
        self.held = False
        for worker in self.workers:
            worker.run()

    def after_kill(self) -> FakeDisk:
        """The disk as the next process finds it when this one was killed: everything written is there."""
        return self._copy(self.names, lambda node: bytes(node.content))

    def after_power_cut(self, rng: random.Random | None = None) -> FakeDisk:
        """The disk without what was not synced; with `rng`, any part of it in any order reached the disk."""
        if rng is None:
            return self._copy(self.durable_names, lambda node: node.durable)
        names = {}
        for name in sorted({*self.names, *self.durable_names}):
            found = [known[name] for known in (self.names, self.durable_names) if name in known]
            kept = found[0] if len(found) == 2 and found[0] is found[1] else rng.choice([*found, None][:2])
            if kept is not None:
                names[name] = kept
        return self._copy(names, lambda node: _torn(node, rng))

    def _copy(self, names: dict[str, Node], content: Callable[[Node], bytes]) -> FakeDisk:
        copy = FakeDisk()
        copy.directories, copy.can_allocate = set(self.directories), self.can_allocate
        for name, node in names.items():
            copy.make_directory(name.rpartition("/")[0])
            kept = copy.names[name] = copy.durable_names[name] = Node()
            kept.content = bytearray(content(node))
            kept.durable = bytes(kept.content)
        return copy


def _torn(node: Node, rng: random.Random) -> bytes:
    content = bytearray(node.durable)
    content.extend(bytes(max(0, rng.randint(0, len(node.content)) - len(content))))
    for offset, data in node.unsynced:
        if data is None:
            if rng.random() < 0.5:
                apply(content, offset, None)
            continue
        for at in range(0, len(data), 16):  # small sectors, so that small logs tear too
            if rng.random() < 0.5:
                apply(content, offset + at, data[at : at + 16])
    return bytes(content)


class Kit:
    """Short words for the tests."""

    DIRECTORY = "data"

    def __init__(self) -> None:
        self.reports: list[str] = []
        self.fatal: list[BaseException] = []

    def disk(self) -> FakeDisk:
        return FakeDisk()

    def storage(self, files: Any, directory: str = DIRECTORY, **options: Any) -> SegmentStorage:
        settings: dict[str, Any] = {"node_id": NodeId(1), "cluster_id": "test", "segment_bytes": 4096, **options}
        return SegmentStorage(files, directory, on_fatal=self.fatal.append, report=self.reports.append, **settings)

    @staticmethod
    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(scenario, 20))

    @staticmethod
    def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
        return Entry(Term(term), Index(index), 0, b"entry %d of term %d" % (index, term) if data is None else data)

    def entries(self, first: int, last: int, term: int = 1) -> list[Entry]:
        return [self.entry(index, term) for index in range(first, last + 1)]

    @staticmethod
    def state(term: int, voted_for: int | None = None, commit: int = 0) -> HardState:
        return HardState(Term(term), None if voted_for is None else NodeId(voted_for), Index(commit))

    @staticmethod
    def snapshot(index: int, term: int = 1, data: bytes = b"machine") -> Snapshot:
        configuration = Configuration([NodeId(1), NodeId(2), NodeId(3)], [NodeId(4)], [NodeId(9)])
        return Snapshot(SnapshotMeta(Index(index), Term(term), configuration), data)

    @staticmethod
    async def save(
        group: Any,
        entries: Sequence[Entry] = (),
        hard_state: HardState | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        done = asyncio.get_running_loop().create_future()
        group.save(hard_state=hard_state, entries=entries, snapshot=snapshot, done=lambda: done.set_result(None))
        await asyncio.wait_for(done, 5)

    @staticmethod
    async def save_snapshot(group: Any, snapshot: Snapshot) -> None:
        done = asyncio.get_running_loop().create_future()
        group.save_snapshot(snapshot, done=lambda: done.set_result(None))
        await asyncio.wait_for(done, 5)

    @staticmethod
    def log(group: Any) -> list[Entry]:
        if group.last_index < group.first_index:
            return []
        found: list[Entry] = []
        at = group.first_index
        while at <= group.last_index:
            part = group.entries(Index(at), group.last_index, 1 << 30)
            found.extend(part)
            at += len(part)
        return found


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture(params=["memory", "fake", "real", "real, os", "fake, nothing cached", "fake, one entry a segment"])
def reopen(request: pytest.FixtureRequest, tmp_path: Any, kit: Kit) -> Callable[[], Any]:
    """Opens the storage, again and again: what was saved before it was closed must still be there."""
    kind = request.param
    if kind == "memory":
        storage: list[MemoryStorage] = []
        return lambda: storage[0] if storage else storage.append(MemoryStorage()) or storage[0]
    if kind.startswith("real"):
        durability = "os" if kind.endswith("os") else "fsync"
        return lambda: kit.storage(RealFiles(), str(tmp_path / "node"), durability=durability)
    disk = kit.disk()
    options = {"cache_bytes": 0} if "cached" in kind else {"segment_bytes": 1} if "one entry" in kind else {}
    return lambda: kit.storage(disk, **options)


GROUP = GroupId(7)
