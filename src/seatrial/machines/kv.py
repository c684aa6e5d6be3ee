"""A key-value store as a state machine: put, delete, compare-and-set, and retries that happen once.

Rule: a key's version is the Raft index of its last write, so it never repeats, also after a delete.  A command that
carries a session (client id, sequence) and was applied before changes nothing and returns its first answer.
Knows nothing of who asks; reads need whatever guarantee the caller took care of (ReadIndex, lease or none).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from seatrial.machines.commands import HEAD, MalformedCommand, pack_head, request_id_of, unpack_kind
from seatrial.machines.digest import AppliedDigest, Fingerprinted
from seatrial.machines.sessions import Session, SessionTable
from seatrial.raft.messages import COMMAND, Entry

__all__ = [
    "CommandKind",
    "KeyValueMachine",
    "KvError",
    "KvResult",
    "Session",
    "encode_delete",
    "encode_put",
    "holds_value",
]

ANY_VERSION: Final = -1  # on the wire: no version expected
MUST_NOT_EXIST: Final = 0  # the expected version of a key that must not exist
_BODY: Final = struct.Struct(">qqBI")  # expected version, session sequence, client id length, key length


class CommandKind(IntEnum):
    PUT = 1
    DELETE = 2


_PUTS: Final = bytes([CommandKind.PUT])


def holds_value(command: bytes) -> bool:
    """Whether a command brings a value; a deletion brings none, and helps a disk that is full."""
    return command[1:2] == _PUTS


class KvError(IntEnum):
    """Why a command changed nothing."""

    NONE = 0
    VERSION_MISMATCH = 1  # the key's version is not the expected one
    SESSION_EXPIRED = 2  # too old to tell whether it was applied before


class KvResult(NamedTuple):
    """What a command did, and the key as it stands after it.

    `existed`: the key held a value before.  `version` and `value` are the key's after the command, 0 and None where
    it has none; `value` is filled in only for a version mismatch (the writer knows what it wrote).
    """

    applied: bool
    error: KvError
    existed: bool
    version: int
    value: bytes | None


class _Command(NamedTuple):
    kind: int
    expected_version: int
    session: Session | None
    key: bytes
    value: bytes


def encode_put(
    key: bytes,
    value: bytes,
    *,
    request_id: bytes,
    expected_version: int | None = None,
    session: Session | None = None,
) -> bytes:
    """The command that sets a key.  `expected_version` 0: only where the key does not exist."""
    return _encode(_Command(CommandKind.PUT, _expected(expected_version), session, key, value), request_id)


def encode_delete(
    key: bytes, *, request_id: bytes, expected_version: int | None = None, session: Session | None = None
) -> bytes:
    """The command that removes a key; it is applied, and changes nothing, where there is none."""
    return _encode(_Command(CommandKind.DELETE, _expected(expected_version), session, key, b""), request_id)


def _expected(version: int | None) -> int:
    if version is None:
        return ANY_VERSION
    if version < 0:
        raise ValueError(f"an expected version is 0 (must not exist) or a Raft index, not {version}")
    return version


def _encode(command: _Command, request_id: bytes) -> bytes:
    client_id, sequence = command.session or Session(b"", 0)
    if len(client_id) > 255:
        raise ValueError(f"a client id has at most 255 bytes, this has {len(client_id)}")
    if command.session is not None and not client_id:
        raise ValueError("a session needs a client id that is not empty")
    body = _BODY.pack(command.expected_version, sequence, len(client_id), len(command.key))
    return b"".join((pack_head(command.kind, request_id), body, client_id, command.key, command.value))


def once_id_of(command: bytes) -> bytes | None:
    """The request id of a command without a session, which nobody sends a second time; None for any other.

    Raises MalformedCommand where it is too short to have one.
    """
    if len(command) < HEAD.size + _BODY.size:
        raise MalformedCommand(f"{len(command)} bytes are not a key-value command")
    _, _, client_length, _ = _BODY.unpack_from(command, HEAD.size)
    return None if client_length else request_id_of(command)


def _decode(data: bytes) -> _Command:
    kind = unpack_kind(data)
    if kind not in (CommandKind.PUT, CommandKind.DELETE) or len(data) < HEAD.size + _BODY.size:
        raise MalformedCommand(f"{len(data)} bytes of kind {kind} are not a key-value command")
    expected, sequence, client_length, key_length = _BODY.unpack_from(data, HEAD.size)
    start = HEAD.size + _BODY.size
    key_start, value_start = start + client_length, start + client_length + key_length
    if len(data) < value_start:
        raise MalformedCommand(f"a key-value command of {len(data)} bytes names {value_start} bytes of id and key")
    session = Session(data[start:key_start], sequence) if client_length else None
    return _Command(kind, expected, session, data[key_start:value_start], data[value_start:])


class KeyValueMachine(Fingerprinted):
    """The state machine (a `StateMachine`)."""

    __slots__ = ("_bytes", "_items", "_sessions")

    _SNAPSHOT = struct.Struct(">Bq8sI")  # version, index, chain, number of keys
    _ITEM = struct.Struct(">IIq")  # key length, value length, version
    _SNAPSHOT_VERSION = 1

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[bytes, tuple[bytes, int]] = {}
        self._bytes = 0
        self._sessions = SessionTable()

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """(value, version), or None where the key does not exist."""
        return self._items.get(key)

    def keys(self) -> list[bytes]:
        """All keys, sorted."""
        return sorted(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size_bytes(self) -> int:
        """Keys and values together."""
        return self._bytes

    def apply(self, entry: Entry) -> KvResult | None:
        """Apply the next committed entry; None for an entry that is no command."""
        self._digest.absorb(entry)
        if entry.kind != COMMAND:
            return None
        command = _decode(entry.data)
        if command.session is None:
            return self._execute(command, entry.index)
        known = self._sessions.find(command.session)
        if known is not None:
            return self._unpack_result(known)
        if self._sessions.has_expired(command.session):
            current = self._items.get(command.key)
            version = current[1] if current else 0
            return KvResult(False, KvError.SESSION_EXPIRED, current is not None, version, None)
        result = self._execute(command, entry.index)
        self._sessions.remember(command.session, self._pack_result(result))
        return result

    def _execute(self, command: _Command, index: int) -> KvResult:
        current = self._items.get(command.key)
        version = current[1] if current else 0
        existed = current is not None
        if command.expected_version not in (ANY_VERSION, version):
            return KvResult(False, KvError.VERSION_MISMATCH, existed, version, current[0] if current else None)
        if current is not None:
            self._bytes -= len(command.key) + len(current[0])
        if command.kind == CommandKind.DELETE:
            self._items.pop(command.key, None)
            return KvResult(True, KvError.NONE, existed, 0, None)
        self._items[command.key] = (command.value, index)
        self._bytes += len(command.key) + len(command.value)
        return KvResult(True, KvError.NONE, existed, index, None)

    _RESULT = struct.Struct(">BBBBq")  # applied, error, existed, has a value, version

    def _pack_result(self, result: KvResult) -> bytes:
        has_value = result.value is not None
        head = self._RESULT.pack(result.applied, result.error, result.existed, has_value, result.version)
        return head + (result.value or b"")

    def _unpack_result(self, data: bytes) -> KvResult:
        applied, error, existed, has_value, version = self._RESULT.unpack_from(data)
        value = data[self._RESULT.size :] if has_value else None
        return KvResult(bool(applied), KvError(error), bool(existed), version, value)

    def snapshot(self) -> bytes:
        """All keys in order, then the sessions in theirs."""
        digest = self._digest
        parts = [self._SNAPSHOT.pack(self._SNAPSHOT_VERSION, digest.index, digest.chain, len(self._items))]
        for key in sorted(self._items):
            value, version = self._items[key]
            parts += (self._ITEM.pack(len(key), len(value), version), key, value)
        parts.append(self._sessions.pack())
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises MalformedCommand on a snapshot of an unknown version."""
        if len(data) < self._SNAPSHOT.size or data[0] != self._SNAPSHOT_VERSION:
            raise MalformedCommand(f"{len(data)} bytes are not a key-value snapshot, version 1")
        _, index, chain, count = self._SNAPSHOT.unpack_from(data)
        position = self._SNAPSHOT.size
        items: dict[bytes, tuple[bytes, int]] = {}
        size = 0
        for _ in range(count):
            key_length, value_length, version = self._ITEM.unpack_from(data, position)
            key_start = position + self._ITEM.size
            value_start = key_start + key_length
            position = value_start + value_length
            items[data[key_start:value_start]] = (data[value_start:position], version)
            size += key_length + value_length
        sessions = SessionTable()
        sessions.unpack(data, position)
        self._digest, self._items, self._bytes = AppliedDigest(index, chain), items, size
        self._sessions = sessions
