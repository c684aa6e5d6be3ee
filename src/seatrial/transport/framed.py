"""Frames over plain TCP, or TLS, on asyncio protocols: the default wire.

    connection  a node dials each peer and sends on that connection; what the peer has to say comes on the peer's
                own, so that one direction of a link can fail alone, as it can in a network
    messages    of all groups, one write for each peer and turn of the loop; heartbeats of all groups in one frame
    snapshots   on a second connection, dialled when there is a chunk to send

asyncio sets TCP_NODELAY on every connection.  Knows nothing of what frames mean.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, cast

from seatrial.env import Buffer
from seatrial.transport.address import show_address
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        self._link.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost(self, exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.flush()

    def write(self, buffers: Sequence[Buffer]) -> None:
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
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self.end()
        if self._transport is not None:
            self._transport.abort()


class TlsGate(asyncio.Protocol):
    """A connection that a peer dialled, until its TLS handshake is done: asyncio alone tells nobody of a failure."""

    def __init__(self, acceptor: Acceptor, context: ssl.SSLContext, handshakes: set[asyncio.Task[None]]) -> None:
        self._acceptor, self._context, self._handshakes = acceptor, context, handshakes
        self._early = bytearray()  # what came in one piece with the end of the handshake
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        plain = cast(asyncio.Transport, transport)
        plain.pause_reading()
        handshake = asyncio.get_running_loop().create_task(self._shake_hands(plain), name="TLS handshake")
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        address, limits = _caller(plain), self._acceptor.limits
        try:
            secured = await asyncio.get_running_loop().start_tls(
                plain,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=limits.dead_after_s,
                ssl_shutdown_timeout=limits.back_off_max_s,
            )
        except OSError as error:  # ssl.SSLError is one
            plain.abort()
            self._acceptor.refused(address, ConnectionAbortedError(f"no TLS handshake: {error}"))
            return
        if secured is None or self._is_lost:
            return
        connection = FramedIncoming(self._acceptor)
        secured.set_protocol(connection)
        connection.connection_made(secured)
        connection.feed(bytes(self._early))


class FramedListener:
    """An asyncio server, and the TLS handshakes that are under way."""

    def __init__(self, server: asyncio.Server, handshakes: set[asyncio.Task[None]]) -> None:
        self._server, self._handshakes = server, handshakes
        self.address = show_address(*server.sockets[0].getsockname()[:2])

    def stop(self) -> None:
        self._server.close()

    async def stopped(self) -> None:
        handshakes = list(self._handshakes)
        for handshake in handshakes:
            handshake.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)


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
        _, connection = await loop.create_connection(lambda: FramedOutgoing(link), host, port, **secured)
        return connection

    async def listen(self, where: ListenAddress, acceptor: Acceptor) -> FramedListener:
        loop = asyncio.get_running_loop()
        handshakes: set[asyncio.Task[None]] = set()

        def called() -> asyncio.BaseProtocol:
            if self._tls is None:
                return FramedIncoming(acceptor)
            return TlsGate(acceptor, self._tls.listening, handshakes)

        if isinstance(where, tuple):
            server = await loop.create_server(called, *where)
        else:
            server = await loop.create_server(called, sock=where)
        return FramedListener(server, handshakes)


def _caller(transport: asyncio.Transport | None) -> str:
    name = transport.get_extra_info("peername") if transport is not None else None
    return show_address(*name[:2]) if name else "an unknown address"
