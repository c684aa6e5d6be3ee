"""The coordinator of one shard of the consumer groups, for as long as this node leads the shard's Raft group.

Rule: a decision is appended to the Raft log in the order in which it was made, and whoever waits for it is answered
after its commit; nothing that is answered rests on memory alone but that a member is alive.  When the lead is lost,
everything that waits is told NOT_COORDINATOR, and the next coordinator begins from what is applied.
All time is the event loop's; wall-clock times are only written down.  Knows nothing of requests and of placement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from seatrial.kafka.classic_group import ClassicGroup
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupView, ListedGroup, MemberView, NewOffset
from seatrial.kafka.group_messages import (
    Answer,
    GroupState,
    Identity,
    JoinRequest,
    JoinResult,
    LeaveResult,
    SyncRequest,
    SyncResult,
)
from seatrial.kafka.group_settings import GroupLimits
from seatrial.machines.groups import (
    NEVER,
    CommitOffsets,
    DeleteGroup,
    ForgetOffsets,
    GroupPhase,
    GroupsMachine,
    OffsetRecord,
    SaveGroup,
    StoredGroup,
    TopicPartition,
    encode_command,
)
from seatrial.marks import reached
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.server.errors import NoLeader, OutcomeUnknown, ProposalLost
from seatrial.server.groups.decisions import Decisions

READ_TIMEOUT_S: Final = 2.0
LOST: Final = ErrorCode.NOT_COORDINATOR


class GroupLog(Protocol):
    """What a coordinator needs of its Raft group (`server.replica.Replica` is one)."""

    def propose(self, data: bytes) -> asyncio.Future[Any]: ...

    def read_barrier(self) -> asyncio.Future[None]: ...


class Coordinator:
    """A `kafka.group_backend.GroupCoordinator`."""

    def __init__(
        self,
        log: GroupLog,
        machine: GroupsMachine,
        limits: GroupLimits,
        loop: asyncio.AbstractEventLoop,
        *,
        wall_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._log = log
        self._machine = machine
        self._limits = limits
        self._loop = loop
        self._wall_ms = wall_ms
        self._new_id = new_id
        self._groups: dict[str, ClassicGroup] = {}  # those of which there is more than their record
        self._decisions = Decisions(log.propose, loop, self._committed)
        self._waiting: dict[asyncio.Future[Any], Any] = {}  # and what to tell them when the lead is lost
        self._deadlines: list[tuple[int, str]] = []
        self._armed: dict[str, int] = {}  # group -> its place in _deadlines
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False
        for group_id, stored in machine.groups.items():
            if stored.record.phase != GroupPhase.EMPTY:
                self._watch(self._restored(group_id))

    def close(self) -> None:
        """The lead is lost."""
        self.is_closed = True
        self._decisions.close()
        if self._timer is not None:
            self._timer.cancel()
        for future, lost in list(self._waiting.items()):
            if not future.done():
                reached("a coordinator lost its lead while somebody waited for it")
                future.set_result(lost)

    # ---- members ---------------------------------------------------------------------------------------------------

    def join(self, group_id: str, request: JoinRequest) -> asyncio.Future[JoinResult]:
        member_id = request.identity.member_id
        answer = self._promise(JoinResult(error=LOST, member_id=member_id))
        if self.is_closed:
            return answer
        group = self._group(group_id)
        if group is None and member_id:
            answer.set_result(JoinResult(error=ErrorCode.UNKNOWN_MEMBER_ID, member_id=member_id))
        else:
            group = group or self._restored(group_id)
            group.join(answer, request, self._now_ms())
            self._follow(group)
        return answer

    def sync(self, group_id: str, request: SyncRequest) -> asyncio.Future[SyncResult]:
        answer = self._promise(SyncResult(error=LOST))
        if self.is_closed:
            return answer
        group = self._group(group_id)
        if group is None:
            answer.set_result(SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))
        else:
            group.sync(answer, request, self._now_ms())
            self._follow(group)
        return answer

    def heartbeat(self, group_id: str, identity: Identity, generation: int) -> ErrorCode:
        if self.is_closed:
            return LOST
        group = self._group(group_id)
        if group is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return group.heartbeat(identity, generation, self._now_ms())

    def leave(self, group_id: str, identities: Sequence[Identity]) -> asyncio.Future[LeaveResult]:
        answer: asyncio.Future[LeaveResult] = self._promise((LOST,) * len(identities))
        if self.is_closed:
            return answer
        group = self._group(group_id)
        if group is None:
            answer.set_result((ErrorCode.UNKNOWN_MEMBER_ID,) * len(identities))
        else:
            group.leave(answer, identities, self._now_ms())
            self._follow(group)
        return answer

    # ---- offsets ---------------------------------------------------------------------------------------------------

    def commit(
        self,
        group_id: str,
        identity: Identity,
        generation: int,
        offsets: Sequence[NewOffset],
        retention_ms: int = NEVER,
    ) -> asyncio.Future[ErrorCode]:
        group = self._group(group_id)
        if group is not None:
            error = group.refuse_commit(identity, generation, self._now_ms())
        else:
            error = ErrorCode.NONE if generation < 0 else ErrorCode.ILLEGAL_GENERATION
        if error or not offsets:
            return self._told(error)
        wall_ms = self._wall_ms()
        expires_ms = NEVER if retention_ms < 0 else wall_ms + retention_ms
        records = (
            (o.topic, o.partition, OffsetRecord(o.offset, o.leader_epoch, o.metadata, wall_ms, o.topic_id, expires_ms))
            for o in offsets
        )
        return self._append(CommitOffsets(group_id, tuple(records)))

    def delete_offsets(self, group_id: str, partitions: Sequence[TopicPartition]) -> asyncio.Future[ErrorCode]:
        if not partitions:
            return self._told(ErrorCode.NONE)
        return self._append(ForgetOffsets(group_id, tuple((topic, number, NEVER) for topic, number in partitions)))

    def stored(self) -> Mapping[str, StoredGroup]:
        """What is replicated, by group; to read only."""
        return self._machine.groups

    def expire(self, group_id: str, offsets: Sequence[tuple[str, int, int]]) -> asyncio.Future[ErrorCode]:
        """Forget offsets (topic, partition, when they were committed), and the group if it has nothing else.

        Not while somebody is joining of whom its record does not tell yet.
        """
        stored = self._machine.groups.get(group_id)
        is_empty = stored is None or stored.record.phase == GroupPhase.EMPTY
        if group_id in self._groups and is_empty:
            return self._told(ErrorCode.NON_EMPTY_GROUP)
        reached("offsets that nobody needs any more were forgotten")
        return self._append(ForgetOffsets(group_id, tuple(offsets), and_group=is_empty))

    # ---- looking, and deleting -------------------------------------------------------------------------------------

    async def read(self, group_id: str) -> GroupView | ErrorCode:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._log.read_barrier()
        except (TimeoutError, NoLeader, OutcomeUnknown):
            return LOST
        if self.is_closed:
            return LOST
        group, stored = self._group(group_id), self._machine.groups.get(group_id)
        if group is None or group.state == GroupState.DEAD or (stored is None and group.is_forgettable):
            return ErrorCode.GROUP_ID_NOT_FOUND
        return GroupView(
            group_id=group_id,
            state=group.state,
            protocol_type=group.protocol_type,
            protocol=group.protocol,
            members=tuple(
                MemberView(
                    member.member_id,
                    member.instance_id,
                    member.client_id,
                    member.client_host,
                    member.metadata(group.protocol),
                    member.assignment,
                )
                for member in group.members
            ),
            offsets=stored.offsets if stored is not None else {},
        )

    def listed(self) -> Sequence[ListedGroup]:
        listed = []
        for group_id in sorted({*self._machine.groups, *self._groups}):
            group = self._group(group_id)
            if group is not None and group.state != GroupState.DEAD:
                listed.append(ListedGroup(group_id, group.protocol_type, group.state))
        return listed

    def delete(self, group_id: str) -> asyncio.Future[ErrorCode]:
        group = self._group(group_id)
        if self.is_closed or group is None or group.state == GroupState.DEAD:
            return self._told(ErrorCode.GROUP_ID_NOT_FOUND)
        error = group.die()
        if error:
            return self._told(error)
        self._groups[group_id] = group  # dead until that is committed
        written = self._decisions.write(group_id, encode_command(DeleteGroup(group_id)))
        answer = self._promise(LOST)
        written.add_done_callback(lambda done: _tell(Answer(answer, ErrorCode.NONE)))
        return answer

    # ---- groups ----------------------------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _group(self, group_id: str) -> ClassicGroup | None:
        """None where there is none."""
        group = self._groups.get(group_id)
        if group is None and group_id in self._machine.groups:
            group = self._restored(group_id)
        return group

    def _restored(self, group_id: str) -> ClassicGroup:
        stored = self._machine.groups.get(group_id)
        if stored is None:
            return ClassicGroup(group_id, self._limits, self._new_id)
        return ClassicGroup.restored(group_id, stored.record, self._limits, self._new_id, self._now_ms())

    def _follow(self, group: ClassicGroup) -> None:
        """Do what the group has decided."""
        for effect in group.take_effects():
            if isinstance(effect, Answer):
                self._answer(group.group_id, effect)
            else:
                command = SaveGroup(group.group_id, effect.record, self._wall_ms())
                self._decisions.write(group.group_id, encode_command(command))
        self._watch(group)

    def _watch(self, group: ClassicGroup) -> None:
        """Keep the group as long as there is more to it than its record, and know when it wants to be looked at."""
        is_over = group.is_forgettable or group.state == GroupState.DEAD
        if is_over and self._decisions.under_way(group.group_id) is None:
            self._groups.pop(group.group_id, None)
            return
        self._groups[group.group_id] = group
        deadline_ms = group.next_deadline_ms
        if deadline_ms is not None and deadline_ms < self._armed.get(group.group_id, deadline_ms + 1):
            self._armed[group.group_id] = deadline_ms
            heappush(self._deadlines, (deadline_ms, group.group_id))
            if self._deadlines[0][1] == group.group_id:
                self._arm()

    # ---- time ------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadlines and not self.is_closed:
            self._timer = self._loop.call_at((self._deadlines[0][0] + 1) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_ms = self._now_ms()
        while self._deadlines and self._deadlines[0][0] <= now_ms:
            deadline_ms, group_id = heappop(self._deadlines)
            if self._armed.get(group_id) != deadline_ms:
                continue
            del self._armed[group_id]
            group = self._groups.get(group_id)
            if group is not None:
                group.expire(now_ms)
                self._follow(group)
        self._arm()

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _committed(self, group_id: str) -> None:
        """None of its records is on its way any more."""
        group = self._groups.get(group_id)
        if group is not None:
            self._watch(group)

    def _append(self, command: CommitOffsets | ForgetOffsets) -> asyncio.Future[ErrorCode]:
        """Replicate what needs no place among the decisions about its group, or refuse it at once."""
        answer = self._promise(LOST)
        if answer.done():
            return answer
        try:
            proposed = self._log.propose(encode_command(command))
        except ProposalDropped:
            answer.set_result(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        except NotLeader:
            answer.set_result(LOST)
        else:
            proposed.add_done_callback(partial(_tell_outcome, answer))
        return answer

    # ---- answering -------------------------------------------------------------------------------------------------

    def _promise(self, lost: Any) -> asyncio.Future[Any]:
        """A future that is told `lost` when the lead is; at once, where it is lost already."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.is_closed:
            future.set_result(lost)
        else:
            self._waiting[future] = lost
            future.add_done_callback(lambda done: self._waiting.pop(done, None))
        return future

    def _told(self, error: ErrorCode) -> asyncio.Future[ErrorCode]:
        future: asyncio.Future[ErrorCode] = self._loop.create_future()
        future.set_result(LOST if self.is_closed else error)
        return future

    def _answer(self, group_id: str, answer: Answer) -> None:
        """Now, or when what the group has decided before is committed."""
        written = self._decisions.under_way(group_id)
        if written is None:
            _tell(answer)
        else:
            written.add_done_callback(lambda done: _tell(answer))


def _tell(answer: Answer) -> None:
    """Unless the client has gone, or was told something else meanwhile."""
    future = answer.ticket
    assert isinstance(future, asyncio.Future)
    if not future.done():
        future.set_result(answer.result)


def _tell_outcome(answer: asyncio.Future[ErrorCode], proposed: asyncio.Future[Any]) -> None:
    error = proposed.exception()
    assert error is None or isinstance(error, (OutcomeUnknown, ProposalLost)), error
    if not answer.done():
        answer.set_result(ErrorCode.NONE if error is None else LOST)
