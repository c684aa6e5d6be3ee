"""Client sessions: the answers to a client's last commands, so that a retry is answered and not applied again.

Rule: the table is a function of the log's prefix.  Whole sessions are forgotten by log position (least recently used
first, above a fixed number), a session's answers by sequence (lowest first, above a fixed number).  What is too old to
be told apart from a new command is refused as expired (dissertation §6.3), never applied twice.
Knows nothing of what commands and answers mean.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MAX_SESSIONS: Final = 10_000
MAX_ANSWERS: Final = 16  # of one session: how many commands a client may have on their way at once
FIRST_SEQUENCE: Final = 1


class Session(NamedTuple):
    """Whose command it is (1 to 255 bytes), and its number: the client counts up from 1, and repeats it in a retry."""

    client_id: bytes
    sequence: int


class _Answers:
    __slots__ = ("by_sequence", "floor")

    def __init__(self, floor: int, by_sequence: dict[int, bytes]) -> None:
        self.floor = floor  # sequences up to this one are forgotten
        self.by_sequence = by_sequence


class SessionTable:
    """All sessions, least recently used first."""

    __slots__ = ("_forgotten", "_limit", "_sessions")

    _HEAD = struct.Struct(">IB")
    _SESSION = struct.Struct(">BqB")  # client id length, floor, number of answers
    _ANSWER = struct.Struct(">qI")  # sequence, length

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._sessions: dict[bytes, _Answers] = {}
        self._forgotten = False

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session: Session) -> bytes | None:
        """The answer to this very command, if it was applied and is remembered; that counts as a use."""
        answers = self._sessions.get(session.client_id)
        if answers is None or session.sequence not in answers.by_sequence:
            return None
        self._sessions[session.client_id] = self._sessions.pop(session.client_id)
        return answers.by_sequence[session.sequence]

    def has_expired(self, session: Session) -> bool:
        """The command is not remembered, but may have been applied: only too much has happened since."""
        answers = self._sessions.get(session.client_id)
        if answers is None:
            # A client that was never seen begins with the first sequence; one that was forgotten does not.
            return self._forgotten and session.sequence != FIRST_SEQUENCE
        return session.sequence <= answers.floor

    def remember(self, session: Session, answer: bytes) -> None:
        answers = self._sessions.pop(session.client_id, None)
        if answers is None:
            answers = _Answers(-1, {})
        answers.by_sequence[session.sequence] = answer
        if len(answers.by_sequence) > MAX_ANSWERS:
            answers.floor = min(answers.by_sequence)
            del answers.by_sequence[answers.floor]
        self._sessions[session.client_id] = answers
        if len(self._sessions) > self._limit:
            del self._sessions[next(iter(self._sessions))]
            self._forgotten = True

    def pack(self) -> bytes:
        """The table in its order, which is part of the state."""
        parts = [self._HEAD.pack(len(self._sessions), self._forgotten)]
        for client_id, answers in self._sessions.items():
            parts += (self._SESSION.pack(len(client_id), answers.floor, len(answers.by_sequence)), client_id)
            for sequence in sorted(answers.by_sequence):
                answer = answers.by_sequence[sequence]
                parts += (self._ANSWER.pack(sequence, len(answer)), answer)
        return b"".join(parts)

    def unpack(self, data: bytes, position: int) -> int:
        """Replace the table by a packed one that begins at `position`; returns the position after it."""
        count, forgotten = self._HEAD.unpack_from(data, position)
        position += self._HEAD.size
        self._sessions, self._forgotten = {}, bool(forgotten)
        for _ in range(count):
            length, floor, answers = self._SESSION.unpack_from(data, position)
            position += self._SESSION.size
            client_id = data[position : position + length]
            position += length
            by_sequence: dict[int, bytes] = {}
            for _ in range(answers):
                sequence, size = self._ANSWER.unpack_from(data, position)
                position += self._ANSWER.size
                by_sequence[sequence] = data[position : position + size]
                position += size
            self._sessions[client_id] = _Answers(floor, by_sequence)
        return position
