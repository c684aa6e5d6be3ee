"""The lines of a trace, and the digest of a run: every event that changes anything leaves a number in it.

Rule: the digest is a function of the case alone; printing a trace or not, and the process that runs it, change nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Any, Final

from seatrial.raft.describe import describe_message
from seatrial.raft.messages import Message
from seatrial.sim.world import World

TIME_BITS: Final = 48
_CHUNK: Final = 65_536


def describe(message: Any) -> str:
    """A message of any core as one line."""
    return describe_message(message) if isinstance(message, Message) else repr(message)


class Digest:
    """Takes numbers, each of a time and a code, and hashes them in large pieces: a tenth of the cost of hashing each.

    numbers: what is not hashed yet; whoever has something of every event appends `now_us + (code << TIME_BITS)` to it
    in place, and has `flush_if_large` called now and then.
    """

    __slots__ = ("_hash", "_world", "numbers")

    def __init__(self, world: World) -> None:
        self._world = world
        self.numbers: list[int] = []
        self._hash = hashlib.blake2b(digest_size=16)

    def flush_if_large(self) -> None:
        if len(self.numbers) >= _CHUNK:
            self._flush()

    def text(self, text: str) -> None:
        """Something that is said in words."""
        self._flush()
        self._hash.update(text.encode())

    def _flush(self) -> None:
        self._hash.update(array("q", self.numbers).tobytes())
        self.numbers.clear()

    def hexdigest(self) -> str:
        self._flush()
        return self._hash.copy().hexdigest()
