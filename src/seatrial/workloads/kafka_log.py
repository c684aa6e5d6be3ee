"""The workload `log`: append unique integers to a topic, poll them back, and read everything from every node at last.

Half of the appenders are idempotent, half send each record once; no value is ever sent by two operations, so a value
that appears twice is a duplicate and one that is missing after its acknowledgement is lost.
Operations: append (value; ok [offset, value]), assign and poll (ok [[offset, value], …]), final-read.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.checkers.base import Checker
from seatrial.checkers.partition_log import PartitionLog
from seatrial.env import Rng
from seatrial.workloads import kafka_asyncio_final, kafka_topic
from seatrial.workloads.base import Client, Completion, Endpoint, Generator, Request
from seatrial.workloads.kafka_asyncio import AsyncAppendClient, AsyncPollClient
from seatrial.workloads.kafka_clients import AppendClient, PollClient
from seatrial.workloads.kafka_final import FinalReadClient
from seatrial.workloads.kafka_settings import bootstrap, speakers
from seatrial.workloads.scoped import ScopedChecker

POLLS_PER_ASSIGNMENT = 60


class LogGenerator:
    """Appenders pick a partition for each value; pollers stay on one for a while, then move to the next."""

    def __init__(self, rng: Rng, *, topic: str, partitions: int, appenders: int) -> None:
        self._rng = rng
        self._topic = topic
        self._partitions = partitions
        self._appenders = appenders
        self._values = 0
        self._polls: dict[int, tuple[int, int]] = {}  # client: (partition, polls left)

    def next(self, client: int) -> Request:
        if client < self._appenders:
            self._values += 1
            return Request(f="append", key=self._key(self._rng.integer(0, self._partitions - 1)), value=self._values)
        partition, left = self._polls.get(client, (client % self._partitions, 0))
        if left == 0:
            partition = (partition + 1) % self._partitions
            self._polls[client] = (partition, POLLS_PER_ASSIGNMENT)
            return Request(f="assign", key=self._key(partition))
        self._polls[client] = (partition, left - 1)
        return Request(f="poll", key=self._key(partition))

    def completed(self, request: Request, completion: Completion) -> None:
        """Appends and polls do not build on each other."""

    def _key(self, partition: int) -> str:
        return f"{self._topic}/{partition}"


class LogWorkload:
    """Append, poll and final reads over one topic.

    `threads`: clients on librdkafka, which runs threads of its own; without, on aiokafka, all on the event loop.
    `replication`: replicas of each partition, as far as there are nodes; None: one on every node, because the final
    reads ask every node, and one without a replica has nothing to answer.
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
    ) -> None:
        self.clients = appenders + pollers
        self.rate = rate
        self._topic = topic
        self._partitions = partitions
        self._replication = replication
        self._appenders = appenders
        self._threads = threads

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        speaking = speakers(endpoints, self.name)
        create_topic = kafka_topic.create_topic if self._threads else kafka_asyncio_final.create_topic
        await create_topic(
            speaking,
            self._topic,
            partitions=self._partitions,
            replication=min(self._replication or len(speaking), len(speaking)),
            timeout=timeout,
        )

    def generator(self, rng: Rng) -> Generator:
        return LogGenerator(rng, topic=self._topic, partitions=self._partitions, appenders=self._appenders)

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        servers = bootstrap(endpoints)
        if not self._threads:
            return self._client_without_threads(servers, number)
        if number < self._appenders:
            return AppendClient(servers, f"append-{number}", idempotent=number % 2 == 0)
        if number < self.clients:
            return PollClient(servers, f"poll-{number}")
        return FinalReadClient(servers, f"final-{number}", {e.node: e.rack for e in endpoints if e.rack is not None})

    def _client_without_threads(self, servers: str, number: int) -> Client:
        if number < self._appenders:
            return AsyncAppendClient(servers, f"append-{number}", idempotent=number % 2 == 0)
        if number < self.clients:
            return AsyncPollClient(servers, f"poll-{number}")
        return kafka_asyncio_final.AsyncFinalReadClient(servers, f"final-{number}")

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        """Every partition from every node that has a rack of its own; from the leaders alone where none has."""
        nodes: list[int | None] = [e.node for e in endpoints if e.kafka is not None and e.rack is not None]
        return [
            Request(f="final-read", key=f"{self._topic}/{partition}", node=node)
            for partition in range(self._partitions)
            for node in nodes or [None]
        ]

    def checkers(self) -> Sequence[Checker]:
        return (ScopedChecker(PartitionLog(), self.name, f"{self._topic}/"),)
