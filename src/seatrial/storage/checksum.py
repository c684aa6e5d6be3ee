"""CRC32C, the checksum of everything on disk; the one place that names the library which computes it."""

from __future__ import annotations

from typing import Final, Protocol

import google_crc32c


class _Extend(Protocol):
    def __call__(self, checksum: int, data: bytes, /) -> int: ...


# `extend(extend(0, a), b)` is the checksum of a + b.  Takes `bytes` only.
extend: Final[_Extend] = google_crc32c.extend
