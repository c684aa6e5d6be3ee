"""asyncio's transports and servers over simulated TCP.

Rule: protocols see what they see on a socket: `connection_made` first, each reading in one callback of its own, nothing
after `connection_lost`, `pause_writing` above the high-water mark.  What arrived together is read together, as one
`recv` would, unless the link cuts segments in pieces.
Knows nothing of links and faults (`tcp`, `links`).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from seatrial.sim.tcp import FIN, RST, WINDOW_BYTES, Address, Connection, Direction, reset_by_peer

if TYPE_CHECKING:
    from seatrial.sim.loop import SimLoop
    from seatrial.sim.stack import Stack

READ_BYTES_MAX: Final = 256 << 10  # asyncio's own, of one recv
HIGH_WATER_BYTES: Final = 64 << 10


class SimSocket:
    """What `get_extra_info("socket")` gives: names and options, and nothing that could leave the simulation."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, own: Address, peer: Address | None = None) -> None:
        self._own, self._peer = own, peer
        self._options: dict[tuple[int, int], Any] = {}

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return self._peer

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int) -> Any:
        return self._options.get((level, option), 0)

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None:
        return

    def gettimeout(self) -> float:
        return 0.0

    def close(self) -> None:
        return


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(
        self, loop: SimLoop, protocol: asyncio.BaseProtocol, *, outgoing: Direction, incoming: Direction
    ) -> None:
        own, peer = outgoing.address, incoming.address
        super().__init__({"socket": SimSocket(own, peer), "sockname": own, "peername": peer})
        self._loop = loop
        self._outgoing, self._incoming = outgoing, incoming
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._protocol_paused = False
        self._reading = True
        self._reading_is_due = False
        self._closing = self._lost = False
        self._eof_wanted = self._eof_sent = False
        self.set_protocol(protocol)
        outgoing.sender = incoming.receiver = self

    def __repr__(self) -> str:
        return f"<SimTransport {self._outgoing.link.name} {self._outgoing.connection.number}>"

    # What programs call

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.arrival()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._pause_protocol()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof_wanted and not self._closing:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing or not data:
            return
        self._send_or_keep(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        data = b"".join(list_of_data)
        if self._eof_wanted:
            self.write(data)
        elif data and not self._closing:
            self._send_or_keep(data)

    def write_eof(self) -> None:
        if not self._closing:
            self._eof_wanted = True
            self._send_eof()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._unsent:
            self._finish()

    def abort(self) -> None:
        if self._lost:
            return
        self._drop_unsent()
        self._outgoing.send(RST)
        self._break(None)

    # What the connection tells

    def is_waiting_for_room(self) -> bool:
        return bool(self._unsent)

    def room(self) -> None:
        """The peer's program has read: there is room in the window."""
        if self._unsent and not self._lost:
            self._loop.call_soon(self._send_more)

    def arrival(self) -> None:
        """Something may be read."""
        if self._reading and not self._reading_is_due and self._incoming.arrived:
            self._reading_is_due = True
            self._loop.call_soon(self._read)

    def broken(self, error: OSError) -> None:
        """The connection is no more; the program is told next."""
        if not self._lost:
            self._drop_unsent()
            self._break(error)

    def is_of(self, loop: SimLoop) -> bool:
        return self._loop is loop

    # Writing

    def _send_or_keep(self, data: bytes) -> None:
        rest = data if self._unsent else self._send_what_fits(data)
        if rest:
            self._unsent.append(rest)
            self._unsent_bytes += len(rest)
            self._pause_protocol()

    def _send_what_fits(self, data: bytes | memoryview) -> bytes | memoryview:
        """Send as much as there is room for in the window; the rest, which is not copied for each window."""
        room = WINDOW_BYTES - self._outgoing.inflight
        if room >= len(data):
            self._outgoing.send(bytes(data))
            return b""
        view = memoryview(data)
        if room > 0:
            self._outgoing.send(bytes(view[:room]))
        return view[room:]

    def _send_more(self) -> None:
        left: bytes | memoryview = b""
        while self._unsent and not left:
            data = self._unsent.popleft()
            left = self._send_what_fits(data)
            self._unsent_bytes -= len(data) - len(left)
        if left:
            self._unsent.appendleft(left)
        if self._protocol_paused and self._unsent_bytes <= self._low:
            self._protocol_paused = False
            self._protocol.resume_writing()
        if not self._unsent and not self._lost:
            if self._closing:
                self._finish()
            else:
                self._send_eof()

    def _send_eof(self) -> None:
        if self._eof_wanted and not self._eof_sent and not self._unsent:
            self._eof_sent = True
            self._outgoing.send(FIN)

    def _pause_protocol(self) -> None:
        if self._unsent_bytes > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self._protocol.pause_writing()

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        self._unsent_bytes = 0

    # Reading

    def _read(self) -> None:
        self._reading_is_due = False
        arrived = self._incoming.arrived
        if not arrived or not self._reading or self._lost:
            return
        first = arrived[0]
        if first is FIN:
            arrived.popleft()
            self._eof_received()
        elif first is RST:
            self.broken(reset_by_peer())
        else:
            self._data_received(self._taken())
        if arrived:
            self.arrival()

    def _taken(self) -> bytes:
        """What one recv gives: all that arrived, or one piece."""
        arrived = self._incoming.arrived
        first = arrived.popleft()
        assert isinstance(first, bytes)
        if not arrived or self._incoming.link.pieces:
            return first
        parts, size = [first], len(first)
        while arrived and isinstance(arrived[0], bytes) and size + len(arrived[0]) <= READ_BYTES_MAX:
            part = arrived.popleft()
            assert isinstance(part, bytes)
            parts.append(part)
            size += len(part)
        return first if len(parts) == 1 else b"".join(parts)

    def _data_received(self, data: bytes) -> None:
        self._incoming.acknowledge(len(data))
        if self._closing:
            return
        if not self._buffered:
            self._protocol.data_received(data)
            return
        protocol, size = self._protocol, len(data)
        buffer = protocol.get_buffer(size)
        while len(buffer) < size:
            count = len(buffer)
            buffer[:] = data[:count]
            del buffer  # as in asyncio, where nobody holds it any more: a protocol may resize what lies under it
            protocol.buffer_updated(count)
            data = data[count:]
            size -= count
            buffer = protocol.get_buffer(size)
        buffer[:size] = data
        protocol.buffer_updated(size)

    def _eof_received(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()

    # The end

    def _finish(self) -> None:
        """Everything is sent: say goodbye, and be closed."""
        self._eof_wanted = True
        self._send_eof()
        self._break(None)

    def _break(self, error: OSError | None) -> None:
        self._lost = self._closing = True
        self.detach()
        self._loop.call_soon(self._connection_lost, error)

    def detach(self) -> None:
        """The program has no part in the connection any more; what arrives is answered by a reset."""
        self._outgoing.sender = self._incoming.receiver = None
        self._incoming.close()

    def _connection_lost(self, error: OSError | None) -> None:
        self._protocol.connection_lost(error)


class SimServer(asyncio.AbstractServer):
    """A listening port."""

    def __init__(self, stack: Stack, factory: Callable[[], Any], port: int, *, only_local: bool, loop: SimLoop) -> None:
        self._stack, self._loop, self._factory = stack, loop, factory
        self.port, self.only_local = port, only_local
        self._serving = False
        self._forever: asyncio.Future[None] | None = None
        self.sockets: tuple[SimSocket, ...] = (SimSocket((stack.host.address, port)),)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        self._serving = True

    async def serve_forever(self) -> None:
        self._serving = True
        self._forever = self._loop.create_future()
        try:
            await self._forever
        finally:
            self.close()

    def close(self) -> None:
        self._serving = False
        self.sockets = ()
        self._stack.closed(self)
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    async def wait_closed(self) -> None:
        return

    def established(self, connection: Connection) -> None:
        """The kernel has taken a connection; the program is given it in its next turn."""
        self._loop.call_soon(self._accept, connection)

    def _accept(self, connection: Connection) -> None:
        direction = connection.serving
        if direction.opposite.gone:  # a fault was faster
            return
        if not self._serving:
            direction.opposite.close()
            direction.send(RST)
            return
        protocol = self._factory()
        transport = SimTransport(self._loop, protocol, outgoing=direction, incoming=direction.opposite)
        protocol.connection_made(transport)
        transport.arrival()
