"""HTTP clients' connections, each around a protocol of uvicorn's: how many there are, and how long one is waited for.

Rule: as for Kafka clients (`patience`): what has begun must end, an answer must be taken, and only what waits for its
client counts; and a request's head is bounded, which uvicorn does not do by itself.  Whose patience ends, or who is
one too many, is hung up on: that is the end of its own connection and of nothing else.
Knows nothing of what is asked; a body's size is bounded where it is read (`http_answers.bounded_bodies`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from seatrial.marks import reached
from seatrial.server.logs import Logger
from seatrial.server.patience import Clients, PatienceLimits, Waiting

HEAD_BYTES_MAX: Final = 64 << 10
BODY_BYTES_MAX: Final = 2 << 20  # twice the largest value
HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class Cycle(Protocol):
    """One request and its answer, as uvicorn keeps them."""

    more_body: bool  # is the rest of the body still to come?
    response_complete: bool


class Inner(Protocol):
    """What is used of uvicorn's protocol, beside what asyncio calls."""

    cycle: Cycle | None  # of the last request whose head is whole

    def shutdown(self) -> None:
        """Close, or when the answer under way is out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """connections: at once; 0: no bound."""

    connections: int = 1000
    patience: PatienceLimits = field(default_factory=lambda: PatienceLimits(waiting_bytes=64 << 20))


class HttpConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, connections: HttpConnections, inner: Any) -> None:
        self._connections = connections
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._cycle: Cycle | None = None
        self._requests = 0
        self._outside_bytes = 0  # since the last head was whole: of the next one, or of a body that nobody reads
        self._moved = False  # since the last look
        self._is_refused = False
        self._peer = "unknown"
        self.waiting = Waiting(connections.now())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self._peer = f"{name[0]}:{name[1]}" if name else "unknown"
        if not self._connections.admit(self):
            self._is_refused = True
            self._transport.abort()
            return
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._connections.open.pop(self, self) is None:
            self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._moved = True
        # What comes is of the request whose body was not whole before it came, or of the next one's head.
        before = self._cycle
        of_body = before is not None and before.more_body
        is_read = self._is_in_body
        self._inner.data_received(data)
        cycle = self._inner.cycle
        if cycle is not before:
            self._cycle, self._outside_bytes = cycle, 0
            self._requests += 1
        elif not is_read:
            self._outside_bytes += len(data)
            # The rest of a body whose request is answered already is thrown away, and bounded as one that is read.
            if self._outside_bytes > (BODY_BYTES_MAX if of_body else HEAD_BYTES_MAX):
                reached("an HTTP client sent a head without end")
                self._refuse(f"a head of more than {HEAD_BYTES_MAX} bytes, or a body without end", HEAD_TOO_LARGE)

    def eof_received(self) -> bool | None:
        return None if self._is_refused else cast("bool | None", self._inner.eof_received())

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def shutdown(self) -> None:
        self._inner.shutdown()

    @property
    def _is_in_body(self) -> bool:
        return self._cycle is not None and self._cycle.more_body and not self._cycle.response_complete

    def look(self, now_s: float) -> str | None:
        """Why this client was waited for long enough, if so."""
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        # While its request is worked on, it is the client who waits: unless it does not take what it asked for before.
        served = self._cycle is not None and not self._cycle.response_complete and not self._cycle.more_body
        self.waiting.look(
            now_s,
            moved=self._moved or (served and not unsent),
            frames=self._requests,
            half_frame=max(1, self._outside_bytes) if self._is_in_body else self._outside_bytes,
            receives=not served,
            unsent=unsent,
        )
        self._moved = False
        reason = self.waiting.why_overdue(now_s, self._connections.limits.patience)
        if reason is not None:
            reached("an HTTP client was waited for long enough")
        return reason

    def give_up(self, reason: str) -> None:
        assert self._transport is not None
        if not self._is_refused:
            self._refuse(reason)
        self.waiting.bytes = 0
        self._transport.abort()

    def _refuse(self, reason: str, answer: bytes = b"") -> None:
        """Say why in the log, and hang up; with an answer where none is under way."""
        assert self._transport is not None
        self._is_refused = True
        self._connections.refused += 1
        self._connections.logger.warning("http_connection_closed", peer=self._peer, reason=reason)
        if answer and (self._cycle is None or self._cycle.response_complete):
            self._transport.write(answer)
        self._transport.close()


class HttpConnections(Clients[HttpConnection]):
    """All of one node.  To be looked at about once a second."""

    def __init__(self, limits: HttpLimits, logger: Logger, now: Callable[[], float]) -> None:
        super().__init__("http", limits.patience, logger, bound=limits.connections, option="--http-max-connections")
        self.limits = limits
        self.logger = logger
        self.now = now
