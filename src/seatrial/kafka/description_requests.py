"""DescribeTopicPartitions and DescribeLogDirs: what current console tools ask of a cluster to show it.

Rule: what is told is what this node knows now; long answers are cut, and say where they go on.
Knows nothing of files: a broker has one directory, whatever is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

from seatrial.kafka.cluster_requests import partition_fields
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.topic_requests import INTERNAL_TOPICS, refuse_name

# Replicas that could lead though they are not in sync (KIP-966): there are none, and Java's client takes no null here.
_NO_ELR: Final[Mapping[str, Any]] = {"eligible_leader_replicas": (), "last_known_elr": ()}
PARTITIONS_MAX: Final = 2_000  # of one answer, as Kafka's max.request.partition.size.limit


def describe_topic_partitions(call: Call) -> Any:
    """DescribeTopicPartitions 0 (KIP-966): topics by name, from a cursor on, until the answer is full."""
    codec = message("DescribeTopicPartitionsResponse")
    request, topics = call.request, call.backend.metadata.topics
    names = {topic.name for topic in request.topics} or {name for name in topics if name not in INTERNAL_TOPICS}
    cursor = request.cursor
    first = (cursor.topic_name, max(cursor.partition_index, 0)) if cursor is not None else ("", 0)
    room = max(min(request.response_partition_limit, PARTITIONS_MAX), 1)
    alive = set(call.backend.alive_nodes())
    answer, following = [], None
    result = codec.structure("DescribeTopicPartitionsResponsePartition")
    for name in sorted(name for name in names if name >= first[0]):
        topic = topics.get(name)
        if topic is None or name in INTERNAL_TOPICS:
            answer.append(_unknown(name))
            continue
        begin = first[1] if name == first[0] else 0
        if room == 0:
            following = codec.structure("Cursor")(topic_name=name, partition_index=begin)
            break
        shown = topic.partitions[begin : begin + room]
        room -= len(shown)
        fields = ({**partition_fields(call, name, partition, alive), **_NO_ELR} for partition in shown)
        answer.append(
            codec.structure("DescribeTopicPartitionsResponseTopic")(
                name=name, topic_id=topic.topic_id, partitions=[result(**one) for one in fields]
            )
        )
        if begin + len(shown) < len(topic.partitions):
            following = codec.structure("Cursor")(topic_name=name, partition_index=begin + len(shown))
            break
    return codec.new(topics=answer, next_cursor=following)


def _unknown(name: str) -> Any:
    error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if refuse_name(name) is None else ErrorCode.INVALID_TOPIC_EXCEPTION
    result = message("DescribeTopicPartitionsResponse").structure("DescribeTopicPartitionsResponseTopic")
    return result(error_code=error, name=name)


def describe_log_dirs(call: Call) -> Any:
    """DescribeLogDirs 1 to 5: how many bytes of records each partition here holds."""
    codec = message("DescribeLogDirsResponse")
    partition_result = codec.structure("DescribeLogDirsPartition")
    topic_result = codec.structure("DescribeLogDirsTopic")
    wanted = call.request.topics
    named = None if wanted is None else {(topic.topic, index) for topic in wanted for index in topic.partitions}
    here = [p for p in call.backend.partitions() if named is None or (p.topic, p.partition) in named]
    topics = [
        topic_result(
            name=name,
            partitions=[partition_result(partition_index=p.partition, partition_size=p.size_bytes) for p in partitions],
        )
        for name, partitions in groupby(here, key=lambda partition: partition.topic)
    ]
    directory = codec.structure("DescribeLogDirsResult")(log_dir=call.backend.log_directory, topics=topics)
    return codec.new(results=[directory])
