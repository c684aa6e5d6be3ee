"""OffsetCommit, OffsetFetch, OffsetDelete: how far groups have read.

Rule: a committed offset belongs to a topic and not to its name: it is not shown for a later topic that has the same
name, and before that is decided this node makes sure that its metadata is not the older one of the two.
Knows nothing of how offsets are kept.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupView, MemberView, NewOffset
from seatrial.kafka.group_messages import GroupState, Identity
from seatrial.kafka.group_requests import ready_coordinator_of
from seatrial.machines.groups import OffsetRecord, TopicPartition

MANY_GROUPS_SINCE: Final = 8  # versions of OffsetFetch
TOP_LEVEL_ERROR_SINCE: Final = 2
CONSUMER: Final = "consumer"  # the protocol type of groups whose members say which topics they read
_VERSION: Final = struct.Struct(">hi")  # of a consumer's metadata: its version, how many topics it names
_LENGTH: Final = struct.Struct(">h")


# ---- committing ----------------------------------------------------------------------------------------------------


def offset_commit(call: Call) -> Any | Coroutine[Any, Any, Any]:
    """OffsetCommit 2 to 9; answered when it is replicated."""
    request = call.request
    found = call.backend.groups.coordinator_of(request.group_id)
    if isinstance(found, ErrorCode):
        return _committed(call, {}, found)
    offsets, refused = _sorted_out(call)
    identity = Identity(request.member_id, request.group_instance_id)
    generation = request.generation_id_or_member_epoch
    answer = found.commit(request.group_id, identity, generation, offsets, request.retention_time_ms)

    async def later() -> Any:
        error = await answer
        if ErrorCode.UNKNOWN_TOPIC_OR_PARTITION in refused.values():
            await _look_again(call, refused)
        return _committed(call, refused, error)

    return later()


def _sorted_out(call: Call) -> tuple[list[NewOffset], dict[TopicPartition, ErrorCode]]:
    """What is to be committed, and what cannot be."""
    offsets: list[NewOffset] = []
    refused: dict[TopicPartition, ErrorCode] = {}
    for topic in call.request.topics:
        known = call.backend.metadata.topics.get(topic.name)
        for wanted in topic.partitions:
            index, text = wanted.partition_index, wanted.committed_metadata or ""
            if known is None or not 0 <= index < len(known.partitions):
                refused[topic.name, index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif len(text) > call.settings.groups.offset_metadata_max_bytes:
                refused[topic.name, index] = ErrorCode.OFFSET_METADATA_TOO_LARGE
            else:
                epoch, topic_id = wanted.committed_leader_epoch, known.topic_id
                offsets.append(NewOffset(topic.name, index, wanted.committed_offset, epoch, text, topic_id))
    return offsets, refused


async def _look_again(call: Call, refused: dict[TopicPartition, ErrorCode]) -> None:
    """A topic that is not known here may only be new: then the client is to try again, and not to give up."""
    is_current = await call.backend.groups.metadata_is_current()
    topics = call.backend.metadata.topics
    for name, index in refused:
        is_known = name in topics and 0 <= index < len(topics[name].partitions)
        if refused[name, index] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and (is_known or not is_current):
            refused[name, index] = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


def _committed(call: Call, refused: Mapping[TopicPartition, ErrorCode], error: ErrorCode) -> Any:
    codec = message("OffsetCommitResponse")
    topic_result, result = (
        codec.structure("OffsetCommitResponseTopic"),
        codec.structure("OffsetCommitResponsePartition"),
    )
    return codec.new(
        topics=[
            topic_result(
                name=topic.name,
                partitions=[
                    result(
                        partition_index=wanted.partition_index,
                        error_code=refused.get((topic.name, wanted.partition_index), error),
                    )
                    for wanted in topic.partitions
                ],
            )
            for topic in call.request.topics
        ]
    )


# ---- fetching ------------------------------------------------------------------------------------------------------


async def offset_fetch(call: Call) -> Any:
    """OffsetFetch 1 to 9: what was committed last, by linearizable reads; nothing (-1) where nothing was."""
    request = call.request
    if call.version < MANY_GROUPS_SINCE:
        return _fetched_one(call, await _read_offsets(call, request.group_id, request.topics))
    wanted = [(group.group_id, group.topics) for group in request.groups]
    found = await asyncio.gather(*(_read_offsets(call, group_id, topics) for group_id, topics in wanted))
    codec = message("OffsetFetchResponse")
    group_result = codec.structure("OffsetFetchResponseGroup")
    groups = []
    for (group_id, topics), offsets in zip(wanted, found, strict=True):
        if isinstance(offsets, ErrorCode):
            groups.append(group_result(group_id=group_id, error_code=offsets))
        else:
            groups.append(
                group_result(group_id=group_id, topics=_fetched(topics, offsets, "OffsetFetchResponseTopics"))
            )
    return codec.new(groups=groups)


async def _read_offsets(
    call: Call, group_id: str, topics: Sequence[Any] | None
) -> Mapping[TopicPartition, OffsetRecord] | ErrorCode:
    """All offsets of the group that belong to a topic that there still is; at least those of `topics` (None: all)."""
    groups = call.backend.groups
    found = await ready_coordinator_of(call, group_id)
    if isinstance(found, ErrorCode):
        return found
    view = await found.read(group_id)
    if isinstance(view, ErrorCode):
        return {} if view == ErrorCode.GROUP_ID_NOT_FOUND else view
    names = None if topics is None else {topic.name for topic in topics}
    offsets = {key: offset for key, offset in view.offsets.items() if names is None or key[0] in names}
    known = call.backend.metadata.topics
    if any(name not in known or known[name].topic_id != offset.topic_id for (name, _), offset in offsets.items()):
        if not await groups.metadata_is_current():
            return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        known = call.backend.metadata.topics
        offsets = {
            key: offset
            for key, offset in offsets.items()
            if key[0] in known and known[key[0]].topic_id == offset.topic_id
        }
    return offsets


def _fetched(topics: Sequence[Any] | None, offsets: Mapping[TopicPartition, OffsetRecord], structure: str) -> list[Any]:
    """One result for each partition asked for; for each that has an offset where all were."""
    codec = message("OffsetFetchResponse")
    topic_result = codec.structure(structure)
    result = codec.structure(structure.replace("Topic", "Partition"))
    wanted: dict[str, list[int]] = {}
    if topics is None:
        for name, index in sorted(offsets):
            wanted.setdefault(name, []).append(index)
    else:
        for topic in topics:
            wanted.setdefault(topic.name, []).extend(topic.partition_indexes)
    nothing = OffsetRecord(-1, -1, "", -1, b"")
    results = []
    for name, indexes in wanted.items():
        partitions = []
        for index in indexes:
            offset = offsets.get((name, index), nothing)
            partitions.append(
                result(
                    partition_index=index,
                    committed_offset=offset.offset,
                    committed_leader_epoch=offset.leader_epoch,
                    metadata=offset.metadata,
                )
            )
        results.append(topic_result(name=name, partitions=partitions))
    return results


def _fetched_one(call: Call, offsets: Mapping[TopicPartition, OffsetRecord] | ErrorCode) -> Any:
    """The answer about one group, before version 8."""
    codec = message("OffsetFetchResponse")
    topics = call.request.topics
    if not isinstance(offsets, ErrorCode):
        return codec.new(topics=_fetched(topics, offsets, "OffsetFetchResponseTopic"))
    # The error stands at each partition as well, unlike in Kafka: aiokafka looks at no other, takes a partition that is
    # not named for one without a commit, and begins it anew at its end or its beginning.
    refused = _fetched(topics or (), {}, "OffsetFetchResponseTopic")
    for topic in refused:
        for partition in topic.partitions:
            partition.error_code = offsets
    error = offsets if call.version >= TOP_LEVEL_ERROR_SINCE else ErrorCode.NONE
    return codec.new(error_code=error, topics=refused)


# ---- deleting ------------------------------------------------------------------------------------------------------


async def offset_delete(call: Call) -> Any:
    """OffsetDelete 0 (KIP-496): not of topics that a member reads just now."""
    codec = message("OffsetDeleteResponse")
    request = call.request
    wanted = [(topic.name, p.partition_index) for topic in request.topics for p in topic.partitions]
    found = await ready_coordinator_of(call, request.group_id)
    view = found if isinstance(found, ErrorCode) else await found.read(request.group_id)
    if isinstance(found, ErrorCode) or isinstance(view, ErrorCode):
        return codec.new(error_code=view)
    subscribed: set[str] | None = set()
    if view.state != GroupState.EMPTY:
        if view.protocol_type != CONSUMER:
            return codec.new(error_code=ErrorCode.NON_EMPTY_GROUP)
        subscribed = subscribed_topics(view.members)
    errors = {key: _refuse_delete(call, view, key, subscribed) for key in wanted}
    error = await found.delete_offsets(request.group_id, [key for key in wanted if not errors[key]])
    if error:
        return codec.new(error_code=error)
    topic_result, result = (
        codec.structure("OffsetDeleteResponseTopic"),
        codec.structure("OffsetDeleteResponsePartition"),
    )
    return codec.new(
        topics=[
            topic_result(
                name=topic.name,
                partitions=[
                    result(partition_index=p.partition_index, error_code=errors[topic.name, p.partition_index])
                    for p in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _refuse_delete(call: Call, view: GroupView, key: TopicPartition, subscribed: set[str] | None) -> ErrorCode:
    if subscribed is None or key[0] in subscribed:
        return ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
    topic = call.backend.metadata.topics.get(key[0])
    if key not in view.offsets and (topic is None or not 0 <= key[1] < len(topic.partitions)):
        return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return ErrorCode.NONE


def subscribed_topics(members: Sequence[MemberView]) -> set[str] | None:
    """The topics that these consumers say they read (`ConsumerProtocolSubscription`); None: it cannot be told."""
    found: set[str] = set()
    for member in members:
        data = member.metadata
        try:
            _, count = _VERSION.unpack_from(data)
            position = _VERSION.size
            if not 0 <= count <= len(data):
                return None
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(data, position)
                position += _LENGTH.size + length
                if length < 0 or position > len(data):
                    return None
                found.add(str(data[position - length : position], "utf-8"))
        except (struct.error, UnicodeDecodeError):
            return None
    return found
