"""Which committed offsets nobody needs any more, as a pure function (KIP-211).

Rule: a group with members keeps those of all topics that there still are; others count from when the last member
left, or from their commit, whichever is later.
Knows nothing of how they are forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from seatrial.machines.groups import NEVER, GroupPhase, StoredGroup


def expired(
    group: StoredGroup, wall_ms: int, retention_ms: int, topic_ids: Collection[bytes]
) -> Iterator[tuple[str, int, int]]:
    """(topic, partition, when it was committed) of the offsets that are to be forgotten.

    `topic_ids`: of all topics that there are.
    """
    is_empty = group.record.phase == GroupPhase.EMPTY
    for (topic, partition), offset in sorted(group.offsets.items()):
        until_ms = offset.expires_ms
        if until_ms == NEVER:
            until_ms = max(offset.committed_ms, group.changed_ms) + retention_ms
        if offset.topic_id not in topic_ids or (is_empty and until_ms <= wall_ms):
            yield topic, partition, offset.committed_ms


def is_spent(group: StoredGroup) -> bool:
    """It has no members, and no offsets to keep for the next ones."""
    return not group.offsets and group.record.phase == GroupPhase.EMPTY
