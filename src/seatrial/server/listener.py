"""Kafka clients' connections: frames in, answers out in the order of the requests.

Rule: work on a request starts when it is parsed, and only answers wait for their turn; what a connection may have
in flight (requests, bytes, unsent answers) is bounded, and past the bound the socket is not read.  A frame that
cannot be is the end of its own connection, logged with the reason, and of nothing else.
Knows nothing of what requests mean (`kafka.dispatch`), nor of how long a client is waited for (`patience`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from struct import Struct
from typing import Protocol, TypeAlias, cast

from seatrial.env import Buffer
from seatrial.kafka.context import ClientContext, CloseConnection
from seatrial.marks import reached
from seatrial.server.config import Address
from seatrial.server.latency import LatencyTable
from seatrial.server.logs import Logger
from seatrial.server.patience import LOOK_S, Clients, PatienceLimits, Waiting

SIZE = Struct(">i")
SMALL_FRAME = 16 << 10  # larger ones are received straight into a buffer of their own
RECEIVE_BYTES = 64 << 10
LARGE_BEGINS = 4 << 10  # bytes of a large frame's buffer, where little of it has come
BUFFERS_KEPT = 64  # of so many bytes, for whoever receives next
GROWTH = 4  # a large frame's buffer is at most so many times as large as what has come of it

Response: TypeAlias = list[Buffer]  # whole frames, their lengths included


class Dispatcher(Protocol):
    """What answers requests (`kafka.dispatch.Dispatcher`)."""

    def handle(self, frame: memoryview, client: ClientContext) -> Response | Awaitable[Response] | None:
        """Begin to carry out a request; None: it gets no answer.  Raises CloseConnection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """Bounds of one connection where not said otherwise, in bytes where not said otherwise."""

    frame_bytes: int = 100 << 20
    in_flight_requests: int = 256
    in_flight_bytes: int = 64 << 20
    unsent_bytes: int = 8 << 20
    connections: int = 0  # of one listener; 0: no bound
    patience: PatienceLimits = field(default_factory=PatienceLimits)


class Slot:
    """One request whose answer has its place in the order; `answer` is None for a request that gets none."""

    __slots__ = ("answer", "answer_size", "api_key", "begun", "done", "size")

    def __init__(self, size: int, api_key: int, begun: float) -> None:
        self.size = size
        self.api_key = api_key
        self.begun = begun  # of the loop's clock, in seconds
        self.done = False
        self.answer_size = 0
        self.answer: Response | None = None


