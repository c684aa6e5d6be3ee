"""The incoming side: one accepted connection, from its HELLO to its end.

Rule: nothing is believed before the HELLO was checked; whatever breaks the protocol ends this connection alone.
Knows nothing of dialling.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

from seatrial.env import Clock
from seatrial.raft.ids import NodeId
from seatrial.transport.codec import HELLO, PING, PONG, Decoded, MalformedFrame, decode_messages, pack_frame
from seatrial.transport.handshake import HANDSHAKE_BYTES_MAX, Hello, Rejected, packed_reject, packed_welcome
from seatrial.transport.receiver import FrameReceiver

_PONG: Final = pack_frame(PONG, b"")


class Acceptor(Protocol):
    """What an incoming connection needs of the transport."""

    def check(self, hello: memoryview) -> Hello:
        """Raises Rejected or MalformedFrame."""

    def opened(self, connection: IncomingConnection) -> None: ...

    def accepted(self, connection: IncomingConnection, hello: Hello) -> None: ...

    def received(self, connection: IncomingConnection, messages: Decoded) -> None: ...

    def refused(self, connection: IncomingConnection, error: Exception) -> None: ...

    def closed(self, connection: IncomingConnection) -> None: ...


class IncomingConnection(FrameReceiver):
    """Answers HELLO and PING, and hands on messages."""

    def __init__(
        self, acceptor: Acceptor, clock: Clock, node_id: NodeId, *, frame_bytes_max: int, progress_us: float
    ) -> None:
        super().__init__(HANDSHAKE_BYTES_MAX)
        self._acceptor, self._clock, self._node_id = acceptor, clock, node_id
        self._welcomed_bytes_max = frame_bytes_max
        self._progress_us = progress_us
        self._transport: asyncio.Transport | None = None
        self._pong_us = 0
        self.since_us = clock.now_us()
        self.received_us = 0
        self.hello: Hello | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        self._acceptor.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._acceptor.closed(self)

    @property
    def address(self) -> str:
        """Of the caller."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if name else "an unknown address"

    def buffer_updated(self, nbytes: int) -> None:
        now = self.received_us = self._clock.now_us()
        # A large frame on a slow link takes its time: show the sender that it is getting through.
        if self.hello is not None and now - self._pong_us >= self._progress_us:
            self._pong(now)
        super().buffer_updated(nbytes)

    def _pong(self, now: int) -> None:
        self._pong_us = now
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_PONG)

    def frame(self, kind: int, body: memoryview) -> None:
        if self.hello is not None:
            if kind == PING:
                self._pong(self.received_us)
            else:
                self._acceptor.received(self, decode_messages(kind, body, self.hello.sender, self._node_id))
        elif kind == HELLO:
            self._greet(body)
        else:
            raise MalformedFrame("the connection does not begin with a HELLO")

    def _greet(self, body: memoryview) -> None:
        assert self._transport is not None
        try:
            hello = self._acceptor.check(body)
        except Rejected as reason:
            # Closing with unread bytes would reset the connection and could destroy the answer on its way: the
            # caller closes when it has read it, or the transport does, a little later.
            self.end()
            self._transport.write(packed_reject(reason))
            self._acceptor.refused(self, reason)
            return
        self.hello = hello
        self.frame_bytes_max = self._welcomed_bytes_max
        self._transport.write(packed_welcome())
        self._acceptor.accepted(self, hello)

    def failed(self, error: MalformedFrame) -> None:
        self._acceptor.refused(self, error)
        self.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self.end()
        if self._transport is not None:
            self._transport.abort()
