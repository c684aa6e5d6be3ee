"""The workload `log`: append unique integers to a topic, poll them back, and read everything from every node at last.

Half of the appenders are idempotent, half send each record once; no value is ever sent by two operations, so a value
that appears twice is a duplicate and one that is missing after its acknowledgement is lost.
Operations: append (value; ok [offset, value]), assign and poll (ok [[offset, value], …]), final-read; and with reads
from followers tail (ok: the offset behind the last record, by the node that was asked).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from seatrial.checkers.base import Checker
from seatrial.checkers.log_sessions import LogSessions
from seatrial.checkers.partition_log import PartitionLog
from seatrial.env import Rng
from seatrial.workloads import kafka_asyncio_final, kafka_topic
from seatrial.workloads.base import Client, Completion, Endpoint, Generator, Request
from seatrial.workloads.kafka_asyncio import AsyncAppendClient, AsyncPollClient
from seatrial.workloads.kafka_clients import AppendClient, PollClient
from seatrial.workloads.kafka_final import FinalReadClient
from seatrial.workloads.kafka_sessions import SessionClient
from seatrial.workloads.kafka_settings import bootstrap, speakers
from seatrial.workloads.scoped import ScopedChecker

POLLS_PER_ASSIGNMENT = 60
SESSIONS = 3  # where followers are read from
APPENDS_OF_A_SESSION = 0.3  # of its operations; the rest are tails

ReadFrom = Literal["leader", "followers"]


class LogGenerator:
    """Appenders pick a partition for each value; pollers stay on one for a while, then move to the next.

    Sessions, which come after them, append to one partition and ask one of `nodes` after the other where it ends.
    """

    def __init__(
        self,
        rng: Rng,
        *,
        topic: str,
        partitions: int,
        appenders: int,
        pollers: int | None = None,
        nodes: Sequence[int] = (),
    ) -> None:
        self._rng = rng
        self._topic = topic
        self._partitions = partitions
        self._appenders = appenders
        self._first_session = None if pollers is None else appenders + pollers
        self._nodes = nodes
        self._values = 0
        self._polls: dict[int, tuple[int, int]] = {}  # client: (partition, polls left)

    def next(self, client: int) -> Request:
        if client < self._appenders:
            return self._append(self._rng.integer(0, self._partitions - 1))
        if self._first_session is not None and client >= self._first_session:
            return self._in_session(client % self._partitions)
        partition, left = self._polls.get(client, (client % self._partitions, 0))
        if left == 0:
            partition = (partition + 1) % self._partitions
            self._polls[client] = (partition, POLLS_PER_ASSIGNMENT)
            return Request(f="assign", key=self._key(partition))
        self._polls[client] = (partition, left - 1)
        return Request(f="poll", key=self._key(partition))

    def _append(self, partition: int) -> Request:
        self._values += 1
        return Request(f="append", key=self._key(partition), value=self._values)

    def _in_session(self, partition: int) -> Request:
        if self._rng.random() < APPENDS_OF_A_SESSION:
            return self._append(partition)
        return Request(f="tail", key=self._key(partition), node=self._rng.choice(self._nodes))

    def completed(self, request: Request, completion: Completion) -> None:
        """Appends and polls do not build on each other."""

    def _key(self, partition: int) -> str:
        return f"{self._topic}/{partition}"


class LogWorkload:
    """Append, poll and final reads over one topic.

    `threads`: clients on librdkafka, which runs threads of its own; without, on aiokafka, all on the event loop.
    `replication`: replicas of each partition, as far as there are nodes; None: one on every node, because the final
    reads ask every node, and one without a replica has nothing to answer.
    `read_from`: "followers": each poller has the rack of one node, which serves it (KIP-392), and there are sessions
    that ask any node for linearizable reads of where a partition ends.
    """

    name = "log"

    def __init__(
        self,
        *,
        topic: str = "log",
        partitions: int = 4,
        replication: int | None = None,
        appenders: int = 8,
        pollers: int = 4,
        rate: float = 300.0,
        threads: bool = True,
        read_from: ReadFrom = "leader",
    ) -> None:
        self.clients = appenders + pollers + (SESSIONS if read_from == "followers" else 0)
        self.rate = rate
        self._topic = topic
        self._partitions = partitions
        self._replication = replication
        self._appenders = appenders
        self._pollers = pollers
        self._threads = threads
        self._read_from = read_from
        self._nodes: list[int] = []  # known once it is set up

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        speaking = speakers(endpoints, self.name)
        self._nodes = [endpoint.node for endpoint in speaking]
        create_topic = kafka_topic.create_topic if self._threads else kafka_asyncio_final.create_topic
        await create_topic(
            speaking,
            self._topic,
            partitions=self._partitions,
            replication=min(self._replication or len(speaking), len(speaking)),
            timeout=timeout,
        )

    def generator(self, rng: Rng) -> Generator:
        return LogGenerator(
            rng,
            topic=self._topic,
            partitions=self._partitions,
            appenders=self._appenders,
            pollers=self._pollers,
            nodes=self._nodes,
        )

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        servers, pollers_end = bootstrap(endpoints), self._appenders + self._pollers
        if number < self._appenders:
            make = AppendClient if self._threads else AsyncAppendClient
            return make(servers, f"append-{number}", idempotent=number % 2 == 0)
        if number < pollers_end:
            poll = PollClient if self._threads else AsyncPollClient
            return poll(servers, f"poll-{number}", rack=self._rack_of_poller(endpoints, number))
        if number < self.clients:
            places = {endpoint.node: endpoint for endpoint in endpoints if endpoint.kafka is not None}
            return SessionClient(servers, f"session-{number}", places, idempotent=number % 2 == 0)
        if not self._threads:
            return kafka_asyncio_final.AsyncFinalReadClient(servers, f"final-{number}")
        return FinalReadClient(servers, f"final-{number}", {e.node: e.rack for e in endpoints if e.rack is not None})

    def _rack_of_poller(self, endpoints: Sequence[Endpoint], number: int) -> str | None:
        """Each poller has another node's, so that each partition is read at all of them."""
        racks = [endpoint.rack for endpoint in endpoints if endpoint.rack is not None]
        return racks[number % len(racks)] if self._read_from == "followers" and racks else None

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        """Every partition from every node that has a rack of its own; from the leaders alone where none has."""
        nodes: list[int | None] = [e.node for e in endpoints if e.kafka is not None and e.rack is not None]
        return [
            Request(f="final-read", key=f"{self._topic}/{partition}", node=node)
            for partition in range(self._partitions)
            for node in nodes or [None]
        ]

    def checkers(self) -> Sequence[Checker]:
        checkers: list[Checker] = [PartitionLog()]
        if self._read_from == "followers":
            checkers.append(LogSessions())
        return [ScopedChecker(checker, self.name, f"{self._topic}/") for checker in checkers]
