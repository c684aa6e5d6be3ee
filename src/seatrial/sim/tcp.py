"""Simulated TCP: bytes of a living connection arrive in order, once, or not at all.

A segment travels as long as its link says.  If the link is blocked when it arrives, or the target is without power,
it and all behind it wait: after a cut TCP sends again, which is some time later, and the later the longer the cut; a
clogged link lets everything go at once.  What waits longer than USER_TIMEOUT_US breaks the connection (ETIMEDOUT).
A killed process's connections are reset; a power cut tells nobody.

Rule: nothing is reordered or lost in a connection that lives, whatever the faults.
Knows nothing of asyncio (`transports`) or of what the bytes mean.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from seatrial.sim.links import RETRANSMIT_US, Link

if TYPE_CHECKING:
    from seatrial.sim.hosts import SimHost
    from seatrial.sim.network import SimNetwork
    from seatrial.sim.transports import SimTransport

USER_TIMEOUT_US: Final = 20_000_000  # Linux waits for a quarter of an hour by default; servers set less
RETRANSMIT_US_MAX: Final = 1_000_000  # Linux goes up to two minutes; a trial is short
WINDOW_BYTES: Final = 256 << 10  # sent, and not yet read by the receiving program
PIECES_MAX: Final = 2_000  # of one segment; the rest of it arrives whole


class Control:
    """A segment without data."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


FIN: Final = Control("FIN")
RST: Final = Control("RST")
Segment: TypeAlias = bytes | Control
Address: TypeAlias = tuple[str, int]


def reset_by_peer() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def timed_out() -> OSError:
    return TimeoutError(errno.ETIMEDOUT, "Connection timed out")


class Connection:
    """Two directions; the first is that of the host that dialled."""

    __slots__ = ("dialling", "number", "serving")

    def __init__(
        self, network: SimNetwork, client: SimHost, server: SimHost, client_address: Address, server_address: Address
    ) -> None:
        self.number = network.next_connection()
        self.dialling = Direction(network, self, client, server, client_address)
        self.serving = Direction(network, self, server, client, server_address)
        self.dialling.opposite, self.serving.opposite = self.serving, self.dialling

    def forget(self) -> None:
        """Neither side has it any more."""
        for direction in (self.dialling, self.serving):
            direction.link.directions.pop(direction, None)


