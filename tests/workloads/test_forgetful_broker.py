"""The log's clients against a broker that forgot what it had acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.history import OpType
from seatrial.workloads.base import Endpoint, Request
from seatrial.workloads.kafka_clients import AppendClient
from seatrial.workloads.kafka_log import LogWorkload


@pytest.mark.slow
def test_an_idempotent_append_survives_a_broker_that_forgot_its_producer() -> None:
    """librdkafka then fails for good and raises from `poll`; that once ended the whole run with a traceback."""

    async def scenario() -> None:
        async with spawn_cluster(ClusterSpec(nodes=1, links=False)) as cluster:
            at = cluster.addresses(1)
            endpoints = [Endpoint(node=1, kafka=at.kafka, http=at.http, rack=at.rack)]
            workload = LogWorkload(replication=1)
            await workload.setup(endpoints, timeout=20)
            client = AppendClient(str(at.kafka), "append", idempotent=True)
            try:
                for value in range(3):
                    assert (await client.perform(Request(f="append", key="log/0", value=value))).type is OpType.OK
                await cluster.kill(1)
                await cluster.wipe(1)
                await cluster.start(1)
                await workload.setup(endpoints, timeout=20)
                ends = []
                for value in range(3, 40):
                    ends.append((await client.perform(Request(f="append", key="log/0", value=value))).type)
                    if ends[-1] is OpType.OK:
                        break
                    await client.reconnect()
                assert ends[-1] is OpType.OK, ends
            finally:
                await client.close()

    asyncio.run(scenario())
