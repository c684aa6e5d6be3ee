"""The workload `groups`: append unique integers to a topic that a consumer group reads, commits, and shares anew.

Operations, beside append: consume, offset-commit, rejoin, late-commit (of members), offset-fetch (of one that only
looks), drain.
Members commit what they were given, so what is behind the committed offsets must have been given to some member, and a
committed offset never goes back.
Knows nothing of how that is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seatrial.checkers.base import Checker
from seatrial.checkers.group_offsets import GroupOffsets
from seatrial.env import Rng
from seatrial.workloads import kafka_asyncio_final
from seatrial.workloads.base import Client, Completion, Endpoint, Generator, Request
from seatrial.workloads.kafka_asyncio import AsyncAppendClient
from seatrial.workloads.kafka_group import GroupMemberClient, GroupObserverClient
from seatrial.workloads.kafka_settings import bootstrap, speakers
from seatrial.workloads.scoped import ScopedChecker

TOPIC: Final = "groups"
GROUP: Final = "trial"
ALL: Final = f"{TOPIC}/all"  # the key of operations on all partitions
COMMIT_EVERY: Final = 3  # operations of a member
REJOIN_ONE_IN: Final = 60
LATE_BY: Final = 7  # operations of a member after it joined again, until what it had left uncommitted is asked for


class GroupsGenerator:
    """Appenders append, members consume and commit and now and then join again, the last client looks on."""

    def __init__(self, rng: Rng, *, partitions: int, appenders: int, members: int) -> None:
        self._rng = rng
        self._partitions = partitions
        self._appenders = appenders
        self._members = members
        self._values = 0
        self._turns: dict[int, int] = {}
        self._late: dict[int, int] = {}  # member -> the turn at which a commit arrives late

    def next(self, client: int) -> Request:
        if client < self._appenders:
            self._values += 1
            partition = self._rng.integer(0, self._partitions - 1)
            return Request(f="append", key=f"{TOPIC}/{partition}", value=self._values)
        if client >= self._appenders + self._members:
            return Request(f="offset-fetch", key=ALL)
        turn = self._turns[client] = self._turns.get(client, 0) + 1
        if turn == self._late.get(client):
            return Request(f="late-commit", key=ALL)
        if turn % COMMIT_EVERY == 0:
            return Request(f="offset-commit", key=ALL)
        if self._rng.integer(1, REJOIN_ONE_IN) == 1:
            self._late[client] = turn + LATE_BY
            return Request(f="rejoin", key=ALL)
        return Request(f="consume", key=ALL)

    def completed(self, request: Request, completion: Completion) -> None:
        """Nothing builds on anything: members keep themselves what they were given."""


class GroupsWorkload:
    """Appends to one topic, and one group that reads it."""

    name = "groups"

    def __init__(
        self, *, partitions: int = 4, replication: int = 3, appenders: int = 4, members: int = 3, rate: float = 100.0
    ) -> None:
        self.clients = appenders + members + 1
        self.rate = rate
        self._partitions = partitions
        self._replication = replication
        self._appenders = appenders
        self._members = members

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        speaking = speakers(endpoints, self.name)
        replication = min(self._replication, len(speaking))
        await kafka_asyncio_final.create_topic(
            speaking, TOPIC, partitions=self._partitions, replication=replication, timeout=timeout
        )

    def generator(self, rng: Rng) -> Generator:
        return GroupsGenerator(rng, partitions=self._partitions, appenders=self._appenders, members=self._members)

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        servers = bootstrap(endpoints)
        if number < self._appenders:
            return AsyncAppendClient(servers, f"append-{number}", idempotent=number % 2 == 0)
        if number < self._appenders + self._members:
            return GroupMemberClient(servers, f"member-{number}", group=GROUP, topic=TOPIC)
        return GroupObserverClient(servers, f"observer-{number}", group=GROUP, topic=TOPIC, partitions=self._partitions)

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        """One reader of all that the group has left."""
        return [Request(f="drain", key=ALL)]

    def checkers(self) -> Sequence[Checker]:
        return (ScopedChecker(GroupOffsets(), self.name, f"{TOPIC}/"),)
