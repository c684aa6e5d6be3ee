"""Kafka messages by kafka-python's own codec, an implementation that shares no line with ours, and random contents."""

from __future__ import annotations

import importlib
import random
from typing import Any

from seatrial.kafka.apis import APIS
from seatrial.kafka.codec import MessageCodec
from seatrial.kafka.schemas import Field

_PACKAGES = ("admin", "consumer", "metadata", "producer")


def peer_class(name: str) -> Any:
    """kafka-python's class of e.g. "FetchRequest"."""
    for package in _PACKAGES:
        module = importlib.import_module(f"kafka.protocol.{package}")
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError(f"kafka-python has no {name}")


def peer_round_trip(name: str, data: bytes, version: int) -> bytes:
    """The bytes that kafka-python makes of what it has read from `data`."""
    decoded = peer_class(name).decode(data, version=version)
    decoded._header = None  # its decoder leaves the attribute out, and its encoder looks at it
    encoded: bytes = decoded.encode(version=version)
    return encoded


def served_messages() -> list[tuple[str, range]]:
    """(name, versions) of every request and response that the broker serves."""
    return [
        (f"{api.message}{kind}", range(api.min_served, api.max_served + 1))
        for api in APIS.values()
        for kind in ("Request", "Response")
    ]


def random_message(codec: MessageCodec, version: int, rng: random.Random) -> Any:
    """A message with random contents in every field that the version has."""
    return _structure(codec, codec.schema.name, codec.schema.fields, version, rng)


def _structure(codec: MessageCodec, name: str, fields: tuple[Field, ...], version: int, rng: random.Random) -> Any:
    values = {f.name: _value(codec, f, version, rng) for f in fields if f.versions.covers(version)}
    return codec.structure(name)(**values)


def _value(codec: MessageCodec, field: Field, version: int, rng: random.Random) -> Any:
    if field.nullable.covers(version) and rng.random() < 0.2:
        return None
    if field.is_array:
        items = [_single(codec, field, version, rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        # An empty tagged array is not written, and comes back as the default.
        return items or (() if field.tagged.covers(version) else [])
    return _single(codec, field, version, rng)


def _single(codec: MessageCodec, field: Field, version: int, rng: random.Random) -> Any:
    if field.is_structure:
        return _structure(codec, field.type_name, field.fields, version, rng)
    bits = {"int8": 7, "int16": 15, "uint16": 16, "int32": 31, "int64": 63}
    if field.type_name in bits:
        value = rng.getrandbits(bits[field.type_name])
        return value if field.type_name == "uint16" or rng.random() < 0.7 else -value - 1
    if field.type_name == "bool":
        return rng.random() < 0.5
    if field.type_name == "float64":
        return rng.uniform(-1e9, 1e9)
    if field.type_name == "uuid":
        return rng.randbytes(16)
    if field.type_name == "string":
        # Long ones need a length of two bytes in compact form.
        return "".join(rng.choices("abc-_.é漢", k=rng.choice((0, 1, 7, 7, 200))))
    return rng.randbytes(rng.choice((0, 5, 300)))
