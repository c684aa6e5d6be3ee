"""One host's network stack: names, dialling, listening, datagrams; what the network methods of a loop do.

Dialling takes a handshake over both directions' links.  A lost SYN is sent again after 1, 3, 7 … seconds, as Linux
does, so a link that is cut makes the dialler wait; a port where nobody listens refuses; a host that is not powered
says nothing.
Rule: everything another host learns of this one, it learns through links.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from seatrial.sim.datagrams import SimDatagramTransport, refuse_many
from seatrial.sim.escape import escape
from seatrial.sim.tcp import RST, Address, Connection
from seatrial.sim.transports import SimServer, SimTransport

if TYPE_CHECKING:
    from seatrial.sim.hosts import SimHost
    from seatrial.sim.loop import SimLoop

EPHEMERAL_FIRST: Final = 32_768
EPHEMERAL_COUNT: Final = 28_000
SYN_AGAIN_US: Final = 1_000_000
CONNECT_TIMEOUT_US: Final = 60_000_000
LOOK_UP_US: Final = 100
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})


class Stack:
    """Made anew each time the host starts."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self._network, self._world = host.network, host.world
        self._listening: dict[int, SimServer] = {}
        self._bound: dict[int, SimDatagramTransport] = {}
        self._ports = 0
        self._adopted: dict[socket.socket, Connection] = {}

    # Names

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, Address]]:
        name = host.decode() if isinstance(host, bytes) else host
        if name is None:
            address: str | None = "0.0.0.0" if flags & socket.AI_PASSIVE else "127.0.0.1"
        elif name in ANY_ADDRESS or name == "127.0.0.1":
            address = name
        elif family == socket.AF_INET6:
            address = None
        else:
            address = self._network.resolve(name, self.host)
            await self._loop().sleep_us(LOOK_UP_US)
        if address is None:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {name!r}; hosts are known by name")
        wanted = (
            (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
            if type == socket.SOCK_DGRAM
            else (socket.SOCK_STREAM, socket.IPPROTO_TCP)
        )
        return [(socket.AF_INET, *wanted, "", (address, int(port or 0)))]

    # Listening

    async def create_server(
        self,
        factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        sock: Any = None,
        ssl: Any = None,
        start_serving: bool = True,
        **_: Any,
    ) -> SimServer:
        _refuse_tls(ssl)
        if sock is not None:
            raise escape("create_server was given a real socket; give it host and port")
        names = [host] if host is None or isinstance(host, str) else list(host)
        port = int(port or 0) or self._ephemeral_port()
        if port in self._listening:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {(host, port)!r}: in use")
        for name in names:
            self._check_own(name)
        only_local = all(name in LOCAL_NAMES for name in names)
        server = SimServer(self, factory, port, only_local=only_local, loop=self._loop())
        self._listening[port] = server
        if start_serving:
            await server.start_serving()
        return server

    def _check_own(self, name: str | None) -> None:
        """Raises OSError where it is no name or address of this host."""
        ours = name is None or name in ANY_ADDRESS or self._network.resolve(name, self.host) == self.host.address
        if not ours:
            raise OSError(errno.EADDRNOTAVAIL, f"{name!r} is not an address of {self.host.name}")

    def closed(self, server: SimServer) -> None:
        if self._listening.get(server.port) is server:
            del self._listening[server.port]

    def listener(self, port: int, client: SimHost) -> SimServer | None:
        """Who would take a connection from that host."""
        server = self._listening.get(port)
        if server is None or not server.is_serving() or (server.only_local and client is not self.host):
            return None
        return server

    # Dialling

    async def create_connection(
        self,
        factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        **_: Any,
    ) -> tuple[SimTransport, Any]:
        _refuse_tls(ssl)
        if sock is not None:
            connection = self._adopted.pop(sock, None)
            if connection is None:
                raise escape("create_connection was given a real socket; give it host and port")
            sock.close()
        else:
            infos = await self.getaddrinfo(host, port)
            connection = await self._dial(infos[0][4])
        loop = self._loop()
        protocol = factory()
        direction = connection.dialling
        transport = SimTransport(loop, protocol, outgoing=direction, incoming=direction.opposite)
        protocol.connection_made(transport)
        transport.arrival()
        return transport, protocol

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """The socket becomes a token for a simulated connection, to be given to `create_connection` (aiohttp does)."""
        infos = await self.getaddrinfo(address[0], address[1])
        self._adopted[sock] = await self._dial(infos[0][4])

    async def _dial(self, address: Address) -> Connection:
        """Raises OSError as the kernel would: refused, no such host, no answer."""
        name, port = address
        target = self.host if name in LOCAL_NAMES or name in ANY_ADDRESS else self._network.at_address(name)
        dialling = Dialling(self, self._loop(), target, (name, port), (self.host.address, self._ephemeral_port()))
        try:
            return await dialling.answer
        except asyncio.CancelledError:
            dialling.abandon()
            raise

    # Datagrams

    async def create_datagram_endpoint(
        self,
        factory: Callable[[], Any],
        local_addr: Address | None = None,
        remote_addr: Address | None = None,
        *,
        sock: Any = None,
        **_: Any,
    ) -> tuple[SimDatagramTransport, Any]:
        if sock is not None:
            raise escape("create_datagram_endpoint was given a real socket; give it local_addr or remote_addr")
        name, port = local_addr or (None, 0)
        self._check_own(name)
        peer: Address | None = None
        if remote_addr is not None:
            peer = (await self.getaddrinfo(*remote_addr, type=socket.SOCK_DGRAM))[0][4]
        port = int(port or 0) or self._ephemeral_port()
        if port in self._bound:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {(name, port)!r}: in use")
        protocol, loop = factory(), self._loop()
        transport = SimDatagramTransport(
            self, loop, protocol, (self.host.address, port), peer, only_local=name in LOCAL_NAMES
        )
        self._bound[port] = transport
        protocol.connection_made(transport)
        return transport, protocol

    def unbind(self, transport: SimDatagramTransport) -> None:
        if self._bound.get(transport.port) is transport:
            del self._bound[transport.port]

    def send_datagram(self, transport: SimDatagramTransport, data: bytes, address: Address) -> None:
        name, port = address
        refuse_many(name)
        local = name in LOCAL_NAMES or name in ANY_ADDRESS
        target = self.host if local else self._network.hosts.get(name) or self._network.at_address(name)
        if target is None:
            return  # as on a real network, nobody says anything
        delay_us = self._network.link(self.host.name, target.name).datagram_transit(len(data))
        self._network.trace.line(f"{self._world.now_us} udp {self.host.name}>{target.name} {len(data)}")
        if delay_us is not None:
            self._world.after(delay_us, self._datagram_arrives, (transport, data, target, port))

    def _datagram_arrives(self, sent: tuple[SimDatagramTransport, bytes, SimHost, int]) -> None:
        transport, data, target, port = sent
        if not target.is_up:
            return
        source = (self.host.address, transport.port)
        listener = target.stack._bound.get(port)
        if listener is not None and listener.hears(self.host, source):
            listener.arrival(data, source)
        elif listener is None and transport.is_connected:
            delay_us = self._network.link(target.name, self.host.name).datagram_transit(0)
            if delay_us is not None:
                self._world.after(delay_us, self._datagram_refused, transport)

    def _datagram_refused(self, transport: SimDatagramTransport) -> None:
        if self._bound.get(transport.port) is transport and self.host.is_up and self.host.stack is self:
            transport.refused()

    def _ephemeral_port(self) -> int:
        self._ports += 1
        return EPHEMERAL_FIRST + self._ports % EPHEMERAL_COUNT

    def _loop(self) -> SimLoop:
        loop = self.host.loop
        assert loop is not None, f"{self.host.name} is not running"
        return loop


class Dialling:
    """One handshake."""

    def __init__(self, stack: Stack, loop: SimLoop, target: SimHost | None, address: Address, own: Address) -> None:
        self._host, self._target, self._address, self._own = stack.host, target, address, own
        self._network, self._world = stack.host.network, stack.host.world
        self._loop = loop
        self.answer: asyncio.Future[Connection] = loop.create_future()
        self._connection: Connection | None = None
        self._again_us = SYN_AGAIN_US
        self._world.after(CONNECT_TIMEOUT_US, self._timed_out)
        self._send()

    def abandon(self) -> None:
        """The program does not want it any more; a connection that was made already is reset."""
        if self._connection is not None:
            self._reset(self._connection)

    def _send(self, _again: None = None) -> None:
        if self.answer.done() or self._connection is not None or not self._host.runs(self._loop):
            return
        if self._target is not None:
            delay_us, _ = self._network.link(self._host.name, self._target.name).transit(0)
            self._world.after(delay_us, self._arrived)
        self._world.after(self._again_us, self._send)
        self._again_us *= 2

    def _arrived(self, _syn: None = None) -> None:
        """The SYN is at the target; what the target's kernel does with it."""
        target = self._target
        assert target is not None
        way, back = self._network.link(self._host.name, target.name), self._network.link(target.name, self._host.name)
        if self.answer.done() or self._connection is not None:
            return
        if not target.powered or way.blocked or back.blocked:  # either the SYN is lost, or what answers it
            way.hold()
            back.hold()
            return
        delay_us, _ = back.transit(0)
        server = target.stack.listener(self._address[1], self._host) if target.is_up else None
        if server is None:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, f"Connect call failed {self._address}")
            self._world.after(delay_us, self._fail, refused)
            return
        self._connection = Connection(self._network, self._host, target, self._own, self._address)
        self._connection.serving.not_before(delay_us)
        server.established(self._connection)
        self._world.after(delay_us, self._succeed)

    def _succeed(self, _: None = None) -> None:
        connection = self._connection
        assert connection is not None
        if not self._host.runs(self._loop) or self.answer.cancelled():
            self._reset(connection)
        elif not self.answer.done():
            self.answer.set_result(connection)

    def _fail(self, error: OSError) -> None:
        if self._host.runs(self._loop) and not self.answer.done() and self._connection is None:
            self.answer.set_exception(error)

    def _timed_out(self, _: None = None) -> None:
        self._fail(TimeoutError(errno.ETIMEDOUT, f"Connect call failed {self._address}: no answer"))

    def _reset(self, connection: Connection) -> None:
        if not connection.serving.gone:
            connection.serving.close()
            connection.dialling.send(RST)


def _refuse_tls(ssl: Any) -> None:
    if ssl:
        raise escape("TLS is not simulated, for OpenSSL's randomness cannot be steered; use plain TCP in simulation")
