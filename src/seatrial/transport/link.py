"""The outgoing side: one connection to one peer for one purpose, dialled again and again, and its bounded queue.

A connection carries messages one way only; the way back is the peer's own connection.  What comes back on this one
is WELCOME, REJECT and PONG.

A peer that accepts bytes no more is given up after `dead_after_s`: with data under way there is a PING in it from
time to time, and the answer, or any sign of progress, must come.  TCP alone would go on for a quarter of an hour,
and after a healed partition would wait for its next retransmission, which may be a minute away.
Rule: what waits for a connection that could not be made, or was lost, is dropped and counted: Raft repeats what
matters, and what is old helps nobody.  Knows nothing of groups' states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from seatrial.env import Buffer, Clock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import (
    AppendEntries,
    ForwardProposal,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
)
from seatrial.transport.codec import (
    PING,
    PONG,
    REJECT,
    WELCOME,
    MalformedFrame,
    encode_heartbeat_responses,
    encode_heartbeats,
    encode_message,
    pack_frame,
)
from seatrial.transport.handshake import HANDSHAKE_BYTES_MAX, Hello, Rejected, unpack_reject
from seatrial.transport.receiver import FrameReceiver

_WRITE_BUFFER_HIGH: Final = 256 << 10  # the rest waits here, where it can be counted and dropped
_IDLE_LAZY_US: Final = 30_000_000
_BEAT_BYTES: Final = 32
_PING: Final = pack_frame(PING, b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to wait and how much to hold."""

    frame_bytes_max: int
    queue_bytes_max: int  # a peer; above it, messages with payloads are dropped, at twice of it all are
    connect_timeout_s: float
    dead_after_s: float
    back_off_first_s: float
    back_off_max_s: float
    back_off_rejected_s: float

    @property
    def sign_of_life_us(self) -> float:
        """How often a connection in use shows that it is: well within the time after which it is given up."""
        return self.dead_after_s * 1e6 / 4


