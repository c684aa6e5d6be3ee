"""AlterPartitionReassignments and ListPartitionReassignments: on which nodes partitions are.

Rule: a move is a new target in the metadata, which the partition's own group follows step by step; calling it off is a
move back.  A partition is on the move until every member of its group knows the target.
Knows nothing of how records get to their new place.
"""

from __future__ import annotations

import asyncio
from typing import Any

from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.controller import Refused, propose, timeout_s
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_configs import refuse_promise
from seatrial.kafka.topic_requests import INTERNAL_TOPICS, known_topic, refuse_replicas
from seatrial.machines.metadata import AssignReplicas, Partition


async def alter_partition_reassignments(call: Call) -> Any:
    """AlterPartitionReassignments 0 and 1 (KIP-455)."""
    codec = message("AlterPartitionReassignmentsResponse")
    topic_result = codec.structure("ReassignableTopicResponse")

    async def of_topic(topic: Any) -> Any:
        moves = (_move(call, topic.name, wanted) for wanted in topic.partitions)
        return topic_result(name=topic.name, partitions=await asyncio.gather(*moves))

    return codec.new(
        error_message=None,
        allow_replication_factor_change=call.request.allow_replication_factor_change,
        responses=await asyncio.gather(*map(of_topic, call.request.topics)),
    )


async def _move(call: Call, name: str, wanted: Any) -> Any:
    result = message("AlterPartitionReassignmentsResponse").structure("ReassignablePartitionResponse")
    index = wanted.partition_index
    try:
        command = _plan(call, name, index, wanted.replicas)
        await propose(call.backend, command, timeout_s(call.request.timeout_ms))
    except Refused as refused:
        return result(partition_index=index, error_code=refused.error, error_message=refused.text)
    return result(partition_index=index, error_message=None)


def _plan(call: Call, name: str, index: int, replicas: list[int] | None) -> AssignReplicas:
    """Raises Refused."""
    topic = known_topic(call.backend, name)
    if not 0 <= index < len(topic.partitions):
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {name}/{index}")
    partition = topic.partitions[index]
    if replicas is None:
        if partition.settled:
            raise Refused(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, f"{name}/{index} is not on the move")
        replicas = list(partition.previous)
    refuse_replicas(call.backend, index, replicas)
    if not call.request.allow_replication_factor_change and len(replicas) != len(partition.replicas):
        text = f"{name}/{index} has {len(partition.replicas)} replicas, and the request says that this is to stay so"
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, text)
    reason = refuse_promise(topic.configs, len(replicas), call.settings)
    if reason is not None:
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, reason)
    learners = tuple(node for node in partition.learners if node not in replicas)
    return AssignReplicas(topic.topic_id, index, tuple(replicas), learners, override=True)


def list_partition_reassignments(call: Call) -> Any:
    """ListPartitionReassignments 0: those under way, of all topics or of those named."""
    codec = message("ListPartitionReassignmentsResponse")
    topics = call.backend.metadata.topics
    if call.request.topics is None:
        named = {name: range(len(topics[name].partitions)) for name in sorted(topics)}
    else:
        named = {item.name: item.partition_indexes for item in call.request.topics}
    found = []
    for name, indexes in named.items():
        topic = topics.get(name)
        if topic is None or name in INTERNAL_TOPICS:
            continue
        moving = [topic.partitions[i] for i in indexes if 0 <= i < len(topic.partitions)]
        shown = [_shown(partition) for partition in moving if not partition.settled]
        if shown:
            found.append(codec.structure("OngoingTopicReassignment")(name=name, partitions=shown))
    return codec.new(error_message=None, topics=found)


def _shown(partition: Partition) -> Any:
    """Kafka counts the replicas of both sides while a partition moves."""
    adding = [node for node in partition.replicas if node not in partition.previous]
    removing = [node for node in partition.previous if node not in partition.replicas]
    return message("ListPartitionReassignmentsResponse").structure("OngoingPartitionReassignment")(
        partition_index=partition.index,
        replicas=[*partition.replicas, *removing],
        adding_replicas=adding,
        removing_replicas=removing,
    )
