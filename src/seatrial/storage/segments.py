"""All Raft groups of one node in one data directory: group commit, and the life of the directory.

    <directory>/lock, identity            one process; one node of one cluster
    <directory>/watermarks                how far each group is known durable (see watermarks.py)
    <directory>/groups/<id>/segment-<sequence>-<first index>.log, snapshot-<index>
    <directory>/groups/<id>.removed       this group is being removed

There is no file for the HardState: every write of a group begins with it (see frames.py), because one sync then
covers votes, terms and entries, and because a second file would cost a second sync.

**Group commit.**  All saves queued while a write runs are the next write: for each dirty group one write call and
one sync, those of many groups side by side.  The worker does nothing else (what is small it only syncs, see
inline_writes.py); snapshots that the state machines made, and removals, go by a second worker.
Rule: after a failed write or sync nothing is ever reported durable again: `on_fatal` is told, once, and the
process must stop (a second fsync may succeed although the pages of the first are lost).
Knows nothing of what the groups are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

from seatrial.env import Files
from seatrial.raft.ids import GroupId, NodeId
from seatrial.storage.batch_write import GroupWrite, Settings, settle_all
from seatrial.storage.directory import claim_directory
from seatrial.storage.errors import GroupBeingRemoved, StorageError, failure_of
from seatrial.storage.group import SegmentGroup
from seatrial.storage.inline_writes import InlineWrites
from seatrial.storage.recovery import Recovery
from seatrial.storage.tail_cache import TailCache
from seatrial.storage.watermarks import Watermarks

_REMOVED: Final = ".removed"


class SegmentStorage:
    """Implements LogStorage on `files`; to be made on a running event loop.

    `on_fatal` is called on the loop with the error to stop the process with; `report` with each sentence that an
    operator should read (a torn tail that was cut).  `now_us`, where given, lets small writes into the page cache run
    on the loop while they are quick.  Raises DataDirectoryInUse, WrongDataDirectory, DiskFull.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        *,
        node_id: NodeId,
        cluster_id: str,
        on_fatal: Callable[[BaseException], None],
        report: Callable[[str], None],
        durability: Literal["fsync", "os"] = "fsync",
        segment_bytes: int = 64 << 20,
        cache_bytes: int = 64 << 20,
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._directory = directory
        self._groups_directory = f"{directory}/groups"
        self._on_fatal = on_fatal
        self._report = report
        self._open: dict[GroupId, SegmentGroup] = {}
        self._dirty: dict[GroupId, SegmentGroup] = {}
        self._waiting: list[Callable[[], None]] = []
        self._removing: dict[GroupId, int | None] = {}  # with the watermark slot to erase
        self._removal_awaited: dict[GroupId, list[Callable[[], None]]] = {}
        self._scheduled = self._writing = self._closed = False
        self._inline = InlineWrites(now_us)
        self._write_failed = False  # of whoever writes, the worker or the loop; never both at once
        self._failure: StorageError | None = None
        try:
            self._lock = claim_directory(files, directory, node_id=node_id, cluster_id=cluster_id)
            self._watermarks = Watermarks(files.open(f"{directory}/watermarks", create=True))
            files.make_directory(self._groups_directory)
            files.sync_directory(directory)  # or a power cut could take every group at once, synced as they are
            self._finish_removals()
        except OSError as error:
            raise failure_of(error, directory) from error
        if self._watermarks.unreadable:
            report(f"{directory}/watermarks: {self._watermarks.unreadable} damaged entries ignored")
        self._worker = files.worker("storage")
        self._slow_worker = files.worker("storage-slow")
        self._settings = Settings(
            files=files,
            synced=durability == "fsync",
            segment_bytes=segment_bytes,
            cache=TailCache(cache_bytes),
            watermarks=self._watermarks,
            enqueue=self._enqueue,
            background=self._background,
        )

    @property
    def failure(self) -> StorageError | None:
        """What `on_fatal` was told, if it was."""
        return self._failure

    def groups(self) -> Sequence[GroupId]:
        found = {GroupId(int(n)) for n in self._files.list_directory(self._groups_directory) if n.isdecimal()}
        return sorted((found | self._open.keys()) - self._removing.keys())

    def open_group(self, group: GroupId) -> SegmentGroup:
        """As in LogStorage; further raises GroupBeingRemoved, and StorageFailed where a torn tail cannot be cut."""
        opened = self._open.get(group)
        if opened is not None:
            return opened
        if group in self._removing:
            raise GroupBeingRemoved(group)
        directory = f"{self._groups_directory}/{group}"
        recovery = Recovery(self._files, directory, group, self._watermarks.found(group))
        try:
            recovered = recovery.recover(settle=self._settings.synced)
            if recovered is not None and self._settings.synced:
                # A power cut may have taken the watermark along: without it, rot of the last batch would look torn.
                slot = self._watermarks.slot(group)
                self._watermarks.write(slot, group, recovered.durable, recovered.index.last)
        except OSError as error:
            raise failure_of(error, self._directory) from error
        for sentence in recovery.reports:
            self._report(sentence)
        opened = self._open[group] = SegmentGroup(group, directory, self._settings, recovered)
        return opened

    # Group commit.

    def _enqueue(self, group: GroupId | None, done: Callable[[], None]) -> None:
        if self._failure is not None or self._closed:
            return
        if group is not None:
            self._dirty[group] = self._open[group]
        self._waiting.append(done)
        self._schedule()

    def _schedule(self) -> None:
        if not self._writing and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        if self._writing or self._closed or self._failure is not None:
            return
        if self._dirty:
            self._submit()
            return
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def _submit(self) -> None:
        """Everything queued so far, as one job; then its callbacks in order."""
        try:
            writes = [group.take() for group in self._dirty.values()]
        except OSError as error:
            self._fail(error)
            return
        waiting, self._waiting = self._waiting, []
        self._dirty.clear()
        inline = not self._writing and self._inline.admits(writes)  # when closing, the worker may still be writing
        self._writing = True
        if inline:
            try:
                self._inline.write(writes)
            except Exception as error:  # handed to `_written`, as the worker would; nothing is swallowed
                self._write_failed = True
                self._loop.call_soon(self._written, error, writes, waiting)
                return
            if not self._settings.synced:
                self._loop.call_soon(self._written, None, writes, waiting)
                return
        self._worker.submit(
            lambda: self._write(writes, is_written=inline), lambda result: self._written(result, writes, waiting)
        )

    def _write(self, writes: Sequence[GroupWrite], *, is_written: bool) -> None:
        """On the worker."""
        if self._write_failed:
            return
        try:
            if not is_written:
                for write in writes:
                    write.write()
            if self._settings.synced:
                settle_all(self._files, writes)
        except BaseException:
            self._write_failed = True
            raise

    def _written(
        self, result: BaseException | None, writes: Sequence[GroupWrite], waiting: Sequence[Callable[[], None]]
    ) -> None:
        self._writing = False
        if isinstance(result, BaseException):
            self._fail(result)
        if self._failure is not None:
            return
        for write in writes:
            group = self._open.get(write.group)
            if group is not None:
                group.written(write)
        # The next write goes on its way before the callbacks run, so that the disk never waits for them.
        if self._dirty and not self._closed:
            self._submit()
        for done in waiting:
            done()
        if self._waiting:
            self._schedule()

    def _background(self, job: Callable[[], None], then: Callable[[], None]) -> None:
        if self._failure is not None or self._closed:
            return

        def finished(result: BaseException | None) -> None:
            if isinstance(result, BaseException):
                self._fail(result)
            elif self._failure is None:
                then()

        self._slow_worker.submit(job, finished)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = failure_of(error, self._directory)
            self._failure.__cause__ = error
            self._on_fatal(self._failure)

    # Removing groups.

    def remove_group(self, group: GroupId, *, done: Callable[[], None] = lambda: None) -> None:
        """Forget the group and remove its files, which may be damaged, in the background."""
        self._removal_awaited.setdefault(group, []).append(done)
        if group in self._removing:
            return
        opened = self._open.pop(group, None)
        if opened is not None:
            opened.removed = True
        self._dirty.pop(group, None)
        slot = self._removing[group] = self._watermarks.release(group)

        def removed(result: BaseException | None) -> None:
            if isinstance(result, BaseException):
                self._fail(result)
                return
            if opened is not None:
                opened.close()
            if slot is not None:
                self._watermarks.released(slot)
            self._removing.pop(group, None)
            for awaited in self._removal_awaited.pop(group):
                awaited()

        def behind_the_slow_worker() -> None:
            if not self._closed:  # which finishes removals itself
                self._worker.submit(lambda: self._remove_files(group, slot), removed)

        # Behind both workers' jobs for this group: none may find its directory gone.
        self._background(lambda: None, behind_the_slow_worker)

    def _remove_files(self, group: GroupId, slot: int | None) -> None:
        """The mark comes first, so that a removal cut short is finished on start and never taken for damage."""
        files, directory = self._files, f"{self._groups_directory}/{group}"
        files.open(f"{directory}{_REMOVED}", create=True).close()
        files.sync_directory(self._groups_directory)
        if files.exists(directory):
            files.remove_directory(directory)
        if slot is not None:
            self._watermarks.erase(slot)
        files.sync_directory(self._groups_directory)
        files.remove(f"{directory}{_REMOVED}")
        files.sync_directory(self._groups_directory)

    def _finish_removals(self) -> None:
        for name in self._files.list_directory(self._groups_directory):
            if name.endswith(_REMOVED):
                group = GroupId(int(name.removesuffix(_REMOVED)))
                slot = self._watermarks.release(group)
                self._remove_files(group, slot)
                if slot is not None:
                    self._watermarks.released(slot)

    # Closing.

    def close(self) -> None:
        """Finish queued saves (their `done` still runs on the loop), then close the files.  Blocks."""
        if self._closed:
            return
        if self._failure is None:
            for group in self._open.values():
                if group.has_unwritten_state:
                    self._dirty[group.id] = group
            if self._dirty or self._waiting:
                self._submit()
        self._closed = True
        self._slow_worker.close()
        if self._failure is None:
            self._worker.submit(self._settle, self._settled)
        self._worker.close()
        for group in self._open.values():
            group.close()
        self._watermarks.close()
        self._lock.close()

    def _settle(self) -> None:
        """On the worker, as its last job: everything durable, and known to be; removals finished."""
        if self._write_failed:
            return
        for group in self._open.values():
            if not self._settings.synced and not group.is_empty:
                group.settle()
        for removing, slot in self._removing.items():
            self._remove_files(removing, slot)
        self._watermarks.sync()

    def _settled(self, result: BaseException | None) -> None:
        if isinstance(result, BaseException):
            self._fail(result)
