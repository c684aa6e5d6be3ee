"""Frames over gRPC: for networks and proxies that pass HTTP/2, and for whoever has its certificates in it already.

The same frames as over TCP, in chunks (raft.proto): one call for each directed peer and purpose, each on a connection
of its own, because calls that share one would hold each other up, and one that is cut could not be told from the other.
Rule: gRPC's own retries and back-off are not used: each attempt is a fresh channel, and when to dial is the link's to
say, as on any wire.  The only module that imports grpc.  Knows nothing of what frames mean.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio

from seatrial.env import Buffer
from seatrial.transport.address import show_address
from seatrial.transport.codec import MalformedFrame
from seatrial.transport.handshake import Purpose
from seatrial.transport.raft_pb2 import DESCRIPTOR, Chunk
from seatrial.transport.tls import Tls
from seatrial.transport.wire import (
    WRITE_BUFFER_HIGH,
    Acceptor,
    Dialler,
    IncomingConnection,
    ListenAddress,
    OutgoingConnection,
)

_SERVICE: Final = DESCRIPTOR.services_by_name["Raft"].full_name
_METHODS: Final = {Purpose.MESSAGES: "Messages", Purpose.SNAPSHOTS: "Snapshots"}
_CHUNK_BYTES: Final = 1 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _CHUNK_BYTES + 1024),
    ("grpc.max_send_message_length", _CHUNK_BYTES + 1024),
    ("grpc.use_local_subchannel_pool", 1),  # else two channels to one address share a connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)
_SERVER_OPTIONS: Final = (*_OPTIONS, ("grpc.so_reuseport", 0))  # a second node on the same port must fail
_HUNG_UP: Final = (asyncio.CancelledError, asyncio.InvalidStateError, grpc.RpcError)


class GrpcOutgoing(OutgoingConnection):
    """One call that this side makes, on a channel of its own."""

    def __init__(self, link: Dialler, channel: grpc.aio.Channel, call: Any) -> None:
        super().__init__(link)
        self._channel, self._call = channel, call
        self._queued: deque[Buffer] = deque()
        self._waiting_bytes = 0
        self._wanted = asyncio.Event()
        self._is_closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Say HELLO, and go on."""
        loop, name = asyncio.get_running_loop(), f"to node {self._link.hello.to}"
        self._link.made(self)
        self._tasks = [loop.create_task(work, name=name) for work in (self._read_all(), self._write_all())]

    def write(self, buffers: Sequence[Buffer]) -> None:
        self._queued.extend(buffers)
        self._waiting_bytes += sum(map(len, buffers))
        self.paused = self._waiting_bytes > WRITE_BUFFER_HIGH
        self._wanted.set()

    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def close(self) -> None:
        self._is_closing = True
        self._wanted.set()

    def abort(self) -> None:
        self.end()
        self._call.cancel()

    async def _write_all(self) -> None:
        try:
            while not self._is_closing or self._queued:
                await self._wanted.wait()
                self._wanted.clear()
                while self._queued:
                    chunk = self._next_chunk()
                    await self._call.write(Chunk(frames=chunk))
                    self._waiting_bytes -= len(chunk)
                    if self.paused and self._waiting_bytes <= WRITE_BUFFER_HIGH // 4:
                        self.paused = False
                        self._link.flush()
            await self._call.done_writing()
        except _HUNG_UP:
            return  # which the reading side hears as well

    def _next_chunk(self) -> bytes:
        parts: list[Buffer] = []
        room = _CHUNK_BYTES
        while self._queued and room:
            part = self._queued.popleft()
            if len(part) > room:
                self._queued.appendleft(memoryview(part)[room:])
                part = memoryview(part)[:room]
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    async def _read_all(self) -> None:
        error: Exception | None = None
        try:
            while (chunk := await self._call.read()) is not grpc.aio.EOF:
                self.feed(chunk.frames)
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                error = ConnectionError(f"{await self._call.details()} ({code.name})")
        except grpc.RpcError as failed:
            error = ConnectionError(_said(failed))
        except asyncio.CancelledError:
            error = None  # this side hung up
        finally:
            self.end()
            self._link.lost(self, error)
            self._wanted.set()
            self._tasks[1].cancel()
            await self._channel.close()
            self.closed.set_result(None)


