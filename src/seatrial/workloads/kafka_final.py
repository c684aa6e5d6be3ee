"""Reads a whole partition from one chosen node, and proves that this node served it.

Kafka clients fetch from the leader; KIP-392 lets the leader send a consumer with a rack to a replica in that rack.
Each node of our clusters has its own rack, so a consumer with a node's rack is served by that node.

Proof: librdkafka names the broker that answered "end of partition".  The reader first reads until the wanted node
says so, then goes back to the beginning and reads everything again until the same node says so once more, at or
behind the leader's high watermark; the library's statistics, taken every 50 ms, must never name another broker in
between.  Without that proof the read is a failure, whatever it returned.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.kafka_clients import OwnThread, record_of
from seatrial.workloads.kafka_settings import consumer_settings, split_key

READ_S_MAX = 15.0
FIND_NODE_S_MAX = 5.0
_SERVED_BY = re.compile(r"from broker (\d+) reached end of partition")


class Unproven(Exception):
    """The read ended without the proof that it is complete and that the wanted node served it."""


class FinalReadClient:
    """Each read uses a consumer of its own, so that nothing is left of the node that was read before.

    `racks`: the rack of each node that has one; a request without a node is served by whoever leads.
    """

    def __init__(self, servers: str, name: str, racks: dict[int, str]) -> None:
        self._servers = servers
        self._name = name
        self._racks = racks
        self._thread = OwnThread(name)

    async def perform(self, request: Request) -> Completion:
        return await self._thread.run(lambda: self._read(request))

    async def reconnect(self) -> None:
        """Nothing to drop: each read connects anew."""

    async def close(self) -> None:
        await self._thread.close()

    def _read(self, request: Request) -> Completion:
        rack = self._racks[request.node] if request.node is not None else None
        brokers: set[int] = set()
        topic, partition = split_key(request.key)

        def note_broker(text: str) -> None:
            known = json.loads(text)["topics"].get(topic, {}).get("partitions", {}).get(str(partition), {})
            brokers.add(known.get("broker", -1))

        consumer = Consumer(consumer_settings(self._servers, self._name, rack=rack, statistics=note_broker))
        try:
            records = _read_proven(consumer, TopicPartition(topic, partition, 0), request.node, brokers)
        except KafkaException as error:
            return Completion(type=OpType.FAIL, error=f"incomplete: {error.args[0].str()}")
        except Unproven as error:
            return Completion(type=OpType.FAIL, error=str(error))
        finally:
            consumer.close()
        return Completion(type=OpType.OK, value=records, node=request.node)


def _read_proven(consumer: Consumer, place: TopicPartition, node: int | None, brokers: set[int]) -> list[Json]:
    """All records in the order they were served.  Raises Unproven, KafkaException."""
    began = time.monotonic()
    _, high_watermark = consumer.get_watermark_offsets(place, timeout=2.0)
    consumer.assign([place])
    if node is not None:
        _read_until(consumer, lambda server, _: server == node, f"node {node}", began + FIND_NODE_S_MAX)
        consumer.seek(place)
    brokers.clear()
    wanted = f"the high watermark {high_watermark}" + ("" if node is None else f" on node {node}")
    records = _read_until(
        consumer,
        lambda server, end: end >= high_watermark and node in (None, server),
        wanted,
        began + READ_S_MAX,
    )
    if node is not None and brokers - {node, -1}:
        raise Unproven(f"node {sorted(brokers - {node, -1})} served a part of what was to come from node {node}")
    return records


def _read_until(consumer: Consumer, is_end: Callable[[int, int], bool], wanted: str, deadline: float) -> list[Json]:
    """The records up to an end of the partition (server, offset) that is the wanted one."""
    records: list[Json] = []
    last = "no end of the partition was reached"
    while (left := deadline - time.monotonic()) > 0:
        for message in consumer.consume(1000, min(left, 0.2)):
            error = message.error()
            if error is None:
                records.append(record_of(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                found = _SERVED_BY.search(error.str())
                server = int(found[1]) if found else -1
                if is_end(server, message.offset() or 0):
                    return records
                last = f"broker {server} ended at offset {message.offset()}"
            else:
                last = error.str()
    raise Unproven(f"incomplete: {wanted} was not reached in time; {last}")
