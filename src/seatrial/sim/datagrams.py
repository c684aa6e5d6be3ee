"""UDP between simulated hosts: asyncio's datagram endpoints.

A datagram arrives whole, late, out of order or not at all: a link's loss loses it, a link that is cut or clogged drops
it, and so does a receiver that does not read (its buffer is as large as Linux's).  Where nobody listens a connected
sender is told (`ConnectionRefusedError`), as by ICMP; others are told nothing.
Rule: nothing is sent again, and nothing is told but by way of a link.
Knows nothing of broadcast and multicast: they are refused.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from seatrial.sim.escape import escape
from seatrial.sim.tcp import Address
from seatrial.sim.transports import SimSocket

if TYPE_CHECKING:
    from seatrial.sim.hosts import SimHost
    from seatrial.sim.loop import SimLoop
    from seatrial.sim.stack import Stack

DATAGRAM_BYTES_MAX: Final = 65_507
RECEIVE_BYTES_MAX: Final = 212_992  # Linux's net.core.rmem_default


class SimDatagramSocket(SimSocket):
    """What `get_extra_info("socket")` gives."""

    type = socket.SOCK_DGRAM
    proto = socket.IPPROTO_UDP


class SimDatagramTransport(asyncio.DatagramTransport):
    """One bound port.  peer: the only one it sends to and hears, where it is connected."""

    def __init__(
        self,
        stack: Stack,
        loop: SimLoop,
        protocol: asyncio.DatagramProtocol,
        own: Address,
        peer: Address | None,
        *,
        only_local: bool,
    ) -> None:
        super().__init__({"socket": SimDatagramSocket(own, peer), "sockname": own, "peername": peer})
        self.port, self.only_local = own[1], only_local
        self._stack, self._loop, self._protocol, self._peer = stack, loop, protocol, peer
        self._arrived: deque[tuple[bytes, Address]] = deque()
        self._arrived_bytes = 0
        self._closing = False

    # What programs call

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._peer is not None and addr not in (None, self._peer):
            raise ValueError(f"Invalid address: must be None or {self._peer}")
        to = self._peer or addr
        if to is None:
            raise ValueError("give the address to send to, or a remote_addr to create_datagram_endpoint")
        if self._closing:
            return
        if len(data) > DATAGRAM_BYTES_MAX:
            self._loop.call_soon(self._protocol.error_received, OSError(errno.EMSGSIZE, "Message too long"))
            return
        self._stack.send_datagram(self, bytes(data), (str(to[0]), int(to[1])))

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._stack.unbind(self)
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def get_write_buffer_size(self) -> int:
        return 0

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.DatagramProtocol)
        self._protocol = protocol

    # What the network tells

    def hears(self, sender: SimHost, source: Address) -> bool:
        if self.only_local and sender is not self._stack.host:
            return False
        return self._peer is None or self._peer == source

    def arrival(self, data: bytes, source: Address) -> None:
        if self._arrived_bytes + len(data) > RECEIVE_BYTES_MAX:
            return
        self._arrived.append((data, source))
        self._arrived_bytes += len(data)
        self._loop.call_soon(self._read)

    def refused(self) -> None:
        """Nobody listens where it was sent to."""
        if not self._closing:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            self._loop.call_soon(self._protocol.error_received, refused)

    @property
    def is_connected(self) -> bool:
        return self._peer is not None

    def _read(self) -> None:
        data, source = self._arrived.popleft()
        self._arrived_bytes -= len(data)
        if not self._closing:
            self._protocol.datagram_received(data, source)


def refuse_many(name: str) -> None:
    """Raises SimEscape where the address stands for more than one host."""
    first, _, rest = name.partition(".")
    if name == "255.255.255.255" or (rest and first.isdecimal() and 224 <= int(first) <= 239):
        raise escape(f"broadcast and multicast are not simulated ({name}); send to each host by its name")
