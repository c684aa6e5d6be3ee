"""The primitives of Kafka's wire format that every codec here shares: variable-length numbers, strings, tagged fields.

Rule: a position never runs past the end of the data; what does raises MalformedMessage and nothing else.
Source: the Kafka protocol guide ("Protocol Primitive Types") and KIP-482 for compact types and tagged fields.
Knows nothing of messages.
"""

from __future__ import annotations

from typing import Final, TypeAlias

# One request that names more than this would keep all others, and the heartbeats of the node, waiting for too long.
ELEMENTS_MAX: Final = 10_000

Readable: TypeAlias = bytes | bytearray | memoryview


class MalformedMessage(ValueError):
    """The bytes are not a message of the API and version that they claim to be."""


def encode_uvarint(value: int) -> bytes:
    """An unsigned LEB128 number."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


UVARINTS: Final = tuple(encode_uvarint(value) for value in range(256))  # most lengths are short


def uvarint(value: int) -> bytes:
    """As `encode_uvarint`, from a table where the value is small."""
    return UVARINTS[value] if value < 256 else encode_uvarint(value)


def read_uvarint(data: Readable, position: int) -> tuple[int, int]:
    """(value, position after it).  At most 5 bytes: values are below 2³²."""
    value = shift = 0
    while True:
        if position >= len(data):
            raise MalformedMessage("a length runs past the end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                raise MalformedMessage(f"the variable-length number {value} has more than 32 bits")
            return value, position
        shift += 7
        if shift > 28:
            raise MalformedMessage("a variable-length number has more than 5 bytes")


def read_varlong(data: Readable, position: int) -> tuple[int, int]:
    """(value, position after it) of a zigzag-encoded signed number of at most 10 bytes, as in records."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise MalformedMessage("a number in a record runs past its end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7


def taken(data: Readable, position: int, length: int) -> int:
    """The position after `length` bytes."""
    end = position + length
    if length < 0 or end > len(data):
        raise MalformedMessage(f"{length} bytes at {position} run past the end at {len(data)}")
    return end


def counted(data: Readable, position: int, count: int) -> int:
    """`count`, if that many elements of at least a byte each can follow, so that a lie costs no memory, and are not
    too many to be served (ELEMENTS_MAX)."""
    if count < 0 or count > len(data) - position:
        raise MalformedMessage(f"{count} elements at {position} cannot fit before the end at {len(data)}")
    if count > ELEMENTS_MAX:
        raise MalformedMessage(f"{count} elements in one array; at most {ELEMENTS_MAX} are served, so ask in parts")
    return count


def skip_tagged_fields(data: Readable, position: int) -> int:
    """The position after a tagged-field section whose fields nobody wants (KIP-482: unknown ones are skipped)."""
    if position < len(data) and data[position] == 0:
        return position + 1
    count, position = read_uvarint(data, position)
    for _ in range(count):
        _, position = read_uvarint(data, position)
        length, position = read_uvarint(data, position)
        position = taken(data, position, length)
    return position


def read_string(data: Readable, position: int, length: int) -> tuple[str, int]:
    """(text, position after it) of `length` bytes of UTF-8."""
    end = taken(data, position, length)
    try:
        return str(data[position:end], "utf-8"), end
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"a string at {position} is not UTF-8: {error.reason}") from error
