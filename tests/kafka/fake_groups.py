"""Consumer groups in memory for the handlers: real coordinators and state machines on lists of entries, and no Raft.

What is proposed is committed at once, or when the test says so (`hold`); who leads a shard is what the test sets.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from seatrial import marks
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupBackend, GroupCoordinator
from seatrial.kafka.group_settings import GROUPS_TOPIC, GroupLimits, shard_of
from seatrial.machines.groups import GroupsMachine
from seatrial.machines.metadata import MetadataMachine
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import COMMAND, Entry
from seatrial.server.errors import NoLeader
from seatrial.server.groups.coordinator import Coordinator

LIMITS = GroupLimits(initial_rebalance_delay_ms=0)


@contextmanager
def reaching(mark: str) -> Iterator[None]:
    """The code in it must come to the mark, of which the test is the owner (`sim.coverage.OWNED_BY_TESTS`)."""
    marks.taken()
    yield
    assert mark in marks.taken()


class FakeLog:
    """What a coordinator proposes to."""

    def __init__(self, machine: GroupsMachine) -> None:
        self.machine = machine
        self.held = False
        self.refuse_with: Exception | None = None
        self.is_readable = True
        self.entries: list[Entry] = []
        self._waiting: list[tuple[bytes, asyncio.Future[Any]]] = []

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        if self.refuse_with is not None:
            raise self.refuse_with
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, future))
        if not self.held:
            self.commit()
        return future

    def commit(self, count: int | None = None) -> None:
        """All that was proposed, or only so many of it."""
        for data, future in self._waiting[:count]:
            entry = Entry(Term(1), Index(len(self.entries) + 1), COMMAND, data)
            self.entries.append(entry)
            self.machine.apply(entry)
            future.set_result(None)
        del self._waiting[:count]

    def lose(self, error: Exception) -> None:
        for _, future in self._waiting:
            future.set_exception(error)
        self._waiting.clear()

    def read_barrier(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_readable:
            future.set_result(None)
        else:
            future.set_exception(NoLeader("nobody leads"))
        return future


class FakeShard:
    """A shard that this node leads, until the test says otherwise."""

    def __init__(self, limits: GroupLimits = LIMITS) -> None:
        self.machine = GroupsMachine()
        self.log = FakeLog(self.machine)
        self.limits = limits
        self.wall_ms = 1_000_000
        self.numbers = itertools.count(1)
        self.coordinator = self.elected()

    def elected(self) -> Coordinator:
        """A new coordinator, on what is applied."""
        self.coordinator = Coordinator(
            self.log,
            self.machine,
            self.limits,
            asyncio.get_running_loop(),
            wall_ms=lambda: self.wall_ms,
            new_id=lambda: f"id{next(self.numbers)}",
        )
        return self.coordinator


class FakeGroups:
    """Two shards on node 1, once the topic for them is there."""

    def __init__(self, metadata: MetadataMachine) -> None:
        self._metadata = metadata
        self.shards = [FakeShard(), FakeShard()]
        self.refuse_with: dict[int, ErrorCode] = {}  # shard -> why its coordinator cannot be asked
        self.leaders = {0: 1, 1: 1}
        self.metadata_is_current_now = True
        self.asked_for_metadata = 0

    @property
    def are_created(self) -> bool:
        return GROUPS_TOPIC in self._metadata.topics

    def leader_of(self, group_id: str) -> int:
        return self.leaders[shard_of(group_id, 2)] if self.are_created else -1

    def coordinator_of(self, group_id: str) -> GroupCoordinator | ErrorCode:
        number = shard_of(group_id, 2)
        return self.refuse_with.get(number) or self.shards[number].coordinator

    def shard(self, group_id: str) -> FakeShard:
        return self.shards[shard_of(group_id, 2)]

    def coordinators(self) -> Sequence[GroupCoordinator | ErrorCode]:
        return [self.refuse_with.get(number) or shard.coordinator for number, shard in enumerate(self.shards)]

    async def metadata_is_current(self) -> bool:
        self.asked_for_metadata += 1
        return self.metadata_is_current_now


def as_group_backend(groups: FakeGroups) -> GroupBackend:
    """For the type checker to compare the fake with the contract."""
    return groups