class OutgoingConnection(FrameReceiver):
    """One TCP connection, from its HELLO on."""

    def __init__(self, link: PeerLink) -> None:
        super().__init__(HANDSHAKE_BYTES_MAX)
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.welcomed = self.paused = False
        self.made_us = 0
        self.asked_us: int | None = None  # when the PING that is not answered yet was sent
        self.pinged_us = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connected = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        self.transport = connected
        connected.set_write_buffer_limits(high=_WRITE_BUFFER_HIGH)
        self._link.made(self, connected)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.lost(self, exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.flush()

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


class PeerLink:
    """Keeps one connection up; `lazy`: only while there is something to send."""

    def __init__(
        self,
        hello: Hello,
        address: tuple[str, int],
        limits: Limits,
        *,
        lazy: bool,
        clock: Clock,
        rng: Rng,
        report: Callable[[str], None],
        on_rejected: Callable[[NodeId, Rejected], None],
    ) -> None:
        self._on_rejected = on_rejected
        self._hello, self._address, self._limits, self._lazy = hello, address, limits, lazy
        self._clock, self._rng, self._report = clock, rng, report
        self._pending: list[Buffer] = []
        self._pending_bytes = self._pending_messages = 0
        self._beats: list[int] = []
        self._answers: list[int] = []
        self._connection: OutgoingConnection | None = None
        self._wanted, self._kicked = asyncio.Event(), asyncio.Event()
        self._failures = 0
        self._was_rejected = False
        self._flushed_us = 0
        self._sign_of_life_us = limits.sign_of_life_us
        self._nearly_empty_bytes = limits.queue_bytes_max - _WRITE_BUFFER_HIGH
        self._task: asyncio.Task[None] | None = None
        self.bytes_sent = 0
        self.messages_dropped = 0
        self.last_error: str | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.welcomed

    def start(self) -> None:
        name = f"dial node {self._hello.to} for {self._hello.purpose.name.lower()}"
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name=name)

    async def close(self) -> None:
        """Give what is queued a moment to leave, then close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        connection = self._connection
        if connection is not None and connection.transport is not None:
            self.flush()
            connection.transport.close()
            await asyncio.wait([connection.closed], timeout=self._limits.back_off_max_s)
            connection.transport.abort()
        self._drop_queued()

    # Sending.

    def queue(self, group: GroupId, message: Message) -> None:
        """For the next `flush`; or drop it and count."""
        if type(message) is Heartbeat:
            if self._is_nearly_empty() or self._has_room(heavy=False):
                self._beats += (group, message.term, message.leader_commit, message.read_round)
        elif type(message) is HeartbeatResponse:
            if self._is_nearly_empty() or self._has_room(heavy=False):
                self._answers += (group, message.term, message.read_round)
        else:
            heavy = (
                bool(message.entries)
                if isinstance(message, AppendEntries)
                else isinstance(message, InstallSnapshot | ForwardProposal)
            )
            if self._has_room(heavy=heavy):
                self._queue_encoded(group, message)
        if self._lazy:
            self._wanted.set()

    def _queue_encoded(self, group: GroupId, message: Message) -> None:
        count = len(self._pending)
        size = encode_message(group, message, self._pending)
        if size > self._limits.frame_bytes_max:
            del self._pending[count:]
            self.messages_dropped += 1
            name, most = type(message).__name__, self._limits.frame_bytes_max
            self.last_error = f"a {name} of {size} bytes was not sent; at most {most} are allowed"
            return
        self._pending_bytes += size
        self._pending_messages += 1

    def _is_nearly_empty(self) -> bool:
        """Whether there is room without counting: the transport holds no more than its high-water mark."""
        connection = self._connection
        held = self._pending_bytes + (len(self._beats) + len(self._answers)) * 8
        return held <= self._nearly_empty_bytes and (connection is None or not connection.paused)

    def _has_room(self, *, heavy: bool) -> bool:
        """Whether one more fits.  Heartbeats and votes still do where appends no longer do."""
        beats = (len(self._beats) + len(self._answers)) * 8
        held = self._pending_bytes + beats + self._in_transport()
        if held <= self._limits.queue_bytes_max or (not heavy and held <= 2 * self._limits.queue_bytes_max):
            return True
        self.messages_dropped += 1
        return False

    def _in_transport(self) -> int:
        transport = self._connection.transport if self._connection is not None else None
        return transport.get_write_buffer_size() if transport is not None else 0

    def flush(self) -> None:
        """One write of everything queued, heartbeats first."""
        connection = self._connection
        if connection is None or connection.paused or connection.transport is None:
            return
        buffers: list[Buffer] = []
        size = self._pending_bytes
        if self._beats:
            size += encode_heartbeats(self._beats, buffers)
            self._beats = []
        if self._answers:
            size += encode_heartbeat_responses(self._answers, buffers)
            self._answers = []
        buffers += self._pending
        if not buffers:
            return
        self._pending, self._pending_bytes, self._pending_messages = [], 0, 0
        now = self._flushed_us = self._clock.now_us()
        if connection.asked_us is None and now - connection.pinged_us >= self._sign_of_life_us:
            buffers.append(_PING)
            size += len(_PING)
            connection.asked_us = connection.pinged_us = now
        self.bytes_sent += size
        connection.transport.writelines(buffers)

    def _drop_queued(self) -> None:
        self.messages_dropped += self._pending_messages + len(self._beats) // 4 + len(self._answers) // 3
        self._pending, self._pending_bytes, self._pending_messages = [], 0, 0
        self._beats, self._answers = [], []
        self._wanted.clear()

    # The life of connections.

    def kick(self) -> None:
        """The peer was heard from: do not wait any longer to dial it."""
        self._kicked.set()

    def check(self) -> None:
        """Called a few times a second: give up a connection on which nothing moves."""
        connection, now = self._connection, self._clock.now_us()
        if connection is None:
            return
        dead_after_us = self._limits.dead_after_s * 1e6
        if not connection.welcomed and now - connection.made_us > dead_after_us:
            self.give_up(connection, f"no answer to HELLO within {self._limits.dead_after_s} s")
        elif connection.asked_us is not None and now - connection.asked_us > dead_after_us:
            self.give_up(connection, f"no bytes accepted for {self._limits.dead_after_s} s")
        elif connection.asked_us is None and connection.paused and connection.transport is not None:
            # Nothing is flushed while the connection is full: ask whether it still empties.
            connection.asked_us = connection.pinged_us = now
            connection.transport.write(_PING)
        elif self._lazy and now - self._flushed_us > _IDLE_LAZY_US and connection.transport is not None:
            self._wanted.clear()
            connection.transport.close()

    def made(self, connection: OutgoingConnection, transport: asyncio.Transport) -> None:
        connection.made_us = self._flushed_us = self._clock.now_us()
        self._connection = connection
        transport.write(self._hello.packed())
        self.flush()

    def welcomed(self, connection: OutgoingConnection) -> None:
        connection.welcomed = True
        self._failures, self._was_rejected, self.last_error = 0, False, None

    def rejected(self, connection: OutgoingConnection, reason: Rejected) -> None:
        if not self._was_rejected:
            self._report(f"node {self._hello.to} at {self._shown()} refuses this node: {reason}")
        self._was_rejected = True
        self.give_up(connection, f"rejected by {self._shown()}: {reason}")
        self._on_rejected(self._hello.to, reason)

    def give_up(self, connection: OutgoingConnection, reason: str) -> None:
        self.last_error = reason
        connection.end()
        if connection.transport is not None:
            connection.transport.abort()

    def lost(self, connection: OutgoingConnection, error: Exception | None) -> None:
        if connection is self._connection:
            self._connection = None
            if error is not None or not connection.welcomed:
                self.last_error = self.last_error or f"connection to {self._shown()} lost: {error or 'closed'}"
            elif not self._lazy:
                self.last_error = f"connection closed by {self._shown()}"
        self._drop_queued()

    def _shown(self) -> str:
        return f"{self._address[0]}:{self._address[1]}"

    async def _keep_connected(self) -> None:
        while True:
            if self._lazy:
                await self._wanted.wait()
            self._kicked.clear()  # a call that comes while this attempt is under way is a reason for the next
            connection = await self._connect()
            if connection is not None:
                await asyncio.wait([connection.closed])
            await self._back_off()

    async def _connect(self) -> OutgoingConnection | None:
        loop, (host, port) = asyncio.get_running_loop(), self._address
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                _, connection = await loop.create_connection(lambda: OutgoingConnection(self), host, port)
        except TimeoutError:
            self.last_error = f"no connection to {self._shown()} within {self._limits.connect_timeout_s} s"
        except OSError as error:
            self.last_error = f"cannot connect to {self._shown()}: {error}"
        else:
            return connection
        self._drop_queued()
        return None

    async def _back_off(self) -> None:
        """Wait before the next attempt: longer each time, never two nodes in step, and not if the peer calls."""
        limits = self._limits
        most = min(limits.back_off_first_s * 2**self._failures, limits.back_off_max_s)
        if self._was_rejected:
            most = limits.back_off_rejected_s
        self._failures = min(self._failures + 1, 16)
        try:
            async with asyncio.timeout(self._rng.uniform(most / 2, most)):
                await self._kicked.wait()
        except TimeoutError:
            return
