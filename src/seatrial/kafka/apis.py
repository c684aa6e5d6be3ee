"""The requests of Kafka's protocol: which are served, in which versions.

Rule: this table is all that ApiVersions tells clients and all that the dispatcher lets through, so the two cannot
differ.  The ranges are those of Kafka 4.x, without what this broker lacks.
Knows nothing of how a request is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ApiKey(IntEnum):
    """Kafka's numbers of the requests that clients send; those without a row in `APIS` are not served yet."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    DESCRIBE_LOG_DIRS = 35
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    ALTER_PARTITION_REASSIGNMENTS = 45
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLUSTER = 60
    DESCRIBE_TOPIC_PARTITIONS = 75


@dataclass(frozen=True, slots=True)
class Api:
    """One request.  `message` is the stem of its names in Kafka's definitions; from `flexible_from` on its headers
    have tagged fields (KIP-482).  `min_served` is above `min_advertised` where clients must see a version that they
    must not use."""

    key: ApiKey
    message: str
    min_advertised: int
    min_served: int
    max_served: int
    flexible_from: int

    def serves(self, version: int) -> bool:
        return self.min_served <= version <= self.max_served


def _table(*rows: Api) -> Mapping[int, Api]:
    return {row.key: row for row in rows}


APIS: Final = _table(
    # librdkafka before 2.11.1 compresses only where Produce version 0 is advertised (KAFKA-18659).
    Api(ApiKey.PRODUCE, "Produce", 0, 3, 12, 9),
    Api(ApiKey.FETCH, "Fetch", 4, 4, 17, 12),
    Api(ApiKey.LIST_OFFSETS, "ListOffsets", 1, 1, 10, 6),
    Api(ApiKey.METADATA, "Metadata", 0, 0, 13, 9),
    Api(ApiKey.OFFSET_COMMIT, "OffsetCommit", 2, 2, 9, 8),
    Api(ApiKey.OFFSET_FETCH, "OffsetFetch", 1, 1, 9, 6),
    Api(ApiKey.FIND_COORDINATOR, "FindCoordinator", 0, 0, 6, 3),
    Api(ApiKey.JOIN_GROUP, "JoinGroup", 0, 0, 9, 6),
    Api(ApiKey.HEARTBEAT, "Heartbeat", 0, 0, 4, 4),
    Api(ApiKey.LEAVE_GROUP, "LeaveGroup", 0, 0, 5, 4),
    Api(ApiKey.SYNC_GROUP, "SyncGroup", 0, 0, 5, 4),
    Api(ApiKey.DESCRIBE_GROUPS, "DescribeGroups", 0, 0, 6, 5),
    Api(ApiKey.LIST_GROUPS, "ListGroups", 0, 0, 5, 3),
    Api(ApiKey.API_VERSIONS, "ApiVersions", 0, 0, 4, 3),
    Api(ApiKey.CREATE_TOPICS, "CreateTopics", 2, 2, 7, 5),
    Api(ApiKey.DELETE_TOPICS, "DeleteTopics", 1, 1, 6, 4),
    Api(ApiKey.DELETE_RECORDS, "DeleteRecords", 0, 0, 2, 2),
    Api(ApiKey.INIT_PRODUCER_ID, "InitProducerId", 0, 0, 5, 2),
    Api(ApiKey.OFFSET_FOR_LEADER_EPOCH, "OffsetForLeaderEpoch", 2, 2, 4, 4),
    Api(ApiKey.DESCRIBE_CONFIGS, "DescribeConfigs", 1, 1, 4, 4),
    Api(ApiKey.ALTER_CONFIGS, "AlterConfigs", 0, 0, 2, 2),
    Api(ApiKey.DESCRIBE_LOG_DIRS, "DescribeLogDirs", 1, 1, 5, 2),
    Api(ApiKey.CREATE_PARTITIONS, "CreatePartitions", 0, 0, 3, 2),
    Api(ApiKey.DELETE_GROUPS, "DeleteGroups", 0, 0, 2, 2),
    Api(ApiKey.ELECT_LEADERS, "ElectLeaders", 0, 0, 2, 2),
    Api(ApiKey.INCREMENTAL_ALTER_CONFIGS, "IncrementalAlterConfigs", 0, 0, 1, 1),
    Api(ApiKey.ALTER_PARTITION_REASSIGNMENTS, "AlterPartitionReassignments", 0, 0, 1, 0),
    Api(ApiKey.LIST_PARTITION_REASSIGNMENTS, "ListPartitionReassignments", 0, 0, 0, 0),
    Api(ApiKey.OFFSET_DELETE, "OffsetDelete", 0, 0, 0, 32767),
    Api(ApiKey.DESCRIBE_CLUSTER, "DescribeCluster", 0, 0, 2, 0),
    Api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, "DescribeTopicPartitions", 0, 0, 0, 0),
)
