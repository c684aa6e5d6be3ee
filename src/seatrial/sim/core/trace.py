"""The digest of a run: every event that changes anything leaves a number in it.

Rule: the digest is a function of the case alone; printing a trace or not, and the process that runs it, change nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import Final

from seatrial.sim.world import World

_CHUNK: Final = 65_536
_CODE_BITS: Final = 24


class Digest:
    """Takes (time, code) pairs, and hashes them in large pieces, which costs a tenth of hashing each."""

    __slots__ = ("_hash", "_numbers", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers: list[int] = []
        self._hash = hashlib.blake2b(digest_size=16)

    def record(self, code: int) -> None:
        """Something of this code happens now; the code has at most 24 bits."""
        numbers = self._numbers
        numbers.append(self._world.now_us << _CODE_BITS | code)
        if len(numbers) >= _CHUNK:
            self._flush()

    def text(self, text: str) -> None:
        """Something that is said in words."""
        self._flush()
        self._hash.update(text.encode())

    def _flush(self) -> None:
        self._hash.update(array("q", self._numbers).tobytes())
        self._numbers.clear()

    def hexdigest(self) -> str:
        self._flush()
        return self._hash.copy().hexdigest()
