"""What carries frames: the seam below links and service, with one implementation for TCP and one for gRPC.

Rule: a wire moves bytes and knows when a connection begins and ends; what the bytes mean, when to dial, what to drop
and when to give up is decided above it, once for all wires.
"""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from seatrial.env import Buffer, Clock
from seatrial.raft.ids import NodeId
from seatrial.transport.codec import (
    HELLO,
    PING,
    PONG,
    REJECT,
    WELCOME,
    Decoded,
    MalformedFrame,
    decode_messages,
    pack_frame,
)
from seatrial.transport.handshake import (
    HANDSHAKE_BYTES_MAX,
    Hello,
    Rejected,
    packed_reject,
    packed_welcome,
    unpack_reject,
)
from seatrial.transport.limits import Limits
from seatrial.transport.receiver import FrameReceiver

WRITE_BUFFER_HIGH: Final = 256 << 10  # bytes in a connection; the rest waits in its link, where it can be dropped
_PONG: Final = pack_frame(PONG, b"")
ListenAddress: TypeAlias = tuple[str, int] | socket.socket


class Dialler(Protocol):
    """What an outgoing connection needs of its link."""

    hello: Hello
    address: tuple[str, int]
    limits: Limits

    def made(self, connection: OutgoingConnection) -> None:
        """It is open; says HELLO."""

    def flush(self) -> None:
        """It has room again."""

    def welcomed(self, connection: OutgoingConnection) -> None: ...

    def rejected(self, connection: OutgoingConnection, reason: Rejected) -> None: ...

    def give_up(self, connection: OutgoingConnection, reason: str) -> None: ...

    def lost(self, connection: OutgoingConnection, error: Exception | None) -> None: ...


class OutgoingConnection(FrameReceiver):
    """One connection that this side dialled, from its HELLO on.

    `closed` ends when nothing of it is left; `paused` while it takes no more bytes; `asked_us`: when the PING that is
    not answered yet was sent.
    """

    def __init__(self, link: Dialler) -> None:
        super().__init__(HANDSHAKE_BYTES_MAX)
        self._link = link
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.welcomed = self.paused = False
        self.made_us = 0
        self.asked_us: int | None = None
        self.pinged_us = 0

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> None:
        """All of them, in order, without waiting."""

    @abstractmethod
    def waiting_bytes(self) -> int:
        """Written and not yet on their way."""

    @abstractmethod
    def close(self) -> None:
        """When what was written has left."""

    @abstractmethod
    def abort(self) -> None:
        """Now; nothing that arrives is looked at any more."""

    def frame(self, kind: int, body: memoryview) -> None:
        if kind == PONG:
            self.asked_us = None
        elif kind == WELCOME:
            self._link.welcomed(self)
        elif kind == REJECT:
            self._link.rejected(self, unpack_reject(body))
        else:
            raise MalformedFrame(f"a frame of kind {kind} where only answers may come")

    def failed(self, error: MalformedFrame) -> None:
        self._link.give_up(self, str(error))


class Acceptor(Protocol):
    """What an incoming connection needs of the service."""

    node_id: NodeId
    limits: Limits
    clock: Clock

    def check(self, hello: memoryview) -> Hello:
        """Raises Rejected or MalformedFrame."""

    def opened(self, connection: IncomingConnection) -> None: ...

    def accepted(self, connection: IncomingConnection, hello: Hello) -> None: ...

    def received(self, connection: IncomingConnection, messages: Decoded) -> None: ...

    def refused(self, address: str, error: Exception) -> None: ...

    def closed(self, connection: IncomingConnection) -> None: ...


class IncomingConnection(FrameReceiver):
    """One connection that a peer dialled, from its HELLO to its end: answers HELLO and PING, and hands on messages.

    Nothing is believed before the HELLO was checked; whatever breaks the protocol ends this connection alone.
    """

    def __init__(self, acceptor: Acceptor) -> None:
        super().__init__(HANDSHAKE_BYTES_MAX)
        self._acceptor, self._now_us = acceptor, acceptor.clock.now_us
        self._progress_us = acceptor.limits.sign_of_life_us
        self._node_id = acceptor.node_id
        self._pong_us = 0
        self.since_us = self._now_us()
        self.received_us = 0
        self.hello: Hello | None = None
        self._half_begins = -1  # where in all that was received the half frame begins that was there at the last look
        self._half_us = 0  # since when

    @property
    @abstractmethod
    def address(self) -> str:
        """Of the caller."""

    @abstractmethod
    def answer(self, frame: bytes) -> None:
        """To the caller, unless the connection is at its end."""

    @abstractmethod
    def close(self) -> None:
        """When what was answered has left."""

    @abstractmethod
    def abort(self) -> None:
        """Now; nothing that arrives is looked at any more."""

    def buffer_updated(self, nbytes: int) -> None:
        now = self.received_us = self._now_us()
        # A large frame on a slow link takes its time: show the sender that it is getting through.
        if self.hello is not None and now - self._pong_us >= self._progress_us:
            self._pong(now)
        super().buffer_updated(nbytes)

    def is_overdue(self, now_us: int) -> bool:
        """Whether a frame on its way was waited for long enough; to be asked now and then."""
        half = self.half_frame_bytes
        begins = self.bytes_received - half if half else -1
        if begins != self._half_begins:
            self._half_begins, self._half_us = begins, now_us
        # A slow link that moves at all may take its time.
        return half > 0 and now_us - self._half_us > (self._acceptor.limits.frame_s_max + half / 1024) * 1e6

    def _pong(self, now: int) -> None:
        self._pong_us = now
        self.answer(_PONG)

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
        try:
            hello = self._acceptor.check(body)
        except Rejected as reason:
            # Closing with unread bytes would reset the connection and could destroy the answer on its way: the
            # caller closes when it has read it, or the service does, a little later.
            self.end()
            self.answer(packed_reject(reason))
            self._acceptor.refused(self.address, reason)
            return
        self.hello = hello
        self.frame_bytes_max = self._acceptor.limits.frame_bytes_max
        self.answer(packed_welcome())
        self._acceptor.accepted(self, hello)

    def failed(self, error: MalformedFrame) -> None:
        self._acceptor.refused(self.address, error)
        self.abort()


class Listener(Protocol):
    """Takes calls until it is stopped."""

    address: str  # "host:port", with the port that was found where 0 was asked for

    def stop(self) -> None:
        """No call is taken from now on; connections that are open stay so."""

    async def stopped(self) -> None:
        """Nothing is left of it; to be awaited when its connections are closed."""


class Wire(Protocol):
    """One way to carry frames between nodes."""

    async def connect(self, link: Dialler) -> OutgoingConnection:
        """Dial `link.address`; `link.made` was called when it returns.

        Raises:
            OSError: there is no connection; with an errno where nobody is there at all.
        """

    async def listen(self, where: ListenAddress, acceptor: Acceptor) -> Listener:
        """Take calls at host and port (0: any), or on a socket that is bound.

        Raises:
            OSError: the address is in use or not this machine's.
        """
