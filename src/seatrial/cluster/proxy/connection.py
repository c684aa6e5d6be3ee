"""One proxied connection: the client's socket, the server's, and the two links between them.

Rules: a FIN is passed on as a FIN (half-open use works), an RST as an RST.  A reset is a real one: SO_LINGER
0 on both sockets.  A connection that was accepted during a `hold` and whose client has gone before it ended
never reaches the server: without the proxy its SYN would not have, either.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Sequence
from typing import Protocol, cast

from seatrial.cluster.proxy.counters import ProxyCounters
from seatrial.cluster.proxy.events import EventLog
from seatrial.cluster.proxy.link import Link
from seatrial.cluster.proxy.stages import End, Stage
from seatrial.cluster.proxy.toxic import Toxic
from seatrial.env import Rng

CONNECT_TIMEOUT_SECONDS = 30.0
WRITE_BUFFER_BYTES = 512 * 1024
LINGER_ZERO = struct.pack("ii", 1, 0)


class Keeper(Protocol):
    """The proxy that a connection belongs to."""

    @property
    def name(self) -> str: ...

    @property
    def rng(self) -> Rng: ...

    @property
    def counters(self) -> ProxyCounters: ...

    @property
    def events(self) -> EventLog: ...

    @property
    def upstream_address(self) -> tuple[str, int]: ...

    def forget(self, connection: Connection) -> None: ...


class Endpoint(asyncio.Protocol):
    """One socket of the connection; it feeds `outgoing` and is the target of `incoming`."""

    def __init__(self, connection: Connection, outgoing: Link, incoming: Link) -> None:
        self.connection = connection
        self.outgoing = outgoing
        self.incoming = incoming
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self.data_received = outgoing.from_source  # type: ignore[method-assign]  # one call less a chunk

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but ancestry.
        transport = cast(asyncio.Transport, transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        if self.connection.over:
            self.connection.discard(transport)
            return
        self.outgoing.source = transport
        self.incoming.target_connected(transport)
        self.outgoing.balance()

    def eof_received(self) -> bool:
        self.connection.source_ended(self, End.FIN)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.gone = True
        self.outgoing.source = None
        self.connection.lost(self, reset=exc is not None)

    def pause_writing(self) -> None:
        self.incoming.target_full = True
        self.incoming.balance()

    def resume_writing(self) -> None:
        self.incoming.target_full = False
        self.incoming.balance()


class Connection:
    """From accept until both sockets are gone.

    `number` counts the proxy's connections from 1; `addresses` are the client's and ours, numeric.
    """

    def __init__(
        self,
        proxy: Keeper,
        *,
        number: int,
        addresses: tuple[tuple[str, int], tuple[str, int]],
        caller: str | None,
    ) -> None:
        self.proxy = proxy
        self.number = number
        self.addresses = addresses
        self.caller = caller
        self.over = False
        self._loop = asyncio.get_running_loop()
        self._adopting: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._by_reset = False
        counters = proxy.counters
        self.upstream = Link(owner=self, stream="upstream", counters=counters.upstream, timers=self._loop)
        self.downstream = Link(owner=self, stream="downstream", counters=counters.downstream, timers=self._loop)
        self.client = Endpoint(self, self.upstream, self.downstream)
        self.server = Endpoint(self, self.downstream, self.upstream)

    def start(self, accepted: socket.socket, toxics: Sequence[Toxic]) -> None:
        """Take over the accepted socket; connect to the server unless a hold forbids it."""
        counters = self.proxy.counters
        counters.connections_accepted += 1
        counters.connections_open_now += 1
        if self.caller is not None:
            counters.callers[self.caller] += 1
        self._event("connection_opened", client="{}:{}".format(*self.addresses[0]))
        self._adopting = self._loop.create_task(self._adopt(accepted))
        self.sync(toxics)
        self.connect_if_allowed()

    def sync(self, toxics: Sequence[Toxic]) -> None:
        """Bring both chains in line with the proxy's toxics, this connection's caller and its dice."""
        acting = [t for t in toxics if t.acts_on(rng=self.proxy.rng, connection=self.number, caller=self.caller)]
        for link in (self.upstream, self.downstream):
            if self.over:
                return

            def make(toxic: Toxic, link: Link = link) -> Stage:
                return toxic.stage(rng=self.proxy.rng, connection=self.number, host=link)

            link.sync([t for t in acting if t.stream == link.stream], make)

    def updated(self, toxic: Toxic) -> None:
        (self.upstream if toxic.stream == "upstream" else self.downstream).updated(toxic)

    def connect_if_allowed(self) -> None:
        if self._connecting is not None or self.over:
            return
        holding = self.upstream.holding()
        if holding is not None:
            holding.bite()
            return
        self._connecting = self._loop.create_task(self._connect())

    def source_ended(self, endpoint: Endpoint, how: End) -> None:
        if self.over:
            return
        if self._connecting is None:
            self.proxy.counters.connections_abandoned += 1
            self.abort("client gave up before the hold ended")
            return
        endpoint.outgoing.source_end(how)

    def lost(self, endpoint: Endpoint, *, reset: bool) -> None:
        if self.over:
            return
        endpoint.incoming.target_gone()
        if reset or not endpoint.outgoing.source_ended:
            self.source_ended(endpoint, End.RST if reset else End.FIN)
        # With nobody left to deliver to, what the stages still keep is of no use.
        if self.client.gone and self.server.gone:
            self._end("both sides gone")

    def link_ended(self, link: Link, how: End) -> None:
        if how is End.RST:
            self.reset("reset by " + ("client" if link is self.upstream else "server"), passed_on=True)
            return
        if how is End.CLOSE:
            self.close("closed by a toxic")
            return
        if link.target is not None and not link.target.is_closing():
            link.target.write_eof()
        if self._both_ended():
            self.close("both sides closed")

    def close(self, cause: str) -> None:
        """Deliver what has passed the stages, then FIN on both sides."""
        self._end(cause)
        for endpoint in (self.client, self.server):
            if endpoint.transport is not None:
                endpoint.transport.close()

    def abort(self, cause: str) -> None:
        """Close both sides at once; what was not sent yet is dropped."""
        self._end(cause)
        for endpoint in (self.client, self.server):
            if endpoint.transport is not None:
                endpoint.transport.abort()

    def reset(self, cause: str, *, passed_on: bool = False) -> None:
        """RST on both sides.  `passed_on`: it was one side's own doing and is not counted as a fault."""
        if self.over:
            return
        if not passed_on:
            self.proxy.counters.connections_reset += 1
        self._event("connection_reset", cause=cause)
        self._by_reset = True
        self._end(cause)
        for endpoint in (self.client, self.server):
            if endpoint.transport is not None:
                self.discard(endpoint.transport)

    def discard(self, transport: asyncio.Transport) -> None:
        """Abort a socket of a connection that is over: with an RST if the connection was reset."""
        if self._by_reset:
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        transport.abort()

    async def _adopt(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self.client, accepted)
        except OSError as error:
            accepted.close()
            self.abort(f"client lost: {error}")

    async def _connect(self) -> None:
        host, port = self.proxy.upstream_address
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                await self._loop.create_connection(lambda: self.server, host, port)
        except (OSError, TimeoutError) as error:
            if self.over:
                return
            self.proxy.counters.connections_refused += 1
            reason = os.strerror(error.errno) if error.errno else str(error) or "timed out"
            self._event("connection_refused", upstream=f"{host}:{port}", reason=reason)
            self.reset(f"cannot connect to {host}:{port}", passed_on=True)

    def _both_ended(self) -> bool:
        return self.upstream.ended and self.downstream.ended

    def _end(self, cause: str) -> None:
        if self.over:
            return
        self.over = True
        # The accepted socket is adopted first and then discarded; a server not connected to yet never will
        # be.
        if self._connecting is not None:
            self._connecting.cancel()
        self.upstream.cancel()
        self.downstream.cancel()
        self.proxy.counters.connections_open_now -= 1
        self._event("connection_closed", cause=cause)
        self.proxy.forget(self)

    def _event(self, event: str, **fields: object) -> None:
        self.proxy.events.add(event, proxy=self.proxy.name, connection=self.number, caller=self.caller, **fields)
