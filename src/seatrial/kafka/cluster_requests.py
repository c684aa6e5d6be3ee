"""Requests about the cluster itself: Metadata, DescribeCluster, InitProducerId.

Rule: what is told is what this node knows now; a partition without a known leader is LEADER_NOT_AVAILABLE, so that
clients ask again.  That is told after a moment, for there are clients that do not wait before they ask again.
Knows nothing of how nodes find each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final

from seatrial.kafka.backend import BackendError
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call, CloseConnection
from seatrial.kafka.controller import Refused
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_requests import INTERNAL_TOPICS, NewTopic, create_topic, refuse_name
from seatrial.machines.metadata import AllocateProducerIds, Partition, Topic, encode_command

NULL_NAMES_FROM: Final = 12  # version of Metadata whose answer may leave a topic without a name
# How long an answer waits that would help nobody: a partition without a leader, or no broker that is up.  aiokafka asks
# again the instant it has one, over a thousand times a second while an election lasts.
USELESS_WAIT_S: Final = 0.05
NO_BROKER_WAIT_S: Final = 1.0


def metadata(call: Call) -> Any:
    """Metadata 0 to 13.  A coroutine where a topic is to be created by being asked for, or has no leader just now.

    Raises CloseConnection where this node belongs to no cluster yet, or nobody has told the cluster of its address:
    aiokafka would keep to a broker that tells it of none, and ask nobody else ever again.
    """
    if call.backend.is_joining:
        raise CloseConnection("this node has not joined its cluster yet, and knows of no broker")
    return _metadata(call) if call.backend.metadata.nodes else _metadata_of_a_cluster_that_starts(call)


async def _metadata_of_a_cluster_that_starts(call: Call) -> Any:
    deadline = call.backend.now_us() + NO_BROKER_WAIT_S * 1e6
    while not call.backend.metadata.nodes:
        if call.backend.now_us() > deadline:
            raise CloseConnection("no broker has told this cluster of its address yet; ask again")
        await asyncio.sleep(USELESS_WAIT_S)
    answer = _metadata(call)
    return await answer if isinstance(answer, Coroutine) else answer


def _metadata(call: Call) -> Any:
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
        except Refused as refused:
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
            name = None if call.version >= NULL_NAMES_FROM else ""
            return result(error_code=ErrorCode.UNKNOWN_TOPIC_ID, name=name, topic_id=wanted.topic_id)
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
    result = codec.structure("MetadataResponsePartition")
    alive = set(call.backend.alive_nodes())
    partitions = [result(**partition_fields(call, topic.name, p, alive)) for p in topic.partitions]
    return codec.structure("MetadataResponseTopic")(name=topic.name, topic_id=topic.topic_id, partitions=partitions)


def partition_fields(call: Call, topic: str, partition: Partition, alive: Collection[int]) -> dict[str, Any]:
    """What Metadata and DescribeTopicPartitions tell of a partition, by their fields' names."""
    leadership = call.backend.leadership(topic, partition.index)
    return {
        "error_code": ErrorCode.NONE if leadership.leader_id >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
        "partition_index": partition.index,
        "leader_id": leadership.leader_id,
        "leader_epoch": leadership.leader_epoch,
        "replica_nodes": partition.replicas,
        "isr_nodes": leadership.in_sync,
        "offline_replicas": [node for node in partition.replicas if node not in alive],
    }


def _metadata_response(call: Call, topics: Sequence[Any]) -> Any:
    """Brokers that are up, and those that lead a partition named here (clients must be able to look them up).

    A node without a controller is cut off, and knows of nobody's being up: it names all.  A client that was told of
    this node alone would forget the others, and ask nobody else for as long as the node is cut off.
    """
    codec = message("MetadataResponse")
    broker = codec.structure("MetadataResponseBroker")
    backend = call.backend
    nodes = backend.metadata.nodes
    shown = {partition.leader_id for topic in topics for partition in topic.partitions}
    shown |= {*backend.alive_nodes(), backend.controller_id} if backend.controller_id >= 0 else set(nodes)
    return codec.new(
        brokers=[
            broker(node_id=node.node_id, host=node.kafka_host, port=node.kafka_port, rack=node.rack)
            for node in (nodes[node_id] for node_id in sorted(nodes) if node_id in shown)
        ],
        cluster_id=backend.cluster_id,
        controller_id=_controller(call, shown),
        topics=topics,
    )


def _controller(call: Call, shown: Collection[int]) -> int:
    """The node to send commands to: the leader of the metadata, where clients are told its address; else this node.

    As in Kafka since KRaft, any broker takes them.  A client that is told of no controller, or of one whose address it
    does not know, waits (librdkafka for minutes): a cluster that starts has a leader before that has registered.
    """
    backend = call.backend
    told = [node_id for node_id in sorted(backend.metadata.nodes) if node_id in shown]
    wanted = (node_id for node_id in (backend.controller_id, backend.node_id, *told) if node_id in told)
    return next(wanted, -1)


BROKERS: Final = 1  # endpoint types of DescribeCluster


def describe_cluster(call: Call) -> Any:
    """DescribeCluster 0 to 2: the brokers that are up, and in version 2 on request the others, as fenced (KIP-1073)."""
    codec = message("DescribeClusterResponse")
    backend, request = call.backend, call.request
    if request.endpoint_type != BROKERS:
        return codec.new(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message="controllers have no endpoints of their own here: ask for the brokers",
            endpoint_type=request.endpoint_type,
            cluster_id=backend.cluster_id,
            brokers=(),
        )
    broker = codec.structure("DescribeClusterBroker")
    up = {*backend.alive_nodes(), backend.controller_id}
    nodes = backend.metadata.nodes
    return codec.new(
        error_message=None,
        endpoint_type=BROKERS,
        cluster_id=backend.cluster_id,
        controller_id=_controller(call, up),
        brokers=[
            broker(broker_id=node_id, host=node.kafka_host, port=node.kafka_port, rack=node.rack, is_fenced=not is_up)
            for node_id, node, is_up in ((n, nodes[n], n in up) for n in sorted(nodes))
            if is_up or request.include_fenced_brokers
        ],
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
