"""How consumer groups are kept: their settings, and which shard of them holds a group.

Rule: this is all of groups that a node imports before somebody asks for one.
Knows nothing of what groups do.
"""

from __future__ import annotations

from typing import Final

import msgspec

GROUPS_TOPIC: Final = "__consumer_offsets"  # what holds the groups: an internal topic, one shard a partition


class GroupLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a group takes; times in milliseconds, names after Kafka's own settings.

    `initial_rebalance_delay_ms`: how long an empty group waits for more members before its first generation.
    `new_member_join_timeout_ms`: a new member whose client is gone may keep a rebalance waiting so long, no longer.
    """

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 100
    new_member_join_timeout_ms: int = 300_000
    max_members: int = 10_000
    max_record_bytes: int = 16 << 20


class GroupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How consumer groups are kept.

    `coordinators`: how many shards they are divided into, each with a Raft group and a coordinator of its own; it
    counts when the first group is asked for.  One a node of a small cluster shares the work out, and an idle Raft
    group costs 0.04 % of a core.
    `offsets_retention_ms`: how long after its last member left a group's offsets are kept.
    """

    coordinators: int = 3
    limits: GroupLimits = GroupLimits()
    offset_metadata_max_bytes: int = 4096
    offsets_retention_ms: int = 7 * 24 * 3600 * 1000


def java_hash(text: str) -> int:
    """The absolute value of Java's `String.hashCode` (0 of its least): how Kafka finds a group's partition."""
    value = 0
    for unit in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"):
        value = (31 * value + unit) & 0xFFFFFFFF
    return value if value < 1 << 31 else ((1 << 32) - value) & 0x7FFFFFFF


def shard_of(group_id: str, shards: int) -> int:
    """The number of the shard that holds a group."""
    return java_hash(group_id) % shards
