"""Record batches for tests, built by hand from the protocol guide."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import google_crc32c


def varlong(value: int) -> bytes:
    """Zigzag LEB128, as records have it."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def record(delta: int, time_delta: int, value: bytes) -> bytes:
    body = b"\0" + varlong(time_delta) + varlong(delta) + varlong(-1) + varlong(len(value)) + value + varlong(0)
    return varlong(len(body)) + body


def batch(
    values: Sequence[bytes] = (b"x",),
    *,
    times: Sequence[int] | None = None,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    attributes: int = 0,
    magic: int = 2,
    count: int | None = None,
    last_delta: int | None = None,
) -> bytes:
    """One batch of magic 2 with a right CRC; `count` and `last_delta` to lie about its records."""
    times = times if times is not None else [1000] * len(values)
    records = b"".join(record(i, times[i] - times[0], value) for i, value in enumerate(values))
    after_crc = struct.pack(
        ">hiqqqhii",
        attributes,
        len(values) - 1 if last_delta is None else last_delta,
        times[0],
        max(times),
        producer_id,
        epoch,
        sequence,
        len(values) if count is None else count,
    )
    after_crc += records
    after_length = struct.pack(">ibI", -1, magic, google_crc32c.value(after_crc)) + after_crc
    return struct.pack(">qi", 0, len(after_length)) + after_length
