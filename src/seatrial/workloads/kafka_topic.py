"""Creates the topic of a run through Kafka's admin API, and waits until every partition has a leader.

Rule: retried until the deadline, and a failure says what was seen last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from seatrial.workloads.base import Endpoint, SetupFailed
from seatrial.workloads.kafka_settings import admin_settings, bootstrap

ATTEMPT_S = 2.0
RETRY_S = 0.1


async def create_topic(
    endpoints: Sequence[Endpoint], topic: str, *, partitions: int, replication: int, timeout: float
) -> None:
    """Create `topic` and return once each of its partitions has a leader.  Raises SetupFailed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    admin = await loop.run_in_executor(None, AdminClient, admin_settings(bootstrap(endpoints)))
    last = "nothing was tried"
    created = False
    while loop.time() < deadline:
        if not created:
            created, last = await loop.run_in_executor(None, _create, admin, topic, partitions, replication)
        if created:
            missing = await loop.run_in_executor(None, _without_leader, admin, topic, partitions)
            if missing is None:
                return
            last = missing
        await asyncio.sleep(RETRY_S)
    raise SetupFailed(f"topic {topic} was not ready within {timeout:g} s: {last}")


def _create(admin: AdminClient, topic: str, partitions: int, replication: int) -> tuple[bool, str]:
    """Whether the topic is there, and otherwise why not."""
    wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication)
    try:
        for answer in admin.create_topics([wanted], operation_timeout=ATTEMPT_S, request_timeout=ATTEMPT_S).values():
            answer.result(timeout=2 * ATTEMPT_S)
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        # An attempt that timed out may have been carried out after all.
        return cause.code() == KafkaError.TOPIC_ALREADY_EXISTS, cause.str()
    except TimeoutError:
        return False, "the request to create it was not answered"
    return True, ""


def _without_leader(admin: AdminClient, topic: str, partitions: int) -> str | None:
    """What is still missing; None when every partition has a leader."""
    try:
        found = admin.list_topics(topic, timeout=ATTEMPT_S).topics[topic]
    except KafkaException as error:
        return f"no metadata: {error.args[0].str()}"
    led = sorted(p.id for p in found.partitions.values() if p.leader >= 0 and p.error is None)
    if len(led) == partitions:
        return None
    return f"{len(led)} of {partitions} partitions have a leader ({found.error or led})"
