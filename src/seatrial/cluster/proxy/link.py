"""One direction of one connection: source -> stages -> sink, with back-pressure from the sink to the source.

Rule: without toxics a chunk costs one call from the source's transport to the target's.  The chain is changed
on the live link, and order survives every change.  Knows nothing of how connections are made or accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from seatrial.cluster.proxy.counters import StreamCounters
from seatrial.cluster.proxy.stages import End, Receiver, Stage, Timers
from seatrial.cluster.proxy.toxic import Toxic

# What is kept for a server that is still being connected to; more stays in the client's TCP window.
PENDING_BYTES_MAX = 256 * 1024


class Owner(Protocol):
    """The connection that a link is half of."""

    def reset(self, cause: str) -> None: ...

    def link_ended(self, link: Link, how: End) -> None:
        """The end of the stream has come out of the last stage."""

    def connect_if_allowed(self) -> None: ...


class Link:
    """Both the host of its stages and the sink behind them.

    `source` and `target` are transports; either may be None: not connected yet, or lost.
    """

    def __init__(self, *, owner: Owner, stream: str, counters: StreamCounters, timers: Timers) -> None:
        self.owner = owner
        self.stream = stream
        self.counters = counters
        self.timers = timers
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None
        self.source_ended = False
        self.target_full = False
        self.target_lost = False
        self.ended = False
        self.stages: list[Stage] = []
        # Where the source pushes to: the first stage, or this link itself.
        self.head: Receiver = self
        self._toxics: list[Toxic] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._pending_end: End | None = None
        self._reading = True
        self._cancelled = False

    def from_source(self, data: bytes) -> None:
        self.counters.bytes_received += len(data)
        self.head.receive(data)
        if self.stages or self._pending:
            self.balance()

    def source_end(self, how: End) -> None:
        self.source_ended = True
        self.head.end(how)

    def receive(self, data: bytes) -> None:
        """The sink: what has passed all stages goes to the target."""
        if self.target is not None:
            self.counters.bytes_sent += len(data)
            self.target.write(data)
        elif self.target_lost:
            self.counters.bytes_dropped += len(data)
        else:
            self._pending.append(data)
            self._pending_bytes += len(data)

    def end(self, how: End) -> None:
        if self.target is None and not self.target_lost and how is not End.RST:
            self._pending_end = how
            return
        self.ended = True
        self.owner.link_ended(self, how)

    def target_connected(self, target: asyncio.Transport) -> None:
        self.target = target
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for data in pending:
            self.receive(data)
        if self._pending_end is not None:
            self.end(self._pending_end)
        self.balance()

    def target_gone(self) -> None:
        self.target = None
        self.target_lost = True
        self.target_full = False
        self.balance()

    def balance(self) -> None:
        """Read the source exactly while there is room for what it sends."""
        room = (
            not self.target_full
            and self._pending_bytes <= PENDING_BYTES_MAX
            and all(stage.buffered <= stage.buffered_max for stage in self.stages)
        )
        if room == self._reading or self.source is None or self.source_ended or self.source.is_closing():
            return
        self._reading = room
        if room:
            self.source.resume_reading()
        else:
            self.source.pause_reading()

    def sync(self, toxics: Sequence[Toxic], make: Callable[[Toxic], Stage]) -> None:
        """Make the chain hold one stage for each of `toxics`, in that order; those that stay keep their
        state.
        """
        if list(toxics) == self._toxics:
            return
        # From the sink's end, and past the stages that go too: what one lets go must not be caught by another.
        following: Receiver = self
        for toxic, stage in reversed(list(zip(self._toxics, self.stages, strict=True))):
            stage.next = following
            if toxic in toxics:
                following = stage
                continue
            stage.release()
            stage.cancel()
            if self._cancelled:  # what was let go has ended the connection
                return
        staying = dict(zip(self._toxics, self.stages, strict=True))
        new = [toxic for toxic in toxics if toxic not in staying]
        self._toxics = list(toxics)
        self.stages = [staying[toxic] if toxic in staying else make(toxic) for toxic in toxics]
        receivers: list[Receiver] = [*self.stages[1:], self]
        for stage, receiver in zip(self.stages, receivers, strict=False):
            stage.next = receiver
        self.head = self.stages[0] if self.stages else self
        for toxic, stage in list(zip(self._toxics, self.stages, strict=True)):
            if toxic in new:
                stage.start()
        self.owner.connect_if_allowed()
        self.balance()

    def updated(self, toxic: Toxic) -> None:
        for mine, stage in list(zip(self._toxics, self.stages, strict=True)):
            if mine is toxic:
                stage.updated()

    def holding(self) -> Stage | None:
        """The stage that keeps new connections from reaching the server, if there is one."""
        return next((stage for stage in self.stages if stage.holds_connects), None)

    def kept_bytes(self) -> int:
        return self._pending_bytes + sum(stage.buffered for stage in self.stages)

    def cancel(self) -> None:
        """The connection is over: whatever is still kept is dropped and counted."""
        self._cancelled = True
        self.counters.bytes_dropped += self.kept_bytes()
        for stage in self.stages:
            stage.cancel()
        self.stages, self._toxics, self.head = [], [], self
        self._pending, self._pending_bytes = [], 0
        self.target_lost, self.target = True, None

    def reset_connection(self, cause: str) -> None:
        self.owner.reset(cause)
