"""The head that every key-value and metadata command begins with: format version, kind and request id.

Rule: the request id stands at a fixed place, so that the node that forwarded a command can match its result without
knowing what the command says.  Knows nothing of kinds.
"""

from __future__ import annotations

import struct
from typing import Final

REQUEST_ID_BYTES: Final = 16
FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct(">BB16s")  # format version, kind, request id


class MalformedCommand(ValueError):
    """Bytes that are not a command of this machine."""


def request_id_of(command: bytes) -> bytes:
    """The 16 bytes that name a key-value or metadata command.  Raises MalformedCommand where it is too short."""
    if len(command) < HEAD.size:
        raise MalformedCommand(f"a command has at least {HEAD.size} bytes, this has {len(command)}")
    return command[2:18]


def pack_head(kind: int, request_id: bytes) -> bytes:
    if len(request_id) != REQUEST_ID_BYTES:
        raise ValueError(f"a request id has {REQUEST_ID_BYTES} bytes, this has {len(request_id)}")
    return HEAD.pack(FORMAT_VERSION, kind, request_id)


def unpack_kind(command: bytes) -> int:
    """The command's kind.  Raises MalformedCommand on a short command or one of an unknown format version."""
    if len(command) < HEAD.size:
        raise MalformedCommand(f"a command has at least {HEAD.size} bytes, this has {len(command)}")
    if command[0] != FORMAT_VERSION:
        raise MalformedCommand(f"command format {command[0]}, but this node knows only {FORMAT_VERSION}")
    return command[1]
