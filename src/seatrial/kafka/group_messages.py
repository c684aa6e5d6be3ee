"""What members ask of a group and what it answers, apart from the wire: the vocabulary of `classic_group`.

Rule: a request carries all that the group has to know of whoever asks; an answer says it with one of Kafka's errors.
Knows nothing of versions of the protocol, but of two switches that they turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias

import msgspec

from seatrial.kafka.errors import ErrorCode
from seatrial.machines.groups import GroupRecord

Protocols: TypeAlias = tuple[tuple[str, bytes], ...]  # (name, metadata), the member's favourite first


class GroupState(Enum):
    """A group's state, by the names that DescribeGroups and ListGroups tell (KIP-518)."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"  # waits for the members to join
    COMPLETING_REBALANCE = "CompletingRebalance"  # waits for the leader's assignment
    STABLE = "Stable"
    DEAD = "Dead"


class Identity(NamedTuple):
    """Who asks: the id that the coordinator gave, and the name that a static member gave itself (KIP-345)."""

    member_id: str
    instance_id: str | None = None


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`needs_known_id`: a new member is first told its id, and joins with that (KIP-394).

    `can_skip_assignment`: a static member that comes back as the leader can be told not to assign (KIP-814).
    """

    identity: Identity
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    needs_known_id: bool = False
    can_skip_assignment: bool = False


class JoinedMember(NamedTuple):
    """One member as its leader is told of it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class JoinResult(msgspec.Struct, frozen=True, kw_only=True):
    """`members`: only for the leader."""

    error: ErrorCode = ErrorCode.NONE
    member_id: str = ""
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    members: tuple[JoinedMember, ...] = ()
    skip_assignment: bool = False


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`assignments`: by member id; only the leader has any.  `protocol_type` and `protocol`: None where not told."""

    identity: Identity
    generation: int
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: Mapping[str, bytes]


class SyncResult(msgspec.Struct, frozen=True, kw_only=True):
    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


LeaveResult: TypeAlias = tuple[ErrorCode, ...]  # in the order of the identities
Result: TypeAlias = JoinResult | SyncResult | LeaveResult | ErrorCode


class Answer(NamedTuple):
    """Tell `result` to whoever holds `ticket`."""

    ticket: object
    result: Result


class Save(NamedTuple):
    """Replicate the group's new record; answers that come after it wait until that is committed."""

    record: GroupRecord


Effect: TypeAlias = Answer | Save
