"""Frames over plain TCP, or TLS, on asyncio protocols: the default wire.

    connection  a node dials each peer and sends on that connection; what the peer has to say comes on the peer's
                own, so that one direction of a link can fail alone, as it can in a network
    messages    of all groups, one write for each peer and turn of the loop; heartbeats of all groups in one frame
    snapshots   on a second connection, dialled when there is a chunk to send

asyncio sets TCP_NODELAY on every connection.  Knows nothing of what frames mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from seatrial.env import Buffer
from seatrial.marks import reached
from seatrial.transport.address import show_address
from seatrial.transport.codec import MalformedFrame
from seatrial.transport.tls import Tls
from seatrial.transport.wire import (
    WRITE_BUFFER_HIGH,
    Acceptor,
    Dialler,
    IncomingConnection,
    ListenAddress,
    OutgoingConnection,
)


class FramedOutgoing(OutgoingConnection, asyncio.BufferedProtocol):
    """One TCP connection that this side dialled."""

    _transport: asyncio.Transport
    is_made = is_abandoned = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        if self.is_abandoned:  # its TLS handshake ended after its attempt had: the link may have another one by now
            self._transport.abort()
            return
        self.is_made = True
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        self._link.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed.done():
            return
        if self.is_made:
            self._link.lost(self, exc)
        self.closed.set_result(None)

    def broke_off(self, error: BaseException) -> None:
        """Whoever dialled waits no more, perhaps in the turn in which it was made: uvloop tells nobody of its end."""
        if self.is_made:
            self.connection_lost(error if isinstance(error, Exception) else None)
            self._transport.abort()
        self.is_abandoned = not self.is_made

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.flush()

    def write(self, buffers: Sequence[Buffer]) -> None:
        # uvloop raises where asyncio is silent; the link hears of the loss a moment later, and drops what it holds too.
        if not self._transport.is_closing():
            self._transport.writelines(buffers)

    def waiting_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self.end()
        self._transport.abort()


class FramedIncoming(IncomingConnection, asyncio.BufferedProtocol):
    """One TCP connection that a peer dialled."""

    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._acceptor.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._acceptor.closed(self)

    @property
    def address(self) -> str:
        return _caller(self._transport)

    def answer(self, frame: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._acceptor.limits.unread_bytes_max:
            reached("a peer took none of the answers to it")
            self.failed(MalformedFrame("none of the answers to it are taken"))
            return
        transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self.end()
        if self._transport is not None:
            self._transport.abort()


class FramedListener:
    """An asyncio server."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.address = show_address(*server.sockets[0].getsockname()[:2])

    def stop(self) -> None:
        self._server.close()

    async def stopped(self) -> None:
        """With its listening socket closed, nothing of it is left but its connections."""


class FramedWire:
    """Implements Wire; with `tls`, every connection begins with a TLS handshake."""

    def __init__(self, tls: Tls | None = None) -> None:
        self._tls = tls

    async def connect(self, link: Dialler) -> OutgoingConnection:
        host, port = link.address
        secured: dict[str, Any] = {}
        if self._tls is not None:
            secured = {
                "ssl": self._tls.dialling,
                "server_hostname": self._tls.peer_name or host,
                "ssl_handshake_timeout": link.limits.dead_after_s,
                "ssl_shutdown_timeout": link.limits.back_off_max_s,
            }
        loop = asyncio.get_running_loop()
        connection = FramedOutgoing(link)
        try:
            await loop.create_connection(lambda: connection, host, port, **secured)
        except BaseException as error:
            connection.broke_off(error)
            raise
        if not connection.is_made:
            connection.is_abandoned = True
            raise ConnectionResetError("closed before the handshake was done")
        return connection

    async def listen(self, where: ListenAddress, acceptor: Acceptor) -> FramedListener:
        loop = asyncio.get_running_loop()
        secured: dict[str, Any] = {}
        if self._tls is not None:
            # Whose handshake fails is told so by TLS and reports it; asyncio tells this side nothing.  Not start_tls,
            # after which it would: uvloop may have read the first bytes by then, and loses them.
            secured = {
                "ssl": self._tls.listening,
                "ssl_handshake_timeout": acceptor.limits.dead_after_s,
                "ssl_shutdown_timeout": acceptor.limits.back_off_max_s,
            }
        if isinstance(where, tuple):
            return FramedListener(await loop.create_server(lambda: FramedIncoming(acceptor), *where, **secured))
        return FramedListener(await loop.create_server(lambda: FramedIncoming(acceptor), sock=where, **secured))


def _caller(transport: asyncio.Transport | None) -> str:
    name = transport.get_extra_info("peername") if transport is not None else None
    return show_address(*name[:2]) if name else "an unknown address"
