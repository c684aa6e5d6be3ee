"""Clients that keep a node waiting: which connections are closed because nothing comes of them, or to make room.

Rule: a connection is looked at now and then, and pays nothing in between; only what waits for its client counts, never
what the client waits for.  A frame that has begun must end, an answer must be taken, and a connection on which nothing
moves ends after a long time (Kafka's connections.max.idle.ms).
Knows nothing of sockets and of frames' contents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from seatrial.server.logs import Logger

LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatienceLimits:
    """idle_s: without a byte in either direction.  frame_s: from a frame's first byte to its last, as long as it is
    received.  waiting_bytes: of all connections together, half frames and answers that are not taken."""

    idle_s: float = 600.0
    frame_s: float = 60.0
    waiting_bytes: int = 512 << 20


class Waiting:
    """What one look leaves for the next one at the same connection.  All times are seconds of the loop's clock."""

    __slots__ = ("_begun_s", "_frames", "bytes", "moved_s")

    def __init__(self, now_s: float) -> None:
        self.moved_s = now_s  # the last look before which something had moved
        self.bytes = 0  # that wait for the client
        self._begun_s: float | None = None  # of the frame that is not whole yet
        self._frames = 0

    def look(self, now_s: float, *, moved: bool, frames: int, half_frame: int, receives: bool, unsent: int) -> None:
        """moved: something came, or was taken to be sent, since the last look.  frames: how many have come in all.
        half_frame: bytes kept for one that has begun.  receives: false while it is us who do not read.  unsent: bytes
        of answers that the client has not taken."""
        if moved or unsent + half_frame != self.bytes:
            self.moved_s = now_s
        self.bytes = unsent + half_frame
        if not half_frame or not receives:
            self._begun_s = None
        elif self._begun_s is None or frames != self._frames:
            self._begun_s = now_s
        self._frames = frames

    def why_overdue(self, now_s: float, limits: PatienceLimits) -> str | None:
        """A sentence where this client was waited for long enough."""
        if self._begun_s is not None and now_s - self._begun_s >= limits.frame_s:
            return f"a frame that is not whole after {limits.frame_s:g} s"
        if now_s - self.moved_s < limits.idle_s:
            return None
        if self.bytes:
            return f"{self.bytes} bytes of answers that were not taken in {limits.idle_s:g} s"
        return f"nothing came in {limits.idle_s:g} s"


class Waited(Protocol):
    """A connection, as far as this module cares."""

    waiting: Waiting

    def look(self, now_s: float) -> str | None:
        """Why its client was waited for long enough, if so."""

    def give_up(self, reason: str) -> None:
        """Close at once, and say why in the log."""


C = TypeVar("C", bound=Waited)


def in_the_way(connections: Iterable[C], limits: PatienceLimits) -> list[C]:
    """Those to close so that what waits for clients fits its bound: the ones on which nothing moved for longest."""
    held = [connection for connection in connections if connection.waiting.bytes]
    excess = sum(connection.waiting.bytes for connection in held) - limits.waiting_bytes
    if excess <= 0:
        return []
    chosen = []
    for connection in sorted(held, key=lambda one: (one.waiting.moved_s, -one.waiting.bytes)):
        if excess <= 0:
            break
        excess -= connection.waiting.bytes
        chosen.append(connection)
    return chosen


class Clients(Generic[C]):
    """The connections of one listener, and counters for the metrics.

    name: of the listener, in the log.  bound: how many there may be at once, 0 for as many as come; option: what sets
    it.  open: in the order in which they came.  refused: those closed for what their clients did or did not do;
    turned_away: those for which there was no place.
    """

    def __init__(self, name: str, limits: PatienceLimits, logger: Logger, *, bound: int, option: str) -> None:
        self.open: dict[C, None] = {}
        self.refused = 0
        self.turned_away = 0
        self._name = name
        self._limits = limits
        self._logger = logger
        self._bound = bound
        self._option = option
        self._turned_away_told = 0

    def admit(self, connection: C) -> bool:
        """Count a new connection; False where there is no place, and it must be closed."""
        if 0 < self._bound <= len(self.open):
            self.turned_away += 1
            return False
        self.open[connection] = None
        return True

    def look(self, now_s: float) -> None:
        """Give up clients that were waited for long enough, and those that are in the way of others."""
        overdue = [(one, reason) for one in self.open if (reason := one.look(now_s)) is not None]
        for connection, reason in overdue:
            connection.give_up(reason)
        for connection in in_the_way(self.open, self._limits):
            connection.give_up(
                f"{connection.waiting.bytes} bytes that wait for this client, which all clients' "
                f"{self._limits.waiting_bytes} have no room for"
            )
        if self.turned_away > self._turned_away_told:
            self._logger.warning(
                f"{self._name}_connections_turned_away",
                count=self.turned_away - self._turned_away_told,
                reason=f"there are {len(self.open)} already, and {self._option} is {self._bound}",
            )
            self._turned_away_told = self.turned_away
