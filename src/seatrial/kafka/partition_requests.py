"""CreatePartitions, DeleteRecords, ElectLeaders: what is done to partitions that clients use.

Rule: partitions are only ever added, with the number of replicas that the first one has.  Records are deleted by an
entry of the partition's own log, so on every replica at the same place.  An election is done when the preferred replica
leads, as far as this node can see.
Knows nothing of where replicas are, which is `reassignment_requests`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from seatrial.kafka.backend import BackendError, ProposalDropped
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.controller import Refused, propose, timeout_s
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.leaders import local_partition
from seatrial.kafka.topic_requests import INTERNAL_TOPICS, known_topic, place, refuse_replicas
from seatrial.machines.metadata import AddPartitions, ElectPreferred, Topic

HIGH_WATERMARK: Final = -1  # as the offset of DeleteRecords: all that there is
PREFERRED: Final = 0  # election types
ELECTION_WAIT_S: Final = 5.0  # a transfer that has not happened by then will not
LOOK_S: Final = 0.01


# ---- more partitions -----------------------------------------------------------------------------------------------


async def create_partitions(call: Call) -> Any:
    """CreatePartitions 0 to 3."""
    named = Counter(topic.name for topic in call.request.topics)
    results = [_enlarge(call, topic, is_repeated=named[topic.name] > 1) for topic in call.request.topics]
    return message("CreatePartitionsResponse").new(results=await asyncio.gather(*results))


async def _enlarge(call: Call, wanted: Any, *, is_repeated: bool) -> Any:
    result = message("CreatePartitionsResponse").structure("CreatePartitionsTopicResult")
    try:
        if is_repeated:
            raise Refused(ErrorCode.INVALID_REQUEST, f"the request names topic {wanted.name!r} more than once")
        command = _plan(call, known_topic(call.backend, wanted.name), wanted)
        if not call.request.validate_only:
            await propose(call.backend, command, timeout_s(call.request.timeout_ms))
    except Refused as refused:
        return result(name=wanted.name, error_code=refused.error, error_message=refused.text)
    return result(name=wanted.name, error_message=None)


def _plan(call: Call, topic: Topic, wanted: Any) -> AddPartitions:
    now, limit = len(topic.partitions), call.settings.max_partitions
    if not now < wanted.count <= limit:
        text = (
            f"topic {topic.name!r} has {now} partitions and may have up to {limit}: {wanted.count} is no larger number"
        )
        raise Refused(ErrorCode.INVALID_PARTITIONS, text)
    more, factor = wanted.count - now, len(topic.partitions[0].replicas)
    if wanted.assignments is None:
        return AddPartitions(topic.topic_id, now, place(call.backend, more, factor))
    assignments = [tuple(assignment.broker_ids) for assignment in wanted.assignments]
    if len(assignments) != more:
        text = f"{more} partitions are to be added, but {len(assignments)} have their replicas named"
        raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)
    for partition, replicas in enumerate(assignments, now):
        refuse_replicas(call.backend, partition, replicas)
        if len(replicas) != factor:
            text = f"topic {topic.name!r} has {factor} replicas of each partition, not {len(replicas)}"
            raise Refused(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)
    return AddPartitions(topic.topic_id, now, tuple(assignments))


# ---- fewer records -------------------------------------------------------------------------------------------------


async def delete_records(call: Call) -> Any:
    """DeleteRecords 0 to 2: all before an offset, which then is where the log starts."""
    codec = message("DeleteRecordsResponse")
    topic_result = codec.structure("DeleteRecordsTopicResult")

    async def of_topic(topic: Any) -> Any:
        done = (_delete_before(call, topic.name, wanted) for wanted in topic.partitions)
        return topic_result(name=topic.name, partitions=await asyncio.gather(*done))

    return codec.new(topics=await asyncio.gather(*map(of_topic, call.request.topics)))


async def _delete_before(call: Call, topic: str, wanted: Any) -> Any:
    result = message("DeleteRecordsResponse").structure("DeleteRecordsPartitionResult")
    index = wanted.partition_index
    try:
        start = await _trimmed(call, topic, index, wanted.offset)
    except Refused as refused:
        return result(partition_index=index, low_watermark=-1, error_code=refused.error)
    return result(partition_index=index, low_watermark=start)


async def _trimmed(call: Call, topic: str, index: int, offset: int) -> int:
    """Where the log starts then.  Raises Refused."""
    known = known_topic(call.backend, topic)
    found = local_partition(call.backend, topic, index)
    if isinstance(found, ErrorCode):
        raise Refused(found, f"{topic}/{index} is not here")
    if "delete" not in known.configs.get("cleanup.policy", "delete"):
        raise Refused(ErrorCode.POLICY_VIOLATION, f"topic {topic!r} is compacted, and its records are not deleted")
    if not found.is_leader:
        raise Refused(ErrorCode.NOT_LEADER_OR_FOLLOWER, "ask the leader")
    if not found.is_established:
        raise Refused(ErrorCode.LEADER_NOT_AVAILABLE, "the leader does not know yet how far its log goes")
    before = found.high_watermark if offset == HIGH_WATERMARK else offset
    if not 0 <= before <= found.high_watermark:
        text = f"{topic}/{index} has offsets up to {found.high_watermark}, so none can be deleted up to {offset}"
        raise Refused(ErrorCode.OFFSET_OUT_OF_RANGE, text)
    if before <= found.log_start_offset:
        return found.log_start_offset
    try:
        seconds = timeout_s(call.request.timeout_ms)
        return (await asyncio.wait_for(asyncio.shield(found.trim(before)), seconds)).log_start_offset
    except TimeoutError:
        raise Refused(ErrorCode.REQUEST_TIMED_OUT, "not committed in time") from None
    except BackendError as error:
        raise Refused(_trim_error(error), str(error)) from error


def _trim_error(error: BackendError) -> ErrorCode:
    if not error.definite:
        return ErrorCode.REQUEST_TIMED_OUT
    return ErrorCode.NOT_ENOUGH_REPLICAS if isinstance(error, ProposalDropped) else ErrorCode.NOT_LEADER_OR_FOLLOWER


# ---- leaders -------------------------------------------------------------------------------------------------------


async def elect_leaders(call: Call) -> Any:
    """ElectLeaders 0 to 2: hand over to the preferred replicas.

    Where all partitions are asked for, those whose preferred replica leads already are left out of the answer.
    """
    codec = message("ElectLeadersResponse")
    request, topics = call.request, call.backend.metadata.topics
    if request.topic_partitions is None:
        named = [(name, [p.index for p in topics[name].partitions]) for name in sorted(topics)]
        wanted = [(name, indexes) for name, indexes in named if name not in INTERNAL_TOPICS]
    else:
        wanted = [(item.topic, list(item.partitions)) for item in request.topic_partitions]
    pairs = [(name, index) for name, indexes in wanted for index in indexes]
    found = {pair: _refuse_election(call, *pair) for pair in pairs}
    await _hold_elections(call, [pair for pair in pairs if found[pair] is None])
    partition_result, topic_result = codec.structure("PartitionResult"), codec.structure("ReplicaElectionResult")
    results = []
    for name, indexes in wanted:
        answers = []
        for index in indexes:
            refused = found[name, index] or _refuse_outcome(call, name, index)
            if refused is None:
                answers.append(partition_result(partition_id=index, error_message=None))
            elif refused.error != ErrorCode.ELECTION_NOT_NEEDED or request.topic_partitions is not None:
                error, text = refused.error, refused.text
                answers.append(partition_result(partition_id=index, error_code=error, error_message=text))
        if answers:
            results.append(topic_result(topic=name, partition_result=answers))
    return codec.new(replica_election_results=results)


def _refuse_election(call: Call, name: str, index: int) -> Refused | None:
    preferred = None if name in INTERNAL_TOPICS else _preferred(call, name, index)
    if preferred is None:
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"there is no partition {name}/{index}")
    leadership = call.backend.leadership(name, index)
    if call.version >= 1 and call.request.election_type != PREFERRED:
        if leadership.leader_id >= 0:
            return Refused(ErrorCode.ELECTION_NOT_NEEDED, f"node {leadership.leader_id} leads")
        text = "a majority of the replicas elects a leader as soon as it can; there are no unclean elections"
        return Refused(ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE, text)
    if leadership.leader_epoch >= 0 and leadership.leader_id == preferred:
        return Refused(ErrorCode.ELECTION_NOT_NEEDED, f"node {preferred} leads already")
    if preferred not in call.backend.alive_nodes() or preferred not in leadership.in_sync:
        return Refused(ErrorCode.PREFERRED_LEADER_NOT_AVAILABLE, f"node {preferred} is down, or behind")
    return None


async def _hold_elections(call: Call, pairs: Sequence[tuple[str, int]]) -> None:
    """Ask for all of them at once, and wait until they are over; what came of them is to be seen afterwards."""
    topics, backend = call.backend.metadata.topics, call.backend
    if not pairs:
        return
    command = ElectPreferred(tuple((topics[name].topic_id, index) for name, index in pairs))
    seconds = min(timeout_s(call.request.timeout_ms), ELECTION_WAIT_S)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    try:
        await propose(backend, command, seconds)
    except Refused:
        return  # told as elections that did not happen in time
    while loop.time() < deadline and any(_is_awaited(call, *pair) for pair in pairs):
        await asyncio.sleep(LOOK_S)


def _is_awaited(call: Call, name: str, index: int) -> bool:
    preferred = _preferred(call, name, index)
    return preferred is not None and call.backend.leadership(name, index).leader_id != preferred


def _refuse_outcome(call: Call, name: str, index: int) -> Refused | None:
    preferred = _preferred(call, name, index)
    if preferred is None:
        return Refused(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"partition {name}/{index} was deleted meanwhile")
    if not _is_awaited(call, name, index):
        return None
    return Refused(ErrorCode.REQUEST_TIMED_OUT, f"node {preferred} did not take the lead in time")


def _preferred(call: Call, name: str, index: int) -> int | None:
    """The node that is to lead; None if there is no such partition, or is none any more: topics are deleted, and made
    anew with fewer partitions, while an election is waited for."""
    topic = call.backend.metadata.topics.get(name)
    if topic is None or not 0 <= index < len(topic.partitions):
        return None
    return topic.partitions[index].replicas[0]
