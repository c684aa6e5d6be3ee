"""The state machine of the core level: integer registers, and sessions that make a retry harmless.

It has the duties of `machines.kv`, which costs ten times as much to apply: a digest of everything applied, answers
that are remembered for each session and are part of the snapshot, and a snapshot that is equal on equal replicas.
Rule: `apply` depends on the state and the entry alone.  Knows nothing of who asks.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

from seatrial.raft.messages import COMMAND, Entry

WRITE: Final = 1
COMPARE_AND_SET: Final = 2

_COMMAND: Final = Struct(">BIIIqq")  # kind, client, sequence (0: no session), key, expected value, new value
_HEAD: Final = Struct(">QII")  # index, chain, number of keys
_REGISTER: Final = Struct(">Iqq")  # key, value, version
_SESSION: Final = Struct(">IIqq")  # client, sequence, version, value
NO_VALUE: Final = 0  # of a register that was never written


class Command:
    """What one entry asks for.  With `sequence` 0 it has no session, and is applied whenever it comes."""

    __slots__ = ("client", "expected", "key", "kind", "sequence", "value")

    def __init__(self, kind: int, client: int, sequence: int, key: int, expected: int, value: int) -> None:
        self.kind = kind
        self.client = client
        self.sequence = sequence
        self.key = key
        self.expected = expected
        self.value = value

    def encode(self, size: int) -> bytes:
        """At least `size` bytes; the rest is filled up."""
        data = _COMMAND.pack(self.kind, self.client, self.sequence, self.key, self.expected, self.value)
        return data.ljust(size, b".")


def decode(data: bytes) -> Command:
    kind, client, sequence, key, expected, value = _COMMAND.unpack_from(data)
    return Command(kind, client, sequence, key, expected, value)


class Decoder:
    """`decode`, remembered: the replicas of one simulation apply the very same bytes."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Command] = {}

    def __call__(self, data: bytes) -> Command:
        command = self._known.get(data)
        if command is None:
            command = self._known[data] = decode(data)
        return command


class Result:
    """The register's version and value after a command; version 0: a compare-and-set that did not match."""

    __slots__ = ("value", "version")

    def __init__(self, version: int, value: int) -> None:
        self.version = version
        self.value = value


class RegisterMachine:
    """Registers by key; a register's version is the index of its last write.

    chain: a checksum over every entry applied since the beginning, in their order.
    """

    __slots__ = ("_decode", "_registers", "_sessions", "applied_index", "chain")

    def __init__(self, decoder: Decoder) -> None:
        self._decode = decoder
        self.applied_index = 0
        self.chain = 0
        self._registers: dict[int, tuple[int, int]] = {}  # key -> (value, version)
        self._sessions: dict[int, tuple[int, Result]] = {}  # client -> (its last sequence, the answer)

    def value(self, key: int) -> int:
        register = self._registers.get(key)
        return NO_VALUE if register is None else register[0]

    def apply(self, entry: Entry) -> Result | None:
        """The next committed entry; None for one that is no command, or a repeated one too old to be answered."""
        index = entry.index
        assert index == self.applied_index + 1, f"{entry} was handed out after {self.applied_index}"
        self.applied_index = index
        self.chain = crc32(entry.data, self.chain ^ (entry.term << 2 | entry.kind))
        if entry.kind != COMMAND:
            return None
        command = self._decode(entry.data)
        sequence = command.sequence
        if not sequence:
            return self._execute(command, index)
        known = self._sessions.get(command.client)
        if known is not None and sequence <= known[0]:
            return known[1] if sequence == known[0] else None
        result = self._execute(command, index)
        self._sessions[command.client] = (sequence, result)
        return result

    def _execute(self, command: Command, index: int) -> Result:
        key = command.key
        if command.kind == COMPARE_AND_SET:
            value = self.value(key)
            if value != command.expected:
                return Result(0, value)
        self._registers[key] = (command.value, index)
        return Result(index, command.value)

    def snapshot(self) -> bytes:
        parts = [_HEAD.pack(self.applied_index, self.chain, len(self._registers))]
        parts += [_REGISTER.pack(key, *self._registers[key]) for key in sorted(self._registers)]
        for client in sorted(self._sessions):
            sequence, result = self._sessions[client]
            parts.append(_SESSION.pack(client, sequence, result.version, result.value))
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises struct.error where it is none."""
        self.applied_index, self.chain, count = _HEAD.unpack_from(data)
        registers_end = _HEAD.size + count * _REGISTER.size
        registers = _REGISTER.iter_unpack(data[_HEAD.size : registers_end])
        self._registers = {key: (value, version) for key, value, version in registers}
        sessions = _SESSION.iter_unpack(data[registers_end:])
        self._sessions = {client: (sequence, Result(version, value)) for client, sequence, version, value in sessions}
