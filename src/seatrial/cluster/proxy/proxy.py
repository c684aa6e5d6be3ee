"""One proxy: a listening address, an upstream, its toxics and its live connections.

Rules: `enabled` is true exactly while the listening socket is open; disabling drops all connections.  Adding,
updating and removing a toxic acts on live connections before the call returns.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Mapping
from typing import Any

from seatrial.cluster.proxy.addresses import Address, bound_address, listen, parse_upstream
from seatrial.cluster.proxy.callers import Callers, numeric
from seatrial.cluster.proxy.connection import Connection
from seatrial.cluster.proxy.counters import ProxyCounters, ToxicCounters
from seatrial.cluster.proxy.errors import toxic_already_exists, toxic_not_found
from seatrial.cluster.proxy.events import EventLog
from seatrial.cluster.proxy.toxic import STREAMS, Toxic
from seatrial.env import Rng

ACCEPTS_PER_TURN = 64
ACCEPT_PAUSE_SECONDS = 0.1
# Evidence of this many toxic names is kept for each proxy; the oldest that are gone make room.
TOXIC_NAMES_MAX = 1024


class Proxy:
    """`listen` is the text it was given until it listens, and the real address (port 0 filled in) from then
    on.
    """

    def __init__(
        self, *, name: str, listen_text: str, upstream: str, rng: Rng, events: EventLog, callers: Callers
    ) -> None:
        self.name = name
        self.listen = listen_text
        self.upstream = upstream
        self.upstream_address = parse_upstream(upstream)
        self.enabled = False
        self.rng = rng
        self.events = events
        self.counters = ProxyCounters()
        self.toxics: list[Toxic] = []
        self._callers = callers
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._toxics_added = 0
        self._listener: socket.socket | None = None
        self._accept_pause: asyncio.TimerHandle | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "toxics": [toxic.as_json() for toxic in self.toxics_in_order()],
            "counters": self.counters.as_json(),
        }

    def start(self, address: Address) -> None:
        """Listen on the resolved `address`.  Raises ApiError; the proxy is then not enabled."""
        assert self._listener is None, f"{self.name} listens already"
        self._listener = listen(address)
        self.listen = str(bound_address(self._listener))
        self.enabled = True
        self._accept_on()
        self.events.add("proxy_started", proxy=self.name, listen=self.listen, upstream=self.upstream)

    def stop(self) -> None:
        """Close the listening socket and every connection."""
        if self._listener is None:
            return
        self._accept_off()
        self._listener.close()
        self._listener = None
        self.enabled = False
        for connection in list(self._connections.values()):
            connection.abort("proxy stopped")
        self.events.add("proxy_stopped", proxy=self.name)

    def set_upstream(self, upstream: str) -> None:
        """Takes effect for connections made from now on."""
        self.upstream_address = parse_upstream(upstream)
        self.upstream = upstream

    def toxics_in_order(self) -> list[Toxic]:
        """As Toxiproxy lists them: upstream first, then in the order they were added."""
        return [toxic for stream in STREAMS for toxic in self.toxics if toxic.stream == stream]

    def toxic(self, name: str) -> Toxic:
        for toxic in self.toxics:
            if toxic.name == name:
                return toxic
        raise toxic_not_found()

    def add_toxic(self, toxic: Toxic) -> None:
        if any(other.name == toxic.name for other in self.toxics):
            raise toxic_already_exists()
        self._toxics_added += 1
        toxic.ordinal = self._toxics_added
        toxic.counters = self.counters.toxics.setdefault(toxic.name, ToxicCounters())
        self.toxics.append(toxic)
        self._forget_old_evidence()
        self.events.add("toxic_added", proxy=self.name, toxic=toxic.as_json())
        self._sync()

    def update_toxic(self, name: str, body: object) -> Toxic:
        toxic = self.toxic(name)
        changed = toxic.update(body)
        self.events.add("toxic_updated", proxy=self.name, toxic=toxic.as_json())
        self._sync()
        if changed:
            for connection in list(self._connections.values()):
                connection.updated(toxic)
        return toxic

    def remove_toxic(self, name: str) -> None:
        self._remove([self.toxic(name)])

    def remove_all_toxics(self) -> None:
        self._remove(list(self.toxics))

    def reset_connections(self, caller: str | None) -> int:
        """RST the live connections (of one caller, or all); returns how many."""
        those = [c for c in self._connections.values() if caller is None or c.caller == caller]
        for connection in those:
            connection.reset("reset_connections")
        return len(those)

    def identify_again(self, holders: Mapping[str, str]) -> int:
        """Look for the caller of each live connection once more; returns how many have another one now.

        The map of callers may have been late (a node connects before the harness has told its process id), and a child
        of one caller may have become a caller of its own.  holders: what `Callers.holders` gave, once for all proxies.
        """
        changed = 0
        for connection in list(self._connections.values()):
            caller = self._callers.identify(*connection.addresses, holders)
            if caller is None or caller == connection.caller:
                continue
            changed += 1
            if connection.caller is not None:
                self.counters.callers[connection.caller] -= 1
            self.counters.callers[caller] += 1
            connection.caller = caller
            self.events.add("caller_found", proxy=self.name, connection=connection.number, caller=caller)
            connection.sync(self.toxics)
        return changed

    def forget(self, connection: Connection) -> None:
        del self._connections[connection.number]

    def _remove(self, toxics: list[Toxic]) -> None:
        self.toxics = [toxic for toxic in self.toxics if toxic not in toxics]
        self._sync()
        for toxic in toxics:
            evidence = self.counters.as_json()["toxics"][toxic.name]
            self.events.add("toxic_removed", proxy=self.name, toxic=toxic.as_json(), counters=evidence)

    def _sync(self) -> None:
        for connection in list(self._connections.values()):
            connection.sync(self.toxics)

    def _forget_old_evidence(self) -> None:
        live = {toxic.name for toxic in self.toxics}
        gone = [name for name in self.counters.toxics if name not in live]
        for name in gone[: max(0, len(self.counters.toxics) - TOXIC_NAMES_MAX)]:
            del self.counters.toxics[name]

    def _accept_on(self) -> None:
        self._accept_pause = None
        assert self._listener is not None
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _accept_off(self) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        if self._accept_pause is not None:
            self._accept_pause.cancel()
            self._accept_pause = None

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the kernel keeps the connection queued; try again soon, do not
                # spin.
                assert error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), error
                self.events.add("accept_failed", proxy=self.name, reason=error.strerror)
                self._accept_off()
                loop = asyncio.get_running_loop()
                self._accept_pause = loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_on)
                return
            accepted.setblocking(False)
            self._open(accepted, peer[:2])

    def _open(self, accepted: socket.socket, peer: tuple[str, int]) -> None:
        addresses = numeric(peer), numeric(accepted.getsockname()[:2])
        caller = None
        if self._callers:
            caller = self._callers.identify(*addresses)
            self.counters.callers_unknown += caller is None
        self._accepted += 1
        connection = Connection(self, number=self._accepted, addresses=addresses, caller=caller)
        self._connections[connection.number] = connection
        connection.start(accepted, self.toxics)
