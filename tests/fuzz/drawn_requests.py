"""Requests of every API in every version, valid by Kafka's own definitions and senseless otherwise, drawn by chance.

Rule: what is drawn is decided by the generator that is given.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from captures import captures
from fake_broker import request_frame

from seatrial.kafka.apis import APIS, Api
from seatrial.kafka.codec import MessageCodec, message
from seatrial.kafka.schemas import Field

NAMES: Final = ("cap", "other", "", "x" * 300, "ü", "__consumer_offsets", "a.b", "..", "no such topic")
NUMBERS: Final = (0, 1, 2, -1, -2, 7, 500, 1000)
BITS: Final = {"int8": 8, "int16": 16, "uint16": 16, "int32": 32, "int64": 64}
RECORDS: Final = [capture.frame[60:] for capture in captures() if capture.api_key == 0]
LONGEST_ARRAY: Final = 3


def drawn_frame(chance: Random) -> bytes:
    """One request with its header, without the length before it."""
    api = chance.choice(list(APIS.values()))
    version = chance.randint(api.min_served, api.max_served)
    return frame_of(api, version, chance)


def frame_of(api: Api, version: int, chance: Random) -> bytes:
    codec = message(f"{api.message}Request")
    fields = _values(codec, codec.schema.fields, version, chance)
    body = codec.encode(codec.new(**fields), version)
    return request_frame(api.key, version, body, chance.randrange(1 << 31), chance.choice(NAMES)[:30])


def _values(codec: MessageCodec, fields: tuple[Field, ...], version: int, chance: Random) -> dict[str, Any]:
    return {field.name: _value(codec, field, version, chance) for field in fields if field.versions.covers(version)}


def _value(codec: MessageCodec, field: Field, version: int, chance: Random) -> Any:
    if field.nullable.covers(version) and chance.random() < 0.2:
        return None
    if field.is_array:
        return [_one(codec, field, version, chance) for _ in range(chance.randint(0, LONGEST_ARRAY))]
    return _one(codec, field, version, chance)


def _one(codec: MessageCodec, field: Field, version: int, chance: Random) -> Any:
    kind = field.type_name
    if field.is_structure:
        return codec.structure(kind)(**_values(codec, field.fields, version, chance))
    if kind in BITS:
        return _number(BITS[kind], signed=kind != "uint16", chance=chance)
    if kind == "bool":
        return chance.random() < 0.5
    if kind == "string":
        return chance.choice(NAMES)
    if kind == "uuid":
        return bytes(16) if chance.random() < 0.5 else chance.randbytes(16)
    if kind == "float64":
        return chance.choice((0.0, -1.0, 1e308))
    return chance.choice((b"", chance.randbytes(20), chance.choice(RECORDS)))


def _number(bits: int, *, signed: bool, chance: Random) -> int:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if chance.random() < 0.7:
        return max(low, min(high, chance.choice(NUMBERS)))
    return chance.choice((low, high, chance.randint(low, high)))
