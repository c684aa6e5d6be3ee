"""A network of nothing but filters: what goes through, when, and a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seatrial.raft.messages import (
    AppendEntries,
    Configuration,
    Entry,
    Heartbeat,
    InstallSnapshot,
    Message,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
)
from seatrial.transport.filters import ActiveFilter, Filter, FilterSet


class Bench:
    """`through` holds what went on, in order, as (group, message)."""

    def __init__(self) -> None:
        self.now_us = 0
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self._timers_made = 0
        self.through: list[tuple[int, Message]] = []
        self.set = FilterSet(lambda: self.now_us, self._schedule)

    def _schedule(self, delay_us: int, callback: Callable[[], None]) -> None:
        self._timers_made += 1
        self.timers.append((self.now_us + delay_us, self._timers_made, callback))

    def filter(self, described: Filter) -> ActiveFilter:
        return self.set.attach(described)

    def send(self, *messages: Message, group: int = 0) -> list[Message]:
        """What went on at once."""
        before = len(self.through)
        for message in messages:
            self.set.send(group, message, self._deliver)
        return [message for _, message in self.through[before:]]

    def receive(self, *messages: Message, group: int = 0) -> list[Message]:
        before = len(self.through)
        for message in messages:
            self.set.receive(group, message, self._deliver)
        return [message for _, message in self.through[before:]]

    def _deliver(self, group: int, message: Message) -> None:
        self.through.append((group, message))

    def pass_time(self, us: int) -> list[Message]:
        """What went on meanwhile."""
        before, until = len(self.through), self.now_us + us
        while due := sorted(timer for timer in self.timers if timer[0] <= until):
            self.timers.remove(due[0])
            self.now_us = due[0][0]
            due[0][2]()
        self.now_us = until
        return [message for _, message in self.through[before:]]


class Make:
    """Messages with as little as it takes."""

    def __init__(self) -> None:
        self._index = 0

    def append(self, sender: int = 1, to: int = 2, commit: int = 0) -> AppendEntries:
        self._index += 1
        entries: Any = [Entry(1, self._index, 0, b"x")]  # type: ignore[arg-type]
        return AppendEntries(sender, to, 1, self._index - 1, 1, commit, entries)  # type: ignore[arg-type]

    def beat(self, sender: int = 1, to: int = 2, commit: int = 0, read_round: int = 0) -> Heartbeat:
        return Heartbeat(sender, to, 1, commit, read_round)  # type: ignore[arg-type]

    def vote(self, sender: int = 1, to: int = 2, last_log_index: int = 0) -> RequestVote:
        return RequestVote(sender, to, 1, last_log_index, 1, False)  # type: ignore[arg-type]

    def timeout_now(self, sender: int = 1, to: int = 2) -> TimeoutNow:
        return TimeoutNow(sender, to, 1)  # type: ignore[arg-type]

    def chunk(self, last: int = 10, offset: int = 0, sender: int = 1, to: int = 2) -> InstallSnapshot:
        meta = SnapshotMeta(last, 1, Configuration([1, 2, 3]))  # type: ignore[arg-type, list-item]
        return InstallSnapshot(sender, to, 1, meta, offset, 8, b"data")  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def new_bench() -> Callable[[], tuple[Bench, Make]]:
    """For properties, which need a fresh one for each example."""
    return lambda: (Bench(), Make())
