"""The directories of a simulated disk: names as they are now, and as they would be after a power cut.

Rule: a name that was made, renamed or removed is durable only after its directory was synced; until then a power cut
keeps the first few changes of each directory, in their order, as a journal does.  A rename is one change.
Knows nothing of what is in the files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TypeAlias

from seatrial.env import Rng
from seatrial.sim.disk_content import Content

Entry: TypeAlias = "Content | Directory"
Changes: TypeAlias = "tuple[tuple[str, Content | Directory | None], ...]"


def os_error(number: int, path: str) -> OSError:
    """The subclass of OSError that the operating system would raise."""
    return OSError(number, os.strerror(number), path)


class Directory:
    """Names in one directory."""

    __slots__ = ("_durable", "_unsynced", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._durable: dict[str, Entry] = {}
        self._unsynced: list[Changes] = []

    def change(self, *changes: tuple[str, Entry | None]) -> None:
        """One atomic change: these names now mean these things, or nothing."""
        _carry_out(self.entries, changes)
        self._unsynced.append(changes)

    def sync(self) -> None:
        self._durable = dict(self.entries)
        self._unsynced.clear()

    def cut_power(self, mode: str, chance: Rng) -> int:
        """Only the names that the disk holds are left, here and below; returns how many changes were lost."""
        changes, lost = self._unsynced, 0
        if changes:
            kept = {"lost": 0, "kept": len(changes)}.get(mode)
            kept = chance.integer(0, len(changes)) if kept is None else kept
            lost = len(changes) - kept
            for change in changes[:kept]:
                _carry_out(self._durable, change)
            self._unsynced = []
        self.entries = dict(self._durable)
        for _, directory in sorted(self.entries.items()):
            if isinstance(directory, Directory):
                lost += directory.cut_power(mode, chance)
        return lost


def _carry_out(entries: dict[str, Entry], changes: Changes) -> None:
    for name, entry in changes:
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry


class Tree:
    """Paths from the root, which is always there; raises the operating system's errors."""

    def __init__(self) -> None:
        self.root = Directory()

    def find(self, path: str) -> Entry | None:
        at: Entry = self.root
        for part in _parts(path):
            if not isinstance(at, Directory) or part not in at.entries:
                return None
            at = at.entries[part]
        return at

    def directory(self, path: str) -> Directory:
        found = self.find(path)
        if found is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(found, Directory):
            raise os_error(errno.ENOTDIR, path)
        return found

    def content(self, path: str) -> Content:
        found = self.find(path)
        if found is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(found, Content):
            raise os_error(errno.EISDIR, path)
        return found

    def parent(self, path: str) -> tuple[Directory, str]:
        """The directory that the path's last part is in, and that part."""
        before, _, name = path.rstrip("/").rpartition("/")
        return self.directory(before), name

    def files(self) -> Iterator[tuple[str, Content]]:
        """All files with their paths, in the order of paths."""
        yield from _files(self.root, "")


def _files(directory: Directory, prefix: str) -> Iterator[tuple[str, Content]]:
    for name, entry in sorted(directory.entries.items()):
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(entry, Directory):
            yield from _files(entry, path)
        else:
            yield path, entry


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
