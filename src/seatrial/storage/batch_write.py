"""One batch of one group on its way to disk: all values decided on the loop, all blocking done here on the worker
(or, where a write is quick, see inline_writes.py, on the loop).

Rule: a batch touches nothing that the loop still changes.  Knows nothing of what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seatrial.env import Buffer, Files
from seatrial.raft.ids import GroupId
from seatrial.raft.messages import Entry, Snapshot
from seatrial.storage.frames import Place
from seatrial.storage.segment import Segment
from seatrial.storage.snapshots import write_snapshot
from seatrial.storage.tail_cache import TailCache
from seatrial.storage.watermarks import Watermarks


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all groups of a storage share."""

    files: Files
    synced: bool  # durability "fsync"
    segment_bytes: int
    cache: TailCache
    watermarks: Watermarks
    enqueue: Callable[[GroupId | None, Callable[[], None]], None]  # who has something to write; what then
    background: Callable[[Callable[[], None], Callable[[], None]], None]  # a job for the slow worker; what then


@dataclass(slots=True, kw_only=True)  # one for each save: frozen, it takes half as long again to make
class GroupWrite:
    """`write`, then, in "fsync" mode, `settle_all`; both raise OSError."""

    group: GroupId
    directory: str
    settings: Settings
    snapshot: Snapshot | None
    segment: Segment
    offset: int
    end: int
    buffers: list[Buffer]
    entries: list[Entry]
    last_index: int
    watermark_slot: int
    creates_directory: bool

    def write(self) -> None:
        """Everything but the log's sync.  A snapshot is durable before the log that begins behind it is written."""
        files = self.settings.files
        if self.creates_directory:
            files.make_directory(self.directory)
        if self.snapshot is not None:
            write_snapshot(files, self.directory, self.group, self.snapshot, origin="received")
        self.segment.write(self.offset, self.buffers, self.end)
        if not self.settings.synced:
            self.segment.is_new = False

    def sync(self) -> None:
        """All but the directory that the groups' own directories are in."""
        self.segment.sync()
        if self.segment.is_new:
            self.settings.files.sync_directory(self.directory)
            self.segment.is_new = False

    def note(self) -> None:
        """Write down apart what is durable from here on."""
        place = Place(self.segment.sequence, self.end)
        self.settings.watermarks.write(self.watermark_slot, self.group, place, self.last_index)


def settle_all(files: Files, writes: Sequence[GroupWrite]) -> None:
    """Sync what was written; and then write down apart what is durable."""
    files.side_by_side([write.sync for write in writes])
    for parent in sorted({write.directory.rpartition("/")[0] for write in writes if write.creates_directory}):
        files.sync_directory(parent)
    for write in writes:
        write.note()
