"""Peers of raw bytes on any wire: one calls with whatever it likes, one answers and then reads nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from wired_nodes import GROUP, Nodes

from seatrial.raft.ids import NodeId
from seatrial.transport import Tls, parse_address
from seatrial.transport.codec import FRAME_HEADER, WELCOME, encode_message, pack_frame
from seatrial.transport.handshake import Hello, Purpose

SERVICE = "seatrial.raft.v1.Raft"


def hello(sender: int = 1, to: int = 2, cluster: str = "test", purpose: Purpose = Purpose.MESSAGES) -> bytes:
    return Hello(sender=NodeId(sender), to=NodeId(to), cluster_id=cluster, purpose=purpose).packed()


def frame_of(message: Any) -> bytes:
    buffers: list[Any] = []
    encode_message(GROUP, message, buffers)
    return b"".join(buffers)


def chunk_of(frames: bytes) -> bytes:
    """As protobuf writes it: field 1, length-delimited."""
    size, length = len(frames), bytearray()
    while size > 127:
        length.append(128 | size & 127)
        size >>= 7
    length.append(size)
    return b"\x0a" + bytes(length) + frames


def frames_of(chunk: bytes) -> bytes:
    return chunk[next(i for i, byte in enumerate(chunk[1:], 2) if byte < 128) :]


class Caller:
    """One connection of raw bytes to a node; `answer` reads whole frames of what comes back."""

    def __init__(self) -> None:
        self._read = bytearray()

    async def send(self, frames: bytes) -> None:
        raise NotImplementedError

    async def receive(self) -> bytes:
        """The next bytes; none when the other side has ended the connection."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def answer(self) -> tuple[int, bytes]:
        size = FRAME_HEADER.size
        while len(self._read) < size or len(self._read) < size + FRAME_HEADER.unpack_from(self._read)[0]:
            more = await asyncio.wait_for(self.receive(), 5)
            assert more, f"the connection ended with {bytes(self._read)!r}"
            self._read += more
        length, kind = FRAME_HEADER.unpack_from(self._read)
        body = bytes(self._read[size : size + length])
        del self._read[: size + length]
        return kind, body

    async def ends(self) -> None:
        """The other side closes or resets the connection."""
        while await asyncio.wait_for(self.receive(), 10):
            pass


class FramedCaller(Caller):
    """Over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader, self._writer = reader, writer

    async def send(self, frames: bytes) -> None:
        self._writer.write(frames)
        await self._writer.drain()

    async def receive(self) -> bytes:
        try:
            return await self._reader.read(1 << 16)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self._writer.transport.abort()


class GrpcCaller(Caller):
    """Over gRPC, whose chunks it writes itself."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__()
        self._channel = channel
        self._call = channel.stream_stream(f"/{SERVICE}/Messages")()

    async def send(self, frames: bytes) -> None:
        await self._call.write(chunk_of(frames))

    async def receive(self) -> bytes:
        try:
            chunk = await self._call.read()
        except grpc.RpcError:
            return b""
        return b"" if chunk is grpc.aio.EOF else frames_of(chunk)

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


def grpc_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
    return grpc.aio.secure_channel(address, credentials)


async def call(nodes: Nodes, address: str) -> Caller:
    """On the wire of these nodes; closed at the end of the test at the latest."""
    caller: Caller
    if nodes.wire_name == "grpc":
        caller = GrpcCaller(grpc_channel(address, nodes.tls))
    else:
        host, port = parse_address(address)
        context = nodes.tls.dialling if nodes.tls is not None else None
        caller = FramedCaller(*await asyncio.open_connection(host, port, ssl=context))
    nodes.finally_(caller.close)
    return caller


class DeafPeer:
    """Welcomes whoever calls, then reads nothing; `calls` counts them."""

    def __init__(self) -> None:
        self.calls = 0
        self.address = ""

    async def _tcp_called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(pack_frame(WELCOME, b""))

    async def _grpc_called(self, _: Any, context: Any) -> None:
        self.calls += 1
        await context.write(chunk_of(pack_frame(WELCOME, b"")))
        await asyncio.Event().wait()

    async def start(self, nodes: Nodes) -> None:
        if nodes.wire_name != "grpc":
            server = await asyncio.start_server(self._tcp_called, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

            async def close() -> None:
                server.close()

            nodes.finally_(close)
            return
        grpc_server = grpc.aio.server()
        handlers = {"Messages": grpc.stream_stream_rpc_method_handler(self._grpc_called)}
        grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.address = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
        await grpc_server.start()
        nodes.finally_(lambda: grpc_server.stop(None))


async def deaf_peer(nodes: Nodes) -> DeafPeer:
    peer = DeafPeer()
    await peer.start(nodes)
    return peer