class KafkaConnection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, listener: KafkaListener) -> None:
        self._listener = listener
        self._dispatcher = listener.dispatcher
        self._limits = listener.limits
        self._transport: asyncio.Transport | None = None
        self._context: ClientContext | None = None
        self._buffer: memoryview | None = None  # lent while something is being received
        self._start = 0  # of what is not parsed yet, in _buffer
        self._end = 0
        self._rest = b""  # of a small frame that is not whole: between two receptions it is all that is kept
        self._large: bytearray | None = None  # a large frame on its way in: the buffer, how much of it is there, of
        self._large_have = self._large_size = 0  # how much.  It grows with what comes: whoever declares pays first.
        self._slots: deque[Slot] = deque()
        self._in_flight_bytes = 0
        self._held_bytes = 0  # of answers that wait for their turn
        self._unsent_bytes = 0  # of answers that the client had not taken when the last one was sent
        self._tasks: set[asyncio.Future[Response]] = set()
        self._reading = True
        self._writable = True
        self._closing = False
        self._flushing = False
        self._peer = "unknown"
        self._frames = 0
        self._moved = False  # since the last look
        self.waiting = Waiting(listener.now())

    # ---- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        name = transport.get_extra_info("peername")
        self._peer = f"{name[0]}:{name[1]}" if name else "unknown"
        self._context = ClientContext(peer=self._peer)
        if not self._listener.clients.admit(self):
            self._closing = True
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=self._limits.unsent_bytes)

    def connection_lost(self, error: Exception | None) -> None:
        self._listener.clients.open.pop(self, None)
        self._closing = True
        for task in self._tasks:
            task.cancel()
        self._slots.clear()
        if self._large is not None or self._rest or self._end > self._start:
            missing = "the frame's size" if self._large is None else f"{self._large_size - self._large_have} bytes"
            self._listener.logger.info("kafka_half_frame", peer=self._peer, missing=missing)

    def pause_writing(self) -> None:
        self._writable = False
        self._adjust_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self._unsent_bytes = 0  # or less than is worth counting
        self._flush()
        self._take()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._large is not None:
            if self._large_have == len(self._large):  # here, for nobody holds a view of it now
                more = min(self._large_size, GROWTH * self._large_have) - self._large_have
                self._large.extend(bytes(more))
            return memoryview(self._large)[self._large_have :]
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = self._listener.lend_buffer()
            self._end = len(self._rest)
            buffer[: self._end] = self._rest
            self._rest = b""
        elif len(buffer) - self._end < 4096:
            rest = self._end - self._start
            buffer[:rest] = bytes(buffer[self._start : self._end])
            self._start, self._end = 0, rest
        return buffer[self._end :]

    def buffer_updated(self, count: int) -> None:
        if self._closing:
            return
        self._moved = True
        if self._large is not None:
            self._large_have += count
            if self._large_have < self._large_size:
                return
            frame, self._large = self._large, None
            self._handle(memoryview(frame))
            self._flush()
        else:
            self._end += count
        self._take()

    def _give_buffer_back(self) -> None:
        self._start = self._end = 0
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._listener.take_buffer_back(buffer)

    # ---- frames in -------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Handle what has come, as far as the bounds allow; the rest when answers have left."""
        while self._buffer is not None:
            stopped = self._parse(self._buffer)
            if not stopped or self._start == self._end:
                self._rest = bytes(self._buffer[self._start : self._end])
                self._give_buffer_back()
            self._flush()
            if not stopped or not self._may_take:
                break
        self._adjust_reading()

    @property
    def _may_take(self) -> bool:
        limits = self._limits
        return (
            self._writable
            and len(self._slots) < limits.in_flight_requests
            and self._in_flight_bytes < limits.in_flight_bytes
            and self._held_bytes + self._unsent_bytes <= limits.unsent_bytes
        )

    def _parse(self, buffer: memoryview) -> bool:
        """True where it stopped at a bound: small requests may have large answers, and come hundreds at a time."""
        while self._end - self._start >= 4 and not self._closing:
            if not self._may_take:
                return True
            (size,) = SIZE.unpack_from(buffer, self._start)
            if not 0 < size <= self._limits.frame_bytes:
                self._refuse(f"a frame of {size} bytes (limit {self._limits.frame_bytes})")
                return False
            begin = self._start + 4
            have = self._end - begin
            if have >= size:
                # The shared buffer is used again for the next frame: what a handler keeps must be its own.
                frame = bytes(buffer[begin : begin + size])
                self._start = begin + size
                self._handle(memoryview(frame))
            elif size > SMALL_FRAME:
                self._large = bytearray(min(size, max(LARGE_BEGINS, GROWTH * have)))
                self._large[:have] = buffer[begin : self._end]
                self._large_have, self._large_size = have, size
                self._start = self._end = 0
                return False
            else:
                return False
        return False

    def _handle(self, frame: memoryview) -> None:
        assert self._context is not None
        listener = self._listener
        self._frames += 1
        slot = Slot(len(frame), int.from_bytes(frame[:2], "big"), listener.now())
        self._slots.append(slot)
        self._in_flight_bytes += slot.size
        listener.requests += 1
        listener.received_bytes += slot.size + 4
        try:
            answer = self._dispatcher.handle(frame, self._context)
        except CloseConnection as error:
            self._refuse(str(error))
            return
        except Exception as error:  # a bug, which is this connection's end and nobody else's
            self._failed(error)
            return
        if answer is None or isinstance(answer, list):
            self._done(slot, answer)
        else:
            self._follow(slot, answer)

    def _done(self, slot: Slot, answer: Response | None) -> None:
        slot.answer, slot.done = answer, True
        if answer is not None:
            slot.answer_size = sum(map(len, answer))
            self._held_bytes += slot.answer_size

    def _follow(self, slot: Slot, answer: Awaitable[Response]) -> None:
        """Put the answer into its slot when it is there; without a task where it is a future."""
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(lambda future: self._answered(slot, future))
            return
        task = asyncio.ensure_future(answer)
        self._tasks.add(task)
        task.add_done_callback(lambda future: self._answered(slot, future))

    def _answered(self, slot: Slot, future: asyncio.Future[Response]) -> None:
        self._tasks.discard(future)
        if future.cancelled():
            return
        error = future.exception()  # also where the client has left: what nobody asks for counts as caught by nobody
        if error is not None and not isinstance(error, CloseConnection):
            self._failed(error)
            return
        if self._closing:
            return
        if error is not None:
            self._refuse(str(error))
            return
        self._done(slot, future.result())
        if not self._flushing:
            # Answers that come in the same loop turn (one commit, many requests) leave in one write.
            self._flushing = True
            self._listener.loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._flushing = False
        self._flush()
        self._take()

    # ---- answers out -----------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send the answers that are ready at the head of the order, all in one write."""
        slots = self._slots
        if not slots or not slots[0].done or not self._writable or self._closing:
            return
        assert self._transport is not None
        out: list[Buffer] = []
        now = self._listener.now()
        while slots and slots[0].done:
            slot = slots.popleft()
            self._in_flight_bytes -= slot.size
            self._listener.latencies.observe(slot.api_key, now - slot.begun)
            if slot.answer is not None:
                out.extend(slot.answer)
                self._held_bytes -= slot.answer_size
                self._listener.sent_bytes += slot.answer_size
        if out:
            self._moved = True
            self._transport.writelines(out)
            self._unsent_bytes = self._transport.get_write_buffer_size()

    def _adjust_reading(self) -> None:
        if self._transport is None or self._closing or self._transport.is_closing():
            return
        wanted = self._may_take
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _failed(self, error: BaseException) -> None:
        self._listener.logger.error("kafka_request_failed", peer=self._peer, error=repr(error))
        self._refuse("an internal error")

    def _refuse(self, reason: str) -> None:
        """Close this connection and say why in the log."""
        self._listener.logger.warning("kafka_connection_closed", peer=self._peer, reason=reason)
        self._listener.clients.refused += 1
        self._large = None
        self._rest = b""
        self._start = self._end = 0
        self.close()

    def close(self) -> None:
        self._flush()
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    # ---- clients that are waited for -------------------------------------------------------------------------------

    def look(self, now_s: float) -> str | None:
        """Why this client was waited for long enough, if so."""
        assert self._transport is not None
        # Of a request that is worked on, it is the client who waits.
        served = bool(self._slots) and not self._slots[0].done and not self._closing
        self.waiting.look(
            now_s,
            moved=self._moved or served,
            frames=self._frames,
            half_frame=len(self._rest) if self._large is None else len(self._large),
            receives=self._reading,
            unsent=self._held_bytes + self._transport.get_write_buffer_size(),
        )
        self._moved = False
        reason = self.waiting.why_overdue(now_s, self._limits.patience)
        if reason is not None:
            reached("a client was waited for long enough")
        return reason

    def give_up(self, reason: str) -> None:
        """Close at once: a client that takes nothing would keep what is unsent for ever."""
        assert self._transport is not None
        if not self._closing:
            self._refuse(reason)
        self.waiting.bytes = 0
        self._transport.abort()


