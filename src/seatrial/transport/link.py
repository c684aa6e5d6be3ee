"""The outgoing side: one connection to one peer for one purpose, dialled again and again, and its bounded queue.

A connection carries messages one way only; the way back is the peer's own connection.  What comes back on this one
is WELCOME, REJECT and PONG.

A peer that accepts bytes no more is given up after `dead_after_s`: with data under way there is a PING in it from
time to time, and the answer, or any sign of progress, must come.  TCP alone would go on for a quarter of an hour,
and after a healed partition would wait for its next retransmission, which may be a minute away.
Rule: what waits for a connection that could not be made, or was lost, is dropped and counted: Raft repeats what
matters, and what is old helps nobody.  Knows nothing of groups' states, nor of what carries the bytes (see `wire`).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Final

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
from seatrial.transport.address import show_address
from seatrial.transport.codec import (
    PING,
    encode_heartbeat_responses,
    encode_heartbeats,
    encode_message,
    pack_frame,
)
from seatrial.transport.handshake import Hello, Rejected
from seatrial.transport.limits import Limits
from seatrial.transport.wire import WRITE_BUFFER_HIGH, OutgoingConnection, Wire

_IDLE_LAZY_US: Final = 30_000_000
_PING: Final = pack_frame(PING, b"")
_UNANSWERED_REPORTED: Final = 3  # calls in a row: one may be a peer that is just starting or ending
_NOBODY_THERE: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT})


class PeerLink:
    """Keeps one connection up; `lazy`: only while there is something to send."""

    def __init__(
        self,
        wire: Wire,
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
        self._wire = wire
        self.hello, self.address, self.limits, self._lazy = hello, address, limits, lazy
        self._clock, self._rng, self._report = clock, rng, report
        self._pending: list[Buffer] = []
        self._pending_bytes = self._pending_messages = 0
        self._beats: list[int] = []
        self._answers: list[int] = []
        self._connection: OutgoingConnection | None = None
        self._wanted, self._kicked = asyncio.Event(), asyncio.Event()
        self._failures = self._unanswered = 0
        self._was_rejected = False
        self._flushed_us = 0
        self._sign_of_life_us = limits.sign_of_life_us
        self._nearly_empty_bytes = limits.queue_bytes_max - WRITE_BUFFER_HIGH
        self._task: asyncio.Task[None] | None = None
        self.bytes_sent = 0
        self.messages_dropped = 0
        self.last_error: str | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.welcomed

    def start(self) -> None:
        name = f"dial node {self.hello.to} for {self.hello.purpose.name.lower()}"
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name=name)

    async def close(self) -> None:
        """Give what is queued a moment to leave, then close."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        connection = self._connection
        if connection is not None:
            self.flush()
            connection.close()
            await asyncio.wait([connection.closed], timeout=self.limits.back_off_max_s)
            if not connection.closed.done():
                connection.abort()
                await asyncio.wait([connection.closed], timeout=self.limits.back_off_max_s)
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
        if size > self.limits.frame_bytes_max:
            del self._pending[count:]
            self.messages_dropped += 1
            name, most = type(message).__name__, self.limits.frame_bytes_max
            self.last_error = f"a {name} of {size} bytes was not sent; at most {most} are allowed"
            return
        self._pending_bytes += size
        self._pending_messages += 1

    def _is_nearly_empty(self) -> bool:
        """Whether there is room without counting: the connection holds no more than its high-water mark."""
        connection = self._connection
        held = self._pending_bytes + (len(self._beats) + len(self._answers)) * 8
        return held <= self._nearly_empty_bytes and (connection is None or not connection.paused)

    def _has_room(self, *, heavy: bool) -> bool:
        """Whether one more fits.  Heartbeats and votes still do where appends no longer do."""
        held = self._held_bytes()
        if held <= self.limits.queue_bytes_max or (not heavy and held <= 2 * self.limits.queue_bytes_max):
            return True
        self.messages_dropped += 1
        return False

    def _held_bytes(self) -> int:
        beats = (len(self._beats) + len(self._answers)) * 8
        connection = self._connection
        return self._pending_bytes + beats + (connection.waiting_bytes() if connection is not None else 0)

    def flush(self) -> None:
        """One write of everything queued, heartbeats first."""
        connection = self._connection
        if connection is None or connection.paused:
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
        connection.write(buffers)

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
        dead_after_us = self.limits.dead_after_s * 1e6
        if not connection.welcomed and now - connection.made_us > dead_after_us:
            self.give_up(connection, f"no answer to HELLO within {self.limits.dead_after_s} s")
        elif connection.asked_us is not None and now - connection.asked_us > dead_after_us:
            self.give_up(connection, f"no bytes accepted for {self.limits.dead_after_s} s")
        elif connection.asked_us is None and connection.paused:
            # Nothing is flushed while the connection is full: ask whether it still empties.
            connection.asked_us = connection.pinged_us = now
            connection.write([_PING])
        elif self._lazy and now - self._flushed_us > _IDLE_LAZY_US:
            self._wanted.clear()
            connection.close()

    # As a Dialler.

    def made(self, connection: OutgoingConnection) -> None:
        connection.made_us = self._flushed_us = self._clock.now_us()
        self._connection = connection
        connection.write([self.hello.packed()])
        self.flush()

    def welcomed(self, connection: OutgoingConnection) -> None:
        connection.welcomed = True
        self._failures, self._unanswered, self._was_rejected, self.last_error = 0, 0, False, None

    def rejected(self, connection: OutgoingConnection, reason: Rejected) -> None:
        if not self._was_rejected:
            self._report(f"node {self.hello.to} at {self._shown()} refuses this node: {reason}")
        self._was_rejected, self._unanswered = True, 0
        self.give_up(connection, f"rejected by {self._shown()}: {reason}")
        self._on_rejected(self.hello.to, reason)

    def give_up(self, connection: OutgoingConnection, reason: str) -> None:
        self.last_error = reason
        connection.abort()

    def lost(self, connection: OutgoingConnection, error: Exception | None) -> None:
        if connection is self._connection:
            self._connection = None
            if error is not None or not connection.welcomed:
                self.last_error = self.last_error or f"connection to {self._shown()} lost: {error or 'closed'}"
                if not connection.welcomed and not self._was_rejected:
                    self._count_unanswered()
            elif not self._lazy:
                self.last_error = f"connection closed by {self._shown()}"
        self._drop_queued()

    def _count_unanswered(self) -> None:
        """Somebody is there but does not understand, or is not understood: an operator has to look."""
        self._unanswered += 1
        if self._unanswered == _UNANSWERED_REPORTED:
            self._report(
                f"node {self.hello.to} at {self._shown()} was called {self._unanswered} times and never answered "
                f"({self.last_error}); do both sides run with the same --transport and --raft-tls-… settings?"
            )

    def _shown(self) -> str:
        return show_address(*self.address)

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
        try:
            async with asyncio.timeout(self.limits.connect_timeout_s):
                return await self._wire.connect(self)
        except TimeoutError:
            self.last_error = f"no connection to {self._shown()} within {self.limits.connect_timeout_s} s"
        except OSError as error:
            self.last_error = f"cannot connect to {self._shown()}: {error}"
            if error.errno not in _NOBODY_THERE:
                self._count_unanswered()
        except AssertionError:
            raise
        except Exception as error:
            # Event loops raise more than OSError out of a TLS handshake that breaks off; this link has to go on.
            self.last_error = f"cannot connect to {self._shown()}: {error!r}"
            self._count_unanswered()
        self._drop_queued()
        return None

    async def _back_off(self) -> None:
        """Wait before the next attempt: longer each time, never two nodes in step, and not if the peer calls."""
        limits = self.limits
        most = min(limits.back_off_first_s * 2**self._failures, limits.back_off_max_s)
        if self._was_rejected:
            most = limits.back_off_rejected_s
        self._failures = min(self._failures + 1, 16)
        try:
            async with asyncio.timeout(self._rng.uniform(most / 2, most)):
                await self._kicked.wait()
        except TimeoutError:
            return
