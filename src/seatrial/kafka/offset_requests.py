"""ListOffsets and OffsetForLeaderEpoch: where a partition begins and ends, and what stands at a time.

Rule: only a leader answers, and only once its high watermark covers all that was ever acknowledged; before that the
answer is an error that clients retry, never an offset that may be too low.  A debugging consumer (replica id -2) may
ask any replica, and gets what that replica knows.
Knows nothing of how offsets are found.
"""

from __future__ import annotations

from typing import Any, Final

from seatrial.kafka.backend import LogUnreadable, PartitionBackend
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.leaders import epoch_error, local_partition

DEBUGGING_CONSUMER: Final = -2  # the replica id of one that reads from any replica
LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3  # since version 7
EARLIEST_LOCAL: Final = -4  # since version 8; nothing is tiered here, so it is the earliest
LATEST_TIERED: Final = -5  # since version 9; nothing is tiered here, so there is none
_SINCE: Final = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9}


def list_offsets(call: Call) -> Any:
    """ListOffsets 1 to 10."""
    codec = message("ListOffsetsResponse")
    topic_result = codec.structure("ListOffsetsTopicResponse")
    return codec.new(
        topics=[
            topic_result(
                name=topic.name, partitions=[_list_one(call, topic.name, wanted) for wanted in topic.partitions]
            )
            for topic in call.request.topics
        ]
    )


def _list_one(call: Call, topic: str, wanted: Any) -> Any:
    result = message("ListOffsetsResponse").structure("ListOffsetsPartitionResponse")
    index = wanted.partition_index
    found = _asked_replica(call, topic, index, wanted.current_leader_epoch)
    if isinstance(found, ErrorCode):
        return result(partition_index=index, error_code=found)
    timestamp = wanted.timestamp
    if call.version < _SINCE.get(timestamp, 0) or timestamp < LATEST_TIERED:
        return result(partition_index=index, error_code=ErrorCode.UNSUPPORTED_VERSION)
    if timestamp != EARLIEST and found.is_leader and not found.is_established:
        not_yet = ErrorCode.OFFSET_NOT_AVAILABLE if call.version >= 5 else ErrorCode.LEADER_NOT_AVAILABLE
        return result(partition_index=index, error_code=not_yet)
    try:
        offset, time = _offset_at(found, timestamp)
    except LogUnreadable:
        return result(partition_index=index, error_code=ErrorCode.KAFKA_STORAGE_ERROR)
    epoch = found.leader_epoch if timestamp == LATEST else -1
    return result(partition_index=index, offset=offset, timestamp=time, leader_epoch=epoch)


def _offset_at(replica: PartitionBackend, timestamp: int) -> tuple[int, int]:
    """(offset, timestamp); -1 for what is not known, as for the two ends of the log."""
    if timestamp == LATEST:
        return replica.high_watermark, -1
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return replica.log_start_offset, -1
    if timestamp == LATEST_TIERED:
        return -1, -1
    if timestamp == MAX_TIMESTAMP:
        return replica.offset_of_max_timestamp()
    return replica.offset_for_time(timestamp)


def _asked_replica(call: Call, topic: str, index: int, epoch: int) -> PartitionBackend | ErrorCode:
    """The replica that is to answer, or why this node does not."""
    found = local_partition(call.backend, topic, index)
    if isinstance(found, ErrorCode):
        return found
    if not found.is_leader and call.request.replica_id != DEBUGGING_CONSUMER:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return epoch_error(found, epoch) or found


def offset_for_leader_epoch(call: Call) -> Any:
    """OffsetForLeaderEpoch 2 to 4 (KIP-101, KIP-320): a client asks whether what it has read is still the log."""
    codec = message("OffsetForLeaderEpochResponse")
    topic_result = codec.structure("OffsetForLeaderTopicResult")
    return codec.new(
        topics=[
            topic_result(
                topic=topic.topic, partitions=[_epoch_end(call, topic.topic, wanted) for wanted in topic.partitions]
            )
            for topic in call.request.topics
        ]
    )


def _epoch_end(call: Call, topic: str, wanted: Any) -> Any:
    result = message("OffsetForLeaderEpochResponse").structure("EpochEndOffset")
    found = _asked_leader(call, topic, wanted)
    if isinstance(found, ErrorCode):
        return result(partition=wanted.partition, error_code=found)
    epoch, end_offset = found.end_offset_for_epoch(wanted.leader_epoch)
    return result(partition=wanted.partition, leader_epoch=epoch, end_offset=end_offset)


def _asked_leader(call: Call, topic: str, wanted: Any) -> PartitionBackend | ErrorCode:
    found = local_partition(call.backend, topic, wanted.partition)
    if isinstance(found, ErrorCode):
        return found
    if not found.is_leader:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    error = epoch_error(found, wanted.current_leader_epoch)
    if error:
        return error
    if not found.is_established or found.is_catching_up:
        # An end that is too low would look like lost records to the client.
        return ErrorCode.LEADER_NOT_AVAILABLE
    return found
