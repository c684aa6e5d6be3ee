"""The C library's allocator, told to keep what a server frees.

By default glibc soon returns what is freed to the kernel, which zeroes it again page by page: for a broker that reads
megabytes from files, sends and frees them, hundreds of times a second, that was three fifths of all that it did.
Knows nothing of what memory is for.
"""

from __future__ import annotations

import ctypes
from typing import Final

# mallopt(3); the names are the header's.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 64 << 20  # freed memory at the end of the heap, before any is given back
MAPPED_BYTES: Final = 32 << 20  # as large as glibc allows: what is larger is still given back at once


def keep_freed_memory() -> bool:
    """False where the C library has no such settings (musl, macOS): nothing is changed there."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES))
