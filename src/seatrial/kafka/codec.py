"""Messages of Kafka's protocol to bytes and back, compiled from Kafka's own definitions at first use.

Rule: unknown tagged fields are skipped and bytes after the message are ignored (clients in the field send both);
anything else that does not fit raises MalformedMessage.  One class a structure holds the fields of all versions:
a field that a version lacks has its default after decoding, and is not written when encoding.
Produce and Fetch, the hot path, have codecs of their own.  Knows nothing of handlers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from seatrial.kafka import codegen, wire
from seatrial.kafka.schemas import load_schema
from seatrial.kafka.wire import MalformedMessage, Readable

_NAMES: Final = {
    "struct": struct,
    "MalformedMessage": MalformedMessage,
    "uvarint": wire.uvarint,
    "read_uvarint": wire.read_uvarint,
    "taken": wire.taken,
    "counted": wire.counted,
    "skip_tagged_fields": wire.skip_tagged_fields,
    "read_string": wire.read_string,
}


class Structure:
    """Base of the generated classes: equality and text by field."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class MessageCodec:
    """One message in all its versions.

    `new(**fields)` makes a message, `structure("Name")(**fields)` one of the structures in it.
    """

    def __init__(self, name: str) -> None:
        self.schema = load_schema(name)
        namespace: dict[str, Any] = {"Structure": Structure}
        self._structures: dict[str, Callable[..., Any]] = {}
        for structure, fields in codegen.structures(self.schema).items():
            exec(codegen.class_source(structure, fields), namespace)
            self._structures[structure] = namespace[structure]
        self.new: Callable[..., Any] = namespace[self.schema.name]
        self._versions: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = {}

    def structure(self, name: str) -> Callable[..., Any]:
        """The class of a structure, by the name that Kafka's definition gives it."""
        return self._structures[name]

    def is_flexible(self, version: int) -> bool:
        return self.schema.flexible.covers(version)

    def encode(self, message: Any, version: int) -> bytearray:
        """The body of a message that `new` made."""
        encoder, _ = self._compiled(version)
        out: bytearray = encoder(message, bytearray())
        return out

    def decode(self, data: Readable, position: int, version: int) -> tuple[Any, int]:
        """(message, position after it) of a body that begins at `position`.  Raises MalformedMessage."""
        _, decoder = self._compiled(version)
        try:
            message, end = decoder(data, position)
        except struct.error as error:
            raise MalformedMessage(f"{self.schema.name} version {version} ends too early: {error}") from error
        return message, end

    def prepare(self, version: int) -> None:
        """Compile now what writes and reads this version, which is otherwise done when the first one comes."""
        self._compiled(version)

    def _compiled(self, version: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        compiled = self._versions.get(version)
        if compiled is None:
            namespace: dict[str, Any] = dict(_NAMES)
            namespace |= {f"new_{name}": factory for name, factory in self._structures.items()}
            exec(codegen.source(self.schema, version), namespace)
            name = self.schema.name
            compiled = self._versions[version] = (namespace[f"encode_{name}"], namespace[f"decode_{name}"])
        return compiled


@cache
def message(name: str) -> MessageCodec:
    """The codec of e.g. "MetadataResponse".  Raises UnknownMessage where there is no such definition."""
    return MessageCodec(name)