class KafkaListener:
    """The listening socket and its connections; counters for the metrics."""

    def __init__(
        self, dispatcher: Dispatcher, limits: ListenerLimits, logger: Logger, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.dispatcher = dispatcher
        self.loop = loop
        self.now = loop.time
        self.latencies = LatencyTable()
        self.limits = limits
        self.logger = logger
        self.beside: list[Callable[[float], None]] = []  # what else of the node is looked at as often
        self.clients: Clients[KafkaConnection] = Clients(
            "kafka", limits.patience, logger, bound=limits.connections, option="--max-connections"
        )
        self.requests = 0
        self.received_bytes = 0
        self.sent_bytes = 0
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._buffers: list[memoryview] = []  # that nobody receives into now: an idle connection has none

    def lend_buffer(self) -> memoryview:
        return self._buffers.pop() if self._buffers else memoryview(bytearray(RECEIVE_BYTES))

    def take_buffer_back(self, buffer: memoryview) -> None:
        if len(self._buffers) < BUFFERS_KEPT:
            self._buffers.append(buffer)

    async def start(self, address: Address, create: Callable[..., Awaitable[asyncio.Server]]) -> None:
        """Listen; `create` is the loop's create_server, with a socket bound to it where one was given.

        Raises:
            OSError: the address is in use or not ours.
        """
        self._server = await create(lambda: KafkaConnection(self), address.host, address.port)
        self._looking = self.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = self.loop.call_later(LOOK_S, self._look)
        now_s = self.now()
        self.clients.look(now_s)
        for look in self.beside:
            look(now_s)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.clients.open):
            connection.close()
