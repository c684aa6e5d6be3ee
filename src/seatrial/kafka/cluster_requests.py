"""Requests about the cluster itself: Metadata, InitProducerId, DescribeConfigs.

Rule: what is told is what this node knows now; a partition without a known leader is LEADER_NOT_AVAILABLE, so that
clients ask again.  That is told after a moment, for there are clients that do not wait before they ask again.
Knows nothing of how nodes find each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

from seatrial.kafka.backend import BackendError
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call, CloseConnection
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_configs import ConfigEntry, ConfigSource, broker_entries, topic_entries
from seatrial.kafka.topic_requests import INTERNAL_TOPICS, NewTopic, RefusedTopic, create_topic, refuse_name
from seatrial.machines.metadata import AllocateProducerIds, Topic, encode_command

NO_ID: Final = bytes(16)
TOPIC_RESOURCE: Final = 2  # resource types of DescribeConfigs
BROKER_RESOURCE: Final = 4
# How long an answer waits that would help nobody: a partition without a leader, or no broker that is up.  aiokafka asks
# again the instant it has one, over a thousand times a second while an election lasts.
USELESS_WAIT_S: Final = 0.05


def metadata(call: Call) -> Any:
    """Metadata 0 to 13.  A coroutine where a topic is to be created by being asked for, or has no leader just now.

    Raises CloseConnection where this node belongs to no cluster yet: aiokafka would keep to a broker that tells it of
    none, and ask nobody else ever again.
    """
    if call.backend.is_joining:
        raise CloseConnection("this node has not joined its cluster yet, and knows of no broker")
    request = call.request
    if request.topics is None or (call.version == 0 and not request.topics):
        topics = sorted(call.backend.metadata.topics.items())
        everything = [_topic_metadata(call, topic) for name, topic in topics if name not in INTERNAL_TOPICS]
        return _metadata_response(call, everything)
    if call.settings.auto_create_topics and request.allow_auto_topic_creation:
        missing = [wanted.name for wanted in request.topics if _is_missing(call, wanted)]
        if missing:
            return _create_then_answer(call, missing)
    answer = _metadata_response(call, [_wanted_metadata(call, wanted) for wanted in request.topics])
    leaders = [partition.leader_id for topic in answer.topics for partition in topic.partitions]
    return answer if answer.brokers and all(leader >= 0 for leader in leaders) else _wait_then_answer(call)


async def _wait_then_answer(call: Call) -> Any:
    await asyncio.sleep(USELESS_WAIT_S)
    return _metadata_response(call, [_wanted_metadata(call, wanted) for wanted in call.request.topics])


def _is_missing(call: Call, wanted: Any) -> bool:
    name = wanted.name
    return name is not None and name not in call.backend.metadata.topics and refuse_name(name) is None


async def _create_then_answer(call: Call, missing: Sequence[str]) -> Any:
    failed: set[str] = set()
    for name in missing:
        try:
            await create_topic(call.backend, call.settings, NewTopic(name), call.settings.metadata_timeout_ms / 1000)
        except RefusedTopic as refused:
            if refused.error != ErrorCode.TOPIC_ALREADY_EXISTS:  # somebody else was quicker: as good
                failed.add(name)
    return _metadata_response(call, [_wanted_metadata(call, wanted, failed) for wanted in call.request.topics])


def _wanted_metadata(call: Call, wanted: Any, failed: Collection[str] = ()) -> Any:
    """A topic by name, or by id where the name is null (version 12 and later)."""
    result = message("MetadataResponse").structure("MetadataResponseTopic")
    known = call.backend.metadata
    if wanted.name is None:
        by_id = known.topic_by_id(wanted.topic_id)
        if by_id is None:
            return result(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=None, topic_id=wanted.topic_id)
        return _topic_metadata(call, by_id)
    topic = known.topics.get(wanted.name)
    if topic is not None and topic.name not in INTERNAL_TOPICS:
        return _topic_metadata(call, topic)
    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if refuse_name(wanted.name) is not None:
        error = ErrorCode.INVALID_TOPIC_EXCEPTION
    elif wanted.name in failed:
        # Nodes have not registered yet, or there is no controller: it passes, and this makes clients ask again.
        error = ErrorCode.LEADER_NOT_AVAILABLE
    return result(error_code=error, name=wanted.name)


def _topic_metadata(call: Call, topic: Topic) -> Any:
    codec = message("MetadataResponse")
    partition_result = codec.structure("MetadataResponsePartition")
    alive = set(call.backend.alive_nodes())
    partitions = []
    for partition in topic.partitions:
        leadership = call.backend.leadership(topic.name, partition.index)
        partitions.append(
            partition_result(
                error_code=ErrorCode.NONE if leadership.leader_id >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
                partition_index=partition.index,
                leader_id=leadership.leader_id,
                leader_epoch=leadership.leader_epoch,
                replica_nodes=partition.replicas,
                isr_nodes=leadership.in_sync,
                offline_replicas=[node for node in partition.replicas if node not in alive],
            )
        )
    return codec.structure("MetadataResponseTopic")(name=topic.name, topic_id=topic.topic_id, partitions=partitions)


def _metadata_response(call: Call, topics: Sequence[Any]) -> Any:
    """Brokers that are up, and those that lead a partition named here (clients must be able to look them up)."""
    codec = message("MetadataResponse")
    broker = codec.structure("MetadataResponseBroker")
    backend = call.backend
    shown = {partition.leader_id for topic in topics for partition in topic.partitions}
    shown |= {*backend.alive_nodes(), backend.controller_id}
    nodes = backend.metadata.nodes
    return codec.new(
        brokers=[
            broker(node_id=node.node_id, host=node.kafka_host, port=node.kafka_port, rack=node.rack)
            for node in (nodes[node_id] for node_id in sorted(nodes) if node_id in shown)
        ],
        cluster_id=backend.cluster_id,
        controller_id=backend.controller_id,
        topics=topics,
    )


async def init_producer_id(call: Call) -> Any:
    """InitProducerId 0 to 5: a new producer id, epoch 0, for an idempotent producer."""
    codec = message("InitProducerIdResponse")
    nothing = {"producer_id": -1, "producer_epoch": -1}
    if call.request.transactional_id is not None:
        return codec.new(error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, **nothing)
    command = encode_command(AllocateProducerIds(1), request_id=call.backend.new_request_id())
    try:
        result = await call.backend.propose_metadata(command, call.settings.metadata_timeout_ms / 1000)
    except BackendError:
        # The one error after which every client simply asks again, without looking for a coordinator first.
        return codec.new(error_code=ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, **nothing)
    return codec.new(producer_id=result.first_producer_id, producer_epoch=0)


def describe_configs(call: Call) -> Any:
    """DescribeConfigs 1 to 4, of topics and of this broker."""
    codec = message("DescribeConfigsResponse")
    return codec.new(results=[_describe_one(call, resource) for resource in call.request.resources])


def _describe_one(call: Call, resource: Any) -> Any:
    codec = message("DescribeConfigsResponse")
    identity = {"resource_type": resource.resource_type, "resource_name": resource.resource_name}
    result = codec.structure("DescribeConfigsResult")
    found = _entries(call, resource.resource_type, resource.resource_name)
    if isinstance(found, RefusedTopic):
        return result(error_code=found.error, error_message=found.text, **identity)
    wanted = resource.configuration_keys
    config = codec.structure("DescribeConfigsResourceResult")
    synonym = codec.structure("DescribeConfigsSynonym")
    configs = [
        config(
            name=entry.name,
            value=entry.value,
            read_only=entry.source == ConfigSource.STATIC_BROKER_CONFIG,
            config_source=entry.source,
            config_type=entry.kind,
            synonyms=[synonym(name=entry.name, value=entry.value, source=entry.source)]
            if call.request.include_synonyms
            else (),
            documentation=None,
        )
        for entry in found
        if wanted is None or entry.name in wanted
    ]
    return result(configs=configs, error_message=None, **identity)


def _entries(call: Call, resource_type: int, name: str) -> list[ConfigEntry] | RefusedTopic:
    if resource_type == TOPIC_RESOURCE:
        topic = call.backend.metadata.topics.get(name)
        if topic is None:
            return RefusedTopic(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        return topic_entries(topic.configs, call.settings)
    if resource_type == BROKER_RESOURCE:
        node_id = call.backend.node_id
        if name not in ("", str(node_id)):
            text = f"this is broker {node_id}: ask broker {name} itself"
            return RefusedTopic(ErrorCode.INVALID_REQUEST, text)
        return broker_entries(node_id, call.settings)
    return RefusedTopic(ErrorCode.INVALID_REQUEST, f"resources of type {resource_type} have no configuration here")
