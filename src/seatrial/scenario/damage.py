"""Damage to what a node of our own server has stored, as bytes.  PURE.

    torn-tail   a write that stopped half-way stands behind the end of the newest log file: the node has to cut it off
    truncate    a log file has lost its end, which was durable: the node has to refuse it
    bit-flip    one bit in the first half of a log file is another: the node has to refuse it, or to repair it

Rule: bytes that were acknowledged are touched by the last two alone.
Knows the names of log files, and that their unused space reads as zeros; nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Collection

from seatrial.env import Rng

GAP_BYTES = 8  # a whole write may end in as many zeros
TORN_BYTES = (9, 40)


def is_log_file(path: str) -> bool:
    return path.rpartition("/")[2].startswith("segment-")


def newest(paths: Collection[str], rng: Rng) -> str:
    """The newest log file of some group."""
    newest_of: dict[str, str] = {}
    for path in sorted(paths):
        newest_of[path.rpartition("/")[0]] = path
    return rng.choice(sorted(newest_of.values()))


def end_of(content: bytes) -> int:
    """Where the next write would be, or at most as far behind it as a header is wide."""
    return len(content.rstrip(b"\0")) + GAP_BYTES


def torn_write(rng: Rng) -> bytes:
    """The beginning of a write that never came to its end; no zero byte is in it."""
    return bytes(rng.integer(1, 255) for _ in range(rng.integer(*TORN_BYTES)))


def truncated(content: bytes, rng: Rng) -> bytes:
    """With the end of what was written lost, and zeros in its place, as a file system gives them back."""
    used = len(content.rstrip(b"\0"))
    kept = int(used * rng.uniform(0.2, 0.8))
    return content[:kept] + bytes(len(content) - kept)


def flipped(content: bytes, rng: Rng) -> bytes:
    """With one bit changed in the first half of what was written."""
    used = len(content.rstrip(b"\0"))
    place = rng.integer(0, max(0, used // 2 - 1))
    changed = bytearray(content)
    changed[place] ^= 1 << rng.integer(0, 7)
    return bytes(changed)
