"""Stages: what a toxic is made of on one direction of one connection.

A link is a chain `source -> stage -> ... -> sink`; bytes and the end of the stream are pushed along it.
Rule: a stage keeps order and, unless dropping is its purpose, loses nothing; what it still keeps when its
toxic is removed goes on at once.  Time comes from `Timers` (the event loop, or a virtual clock in tests),
randomness from its own `Rng`. Knows nothing of sockets, HTTP or other connections.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Protocol

from seatrial.cluster.proxy.counters import ToxicCounters
from seatrial.env import Rng

# Event loops round timers to a millisecond: what is due within half of one is due now, or the loop would
# spin.
TIMER_SLACK_SECONDS = 0.0005
BUFFERED_BYTES_MAX = 4 * 1024 * 1024


class End(Enum):
    """How a stream ends; it travels along the chain behind the stream's last byte."""

    FIN = auto()  # the source sends no more; the other direction goes on
    RST = auto()  # the source was reset, so will be the other side
    CLOSE = auto()  # a toxic closes the connection, both directions


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that stages use."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


class Receiver(Protocol):
    """What bytes are pushed into: the next stage, or the sink."""

    def receive(self, data: bytes) -> None: ...

    def end(self, how: End) -> None: ...


class Host(Protocol):
    """The link that a stage stands in."""

    @property
    def timers(self) -> Timers: ...

    def balance(self) -> None:
        """Stop or go on reading the source: what the stages keep has changed."""

    def reset_connection(self, cause: str) -> None: ...


class Settings(Protocol):
    """The toxic that a stage belongs to, shared by all its stages; its attributes may change at any time."""

    @property
    def name(self) -> str: ...

    @property
    def attributes(self) -> dict[str, int | float]: ...

    @property
    def counters(self) -> ToxicCounters: ...


class Stage:
    """Passes everything on: the `noop` toxic, and the base of the others."""

    # With more than this kept, the source is not read any further: its own TCP window then fills up.
    buffered_max = BUFFERED_BYTES_MAX
    # True where a connection accepted now should not reach the server yet.
    holds_connects = False

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        self.toxic = toxic
        self.host = host
        self.rng = rng
        self.next: Receiver = _NOWHERE
        self.buffered = 0
        self.counters = toxic.counters
        self.started = host.timers.time()
        self._bitten = False
        self.counters.connections_matched += 1

    def start(self) -> None:
        """It stands in its chain now, `next` is set."""

    def receive(self, data: bytes) -> None:
        self.counters.bytes_seen += len(data)
        self.next.receive(data)

    def end(self, how: End) -> None:
        self.next.end(how)

    def updated(self) -> None:
        """The toxic's attributes have changed; what is kept follows the new ones."""

    def release(self) -> None:
        """The toxic no longer acts on this link: pass on what is kept.  `cancel` follows."""

    def cancel(self) -> None:
        """Never act again: stop timers, forget what is kept."""

    def bite(self) -> None:
        """It has just done something to this connection."""
        if not self._bitten:
            self._bitten = True
            self.counters.connections_affected += 1

    def milliseconds(self, attribute: str) -> float:
        """The attribute in seconds; a negative one is none."""
        return max(0.0, self.toxic.attributes[attribute] / 1000)


class _Nowhere:
    """The end of a chain that is not linked yet."""

    def receive(self, data: bytes) -> None:
        raise AssertionError(f"{len(data)} bytes pushed into an unlinked stage")

    def end(self, how: End) -> None:
        raise AssertionError("an end pushed into an unlinked stage")


_NOWHERE = _Nowhere()


class Item:
    """A piece of the stream that is kept; `data` is None for its end, and `how` means something only then."""

    __slots__ = ("arrived", "data", "draw", "due", "how")

    def __init__(self, arrived: float, draw: float, data: bytes | None, how: End) -> None:
        self.arrived = arrived
        self.draw = draw
        self.data = data
        self.how = how
        self.due = math.inf

    @property
    def size(self) -> int:
        return 0 if self.data is None else len(self.data)


class QueueStage(Stage):
    """A delay line: pieces enter as they come and leave, in order, each at its own time.

    Subclasses say when (`due`); any number of pieces is under way at once, so a delay does not limit
    throughput.
    """

    # Whether a piece that is due at once may overtake the event loop's next turn.
    passes_directly = True
    counter = "bytes_delayed"

    def __init__(self, toxic: Settings, host: Host, rng: Rng) -> None:
        super().__init__(toxic, host, rng)
        self._items: deque[Item] = deque()
        self._timer: Timer | None = None
        # When the piece before the queue's first left: what `due` gets as `previous`.
        self._left = -math.inf

    def due(self, item: Item, previous: float) -> float:
        """When `item` leaves; `previous` is when the piece before it does (or did).  Earlier than now means
        now.
        """
        raise NotImplementedError

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """`data` cut as this toxic cuts it."""
        return (data,)

    def receive(self, data: bytes) -> None:
        self.counters.bytes_seen += len(data)
        for piece in self.pieces(data):
            self._take(piece, End.FIN)

    def end(self, how: End) -> None:
        self._take(None, how)

    def _take(self, data: bytes | None, how: End) -> None:
        now = self.host.timers.time()
        item = Item(now, self.rng.random(), data, how)
        item.due = self.due(item, self._items[-1].due if self._items else self._left)
        if not self._items and self.passes_directly and item.due <= now + TIMER_SLACK_SECONDS:
            self._left = item.due
            self._push(item)
            return
        self._items.append(item)
        self._keep(item)
        if len(self._items) == 1:
            self._arm()

    def _keep(self, item: Item) -> None:
        self.bite()
        self.buffered += item.size
        self.counters.bytes_kept_now += item.size
        setattr(self.counters, self.counter, getattr(self.counters, self.counter) + item.size)
        if item.data is None:
            self.counters.ends_held += 1

    def _push(self, item: Item) -> None:
        if item.data is None:
            self.next.end(item.how)
        else:
            self.next.receive(item.data)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._items and self._items[0].due < math.inf:
            timers = self.host.timers
            self._timer = timers.call_at(max(self._items[0].due, timers.time()), self._pump)

    def _pump(self) -> None:
        self._timer = None
        latest = self.host.timers.time() + TIMER_SLACK_SECONDS
        while self._items and self._items[0].due <= latest:
            self._pop_and_push()
            if not self.passes_directly:
                break
        self._arm()
        self.host.balance()

    def _pop_and_push(self) -> None:
        item = self._items.popleft()
        self._left = item.due
        self.buffered -= item.size
        self.counters.bytes_kept_now -= item.size
        self._push(item)

    def updated(self) -> None:
        previous = self._left
        for item in self._items:
            previous = item.due = self.due(item, previous)
        self._pump()

    def release(self) -> None:
        while self._items:
            self._pop_and_push()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.counters.bytes_kept_now -= self.buffered
        self.counters.bytes_dropped += self.buffered
        self.buffered = 0
        self._items.clear()
