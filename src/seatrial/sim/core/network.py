"""The network between nodes: one directed link for each pair, each with a stream of its own.

Rule: a link keeps the order of what is sent over it, as a connection does, unless a fault says otherwise; whatever a
fault does to a message is counted as its evidence.
Knows nothing of what the messages mean.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any, Final

from seatrial.raft.messages import AppendEntries, ForwardProposal, InstallSnapshot
from seatrial.sim.case import Network
from seatrial.sim.world import World

MESSAGE_BYTES: Final = 40  # of a message without its payload, on a slow link
_TAIL_TIMES: Final = 10  # a delay of the tail is so many times as long, and up to
_TAIL_TIMES_MORE: Final = 40  # so many times more

Receive = Callable[[Any], None]


class Effect:
    """A fault on a link while it lasts.  hits: messages that it changed anything for."""

    __slots__ = ("busy_until_us", "held", "hits", "kind", "value")

    def __init__(self, kind: str, value: float) -> None:
        self.kind = kind
        self.value = value
        self.hits = 0
        self.held: list[tuple[Link, Any]] = []  # of a clog
        self.busy_until_us = 0  # of a slow link


class Link:
    """Everything that node `sender` sends to node `to`."""

    __slots__ = (
        "_arrival_us",
        "_duplicate_below",
        "_loss_below",
        "_low",
        "_random",
        "_receive",
        "_spread",
        "_tail_below",
        "_world",
        "effects",
        "sender",
        "to",
    )

    def __init__(self, world: World, sender: int, to: int, settings: Network, receive: Receive) -> None:
        self._world = world
        self.sender = sender
        self.to = to
        self._random = world.stream(f"link {sender}-{to}").random
        self._receive = receive
        low, high = settings.delay_us
        self._low = low
        self._loss_below = settings.loss
        self._duplicate_below = settings.loss + settings.duplicate
        self._tail_below = settings.loss + settings.duplicate + settings.tail
        self._spread = (high - low) / (1 - self._tail_below) if self._tail_below < 1 else 0.0
        self._arrival_us = 0  # of the message sent last
        self.effects: list[Effect] = []

    def send(self, message: Any) -> None:
        if self.effects:
            self._send_through_faults(message)
            return
        # One draw decides the message's fate and, where that is the usual one, its delay as well.
        draw = self._random()
        if draw < self._tail_below:
            self._send_unusual(message, draw, 0)
            return
        world = self._world
        arrival = world.now_us + self._low + int((draw - self._tail_below) * self._spread)
        if arrival < self._arrival_us:
            arrival = self._arrival_us
        else:
            self._arrival_us = arrival
        world.sequence = number = world.sequence + 1
        heappush(world.queue, (arrival, number, self._receive, message))

    def _send(self, message: Any, late_us: int) -> None:
        """As `send`, through no fault of the case, but so much later."""
        draw = self._random()
        if draw < self._tail_below:
            self._send_unusual(message, draw, late_us)
        else:
            self._send_in_order(message, self._low + int((draw - self._tail_below) * self._spread) + late_us)

    def _send_unusual(self, message: Any, draw: float, late_us: int) -> None:
        """Lost, sent twice, or in the tail."""
        if draw < self._loss_below:
            return
        delay = self._low + int(self._random() * self._spread)
        if draw < self._duplicate_below:
            self._world.after(2 * delay + late_us, self._receive, message)
        else:
            delay *= _TAIL_TIMES + int(self._random() * _TAIL_TIMES_MORE)
        self._send_in_order(message, delay + late_us)

    def _send_in_order(self, message: Any, delay_us: int) -> None:
        self._arrival_us = max(self._world.now_us + delay_us, self._arrival_us)
        self._world.at(self._arrival_us, self._receive, message)

    def forget(self) -> None:
        """What comes next is behind nothing: all that was under way is lost, or is to be overtaken."""
        self._arrival_us = 0

    def calm(self) -> None:
        """From now on it loses and repeats nothing, and nothing takes long."""
        self._spread *= 1 - self._tail_below
        self._loss_below = self._duplicate_below = self._tail_below = 0.0

    def _send_through_faults(self, message: Any) -> None:
        late_us = 0
        overtakes = False
        for effect in self.effects:
            kind, value = effect.kind, effect.value
            if kind == "cut":
                effect.hits += 1
                return
            if kind == "clog":
                effect.hits += 1
                effect.held.append((self, message))
                return
            if kind == "loss":
                if self._random() < value:
                    effect.hits += 1
                    return
            elif kind == "duplicate":
                if self._random() < value:
                    effect.hits += 1
                    self._send(message, self._low + int(self._spread))
            elif kind == "delay":
                effect.hits += 1
                late_us += int(value)
            elif kind == "reorder":
                effect.hits += 1
                late_us += int(self._random() * value)
                overtakes = True
            elif kind == "bandwidth":
                effect.hits += 1
                late_us += self._queue_behind(effect, message)
        if overtakes:
            self._world.after(self._low + late_us, self._receive, message)
        else:
            self._send(message, late_us)

    def _queue_behind(self, effect: Effect, message: Any) -> int:
        """How long it takes until the last byte of the message is on its way over the slow link."""
        now = self._world.now_us
        starts = max(now, effect.busy_until_us)
        effect.busy_until_us = starts + int(size_of(message) * 1_000_000 / max(effect.value, 1.0))
        return effect.busy_until_us - now


def size_of(message: Any) -> int:
    """About how many bytes it has on the wire."""
    if isinstance(message, AppendEntries):
        return MESSAGE_BYTES + sum(len(entry.data) + 16 for entry in message.entries)
    if isinstance(message, InstallSnapshot | ForwardProposal):
        return MESSAGE_BYTES + len(message.data)
    return MESSAGE_BYTES


class CoreNetwork:
    """All links.  `links[sender, to]`."""

    __slots__ = ("links",)

    def __init__(self, world: World, settings: Network, receivers: dict[int, Receive]) -> None:
        self.links: dict[tuple[int, int], Link] = {
            (sender, to): Link(world, sender, to, settings, receivers[to])
            for sender in receivers
            for to in receivers
            if sender != to
        }

    def calm(self) -> None:
        """What the case says of loss, repetition and long delays is over; faults that last are not touched."""
        for link in self.links.values():
            link.calm()

    def add(self, effect: Effect, pairs: Any) -> None:
        for pair in pairs:
            self.links[tuple(pair)].effects.append(effect)

    def remove(self, effect: Effect) -> None:
        """End it everywhere; what it held is released in one burst."""
        for link in self.links.values():
            if effect in link.effects:
                link.effects.remove(effect)
                if effect.kind == "bandwidth":
                    link.forget()
        held, effect.held = effect.held, []
        for link, message in held:
            link.send(message)
