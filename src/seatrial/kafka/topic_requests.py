"""CreateTopics and DeleteTopics, and the creation of topics that clients ask for by using them.

Rule: everything that can be checked is checked here, with Kafka's own error for it; what only the replicated state can
decide (a name taken meanwhile) is decided there.
Knows nothing of how partitions come to life.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from seatrial.kafka.backend import Backend, BrokerSettings
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.controller import Refused, propose, timeout_s
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_settings import GROUPS_TOPIC
from seatrial.kafka.topic_configs import inherited, refuse_config, refuse_promise, topic_entries
from seatrial.machines.metadata import CreateTopic, DeleteTopic, Topic
from seatrial.machines.placement import assign_replicas

MAX_NAME_LENGTH: Final = 249
CREATED_AT_ONCE: Final = 64  # of the topics of one request; the others wait for these
DEFAULT: Final = -1  # "as the broker's settings say"
# They hold what is not for clients to read or delete, in a form of our own: shown to nobody, named by nobody.
INTERNAL_TOPICS: Final = frozenset({GROUPS_TOPIC})
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]+")


class NewTopic(NamedTuple):
    """What is to be created; `partitions` and `replication_factor` may be DEFAULT, `manual` names replicas instead."""

    name: str
    partitions: int = DEFAULT
    replication_factor: int = DEFAULT
    manual: Mapping[int, Sequence[int]] = {}
    configs: Mapping[str, str | None] = {}


def refuse_name(name: str) -> str | None:
    """Why this cannot be the name of a topic, or None (Kafka's own rules)."""
    if not name:
        return "a topic name must not be empty"
    if name in (".", ".."):
        return "a topic name must not be '.' or '..'"
    if len(name) > MAX_NAME_LENGTH:
        return f"a topic name has at most {MAX_NAME_LENGTH} characters, this has {len(name)}"
    if not _NAME.fullmatch(name):
        return f"a topic name has only letters, digits, '.', '_' and '-', unlike {name!r}"
    if name in INTERNAL_TOPICS:
        return f"topic {name!r} is internal: consumer groups are kept in it, and only their own requests reach it"
    return None


def known_topic(backend: Backend, name: str) -> Topic:
    """A topic that clients may name.  Raises Refused."""
    topic = backend.metadata.topics.get(name)
    if topic is None or name in INTERNAL_TOPICS:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
    return topic


def plan_topic(backend: Backend, settings: BrokerSettings, topic: NewTopic) -> CreateTopic:
    """The command that creates a topic.  Raises Refused."""
    reason = refuse_name(topic.name)
    if reason is not None:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, reason)
    if topic.name in backend.metadata.topics:
        raise Refused(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {topic.name!r} already exists")
    for name in sorted(topic.configs):
        reason = refuse_config(name, topic.configs[name])
        if reason is not None:
            raise Refused(ErrorCode.INVALID_CONFIG, reason)
    configs = {name: value for name, value in topic.configs.items() if value is not None}
    assignments = _manual_assignments(backend, topic) if topic.manual else _assignments(backend, settings, topic)
    reason = refuse_promise(configs, min(map(len, assignments)), settings)
    if reason is not None:
        raise Refused(ErrorCode.INVALID_CONFIG, reason)
    return CreateTopic(topic.name, assignments, configs)


def _manual_assignments(backend: Backend, topic: NewTopic) -> tuple[tuple[int, ...], ...]:
    if topic.partitions != DEFAULT or topic.replication_factor != DEFAULT:
        raise Refused(
            ErrorCode.INVALID_REQUEST, "with a manual assignment, partitions and replication factor must both be -1"
        )
    if sorted(topic.manual) != list(range(len(topic.manual))):
        raise Refused(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT, f"partitions must be numbered from 0 on, not {sorted(topic.manual)}"
        )
    for partition, replicas in topic.manual.items():
        refuse_replicas(backend, partition, replicas)
    return tuple(tuple(topic.manual[partition]) for partition in range(len(topic.manual)))


def refuse_replicas(backend: Backend, partition: int, replicas: Sequence[int]) -> None:
    """Raises Refused where these cannot be the replicas of a partition."""
    unknown = sorted(set(replicas) - set(backend.metadata.nodes))
    if unknown or not replicas or len(set(replicas)) != len(replicas):
        text = f"partition {partition} needs known and different nodes, not {list(replicas)}"
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)


def _assignments(backend: Backend, settings: BrokerSettings, topic: NewTopic) -> tuple[tuple[int, ...], ...]:
    partitions = settings.default_partitions if topic.partitions == DEFAULT else topic.partitions
    if not 1 <= partitions <= settings.max_partitions:
        text = f"a topic has 1 to {settings.max_partitions} partitions, not {partitions}"
        raise Refused(ErrorCode.INVALID_PARTITIONS, text)
    factor = topic.replication_factor
    if factor == DEFAULT:
        factor = settings.default_replication_factor
    return place(backend, partitions, factor)


def place(backend: Backend, partitions: int, factor: int) -> tuple[tuple[int, ...], ...]:
    """Replicas for so many new partitions.  Raises Refused where there are too few nodes."""
    nodes = backend.metadata.placeable
    alive = [node for node in backend.alive_nodes() if node in nodes]
    # A node that is down for now is taken where the others are too few: a majority of the replicas will do.
    usable = alive if len(alive) >= factor else sorted(nodes)
    if not 1 <= factor <= len(usable):
        text = f"replication factor {factor} cannot be reached: {len(usable)} nodes are registered"
        raise Refused(ErrorCode.INVALID_REPLICATION_FACTOR, text)
    racks = {int(node): nodes[node].rack for node in nodes if node in usable}
    return assign_replicas(racks, partitions=partitions, replication_factor=factor, first=backend.metadata.next_group)


