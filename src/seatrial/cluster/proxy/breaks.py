"""Toxics that end connections, lose bytes or change them.

Toxiproxy's: timeout, reset_peer, limit_data.  Ours: corrupt, half_open.
"""

from __future__ import annotations

from seatrial.cluster.proxy.delays import Hold
from seatrial.cluster.proxy.stages import End, Host, Settings, Stage, Timer
from seatrial.env import Rng


class Timeout(Stage):
    """Drops all bytes; closes the connection after `timeout` ms (0: never), and when it is removed.

    The time counts from when the toxic met the connection; in Toxiproxy every chunk that arrives starts it
    again.
    """

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._timer: Timer | None = None

    def start(self) -> None:
        if self.toxic.attributes["timeout"] > 0:
            deadline = self.started + self.milliseconds("timeout")
            self._timer = self.host.timers.call_at(deadline, self._close)

    def receive(self, data: bytes) -> None:
        self.bite()
        self.counters.bytes_seen += len(data)
        self.counters.bytes_dropped += len(data)

    def _close(self) -> None:
        self.bite()
        self.counters.connections_closed += 1
        self.next.end(End.CLOSE)

    def updated(self) -> None:
        self.cancel()
        self.start()

    def release(self) -> None:
        # Bytes were dropped: going on behind the gap would be corruption, so the connection must end (as in
        # Toxiproxy).
        self._close()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ResetPeer(Hold):
    """Sends both ends an RST `timeout` ms after the toxic met the connection, idle or not; until then keeps
    all bytes.

    Toxiproxy waits for the first byte, and sends a FIN on connections that are older than the toxic; this
    does neither.
    """

    holds_connects = False

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._deadline: Timer | None = None

    def start(self) -> None:
        deadline = self.started + self.milliseconds("timeout")
        self._deadline = self.host.timers.call_at(deadline, self._reset)

    def _reset(self) -> None:
        self.bite()
        self.counters.connections_reset += 1
        self.host.reset_connection(f"toxic {self.toxic.name}")

    def updated(self) -> None:
        self._disarm()
        self.start()

    def cancel(self) -> None:
        self._disarm()
        super().cancel()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LimitData(Stage):
    """Lets `bytes` bytes through, then closes the connection.  What has passed is remembered across
    updates.
    """

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._passed = 0
        self._closed = False

    def receive(self, data: bytes) -> None:
        self.counters.bytes_seen += len(data)
        if self._closed:
            self.counters.bytes_dropped += len(data)
            return
        allowed = max(0, int(self.toxic.attributes["bytes"]) - self._passed)
        passing = data[:allowed]
        self._passed += len(passing)
        if passing:
            self.next.receive(passing)
        if len(data) >= allowed:
            self.bite()
            self.counters.bytes_dropped += len(data) - len(passing)
            self.counters.connections_closed += 1
            self._closed = True
            self.next.end(End.CLOSE)

    def end(self, how: End) -> None:
        if not self._closed:
            self.next.end(how)


class Corrupt(Stage):
    """Flips one bit in every `bytes` bytes, at a random place in each; 0 flips none.  Lengths never change.

    The places depend on the seed and on the position in the stream alone, not on how the bytes were cut into
    reads.
    """

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._position = 0
        self.updated()

    def updated(self) -> None:
        self._window = int(self.toxic.attributes["bytes"])
        self._window_start = self._position
        self._aim()

    def _aim(self) -> None:
        if self._window > 0:
            self._flip_at = self._window_start + self.rng.integer(0, self._window - 1)
            self._bit = self.rng.integer(0, 7)

    def receive(self, data: bytes) -> None:
        self.counters.bytes_seen += len(data)
        end = self._position + len(data)
        if self._window > 0 and self._flip_at < end:
            changed = bytearray(data)
            while self._flip_at < end:
                changed[self._flip_at - self._position] ^= 1 << self._bit
                self.counters.bits_flipped += 1
                self._window_start += self._window
                self._aim()
            self.bite()
            data = bytes(changed)
        self._position = end
        self.next.receive(data)


class HalfOpen(Stage):
    """Swallows the end of the stream, FIN or RST: the other side goes on believing in a peer that is gone.

    Bytes sent towards the lost peer vanish.  The end is delivered when the toxic is removed.
    """

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._ends: list[End] = []

    def end(self, how: End) -> None:
        self.bite()
        self.counters.ends_held += 1
        self._ends.append(how)

    def release(self) -> None:
        for how in self._ends:
            self.next.end(how)
        self._ends.clear()
