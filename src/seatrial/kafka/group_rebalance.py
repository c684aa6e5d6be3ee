"""A group's generations: how one rebalance begins, waits, and ends in the next; part of `classic_group`.

Rule: as there.  Knows nothing of requests: it is told who waits, and who is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Self

from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_members import Member, Members
from seatrial.kafka.group_messages import Answer, Effect, GroupState, JoinResult, Result, Save, SyncResult
from seatrial.kafka.group_settings import GroupLimits
from seatrial.machines.groups import GroupPhase, GroupRecord
from seatrial.marks import reached

_AWAITS: Final = (GroupState.COMPLETING_REBALANCE, GroupState.STABLE)
_STATE_OF: Final[Mapping[GroupPhase, GroupState]] = {
    GroupPhase.EMPTY: GroupState.EMPTY,
    GroupPhase.AWAITING_ASSIGNMENT: GroupState.COMPLETING_REBALANCE,
    GroupPhase.STABLE: GroupState.STABLE,
}
_PHASE_OF: Final = {state: phase for phase, state in _STATE_OF.items()}
# Who may follow whom; the tests read it.
LEGAL: Final[Mapping[GroupState, frozenset[GroupState]]] = {
    GroupState.EMPTY: frozenset({GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.PREPARING_REBALANCE: frozenset({GroupState.COMPLETING_REBALANCE, GroupState.EMPTY}),
    GroupState.COMPLETING_REBALANCE: frozenset({GroupState.STABLE, GroupState.PREPARING_REBALANCE}),
    GroupState.STABLE: frozenset({GroupState.PREPARING_REBALANCE}),
    GroupState.DEAD: frozenset(),
}


class Rebalance:
    """A group; `new_id` gives the random part of a member id.  Times are milliseconds of any steady clock."""

    def __init__(self, group_id: str, limits: GroupLimits, new_id: Callable[[], str]) -> None:
        self.group_id = group_id
        self.state = GroupState.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members = Members()
        self.effects: list[Effect] = []
        self._limits = limits
        self._new_id = new_id
        self._phase_deadline_ms: int | None = None
        self._initial_left_ms: int | None = None  # of the wait for more members; None outside of it
        self._has_newcomers = False  # since that wait began, or was last prolonged
        self._to_sync: dict[str, None] = {}  # members of this generation that have not asked for their assignment

    @classmethod
    def restored(
        cls, group_id: str, record: GroupRecord, limits: GroupLimits, new_id: Callable[[], str], now_ms: int
    ) -> Self:
        """What a new coordinator makes of the record: every session begins anew, in full."""
        group = cls(group_id, limits, new_id)
        group.state = _STATE_OF[record.phase]
        group.generation, group.protocol_type = record.generation, record.protocol_type
        group.protocol, group.leader = record.protocol, record.leader
        for known in record.members:
            member = Member(known.member_id, known.instance_id)
            member.client_id, member.client_host = known.client_id, known.client_host
            member.session_timeout_ms = known.session_timeout_ms
            member.rebalance_timeout_ms = known.rebalance_timeout_ms
            member.protocols, member.assignment = known.protocols, known.assignment
            group.members.add(member)
            group.members.keep_alive(member, now_ms)
        if group.state == GroupState.COMPLETING_REBALANCE:
            reached("a coordinator went on with a rebalance that another one had begun")
            group._await_syncs(now_ms)
        return group

    # ---- time ------------------------------------------------------------------------------------------------------

    @property
    def next_deadline_ms(self) -> int | None:
        """When `expire` has something to do, at the earliest."""
        session = self.members.next_deadline_ms
        if session is None or self._phase_deadline_ms is None:
            return self._phase_deadline_ms if session is None else session
        return min(session, self._phase_deadline_ms)

    def expire(self, now_ms: int) -> None:
        """End the sessions and the waits whose time is up."""
        gone = self.members.expired(now_ms)
        members = [member for member in (self.members.get(identity.member_id) for identity in gone) if member]
        for member in members:
            reached("a member's session ended without a heartbeat")
            self._remove(member)
        if gone:
            self._after_removal(now_ms, was_member=bool(members))
        if self._phase_deadline_ms is not None and self._phase_deadline_ms <= now_ms:
            self._phase_deadline_ms = None
            if self.state in _AWAITS:
                self._give_up_on_syncs(now_ms)
            elif self.state == GroupState.PREPARING_REBALANCE:
                self._join_time_is_up(now_ms)

    def _join_time_is_up(self, now_ms: int) -> None:
        left_ms = self._initial_left_ms
        if left_ms and self._has_newcomers:
            delay_ms = min(self._limits.initial_rebalance_delay_ms, left_ms)
            self._has_newcomers = False
            self._initial_left_ms = left_ms - delay_ms
            self._phase_deadline_ms = now_ms + delay_ms
        else:
            self._complete_join(now_ms)

    def _give_up_on_syncs(self, now_ms: int) -> None:
        late = [member for member in self.members if member.member_id in self._to_sync]
        reached("members that never asked for their assignment were removed from the group")
        for member in late:
            self._remove(member)
        self._after_removal(now_ms, was_member=True)

    # ---- rebalancing -----------------------------------------------------------------------------------------------

    def _rebalance(self, now_ms: int) -> None:
        """Begin one, or see whether the one that is under way can be completed."""
        if self.state == GroupState.PREPARING_REBALANCE:
            self._complete_join_if_all_are_here(now_ms)
            return
        was_empty = self.state == GroupState.EMPTY
        if self.state == GroupState.COMPLETING_REBALANCE:
            for member in self.members:
                self.members.assign(member, b"")
                self._end_sync(member, ErrorCode.REBALANCE_IN_PROGRESS)
        self._to_sync.clear()
        self._move(GroupState.PREPARING_REBALANCE)
        timeout_ms, delay_ms = self.members.rebalance_timeout_ms, self._limits.initial_rebalance_delay_ms
        if was_empty and delay_ms:
            self._initial_left_ms = max(timeout_ms - delay_ms, 0)
            self._has_newcomers = False
            self._phase_deadline_ms = now_ms + min(delay_ms, timeout_ms)
        else:
            self._initial_left_ms = None
            self._phase_deadline_ms = now_ms + timeout_ms
            self._complete_join_if_all_are_here(now_ms)

    def _complete_join_if_all_are_here(self, now_ms: int) -> None:
        is_waiting_for_more = self._initial_left_ms is not None and len(self.members) > 0
        if not is_waiting_for_more and self.members.joining == len(self.members) and not self.members.promised:
            self._complete_join(now_ms)

    def _complete_join(self, now_ms: int) -> None:
        """The next generation is of those who have joined, and of static members, that may come back."""
        for member in [m for m in self.members if m.joining is None and m.instance_id is None]:
            reached("a rebalance went on without a member that did not join in time")
            self._remove(member)
        if len(self.members) and not self._elect():
            self._phase_deadline_ms = now_ms + self.members.rebalance_timeout_ms  # until their sessions end
            return
        self._phase_deadline_ms = self._initial_left_ms = None
        self.generation = self.generation % 0x7FFFFFFF + 1
        if not len(self.members):
            self.protocol = self.leader = ""
            self._move(GroupState.EMPTY)
            self._save()
            return
        self.protocol = self.members.voted_protocol()
        for member in self.members:
            self.members.assign(member, b"")
        self._move(GroupState.COMPLETING_REBALANCE)
        self._save()
        for member in self.members:
            ticket = self.members.wait_for_join(member, None)
            if ticket is not None:
                member.is_new = False
                self.members.keep_alive(member, now_ms)
                self._answer(ticket, self._joined(member))
        self._await_syncs(now_ms)

    def _elect(self) -> bool:
        """The leader stays if it has joined; else the first one who has.  False: nobody has."""
        leader = self.members.get(self.leader)
        if leader is None or leader.joining is None:
            joined = next((member for member in self.members if member.joining is not None), None)
            if joined is None:
                return False
            self.leader = joined.member_id
        return True

    def _await_syncs(self, now_ms: int) -> None:
        self._to_sync = {member.member_id: None for member in self.members}
        self._phase_deadline_ms = now_ms + self.members.rebalance_timeout_ms

    # ---- assignments ------------------------------------------------------------------------------------------------

    def _assign(self, assignments: Mapping[str, bytes], now_ms: int) -> None:
        for member in self.members:
            self.members.assign(member, assignments.get(member.member_id, b""))
        self._move(GroupState.STABLE)
        self._save()
        for member in self.members:
            if member.syncing is not None:
                ticket, member.syncing = member.syncing, None
                self.members.keep_alive(member, now_ms)
                self._answer(ticket, self._synced(member))

    def _synced(self, member: Member) -> SyncResult:
        return SyncResult(protocol_type=self.protocol_type, protocol=self.protocol, assignment=member.assignment)

    # ---- leaving ----------------------------------------------------------------------------------------------------

    def _remove(self, member: Member) -> None:
        self.members.remove(member)
        self._to_sync.pop(member.member_id, None)
        self._wait_for_join(member, None, then=ErrorCode.UNKNOWN_MEMBER_ID)
        self._end_sync(member, ErrorCode.UNKNOWN_MEMBER_ID)
        if member.member_id == self.leader:
            self.leader = next((other.member_id for other in self.members), "")

    def _after_removal(self, now_ms: int, *, was_member: bool) -> None:
        """A generation that has lost a member is over; a rebalance may have waited for nobody else."""
        if self.state == GroupState.PREPARING_REBALANCE or (was_member and self.state != GroupState.EMPTY):
            self._rebalance(now_ms)

    # ---- effects ---------------------------------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects

    def _move(self, state: GroupState) -> None:
        assert state in LEGAL[self.state], f"{self.group_id}: {state} after {self.state}"
        self.state = state

    def _save(self) -> None:
        assigned = self.state == GroupState.STABLE
        self.effects.append(
            Save(
                GroupRecord(
                    _PHASE_OF[self.state],
                    self.generation,
                    self.protocol_type,
                    self.protocol,
                    self.leader,
                    tuple(member.record(assigned=assigned) for member in self.members),
                )
            )
        )

    def _answer(self, ticket: object, result: Result) -> None:
        self.effects.append(Answer(ticket, result))

    def _refuse(self, ticket: object, error: ErrorCode, member_id: str) -> None:
        self._answer(ticket, JoinResult(error=error, member_id=member_id))

    def _wait_for_join(
        self, member: Member, ticket: object | None, then: ErrorCode = ErrorCode.REBALANCE_IN_PROGRESS
    ) -> None:
        """Keep the ticket, and answer the one that it takes the place of."""
        before = self.members.wait_for_join(member, ticket)
        if before is not None:
            self._refuse(before, then, member.member_id)

    def _end_sync(self, member: Member, error: ErrorCode) -> None:
        if member.syncing is not None:
            ticket, member.syncing = member.syncing, None
            self._answer(ticket, SyncResult(error=error))

    def _joined(self, member: Member, leader: str | None = None) -> JoinResult:
        is_leader = member.member_id == self.leader and leader is None
        return JoinResult(
            member_id=member.member_id,
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=self.leader if leader is None else leader,
            members=self.members.described(self.protocol) if is_leader else (),
        )
