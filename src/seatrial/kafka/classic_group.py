"""One consumer group on its coordinator: the classic rebalance protocol as a state machine without clock or I/O.

    EMPTY ── first join ──▶ PREPARING ── all joined, or time is up ──▶ COMPLETING ── leader syncs ──▶ STABLE
      ▲                       │  ▲                                        │                            │
      └──── nobody left ──────┘  └── a join, a leave, a session that ended, an assignment that never came

Methods take a request and what time it is; what to do about it is in `effects`: answers, and records to replicate.
Rule: an answer that comes after a record waits for that record's commit, so no member ever acts on a generation or an
assignment that a new coordinator would not know.  Unlike Kafka's, a generation is replicated before its members hear of
it: its number is never given twice, and a new coordinator goes on with a rebalance that was half done.
Semantics are those of Kafka 4's `GroupMetadataManager` for classic groups (KIP-62, 229, 345, 394, 814).
Knows nothing of offsets, of Raft, and of where members are.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_members import Member
from seatrial.kafka.group_messages import (
    GroupState,
    Identity,
    JoinRequest,
    JoinResult,
    SyncRequest,
    SyncResult,
)
from seatrial.kafka.group_rebalance import Rebalance
from seatrial.marks import reached


class ClassicGroup(Rebalance):
    """A group, as its members speak to it."""

    # ---- joining ---------------------------------------------------------------------------------------------------

    def join(self, ticket: object, request: JoinRequest, now_ms: int) -> None:
        """Answered with a JoinResult, at once or when the rebalance is complete."""
        error = self._refuse_join(request)
        member_id = request.identity.member_id
        if error:
            self._refuse(ticket, error, member_id)
        elif not member_id:
            self._join_new(ticket, request, now_ms)
        elif self.members.is_promised(member_id):
            self._add(ticket, member_id, request, now_ms)
        else:
            self._join_known(ticket, request, now_ms)

    def _refuse_join(self, request: JoinRequest) -> ErrorCode:
        limits, identity = self._limits, request.identity
        if self.state == GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        if not limits.min_session_timeout_ms <= request.session_timeout_ms <= limits.max_session_timeout_ms:
            return ErrorCode.INVALID_SESSION_TIMEOUT
        offered = sum(len(name) + len(metadata) for name, metadata in request.protocols)
        is_known = identity.member_id in self.members or self.members.is_promised(identity.member_id)
        if identity.instance_id is not None and self.members.static(identity.instance_id) is not None:
            is_known = True
        is_full = len(self.members) + self.members.promised >= limits.max_members
        if (is_full and not is_known) or self.members.record_bytes + offered > limits.max_record_bytes:
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        if not request.protocol_type or not request.protocols:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if len(self.members) and (
            request.protocol_type != self.protocol_type or not self.members.supports_any(request.protocols)
        ):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        return ErrorCode.NONE

    def _join_new(self, ticket: object, request: JoinRequest, now_ms: int) -> None:
        instance_id = request.identity.instance_id
        if instance_id is not None:
            member_id = f"{instance_id}-{self._new_id()}"
            before = self.members.static(instance_id)
            if before is None:
                self._add(ticket, member_id, request, now_ms)
            else:
                self._come_back(ticket, before, member_id, request, now_ms)
            return
        member_id = f"{request.client_id}-{self._new_id()}"
        if request.needs_known_id:
            self.members.promise(member_id, now_ms + request.session_timeout_ms)
            self._refuse(ticket, ErrorCode.MEMBER_ID_REQUIRED, member_id)
        else:
            self._add(ticket, member_id, request, now_ms)

    def _add(self, ticket: object, member_id: str, request: JoinRequest, now_ms: int) -> None:
        if not len(self.members):
            self.protocol_type = request.protocol_type
        member = Member(member_id, request.identity.instance_id)
        self.members.update(member, request)
        member.joining, member.is_new = ticket, True
        self.members.add(member)
        self.leader = self.leader or member_id
        # It cannot send heartbeats before it knows its id, and may wait for others for longer than a session.
        self.members.keep_alive(member, now_ms, for_ms=self._limits.new_member_join_timeout_ms)
        self._has_newcomers = True
        self._rebalance(now_ms)

    def _join_known(self, ticket: object, request: JoinRequest, now_ms: int) -> None:
        error = self.refuse_identity(request.identity)
        member = self.members.get(request.identity.member_id)
        if error or member is None:
            self._refuse(ticket, error or ErrorCode.UNKNOWN_MEMBER_ID, request.identity.member_id)
            return
        offered = tuple(dict(request.protocols).items())
        # Its leader joins again in a stable group to have it rebalanced; any other member only if it has changed.
        may_go_on = self.state == GroupState.COMPLETING_REBALANCE or (
            self.state == GroupState.STABLE and member.member_id != self.leader
        )
        if may_go_on and member.protocols == offered:
            self.members.keep_alive(member, now_ms)
            self._answer(ticket, self._joined(member))
            return
        self.members.update(member, request)
        self._wait_for_join(member, ticket)
        self.members.keep_alive(member, now_ms)
        self._rebalance(now_ms)

    def _come_back(self, ticket: object, member: Member, member_id: str, request: JoinRequest, now_ms: int) -> None:
        """A static member that was restarted takes its own place (KIP-345); whoever still has its old id is fenced."""
        old_id, was_leader = member.member_id, member.member_id == self.leader
        self._wait_for_join(member, None, then=ErrorCode.FENCED_INSTANCE_ID)
        self._end_sync(member, ErrorCode.FENCED_INSTANCE_ID)
        self.members.rename(member, member_id)
        member.is_new = False
        self.members.update(member, request)
        if was_leader:
            self.leader = member_id
        if old_id in self._to_sync:
            self._to_sync = {(member_id if known == old_id else known): None for known in self._to_sync}
        self.members.keep_alive(member, now_ms)
        if self.state == GroupState.STABLE and self.members.voted_protocol() == self.protocol:
            reached("a static member came back and the group went on without a rebalance")
            self._save()
            self._answer(ticket, self._joined_again(member, old_id, request.can_skip_assignment))
            return
        self._wait_for_join(member, ticket)
        self._rebalance(now_ms)

    def _joined_again(self, member: Member, old_id: str, can_skip_assignment: bool) -> JoinResult:
        """A leader that comes back must not assign again: it is told so, or else that its old self leads."""
        if member.member_id != self.leader:
            return self._joined(member)
        if not can_skip_assignment:
            return self._joined(member, leader=old_id)
        return replace(self._joined(member), skip_assignment=True)

    # ---- assignments -----------------------------------------------------------------------------------------------

    def sync(self, ticket: object, request: SyncRequest, now_ms: int) -> None:
        """Answered with a SyncResult: at once in a stable group, else when the leader has sent the assignment."""
        error = self._refuse_sync(request)
        member = self.members.get(request.identity.member_id)
        if error or member is None:
            self._answer(ticket, SyncResult(error=error or ErrorCode.UNKNOWN_MEMBER_ID))
            return
        self.members.keep_alive(member, now_ms)
        self._to_sync.pop(member.member_id, None)
        if self.state == GroupState.STABLE:
            self._answer(ticket, self._synced(member))
        else:
            self._end_sync(member, ErrorCode.REBALANCE_IN_PROGRESS)
            member.syncing = ticket
            if member.member_id == self.leader:
                self._assign(request.assignments, now_ms)
        if not self._to_sync and self.state == GroupState.STABLE:
            self._phase_deadline_ms = None

    def _refuse_sync(self, request: SyncRequest) -> ErrorCode:
        error = self._refuse_member(request.identity, request.generation)
        if error:
            return error
        if request.protocol_type not in (None, self.protocol_type) or request.protocol not in (None, self.protocol):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if self.state == GroupState.PREPARING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        assigned = sum(map(len, request.assignments.values()))
        if self.members.record_bytes + assigned > 2 * self._limits.max_record_bytes:
            return ErrorCode.UNKNOWN_SERVER_ERROR  # what Kafka says of a record that its log does not take
        return ErrorCode.NONE

    # ---- staying and leaving ---------------------------------------------------------------------------------------

    def heartbeat(self, identity: Identity, generation: int, now_ms: int) -> ErrorCode:
        """NONE, or REBALANCE_IN_PROGRESS: join again."""
        if self.state == GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        error = self._refuse_member(identity, generation)
        if error:
            return error
        self._touch(identity, now_ms)
        return ErrorCode.REBALANCE_IN_PROGRESS if self.state == GroupState.PREPARING_REBALANCE else ErrorCode.NONE

    def _touch(self, identity: Identity, now_ms: int) -> None:
        member = self.members.get(identity.member_id)
        if member is not None:
            self.members.keep_alive(member, now_ms)

    def leave(self, ticket: object, identities: Sequence[Identity], now_ms: int) -> None:
        """Answered with an error for each; a static member may be named by its instance id alone."""
        members = len(self.members)
        errors = tuple(self._leave_one(identity) for identity in identities)
        if ErrorCode.NONE in errors:
            self._after_removal(now_ms, was_member=len(self.members) < members)
        self._answer(ticket, errors)

    def _leave_one(self, identity: Identity) -> ErrorCode:
        if identity.instance_id is None and self.members.forget_promise(identity.member_id):
            return ErrorCode.NONE
        if not identity.member_id and identity.instance_id is not None:
            member = self.members.static(identity.instance_id)
        else:
            error = self.refuse_identity(identity)
            if error:
                return error
            member = self.members.get(identity.member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        self._remove(member)
        return ErrorCode.NONE

    # ---- offsets, and the end --------------------------------------------------------------------------------------

    def refuse_commit(self, identity: Identity, generation: int, now_ms: int) -> ErrorCode:
        """Whether offsets may be committed now: by a member of this generation, or by anybody while there are none."""
        if self.state == GroupState.DEAD:
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        is_nobody = generation < 0 and not identity.member_id and identity.instance_id is None
        if self.state == GroupState.EMPTY and generation < 0:
            return ErrorCode.NONE
        if is_nobody:
            return ErrorCode.UNKNOWN_MEMBER_ID
        error = self._refuse_member(identity, generation)
        if error:
            return error
        if self.state == GroupState.COMPLETING_REBALANCE:
            return ErrorCode.REBALANCE_IN_PROGRESS
        self._touch(identity, now_ms)
        return ErrorCode.NONE

    def _refuse_member(self, identity: Identity, generation: int) -> ErrorCode:
        """Whether this is a member, and knows the present generation."""
        error = self.refuse_identity(identity)
        if not error and generation != self.generation:
            return ErrorCode.ILLEGAL_GENERATION
        return error

    def refuse_identity(self, identity: Identity) -> ErrorCode:
        """Whether this is a member, and not one whose place another one has taken."""
        if identity.instance_id is not None:
            holder = self.members.static(identity.instance_id)
            if holder is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            return ErrorCode.NONE if holder.member_id == identity.member_id else ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if identity.member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def die(self) -> ErrorCode:
        """The group is deleted, if nobody is in it."""
        if self.state != GroupState.EMPTY:
            return ErrorCode.NON_EMPTY_GROUP
        self._move(GroupState.DEAD)
        return ErrorCode.NONE

    @property
    def is_forgettable(self) -> bool:
        """Nothing is here that its record would not give again."""
        return self.state == GroupState.EMPTY and not self.members.promised
