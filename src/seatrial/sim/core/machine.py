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

_COMMAND: Final = Struct(">IIIq")  # client, sequence (0: no session), key, value
_HEAD: Final = Struct(">QII")  # index, chain, number of keys
_REGISTER: Final = Struct(">Iqq")  # key, value, version
_SESSION: Final = Struct(">IIq")  # client, sequence, version
NO_VALUE: Final = 0  # of a register that was never written


class Command:
    """A write.  With `sequence` 0 it has no session, and is applied whenever it comes."""

    __slots__ = ("client", "key", "sequence", "value")

    def __init__(self, client: int, sequence: int, key: int, value: int) -> None:
        self.client = client
        self.sequence = sequence
        self.key = key
        self.value = value

    def encode(self, size: int) -> bytes:
        """At least `size` bytes; the rest is filled up."""
        return _COMMAND.pack(self.client, self.sequence, self.key, self.value).ljust(size, b".")


def decode(data: bytes) -> Command:
    client, sequence, key, value = _COMMAND.unpack_from(data)
    return Command(client, sequence, key, value)


class RegisterMachine:
    """Registers by key; a register's version is the index of its last write.

    chain: a checksum over every entry applied since the beginning, in their order.
    decoded: commands by their bytes, shared by the replicas of one simulation, which all apply the very same bytes.
    """

    __slots__ = ("_decoded", "_registers", "_sessions", "applied_index", "chain")

    def __init__(self, decoded: dict[bytes, Command]) -> None:
        self._decoded = decoded
        self.applied_index = 0
        self.chain = 0
        self._registers: dict[int, tuple[int, int]] = {}  # key -> (value, version)
        self._sessions: dict[int, tuple[int, int]] = {}  # client -> (its last sequence, the version that it wrote)

    def value(self, key: int) -> int:
        register = self._registers.get(key)
        return NO_VALUE if register is None else register[0]

    def apply(self, entry: Entry) -> int:
        """The next committed entry; gives the version that it wrote, or had written when it came before.

        0 for one that is no command, or is repeated so late that its answer is forgotten.
        """
        index: int = entry.index
        assert index == self.applied_index + 1, f"{entry} was handed out after {self.applied_index}"
        self.applied_index = index
        data, kind = entry.data, entry.kind
        self.chain = crc32(data, self.chain ^ (entry.term << 2 | kind))
        if kind != COMMAND:
            return 0
        command = self._decoded.get(data)
        if command is None:
            command = self._decoded[data] = decode(data)
        sequence = command.sequence
        if sequence:
            known = self._sessions.get(command.client)
            if known is not None and sequence <= known[0]:
                return known[1] if sequence == known[0] else 0
            self._sessions[command.client] = (sequence, index)
        self._registers[command.key] = (command.value, index)
        return index

    def snapshot(self) -> bytes:
        parts = [_HEAD.pack(self.applied_index, self.chain, len(self._registers))]
        parts += [_REGISTER.pack(key, *self._registers[key]) for key in sorted(self._registers)]
        parts += [_SESSION.pack(client, *self._sessions[client]) for client in sorted(self._sessions)]
        return b"".join(parts)

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's.  Raises struct.error where it is none."""
        self.applied_index, self.chain, count = _HEAD.unpack_from(data)
        registers_end = _HEAD.size + count * _REGISTER.size
        registers = _REGISTER.iter_unpack(data[_HEAD.size : registers_end])
        self._registers = {key: (value, version) for key, value, version in registers}
        sessions = _SESSION.iter_unpack(data[registers_end:])
        self._sessions = {client: (sequence, version) for client, sequence, version in sessions}
