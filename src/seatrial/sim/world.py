"""The world: one queue of events in virtual time, and one stream of chance for each thing that has any.

Rule: time moves only from event to event; events of one time run in the order in which they were asked for; every
random choice comes from the stream of the thing that it happens to (`link 1-2`, `disk 3`, `client 4`), so that
leaving out one fault, message or operation moves the draws of nothing else.
Knows nothing of hosts, networks, disks or Raft.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Final

from seatrial.env import Rng

EVENTS_MAX: Final = 20_000_000
_BETWEEN_LOOKS: Final = 1_000  # events, until a run looks how many it has had


class EventStorm(Exception):
    """More events than a run may have: a message storm or a timer that never rests; a liveness failure, not a hang."""


class World:
    """Virtual time in microseconds since the run began, and what is going to happen.

    now_us: the time of the event that runs.  events: how many ran.  events_max: then `run` raises EventStorm.
    queue, sequence: a heap of (time, number in the order of asking, callback, argument), and the last number; `at` does
    what is needed, and only what sends every message of a simulation does it in place.
    shared_chance: of programs that use the generator of Python's module `random`: its state while the world stands.
    """

    __slots__ = ("_streams", "events", "events_max", "halted", "now_us", "queue", "seed", "sequence", "shared_chance")

    def __init__(self, seed: int, *, events_max: int = EVENTS_MAX) -> None:
        self.seed = seed
        self.now_us = 0
        self.events = 0
        self.events_max = events_max
        self.halted = False
        self.queue: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self.sequence = 0
        self.shared_chance: Any = None
        self._streams: dict[str, Rng] = {}

    def stream(self, name: str) -> Rng:
        """The stream of this name; always the same object, decided by (seed, name) alone."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Rng(self.seed).child(name)
        return stream

    def at(self, time_us: int, callback: Callable[[Any], None], argument: Any = None) -> None:
        """Have `callback(argument)` run at that time; a time that has passed means as soon as possible."""
        self.sequence += 1
        now = self.now_us
        heappush(self.queue, (time_us if time_us > now else now, self.sequence, callback, argument))

    def after(self, delay_us: int, callback: Callable[[Any], None], argument: Any = None) -> None:
        """As `at`, so many microseconds from now."""
        self.sequence += 1
        heappush(self.queue, (self.now_us + delay_us, self.sequence, callback, argument))

    def next_us(self) -> int | None:
        """When the next event is; None when there is none."""
        return self.queue[0][0] if self.queue else None

    def discard(self, unwanted: Callable[[Callable[[Any], None], Any], bool]) -> int:
        """Take out every waiting event of which `unwanted(callback, argument)` holds; how many there were."""
        kept = [event for event in self.queue if not unwanted(event[2], event[3])]
        discarded = len(self.queue) - len(kept)
        heapify(kept)
        self.queue[:] = kept
        return discarded

    def halt(self) -> None:
        """End `run` after the event that runs now."""
        self.halted = True

    def run(self, until_us: int) -> None:
        """Run every event up to and including that time, which is then the present, or until halted.

        Raises EventStorm; whatever an event raises comes through, and the world can be looked at as it was then.
        """
        queue = self.queue
        self.halted = False
        while queue and queue[0][0] <= until_us:
            if self.events >= self.events_max:
                raise EventStorm(
                    f"{self.events} events by {self.now_us / 1e6:.3f} s, {len(queue)} more are waiting: a message storm"
                )
            self._run_some(until_us, min(_BETWEEN_LOOKS, self.events_max - self.events))
            if self.halted:
                return
        if until_us > self.now_us:
            self.now_us = until_us

    def _run_some(self, until_us: int, most: int) -> None:
        """At most so many events, up to that time or until halted."""
        queue = self.queue
        left = most
        try:
            while queue:
                time_us, number, callback, argument = heappop(queue)
                if time_us > until_us:
                    heappush(queue, (time_us, number, callback, argument))
                    return
                self.now_us = time_us
                left -= 1
                callback(argument)
                if not left or self.halted:
                    return
        finally:
            self.events += most - left