class GrpcIncoming(IncomingConnection):
    """One call of a peer."""

    def __init__(self, acceptor: Acceptor, context: Any) -> None:
        super().__init__(acceptor)
        self._context = context
        self._answers: list[bytes] = []
        self._reading: asyncio.Task[None] | None = None
        self._is_waiting = self._is_over = False
        self._failure = ""

    @property
    def address(self) -> str:
        return unquote(str(self._context.peer())).partition(":")[2]

    def answer(self, frame: bytes) -> None:
        self._answers.append(frame)

    def failed(self, error: MalformedFrame) -> None:
        self._failure = str(error)
        super().failed(error)

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.end()
        self._is_over = True
        if self._reading is not None and self._is_waiting:  # never out of a write: gRPC could not end the call then
            self._reading.cancel()

    async def serve(self) -> None:
        """Until the call ends, from whichever side."""
        self._acceptor.opened(self)
        self._reading = asyncio.get_running_loop().create_task(self._read_all(), name=f"call from {self.address}")
        try:
            await asyncio.wait([self._reading])
        finally:
            self._reading.cancel()
            self._acceptor.closed(self)
        if self._failure:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, self._failure)

    async def _read_all(self) -> None:
        try:
            while (chunk := await self._next()) is not grpc.aio.EOF:
                self.feed(chunk.frames)
                if self._answers and not self._failure:
                    answers, self._answers = b"".join(self._answers), []
                    await self._context.write(Chunk(frames=answers))
        except (*_HUNG_UP, grpc.aio.BaseError):
            return

    async def _next(self) -> Any:
        if self._is_over:
            return grpc.aio.EOF
        self._is_waiting = True
        try:
            return await self._context.read()
        finally:
            self._is_waiting = False


class GrpcListener:
    """A gRPC server; `held` keeps the port that was handed over, which gRPC binds a second time."""

    def __init__(self, server: grpc.aio.Server, address: str, held: socket.socket | None) -> None:
        self._server, self._held = server, held
        self._stopping: asyncio.Task[None] | None = None
        self.address = address

    def stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._server.stop(grace=1.0))

    async def stopped(self) -> None:
        if self._stopping is not None:
            await self._stopping
        if self._held is not None:
            self._held.close()


class GrpcWire:
    """Implements Wire; with `tls`, on HTTP/2 over TLS."""

    def __init__(self, tls: Tls | None = None) -> None:
        self._tls = tls

    def _channel(self, target: str) -> grpc.aio.Channel:
        tls = self._tls
        if tls is None:
            return grpc.aio.insecure_channel(target, options=_OPTIONS)
        identity = (tls.key, tls.certificate) if tls.demands_certificates else (None, None)
        credentials = grpc.ssl_channel_credentials(tls.authority or None, *identity)
        named = (("grpc.ssl_target_name_override", tls.peer_name),) if tls.peer_name else ()
        return grpc.aio.secure_channel(target, credentials, options=(*_OPTIONS, *named))

    async def connect(self, link: Dialler) -> OutgoingConnection:
        channel = self._channel(show_address(*link.address))
        connected = False
        try:
            method = channel.stream_stream(
                f"/{_SERVICE}/{_METHODS[link.hello.purpose]}",
                request_serializer=Chunk.SerializeToString,
                response_deserializer=Chunk.FromString,
            )
            call = method()
            await call.wait_for_connection()
            connected = True
        except grpc.RpcError as error:
            said = _said(error)
            raise OSError(errno.ECONNREFUSED if "Connection refused" in said else None, said) from None
        finally:
            if not connected:
                await channel.close()
        connection = GrpcOutgoing(link, channel, call)
        connection.start()
        return connection

    async def listen(self, where: ListenAddress, acceptor: Acceptor) -> GrpcListener:
        held = where if isinstance(where, socket.socket) else None
        host, port = where.getsockname()[:2] if isinstance(where, socket.socket) else where
        server = grpc.aio.server(options=_SERVER_OPTIONS)

        async def called(_: Any, context: Any) -> None:
            await GrpcIncoming(acceptor, context).serve()

        handler = grpc.stream_stream_rpc_method_handler(
            called, request_deserializer=Chunk.FromString, response_serializer=Chunk.SerializeToString
        )
        handlers = dict.fromkeys(_METHODS.values(), handler)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            bound = self._bind(server, show_address(host, port))
        except RuntimeError:
            raise OSError(errno.EADDRINUSE, f"{show_address(host, port)} is in use or not of this machine") from None
        await server.start()
        return GrpcListener(server, show_address(host, bound), held)

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        tls = self._tls
        if tls is None:
            return int(server.add_insecure_port(address))
        credentials = grpc.ssl_server_credentials(
            [(tls.key, tls.certificate)],
            tls.authority if tls.demands_certificates else None,
            require_client_auth=tls.demands_certificates,
        )
        return int(server.add_secure_port(address, credentials))


def _said(error: Any) -> str:
    return f"{error.details()} ({error.code().name})"