class Direction:
    """What goes from one host to the other, and where it is.

    sender, receiver: the transports; None before they are made, and after the program is done with the connection.
    inflight: bytes that were sent and not yet read.
    """

    __slots__ = (
        "_held",
        "_last_us",
        "_network",
        "_release_us",
        "_stalled_us",
        "_uncredited",
        "_world",
        "address",
        "arrived",
        "connection",
        "gone",
        "inflight",
        "link",
        "opposite",
        "receiver",
        "sender",
        "source",
        "swallowed",
        "target",
    )
    opposite: Direction

    def __init__(
        self, network: SimNetwork, connection: Connection, source: SimHost, target: SimHost, address: Address
    ) -> None:
        self._network, self._world = network, network.world
        self.connection, self.source, self.target = connection, source, target
        self.address = address  # of the source
        self.link: Link = network.link(source.name, target.name)
        self.link.directions[self] = None
        self.sender: SimTransport | None = None
        self.receiver: SimTransport | None = None
        self.gone = False  # the target's end is closed: what arrives is answered by a reset
        self.swallowed = False  # half-open: what arrives is answered by nothing
        self.arrived: deque[Segment] = deque()
        self.inflight = 0
        self._held: deque[Segment] | None = None
        self._last_us = 0
        self._release_us = 0
        self._stalled_us: int | None = None
        self._uncredited = 0

    def __hash__(self) -> int:
        return self.connection.number

    # Sending

    def send(self, segment: Segment) -> None:
        link = self.link
        if isinstance(segment, Control):
            delay_us, _ = link.transit(0)
        else:
            size = len(segment)
            self.inflight += size
            delay_us, cut_at = link.transit(size)
            if link.pieces:
                self._send_pieces(segment, delay_us, link.pieces)
                return
            if cut_at:
                self._travel(segment[:cut_at], delay_us)
                segment, delay_us = segment[cut_at:], delay_us + link.least_delay_us()
        self._travel(segment, delay_us)

    def _send_pieces(self, segment: bytes, delay_us: int, size: int) -> None:
        whole_from = min(len(segment), size * PIECES_MAX)
        for at in range(0, whole_from, size):
            self._travel(segment[at : at + size], delay_us)
        if whole_from < len(segment):
            self._travel(segment[whole_from:], delay_us)
        if len(segment) > size:
            self.link.bit("split")

    def _travel(self, segment: Segment, delay_us: int) -> None:
        arrival_us = self._world.now_us + delay_us
        if arrival_us < self._last_us:
            arrival_us = self._last_us
        self._last_us = arrival_us
        self._world.at(arrival_us, self._arrive, segment)

    def not_before(self, delay_us: int) -> None:
        """Nothing arrives earlier than so much from now: the handshake's answer goes first."""
        self._last_us = self._world.now_us + delay_us

    # Arriving

    def close(self) -> None:
        """The target's end is closed: nobody reads any more."""
        self.gone = True
        self.receiver = None
        self.arrived.clear()
        if self.opposite.gone:
            self.connection.forget()

    def _arrive(self, segment: Segment) -> None:
        if self._held is not None:
            self._hold(segment)
        elif self.link.blocked or not self.target.powered or self.swallowed:
            self._held = deque()
            self._hold(segment)
            self._stall()
        else:
            self._deliver(segment)

    def _hold(self, segment: Segment) -> None:
        if self.link.blocked:
            self.link.hold()
        if self.swallowed:
            self.link.bit("half-open")
        if segment is not RST and self._held is not None:  # nobody sends a reset again
            self._held.append(segment)

    def _deliver(self, segment: Segment) -> None:
        if self.gone:
            if not isinstance(segment, Control):
                self.opposite.send(RST)
            return
        if isinstance(segment, Control):
            self._network.trace.line(
                f"{self._world.now_us} tcp {self.connection.number} {self.link.name} {segment.name}"
            )
        else:
            self._network.trace.segment(self._world.now_us, self.connection.number, self.link.name, segment)
            if self.opposite.link.blocked:
                self.opposite.link.hold()
                self._stall()
        self.arrived.append(segment)
        if self.receiver is not None:
            self.receiver.arrival()

    # Waiting

    def _stall(self) -> None:
        """Nothing is acknowledged from now on; give the connection up if that goes on."""
        if self._stalled_us is None:
            self._stalled_us = self._world.now_us
            self._world.after(USER_TIMEOUT_US, self._give_up, self._stalled_us)

    def _give_up(self, stalled_us: int) -> None:
        if self._stalled_us == stalled_us and self.sender is not None:
            self._held = deque()
            self.sender.broken(timed_out())

    def link_opened(self, *, burst: bool) -> None:
        """This direction's link, or its target, is there again."""
        if self._held is not None:
            wait_us = 0 if burst else self._until_sent_again_us()
            self._release_us = self._world.now_us + wait_us
            self._world.after(wait_us, self._release, self._release_us)
        other = self.opposite
        if other._held is None:
            other._stalled_us = None
        other.acknowledge(0)

    def _until_sent_again_us(self) -> int:
        """TCP sends again after 0.2 s, 0.4 s, 0.8 s …: the first such time that is still to come."""
        waited_us = self._world.now_us - (self._world.now_us if self._stalled_us is None else self._stalled_us)
        interval_us, at_us = RETRANSMIT_US, RETRANSMIT_US
        while at_us <= waited_us:
            interval_us = min(2 * interval_us, RETRANSMIT_US_MAX)
            at_us += interval_us
        return at_us - waited_us

    def _release(self, planned_us: int) -> None:
        held = self._held
        if held is None or planned_us != self._release_us or self.link.blocked or self.swallowed:
            return
        if not self.target.powered:
            return
        self._held = None
        self._stalled_us = None
        for segment in held:
            self._arrive(segment)

    # Reading

    def acknowledge(self, size: int) -> None:
        """The receiving program has read so many bytes: there is room for more, once the sender hears of it."""
        self._uncredited += size
        if self.opposite.link.blocked or not self._uncredited:
            return
        size, self._uncredited = self._uncredited, 0
        sender = self.sender
        if sender is None or not sender.is_waiting_for_room():
            self.inflight -= size
        else:
            self._world.after(self.opposite.link.least_delay_us(), self._credit, size)

    def _credit(self, size: int) -> None:
        self.inflight -= size
        if self.sender is not None:
            self.sender.room()
