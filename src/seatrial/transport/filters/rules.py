"""Rules for messages of any kind: drop, delay, hold, repeat, reorder, watch.

A rule is anything that takes a message and the time and returns a verdict; which messages it sees (their types,
links, side, group) is said where it is attached (`scope`).  After TiKV's `test_raftstore` filters, by what they do.

Rule: a rule draws only from the stream it was given, and keeps no message without saying HOLD.
Knows nothing of Raft's state.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from seatrial.env import Rng
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Message
from seatrial.transport.filters.verdicts import DROP, HOLD, PASS, Copy, Delay, Replace, Verdict

Watcher = Callable[[Message], None]


class Rule(Protocol):
    """Says what is to become of a message.  It is called before the message goes on.

    It may also have `after(message)`, called when a message that it saw was handed on, and `emptied()`, called when
    what it holds was released by somebody else.
    """

    def __call__(self, message: Message, now_us: int) -> Verdict: ...


class PassAll:
    """Lets everything through: the untouched twin of any other rule."""

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return PASS


class Drop:
    """Drops, after letting `allow` messages through, `count` of them (None: all that come), while `enabled`.

    kept: what was dropped, in order, where `keep` is set.  dropped: called with each.
    """

    def __init__(
        self, *, allow: int = 0, count: int | None = None, keep: bool = False, dropped: Watcher | None = None
    ) -> None:
        self.allow, self.count, self.keep = allow, count, keep
        self.enabled = True
        self.kept: list[Message] = []
        self._dropped = dropped

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if not self.enabled:
            return PASS
        if self.allow > 0:
            self.allow -= 1
            return PASS
        if self.count is not None:
            if self.count <= 0:
                return PASS
            self.count -= 1
        if self.keep:
            self.kept.append(message)
        if self._dropped is not None:
            self._dropped(message)
        return DROP


class DropRandomly:
    """Drops each message with this probability."""

    def __init__(self, probability: float, rng: Rng) -> None:
        self._probability, self._rng = probability, rng

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return DROP if self._rng.random() < self._probability else PASS


class DropIf:
    """Drops the messages of which the predicate holds."""

    def __init__(self, predicate: Callable[[Message], bool]) -> None:
        self._predicate = predicate

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return DROP if self._predicate(message) else PASS


class DropTo:
    """Drops what is meant for these nodes."""

    def __init__(self, nodes: Collection[NodeId]) -> None:
        self._nodes = frozenset(nodes)

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return DROP if message.to in self._nodes else PASS


class DelayEach:
    """Every message is late by the same time, and so in order."""

    def __init__(self, delay_us: int) -> None:
        self._verdict = Delay(delay_us)

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return self._verdict


class ReorderEach:
    """Every message is late by a random time of its own, up to the most, and so out of order."""

    def __init__(self, delay_us_max: int, rng: Rng) -> None:
        self._most, self._rng = delay_us_max, rng

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return Delay(int(self._rng.random() * self._most))


class HoldAll:
    """Holds everything until `until` holds of the message that comes (which goes behind what was held), or for ever.

    Forever means until the filter is released or removed: a clog, then a burst.
    """

    def __init__(self, until: Callable[[Message], bool] | None = None) -> None:
        self._until = until
        self._held: list[Message] = []

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if self._until is None:
            return HOLD
        if self._until(message):
            released, self._held = self._held, []
            return Replace((*released, message)) if released else PASS
        self._held.append(message)
        return HOLD

    def emptied(self) -> None:
        self._held.clear()


class Leading:
    """Holds the messages of `first` until one of `then` comes, and lets the first held one go before that one.

    The other held ones go behind it.  From then on everything passes.
    """

    def __init__(self, first: Callable[[Message], bool], then: Callable[[Message], bool]) -> None:
        self._first, self._then = first, then
        self._held: list[Message] = []
        self._over = False

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if self._over:
            return PASS
        if self._then(message):
            self._over = bool(self._held)
            released, self._held = self._held, []
            return Replace((*released[:1], message, *released[1:])) if released else PASS
        if self._first(message):
            self._held.append(message)
            return HOLD
        return PASS

    def emptied(self) -> None:
        self._held.clear()


class RandomLatency:
    """Keeps messages back at random; whenever one comes, every one that waits is rolled for anew.

    Each waits on with `probability`; what goes, goes in shuffled order; one in ten of those kept back is lost.
    """

    LOST = 0.1

    def __init__(self, probability: float, rng: Rng) -> None:
        self._probability, self._rng = probability, rng
        self._held: list[Message] = []

    def __call__(self, message: Message, now_us: int) -> Verdict:
        rng, probability = self._rng, self._probability
        waiting, going, lost = [], [], []
        for held in self._held:
            if rng.random() < probability:
                waiting.append(held)
            elif rng.random() < self.LOST:
                lost.append(held)
            else:
                going.append(held)
        self._held = waiting
        if rng.random() < probability:
            self._held.append(message)
            return Verdict(HOLD.kind, 0, going, lost) if going or lost else HOLD
        if not going and not lost:
            return PASS
        going.append(message)
        rng.shuffle(going)
        return Replace(going, lost)

    def emptied(self) -> None:
        self._held.clear()


class Duplicate:
    """Lets a message arrive twice with this probability."""

    def __init__(self, probability: float, rng: Rng) -> None:
        self._probability, self._rng = probability, rng

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return Copy((message,)) if self._rng.random() < self._probability else PASS


class ReplayOld:
    """With this probability a message is followed by an old one of the same rule's messages, drawn from the last few.

    A network may deliver anything again at any time; Raft must not mind.
    """

    REMEMBERED = 64

    def __init__(self, probability: float, rng: Rng) -> None:
        self._probability, self._rng = probability, rng
        self._seen: list[Message] = []

    def __call__(self, message: Message, now_us: int) -> Verdict:
        seen = self._seen
        if len(seen) < self.REMEMBERED:
            seen.append(message)
        else:
            seen[int(self._rng.random() * self.REMEMBERED)] = message
        if self._rng.random() < self._probability:
            return Copy((seen[int(self._rng.random() * len(seen))],))
        return PASS


class Capture:
    """Keeps the first `count` messages in `captured` (None: all of them), and lets everything through: a tee."""

    def __init__(self, count: int | None = None, watcher: Watcher | None = None) -> None:
        self._count, self._watcher = count, watcher
        self.captured: list[Message] = []

    def __call__(self, message: Message, now_us: int) -> Verdict:
        if self._count is None or len(self.captured) < self._count:
            self.captured.append(message)
            if self._watcher is not None:
                self._watcher(message)
        return PASS


class Notify:
    """Calls the watcher after each message was handed on."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __call__(self, message: Message, now_us: int) -> Verdict:
        return PASS

    def after(self, message: Message) -> None:
        self._watcher(message)
