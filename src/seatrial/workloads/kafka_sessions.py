"""Sessions of the log workload: each appends, and asks whichever node it is told to where the partition ends now.

The question is a fetch that demands to be linearizable (`client.id=…?read=linearizable`), sent request by request, so
that it is known who answered what.

Rule: an end is told only by an answer that is neither a refusal nor a word to ask elsewhere; anything else is `fail`,
for a read changes nothing.
Knows nothing of which node leads.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection, create_conn

from seatrial.history import OpType
from seatrial.workloads.base import Completion, Endpoint, Request
from seatrial.workloads.kafka_asyncio import TROUBLE, AsyncAppendClient, told
from seatrial.workloads.kafka_fetching import Fetched, fetch_request, fetched
from seatrial.workloads.kafka_settings import split_key

DEMAND: Final = "?read=linearizable"
WAIT_MS: Final = 500
ANSWER_S: Final = 2.0
CONNECT_S: Final = 1.0
NEVER_MS: Final = 3_600_000  # the library's own limit: ours is shorter
LAST_RECORDS: Final = 1  # bytes: of what stands before the end no more than a batch is wanted


class SessionClient:
    """One session: `append` as AsyncAppendClient, `tail` at the node that the request names."""

    def __init__(self, servers: str, name: str, endpoints: dict[int, Endpoint], *, idempotent: bool) -> None:
        self._name = name
        self._endpoints = endpoints
        self._appends = AsyncAppendClient(servers, name, idempotent=idempotent)
        self._connections: dict[int, AIOKafkaConnection] = {}
        self._ends: dict[str, int] = {}  # the last that it was told, by key

    async def perform(self, request: Request) -> Completion:
        if request.f == "append":
            return await self._appends.perform(request)
        assert request.node is not None and request.key is not None, "a tail names its node and its partition"
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._asked(request.node, request.key)
        except TROUBLE as error:
            self._hang_up(request.node)
            return Completion(type=OpType.FAIL, error=told(error), node=request.node)
        if answer.error_code or answer.preferred >= 0:
            return Completion(type=OpType.FAIL, error=answer.describe(), node=request.node)
        self._ends[request.key] = answer.high_watermark
        return Completion(type=OpType.OK, value=answer.high_watermark, node=request.node)

    async def _asked(self, node: int, key: str) -> Fetched:
        connection = await self._connection(node)
        offset = self._ends.get(key, 0)
        request = fetch_request(
            TopicPartition(*split_key(key)), offset, wait_ms=WAIT_MS, min_bytes=0, max_bytes=LAST_RECORDS
        )
        return fetched(await connection.send(request), node=node, offset=offset)

    async def _connection(self, node: int) -> AIOKafkaConnection:
        known = self._connections.get(node)
        if known is not None and known.connected():
            return known
        address = self._endpoints[node].kafka
        assert address is not None, "only nodes that speak Kafka are asked"
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(CONNECT_S):
            made = await create_conn(host, int(port), client_id=f"{self._name}{DEMAND}", request_timeout_ms=NEVER_MS)
        self._connections[node] = made
        return made

    def _hang_up(self, node: int) -> None:
        connection = self._connections.pop(node, None)
        if connection is not None:
            connection.close()

    async def reconnect(self) -> None:
        for node in list(self._connections):
            self._hang_up(node)
        await self._appends.reconnect()

    async def close(self) -> None:
        await self.reconnect()
