"""What happens to bytes on their way to a parser that must survive them.

Rule: what is done is decided by the generator that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

LENGTHS: Final = (0, 1, -1, -2, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 1 << 30)


def damaged(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """One to four changes, most often one."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(KINDS)(out, others, chance)
    return bytes(out)


def _flip_bit(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    if out:
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)


def _set_byte(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    if out:
        out[chance.randrange(len(out))] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _set_length(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    """A number that a length, a count or an index might be."""
    size = chance.choice((2, 4))
    if len(out) >= size:
        at = chance.randrange(len(out) - size + 1)
        out[at : at + size] = (chance.choice(LENGTHS) & (1 << 8 * size) - 1).to_bytes(size, "big")


def _set_varint(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    if out:
        at = chance.randrange(len(out))
        out[at : at + 1] = chance.choice((b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\x81\x00"))


def _cut(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    del out[chance.randint(0, len(out)) :]


def _leave_out(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    at = chance.randint(0, len(out))
    del out[at : at + chance.randint(1, 16)]


def _put_in(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    at = chance.randint(0, len(out))
    out[at:at] = chance.randbytes(chance.randint(1, 16))


def _repeat(out: bytearray, _: Sequence[bytes], chance: Random) -> None:
    at = chance.randint(0, len(out))
    piece = out[at : at + chance.randint(1, 32)]
    out[at:at] = piece * chance.randint(1, 20)


def _splice(out: bytearray, others: Sequence[bytes], chance: Random) -> None:
    """The end of another one."""
    other = chance.choice(others)
    out[chance.randint(0, len(out)) :] = other[chance.randint(0, len(other)) :]


KINDS: Final[Sequence[Callable[[bytearray, Sequence[bytes], Random], None]]] = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _set_length,
    _set_length,
    _set_varint,
    _cut,
    _leave_out,
    _put_in,
    _repeat,
    _splice,
)