async def create_topic(backend: Backend, settings: BrokerSettings, topic: NewTopic, seconds: float) -> Topic:
    """Create a topic and return it.  Raises Refused, also where the cluster could not say yes in time."""
    return await _create(backend, plan_topic(backend, settings, topic), seconds)


async def create_internal_topic(backend: Backend, settings: BrokerSettings, topic: NewTopic, seconds: float) -> None:
    """Make sure that there is this internal topic.  Raises Refused."""
    if topic.name in backend.metadata.topics:
        return
    command = CreateTopic(topic.name, _assignments(backend, settings, topic))
    try:
        await _create(backend, command, seconds)
    except Refused as refused:
        if refused.error != ErrorCode.TOPIC_ALREADY_EXISTS:  # another node was asked as well, and was quicker
            raise


async def _create(backend: Backend, command: CreateTopic, seconds: float) -> Topic:
    result = await propose(backend, command, seconds)
    assert result.topic is not None
    return result.topic


async def create_topics(call: Call) -> Any:
    """CreateTopics 2 to 7; the topics are created side by side, but not too many at once."""
    request, limit = call.request, call.settings.max_partitions
    named = Counter(topic.name for topic in request.topics)
    sizes = [max(topic.num_partitions, len(topic.assignments), 1) for topic in request.topics]
    wanted = sum(size for size in sizes if size <= limit)  # one that is too large alone is told so
    turn = asyncio.Semaphore(CREATED_AT_ONCE)
    now = asyncio.get_running_loop().time
    deadline = now() + timeout_s(request.timeout_ms)  # of all together

    async def one(topic: Any) -> Any:
        refused = None
        if wanted > limit:
            text = f"the request asks for {wanted} partitions; at most {limit} are created at once, so ask in parts"
            refused = Refused(ErrorCode.POLICY_VIOLATION, text)
        elif named[topic.name] > 1:
            text = f"the request names topic {topic.name!r} more than once"
            refused = Refused(ErrorCode.INVALID_REQUEST, text)
        async with turn:
            return await _create_one(call, topic, refused, deadline - now())

    return message("CreateTopicsResponse").new(topics=await asyncio.gather(*map(one, request.topics)))


async def _create_one(call: Call, topic: Any, refused: Refused | None, seconds: float) -> Any:
    codec = message("CreateTopicsResponse")
    result = codec.structure("CreatableTopicResult")
    try:
        if refused is not None:
            raise refused
        wanted = NewTopic(
            topic.name,
            topic.num_partitions,
            topic.replication_factor,
            {item.partition_index: item.broker_ids for item in topic.assignments},
            {item.name: item.value for item in topic.configs},
        )
        if call.request.validate_only:
            plan = plan_topic(call.backend, call.settings, wanted)
            assignments, configs, topic_id = plan.assignments, plan.configs, bytes(16)
        else:
            if seconds <= 0:
                raise Refused(
                    ErrorCode.REQUEST_TIMED_OUT, "not begun: the request's time was up with the topics before"
                )
            created = await create_topic(call.backend, call.settings, wanted, seconds)
            assignments = tuple(partition.replicas for partition in created.partitions)
            configs, topic_id = created.configs, created.topic_id
    except Refused as refused:
        return result(name=topic.name, error_code=refused.error, error_message=refused.text)
    shown = codec.structure("CreatableTopicConfigs")
    return result(
        name=topic.name,
        topic_id=topic_id,
        error_message=None,
        num_partitions=len(assignments),
        replication_factor=len(assignments[0]),
        configs=[
            shown(name=entry.name, value=entry.value, config_source=entry.source)
            for entry in topic_entries(configs, inherited(call.backend, call.settings))
        ],
    )


async def delete_topics(call: Call) -> Any:
    """DeleteTopics 1 to 6; by name, or by id from version 6 on."""
    request = call.request
    if call.version >= 6:
        wanted = [(topic.name, topic.topic_id) for topic in request.topics]
    else:
        wanted = [(name, bytes(16)) for name in request.topic_names]
    results = [_delete_one(call, name, topic_id) for name, topic_id in wanted]
    return message("DeleteTopicsResponse").new(responses=await asyncio.gather(*results))


async def _delete_one(call: Call, name: str | None, topic_id: bytes) -> Any:
    result = message("DeleteTopicsResponse").structure("DeletableTopicResult")
    try:
        topic = _find(call.backend, name, topic_id)
        await propose(call.backend, DeleteTopic(topic.topic_id), timeout_s(call.request.timeout_ms))
    except Refused as refused:
        return result(name=name, topic_id=topic_id, error_code=refused.error, error_message=refused.text)
    return result(name=topic.name, topic_id=topic.topic_id)


def _find(backend: Backend, name: str | None, topic_id: bytes) -> Topic:
    if name in INTERNAL_TOPICS:
        raise Refused(ErrorCode.INVALID_TOPIC_EXCEPTION, f"topic {name!r} is internal and cannot be deleted")
    if name is not None:
        if any(topic_id):
            raise Refused(ErrorCode.INVALID_REQUEST, "name the topic by its name or by its id, not by both")
        named = backend.metadata.topics.get(name)
        if named is None:
            raise Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name!r}")
        return named
    found = backend.metadata.topic_by_id(topic_id)
    if found is None or found.name in INTERNAL_TOPICS:
        raise Refused(ErrorCode.UNKNOWN_TOPIC_ID, f"no topic has id {topic_id.hex()}")
    return found
