"""One segment file: opened when it is needed, preallocated in growing steps, written and read by position.

Preallocation makes a sync cheaper (the file's size does not change with it: 203 instead of 261 us for 4 KB), but a
thousand idle groups must not take a whole segment each: the reserved part starts small and doubles.
Rule: `write` runs on the storage's worker or, while the worker writes nothing, on the loop; `sync` on a worker;
everything else on the loop; `close` only while no write runs.
Knows nothing of frames.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from seatrial.env import Buffer, File, Files

_FIRST_STEP: Final = 64 << 10
_LARGEST_STEP: Final = 8 << 20
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CANNOT_ALLOCATE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Segment:
    """`is_new` until its first write: the file is then created."""

    __slots__ = ("_allocated", "_file", "_files", "_preallocate", "_size_max", "is_new", "path", "sequence")

    def __init__(self, files: Files, path: str, sequence: int, *, size_max: int, is_new: bool) -> None:
        self._files = files
        self.path = path
        self.sequence = sequence
        self._size_max = size_max
        self.is_new = is_new
        self._file: File | None = None
        self._allocated = 0
        self._preallocate = True

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def write(self, offset: int, buffers: Sequence[Buffer], end: int) -> None:
        """Write the buffers, which go from `offset` to `end`; creates a new file; raises OSError."""
        if self._file is None:
            self._file = self._files.open(self.path, create=True)
        if end > self._allocated and self._preallocate:
            self._allocate(end)
        self._file.write(offset, buffers)

    def _allocate(self, end: int) -> None:
        assert self._file is not None
        step = min(max(self._allocated, _FIRST_STEP), _LARGEST_STEP)
        target = max(end, min(self._allocated + step, self._size_max))
        try:
            self._allocated = self._reserved(target, end)
        except OSError as error:
            if error.errno not in _CANNOT_ALLOCATE:
                raise
            self._preallocate = False  # this file system has no such call: the file grows as it is written

    def _reserved(self, target: int, end: int) -> int:
        """How much of the file there is room for now: `target`, or just `end` on a disk that is nearly full."""
        assert self._file is not None
        try:
            self._file.allocate(target)
        except OSError as error:
            if error.errno not in _NO_ROOM or target == end:
                raise
            self._file.allocate(end)
            return end
        return target

    def sync(self) -> None:
        assert self._file is not None
        self._file.sync()

    def open(self) -> None:
        """Open the file that is there; raises OSError."""
        if self._file is None:
            self._file = self._files.open(self.path)
            self._allocated = self._file.size()

    def read(self, offset: int, size: int) -> bytes:
        """Raises OSError."""
        self.open()
        assert self._file is not None
        return self._file.read(offset, size)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
