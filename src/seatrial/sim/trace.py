"""The trace of a run: one line for each callback that ran and each segment that arrived, and a digest of them all.

    1204 node-1 KafkaConnection._flush_turn
    1350 tcp 7 node-1>node-2 118 3f2a9c01

Rule: the lines are made in the same way whether anybody reads them or not, so that looking at a run does not change
it: what a Python object's address depends on is what was allocated before.
Knows nothing of what the lines mean.
"""

from __future__ import annotations

import hashlib
from asyncio import Task
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any, Final
from zlib import crc32

BLOCK_LINES: Final = 256  # are hashed, and handed on, at once
SHOWN_BEFORE: Final = 3

Sink = Callable[[str], object]


class Trace:
    """Collects lines; `sink`, if there is one, is given them in blocks of text that end with a newline.

    is_shown: whether there is one, and `remark` does anything.
    """

    __slots__ = ("_block", "_hash", "_sink", "is_shown", "lines")

    def __init__(self, sink: Sink | None = None) -> None:
        self._block: list[str] = []
        self._hash = hashlib.blake2b(digest_size=16)
        self._sink = sink
        self.is_shown = sink is not None
        self.lines = 0

    def callback(self, now_us: int, host: str, callback: Any) -> None:
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, Task):  # nearly every second one
            name = getattr(owner.get_coro(), "__qualname__", "") or name_of(callback)
        else:
            name = getattr(callback, "__qualname__", "") or name_of(callback)
        block = self._block
        block.append(f"{now_us} {host} {name}")
        if len(block) >= BLOCK_LINES:
            self.flush()

    def segment(self, now_us: int, connection: int, link: str, data: bytes) -> None:
        self.line(f"{now_us} tcp {connection} {link} {len(data)} {crc32(data):08x}")

    def line(self, text: str) -> None:
        block = self._block
        block.append(text)
        if len(block) >= BLOCK_LINES:
            self.flush()

    def remark(self, text: str) -> None:
        """A line for the sink alone, which the digest leaves out: what other lines say already, in other words."""
        if self._sink is not None:
            self.flush()
            self._sink(text + "\n")

    def flush(self) -> None:
        """Hash what was collected, and hand it to the sink."""
        if not self._block:
            return
        self.lines += len(self._block)
        self._block.append("")
        text = "\n".join(self._block)
        self._block.clear()
        self._hash.update(text.encode())
        if self._sink is not None:
            self._sink(text)

    def digest(self) -> str:
        """Of everything so far, hexadecimal."""
        self.flush()
        return self._hash.hexdigest()


def name_of(callback: Any) -> str:
    """What runs: the coroutine of a task's step, else the function; never an address."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, Task):
        return getattr(owner.get_coro(), "__qualname__", None) or type(owner.get_coro()).__name__
    name: str | None = getattr(callback, "__qualname__", None)
    if name is not None:
        return name
    wrapped = getattr(callback, "func", None)  # functools.partial
    return type(callback).__name__ if wrapped is None else name_of(wrapped)


def compare_traces(one: Iterable[str], other: Iterable[str]) -> str | None:
    """Where two traces part: the first line that differs, with those before it; None if they are equal."""
    before: list[str] = []
    for number, (left, right) in enumerate(zip_longest(one, other), 1):
        if left != right:
            shown = "".join(f"    {line}\n" for line in before[-SHOWN_BEFORE:])
            return f"line {number} differs:\n{shown}  < {_shown(left)}\n  > {_shown(right)}"
        before.append(left.rstrip("\n"))
        if len(before) > SHOWN_BEFORE:
            del before[0]
    return None


def _shown(line: str | None) -> str:
    return "(the trace ends here)" if line is None else line.rstrip("\n")
