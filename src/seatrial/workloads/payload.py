"""What a number looks like as a value: its digits, and behind them filler up to the size that belongs to this number.

    written(42), 16 bytes:   42 456789abcdefg

Rule: the same number is always written the same way, so that whoever reads it can tell whether all of it is there, in
order.  Knows nothing of clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from seatrial.env import Rng
from seatrial.history import Json

_PATTERN: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXY"  # 61: no power of two divides it
SHOWN: Final = 40  # characters of a value that nobody wrote


def digits_alone(number: int) -> int:
    """The size of values without filler."""
    return 0


def sometimes_large(rng: Rng, *, usual: int, largest: int, one_in: int) -> Callable[[int], int]:
    """A size for each number, always the same: `usual` bytes, but one in so many log-uniform up to `largest`."""

    def size_of(number: int) -> int:
        if largest <= usual or not (own := rng.child(str(number))).chance(1 / one_in):
            return usual
        return round(usual * math.pow(largest / usual, own.random()))

    return size_of


class Payload:
    """Writes and reads numbers.  size_of: how many bytes a number has, at least its digits."""

    def __init__(self, size_of: Callable[[int], int] = digits_alone) -> None:
        self.size_of = size_of

    def written(self, number: int) -> bytes:
        digits, size = b"%d" % number, self.size_of(number)
        if size <= len(digits):
            return digits
        filler = _PATTERN * (size // len(_PATTERN) + 1)
        return b"%b %b" % (digits, filler[len(digits) + 1 : size])

    def read(self, content: bytes) -> Json:
        """The number; what nobody wrote is told as text, for the checker to wonder at."""
        digits = content.partition(b" ")[0]
        if digits.isdigit() and len(digits) < SHOWN and content == self.written(int(digits)):
            return int(digits)
        text = content[:SHOWN].decode("utf-8", "replace")
        return text if len(content) <= SHOWN else f"{text}... ({len(content)} bytes)"
