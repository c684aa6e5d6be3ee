"""What the handlers of group requests want of a broker; `server/groups` implements it.

Rule: as in `backend`: nothing blocks, and whatever has to wait is a future or a coroutine.  What goes wrong is one of
Kafka's errors here already, because only the coordinator knows which one makes a client do the right thing next.
Knows nothing of requests' versions and of Raft.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_messages import (
    GroupState,
    Identity,
    JoinRequest,
    JoinResult,
    LeaveResult,
    SyncRequest,
    SyncResult,
)
from seatrial.machines.groups import NEVER, OffsetRecord, TopicPartition


class MemberView(NamedTuple):
    """A member as it is shown."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes  # for the protocol in use
    assignment: bytes


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """A group as it is shown; `offsets` is not to be changed, nor kept."""

    group_id: str
    state: GroupState
    protocol_type: str
    protocol: str
    members: tuple[MemberView, ...]
    offsets: Mapping[TopicPartition, OffsetRecord]


class ListedGroup(NamedTuple):
    group_id: str
    protocol_type: str
    state: GroupState


class NewOffset(NamedTuple):
    """How far a partition has been read; `topic_id` of the topic that has the name now."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    topic_id: bytes


class GroupCoordinator(Protocol):
    """The groups of one shard, on the node that leads it.  Answers NOT_COORDINATOR once it does not any more."""

    def join(self, group_id: str, request: JoinRequest) -> asyncio.Future[JoinResult]: ...

    def sync(self, group_id: str, request: SyncRequest) -> asyncio.Future[SyncResult]: ...

    def heartbeat(self, group_id: str, identity: Identity, generation: int) -> ErrorCode: ...

    def leave(self, group_id: str, identities: Sequence[Identity]) -> asyncio.Future[LeaveResult]: ...

    def commit(
        self,
        group_id: str,
        identity: Identity,
        generation: int,
        offsets: Sequence[NewOffset],
        retention_ms: int = NEVER,
    ) -> asyncio.Future[ErrorCode]:
        """NONE when all of them are committed for good; anything else: none of them, or it is not known.

        `retention_ms`: how long they are to be kept, where the client says so itself.
        """

    async def read(self, group_id: str) -> GroupView | ErrorCode:
        """The group, with every commit that was ever acknowledged; GROUP_ID_NOT_FOUND where there is none."""

    def listed(self) -> Sequence[ListedGroup]:
        """All groups, by id."""

    def delete(self, group_id: str) -> asyncio.Future[ErrorCode]: ...

    def delete_offsets(self, group_id: str, partitions: Sequence[TopicPartition]) -> asyncio.Future[ErrorCode]: ...


class GroupBackend(Protocol):
    """Where the groups are."""

    @property
    def are_created(self) -> bool:
        """Whether the cluster has the topic that holds groups; it is made when a group is first asked for."""

    def leader_of(self, group_id: str) -> int:
        """The node that coordinates this group, as far as it is known; -1 where it is not."""

    def coordinator_of(self, group_id: str) -> GroupCoordinator | ErrorCode:
        """The coordinator, if it is on this node and ready; else what to tell the client."""

    def coordinators(self) -> Sequence[GroupCoordinator | ErrorCode]:
        """Of every shard that this node leads: its coordinator, or why it is not ready."""

    async def metadata_is_current(self) -> bool:
        """Wait until this node knows all that the metadata said when it was asked; False: nobody vouched for it."""
