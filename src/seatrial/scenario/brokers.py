"""Connections to the brokers of a cluster: one client that knows who leads, and one connection a node for records.

Rule: whether a request can have reached a broker is told exactly (`NoAnswer.definite`).  A connection on which
something was not answered in time is given up, so that nothing waits behind it.
Knows nothing of what is asked.  Codec and connections are aiokafka's: the tester shares none with the tested.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, create_conn

from seatrial.cluster.drivers.base import NodeAddresses
from seatrial.cluster.ports import split_address
from seatrial.scenario.attempts import NoAnswer
from seatrial.scenario.errors import NotHere
from seatrial.workloads.kafka_asyncio import BACKOFF_MS, TROUBLE, begun, in_time, shared_settings, told

CLIENT_ID: Final = "seatrial-scenario"
CONTROL_S: Final = 1.5  # to learn who leads
NEVER_MS: Final = 3_600_000  # the library's own limits: ours are shorter


class Plant(Protocol):
    """What connections need of a cluster."""

    def running(self) -> tuple[int, ...]: ...

    def addresses(self, node: int) -> NodeAddresses: ...


class Brokers:
    """Those of one cluster, as the clients of one topic see them."""

    def __init__(self, plant: Plant, topic: str) -> None:
        self._plant = plant
        self._topic = topic
        self._clients: dict[int | None, AIOKafkaClient] = {}
        self._connections: dict[tuple[int, str], AIOKafkaConnection] = {}  # by node and client id

    def address(self, node: int) -> str:
        """Raises NotHere where the nodes do not speak Kafka."""
        address = self._plant.addresses(node).kafka
        if address is None:
            raise NotHere("the nodes of this system do not speak Kafka: use system own")
        return address

    async def client(self, via: int | None = None, *, renew: bool = False) -> AIOKafkaClient:
        """That was told by this node, or by any, who leads what.  renew: asks anew.  Raises NoAnswer."""
        try:
            async with asyncio.timeout(CONTROL_S):
                client = self._clients.get(via)
                if client is None:
                    return await self._opened(via)
                if renew:
                    await client.force_metadata_update()
                return client
        except TROUBLE as error:
            whom = "any node" if via is None else f"node {via}"
            raise NoAnswer(f"no connection to {whom}: {told(error)}", definite=True) from error

    async def _opened(self, via: int | None) -> AIOKafkaClient:
        servers = ",".join(self.address(node) for node in (self._plant.running() if via is None else (via,)))
        client = AIOKafkaClient(
            **shared_settings(servers, CLIENT_ID)
            | {"retry_backoff_ms": BACKOFF_MS, "metadata_max_age_ms": NEVER_MS}  # who leads is asked after each failure
        )
        client.add_topic(self._topic)
        try:
            await begun(client.bootstrap())
        except BaseException:
            await in_time(client.close())
            raise
        other = self._clients.setdefault(via, client)
        if other is not client:  # opened meanwhile for another request
            await in_time(client.close())
        return other

    async def leader(self, client: AIOKafkaClient, partition: int) -> int:
        """Who leads the partition, by what the client was told.  Raises NoAnswer."""
        place = TopicPartition(self._topic, partition)
        leader = client.cluster.leader_for_partition(place)
        if leader is None or leader < 0:
            try:
                async with asyncio.timeout(CONTROL_S):
                    await client.force_metadata_update()
            except TROUBLE as error:
                raise NoAnswer(f"nobody told who leads {place.topic}/{partition}", definite=True) from error
            leader = client.cluster.leader_for_partition(place)
        if leader is None or leader < 0:
            raise NoAnswer(f"no leader of {place.topic}/{partition} is known", definite=True)
        return int(leader)

    async def send(self, node: int, request: Any, seconds: float, *, client_id: str = CLIENT_ID) -> Any:
        """The answer of this node.  Raises NoAnswer; it is definite where nothing was sent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout(min(seconds, CONTROL_S)):
                connection = await self._connection(node, client_id)
        except TROUBLE as error:
            raise NoAnswer(f"node {node} takes no connection: {told(error)}", definite=True) from error
        try:
            async with asyncio.timeout_at(deadline):
                return await connection.send(request)
        except TROUBLE as error:
            self._connections.pop((node, client_id), None)
            connection.close()
            raise NoAnswer(f"node {node}: {told(error)}", definite=False) from error

    async def _connection(self, node: int, client_id: str) -> AIOKafkaConnection:
        known = self._connections.get((node, client_id))
        if known is not None and known.connected():
            return known
        host, port = split_address(self.address(node))
        made = await create_conn(host, port, client_id=client_id, request_timeout_ms=NEVER_MS)
        other = self._connections.get((node, client_id))
        if other is not None and other.connected():  # opened meanwhile for another request
            made.close()
            return other
        self._connections[node, client_id] = made
        return made

    async def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            await in_time(client.close())
        for connection in self._connections.values():
            connection.close()
        self._clients.clear()
        self._connections.clear()
