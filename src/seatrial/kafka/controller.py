"""Commands to the cluster's metadata, and what is said of them in Kafka's words.

Rule: any node takes them and forwards them to the controller, as Kafka's brokers do since KRaft, so that a client with
old metadata is served too.  A refusal says whether the command may yet be carried out: only REQUEST_TIMED_OUT leaves
that open.
Knows nothing of any one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from seatrial.kafka.backend import Backend, BackendError
from seatrial.kafka.errors import ErrorCode
from seatrial.machines.metadata import Command, MetadataError, MetadataResult, encode_command

_MAX_TIMEOUT_MS: Final = 300_000

_METADATA_ERRORS: Final[Mapping[MetadataError, ErrorCode]] = {
    MetadataError.TOPIC_ALREADY_EXISTS: ErrorCode.TOPIC_ALREADY_EXISTS,
    MetadataError.UNKNOWN_TOPIC: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    MetadataError.UNKNOWN_NODE: ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    MetadataError.INVALID_ASSIGNMENT: ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    MetadataError.CLUSTER_ID_MISMATCH: ErrorCode.INCONSISTENT_CLUSTER_ID,
    MetadataError.CHANGE_PENDING: ErrorCode.REASSIGNMENT_IN_PROGRESS,
    MetadataError.NO_VOTER_LEFT: ErrorCode.INVALID_REPLICA_ASSIGNMENT,
    MetadataError.FORMER_REPLICA: ErrorCode.REASSIGNMENT_IN_PROGRESS,
    MetadataError.PARTITIONS_DIFFER: ErrorCode.INVALID_PARTITIONS,
}


class Refused(Exception):
    """What was asked for cannot be, or could not be done in time."""

    def __init__(self, error: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.error = error
        self.text = text


async def propose(backend: Backend, command: Command, timeout_s: float) -> MetadataResult:
    """Carry out a command and return what it did.  Raises Refused."""
    encoded = encode_command(command, request_id=backend.new_request_id())
    try:
        result = await backend.propose_metadata(encoded, timeout_s)
    except BackendError as error:
        # Retriable both; only the second leaves open whether it will still happen.
        code = ErrorCode.NOT_CONTROLLER if error.definite else ErrorCode.REQUEST_TIMED_OUT
        raise Refused(code, str(error)) from error
    if result.error:
        raise Refused(_METADATA_ERRORS[result.error], result.message)
    return result


def timeout_s(timeout_ms: int) -> float:
    """What a client asks for, within bounds; in seconds."""
    return min(max(timeout_ms, 1), _MAX_TIMEOUT_MS) / 1000
