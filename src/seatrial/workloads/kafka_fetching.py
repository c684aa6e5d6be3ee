"""One Fetch request as a test or a workload sends it itself, and all that the node answered (aiokafka's codec).

A consumer of any library hides which node answered, what was empty and what was refused; here that is the point.

Rule: nothing is tried again, and no record is left out but those before the offset that was asked for.
Knows nothing of connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

FETCH_BYTES: Final = 4 << 20
WITH_PREFERRED_REPLICA: Final = 11
NOT_LEADER_OR_FOLLOWER: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What one node answered of one partition.

    error_code: Kafka's number, 0 for none.  preferred: the node that the client shall ask instead, -1 where it shall
    stay.  batches: the bytes of whole record batches, as they came.  records: aiokafka's, from the wanted offset on.
    next_offset: where the next request goes on.  Their checksums were looked at; `damaged` says whether one was wrong.
    """

    node: int
    error_code: int
    high_watermark: int
    log_start_offset: int
    preferred: int
    batches: bytes
    records: tuple[Any, ...]
    next_offset: int
    damaged: bool

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]

    def describe(self) -> str:
        """For a message of what went wrong."""
        if self.error_code:
            return f"node {self.node} answered {for_code(self.error_code).__name__}"
        if self.preferred >= 0:
            return f"node {self.node} named node {self.preferred}"
        return f"node {self.node} served {len(self.records)} records up to {self.next_offset}"


def fetch_request(
    place: TopicPartition,
    offset: int,
    *,
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = FETCH_BYTES,
    rack: str = "",
) -> FetchRequest:
    """Of one partition, without a session and without a leader epoch."""
    return FetchRequest(wait_ms, min_bytes, max_bytes, 0, [(place.topic, [(place.partition, offset, max_bytes)])], rack)


def fetched(answer: Any, *, node: int, offset: int) -> Fetched:
    """The node's answer to a `fetch_request` of that offset."""
    _, error_code, high_watermark, _, log_start_offset, *rest = answer.topics[0][1][0]
    batches = bytes(rest[-1] or b"")
    records, following, damaged = _records_of(batches, offset)
    return Fetched(
        node=node,
        error_code=error_code,
        high_watermark=high_watermark,
        log_start_offset=log_start_offset,
        preferred=rest[1] if answer.API_VERSION >= WITH_PREFERRED_REPLICA else -1,
        batches=batches,
        records=tuple(records),
        next_offset=following,
        damaged=damaged,
    )


def _records_of(batches: bytes, offset: int) -> tuple[list[Any], int, bool]:
    found: list[Any] = []
    walk, following, damaged = MemoryRecords(batches), offset, False
    while walk.has_next():
        batch = walk.next_batch()
        damaged = damaged or not batch.validate_crc()
        found += [record for record in batch if record.offset >= offset]
        following = max(following, batch.next_offset)
    return found, following, damaged
