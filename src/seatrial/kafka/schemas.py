"""Kafka's own message definitions (the JSON of its `clients/src/main/resources/common/message`), as data.

Rule: the definitions are read from the files that kafka-python ships and never retyped.  That package is found and
not imported: its import costs a tenth of a second and a server needs none of its code.
Knows nothing of bytes.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.abc import FileLoader
from pathlib import PurePath
from typing import Any, Final, NamedTuple

_COMMENT: Final = re.compile(r"^\s*//.*$", re.MULTILINE)
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ANY: Final = 32767

PRIMITIVES: Final = frozenset(
    {"bool", "int8", "int16", "uint16", "int32", "int64", "float64", "uuid", "string", "bytes", "records"}
)


class Versions(NamedTuple):
    """A closed range of versions; empty where `low` > `high`."""

    low: int
    high: int

    def covers(self, version: int) -> bool:
        return self.low <= version <= self.high


NO_VERSIONS: Final = Versions(1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a message or of a structure in it."""

    name: str  # in snake case
    type_name: str  # a primitive, or the name of a structure; of the elements where it is an array
    is_array: bool
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int
    default: Any
    fields: tuple[Field, ...]  # of the structure

    @property
    def is_structure(self) -> bool:
        return self.type_name not in PRIMITIVES


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSchema:
    """One message in all its versions.  `api_key` is -1 for what is no request or response."""

    name: str
    api_key: int
    valid: Versions
    flexible: Versions
    fields: tuple[Field, ...]


class UnknownMessage(LookupError):
    """The installed kafka-python ships no such definition."""


@cache
def load_schema(name: str) -> MessageSchema:
    """The definition of e.g. "FetchRequest".  Raises UnknownMessage."""
    definition = json.loads(_COMMENT.sub("", _read_definition(name)))
    common = {item["name"]: item["fields"] for item in definition.get("commonStructs", ())}
    valid = parse_versions(definition["validVersions"])
    return MessageSchema(
        name=definition["name"],
        api_key=definition.get("apiKey", -1),
        valid=valid,
        flexible=parse_versions(definition.get("flexibleVersions", "none")),
        fields=tuple(_field(item, common, Versions(0, _ANY)) for item in definition["fields"]),
    )


def _read_definition(name: str) -> str:
    spec = importlib.util.find_spec("kafka")
    if spec is None or spec.origin is None or not isinstance(spec.loader, FileLoader):
        raise UnknownMessage(
            "kafka-python is not installed; its message definitions are needed: pip install kafka-python"
        )
    path = PurePath(spec.origin).parent / "protocol" / "schemas" / "resources" / f"{name}.json"
    try:
        return spec.loader.get_data(str(path)).decode()
    except OSError as error:
        raise UnknownMessage(f"the installed kafka-python has no message definition {name!r}") from error


def parse_versions(text: str) -> Versions:
    """Of "none", "3", "3+" or "3-5"."""
    if text == "none":
        return NO_VERSIONS
    if text.endswith("+"):
        return Versions(int(text[:-1]), _ANY)
    low, _, high = text.partition("-")
    return Versions(int(low), int(high or low))


def snake_case(name: str) -> str:
    """`ThrottleTimeMs` as `throttle_time_ms`."""
    return _WORD_START.sub("_", name).lower()


def _field(item: Mapping[str, Any], common: Mapping[str, Any], outer: Versions) -> Field:
    type_name: str = item["type"]
    is_array = type_name.startswith("[]")
    type_name = type_name.removeprefix("[]")
    versions = parse_versions(item["versions"]) if "versions" in item else outer
    nullable = parse_versions(item.get("nullableVersions", "none"))
    children = item.get("fields", common.get(type_name, ())) if type_name not in PRIMITIVES else ()
    return Field(
        name=snake_case(item["name"]),
        type_name=type_name,
        is_array=is_array,
        versions=versions,
        nullable=nullable,
        tagged=parse_versions(item.get("taggedVersions", "none")),
        tag=item.get("tag", -1),
        default=_default(item.get("default"), type_name, is_array),
        fields=tuple(_field(child, common, versions) for child in children),
    )


def _default(text: Any, type_name: str, is_array: bool) -> Any:
    """The value of a field that is not on the wire."""
    if text == "null" or (text is None and type_name not in PRIMITIVES and not is_array):
        return None
    if is_array:
        return ()
    if type_name == "bool":
        return str(text).lower() == "true"
    if type_name == "uuid":
        return bytes(16)
    if type_name == "string":
        return text or ""
    if type_name in ("bytes", "records"):
        return b""
    if type_name == "float64":
        return float(text or 0)
    return int(str(text), 0) if text is not None else 0
