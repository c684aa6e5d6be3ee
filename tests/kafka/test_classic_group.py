"""The rebalance protocol, case by case: requests and the time in, answers and records out; no loop, no sockets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from fake_groups import reaching

from seatrial.kafka.classic_group import ClassicGroup
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_messages import (
    Answer,
    GroupState,
    Identity,
    JoinRequest,
    JoinResult,
    Save,
    SyncRequest,
    SyncResult,
)
from seatrial.kafka.group_rebalance import LEGAL
from seatrial.kafka.group_settings import GroupLimits
from seatrial.machines.groups import GroupPhase, GroupRecord

SESSION_MS = 10_000
REBALANCE_MS = 60_000
OLD_CLIENT: Any = {"needs_known_id": False}
E = ErrorCode


class Scene:
    """One group; `answers` by ticket, `records` in their order."""

    def __init__(self, *, delay_ms: int = 0, **limits: int) -> None:
        self.numbers = itertools.count(1)
        self.limits = GroupLimits(initial_rebalance_delay_ms=delay_ms, **limits)
        self.group = ClassicGroup("g", self.limits, self.new_id)
        self.now_ms = 1_000
        self.answers: dict[str, Any] = {}
        self.records: list[GroupRecord] = []
        self.order: list[str] = []  # "save", or the ticket of an answer

    def new_id(self) -> str:
        return f"id{next(self.numbers)}"

    def collect(self) -> None:
        for effect in self.group.take_effects():
            if isinstance(effect, Save):
                self.records.append(effect.record)
                self.order.append("save")
            else:
                assert isinstance(effect, Answer)
                ticket = str(effect.ticket)
                assert ticket not in self.answers, f"{ticket} was answered twice"
                self.answers[ticket] = effect.result
                self.order.append(ticket)

    def join(
        self,
        ticket: str,
        member_id: str = "",
        *,
        instance: str | None = None,
        protocols: Sequence[tuple[str, bytes]] = (("range", b"r"),),
        kind: str = "consumer",
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
        **more: bool,
    ) -> JoinResult | None:
        request = JoinRequest(
            identity=Identity(member_id, instance),
            client_id="c",
            client_host="/h",
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            protocol_type=kind,
            protocols=tuple(protocols),
            **{"needs_known_id": True, **more},
        )
        self.group.join(ticket, request, self.now_ms)
        self.collect()
        result = self.answers.get(ticket)
        assert result is None or isinstance(result, JoinResult)
        return result

    def member(self, ticket: str, **how: Any) -> str:
        """A new dynamic member that has done the handshake of KIP-394; returns its id, whatever becomes of its join."""
        refused = self.join(f"{ticket}?", **how)
        assert refused is not None and refused.error == E.MEMBER_ID_REQUIRED
        self.join(ticket, refused.member_id, **how)
        return refused.member_id

    def sync(
        self,
        ticket: str,
        member_id: str,
        assignments: dict[str, bytes] | None = None,
        *,
        generation: int | None = None,
        instance: str | None = None,
        kind: str | None = None,
        protocol: str | None = None,
    ) -> SyncResult | None:
        request = SyncRequest(
            identity=Identity(member_id, instance),
            generation=self.group.generation if generation is None else generation,
            protocol_type=kind,
            protocol=protocol,
            assignments=assignments or {},
        )
        self.group.sync(ticket, request, self.now_ms)
        self.collect()
        result = self.answers.get(ticket)
        assert result is None or isinstance(result, SyncResult)
        return result

    def beat(self, member_id: str, generation: int | None = None, instance: str | None = None) -> ErrorCode:
        generation = self.group.generation if generation is None else generation
        return self.group.heartbeat(Identity(member_id, instance), generation, self.now_ms)

    def leave(self, ticket: str, *identities: Identity) -> tuple[ErrorCode, ...]:
        self.group.leave(ticket, identities, self.now_ms)
        self.collect()
        errors: tuple[ErrorCode, ...] = self.answers[ticket]
        return errors

    def pass_ms(self, milliseconds: int) -> None:
        """Time goes on; the group is looked at when it wants to be."""
        until = self.now_ms + milliseconds
        while (due := self.group.next_deadline_ms) is not None and due <= until:
            self.now_ms = max(self.now_ms, due)
            self.group.expire(self.now_ms)
            self.collect()
            assert self.group.next_deadline_ms is None or self.group.next_deadline_ms > self.now_ms
        self.now_ms = until

    def stable(self, count: int = 2, **how: Any) -> list[str]:
        """A stable group of so many members: generation 1 for one member, one more for each that came later."""
        members: list[str] = []
        for number in range(count):
            ticket = f"j{number}"
            members.append(self.member(ticket, **how))
            for again, member in enumerate(members[:-1]):
                self.join(f"{ticket}-again{again}", member, **how)
            generation = self.group.generation
            assignments = {member: member.encode() for member in members}
            for again, member in enumerate(members):
                self.sync(f"s{generation}-{again}", member, assignments if member == self.group.leader else {})
        assert self.group.state == GroupState.STABLE
        return members

    def failed_over(self) -> Scene:
        """The same group on another coordinator, from its last record."""
        other = Scene()
        other.numbers, other.now_ms = self.numbers, self.now_ms + 1
        other.group = ClassicGroup.restored("g", self.records[-1], other.limits, self.new_id, other.now_ms)
        return other


def error_of(result: JoinResult | SyncResult | None) -> ErrorCode | None:
    return None if result is None else result.error


# ---- joining -------------------------------------------------------------------------------------------------------


def test_a_new_member_is_first_told_its_id_and_then_leads_the_first_generation() -> None:
    scene = Scene()
    first = scene.join("a")
    assert first is not None
    assert (first.error, first.member_id) == (E.MEMBER_ID_REQUIRED, "c-id1")
    assert not scene.records
    joined = scene.join("b", first.member_id)
    assert joined == JoinResult(
        member_id="c-id1",
        generation=1,
        protocol_type="consumer",
        protocol="range",
        leader="c-id1",
        members=(("c-id1", None, b"r"),),  # type: ignore[arg-type]
    )
    assert scene.order == ["a", "save", "b"]  # nobody hears of a generation that is not replicated
    assert (scene.records[-1].phase, scene.records[-1].generation) == (GroupPhase.AWAITING_ASSIGNMENT, 1)


def test_a_client_of_an_old_version_joins_at_once() -> None:
    joined = Scene().join("a", **OLD_CLIENT)
    assert joined is not None and (joined.error, joined.generation) == (E.NONE, 1)


def test_only_the_leader_hears_of_the_other_members() -> None:
    scene = Scene()
    first = scene.stable(1)[0]
    second = scene.member("b")
    assert "b" not in scene.answers
    scene.join("a2", first)
    leader, follower = scene.answers["a2"], scene.answers["b"]
    assert leader.generation == follower.generation == 2
    assert [m.member_id for m in leader.members] == [first, second]
    assert (follower.members, follower.leader) == ((), first)


def test_an_empty_group_waits_for_more_members_but_not_for_ever() -> None:
    scene = Scene(delay_ms=100)
    scene.member("a")
    assert "a" not in scene.answers
    scene.pass_ms(90)
    scene.member("b")
    scene.pass_ms(20)  # the first wait is over, but somebody came in it: another one
    assert not {"a", "b"} & scene.answers.keys()
    scene.pass_ms(100)
    assert scene.answers["a"].generation == scene.answers["b"].generation == 1
    assert len(scene.records) == 1


def test_the_wait_for_more_members_ends_with_the_rebalance_timeout() -> None:
    scene = Scene(delay_ms=100)
    for number in range(20):
        scene.member(f"m{number}", rebalance_ms=250)
        scene.pass_ms(40)
    assert scene.answers["m0"].generation == 1
    assert scene.now_ms == 1_800


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"session_ms": 5_999}, E.INVALID_SESSION_TIMEOUT),
        ({"session_ms": 1_800_001}, E.INVALID_SESSION_TIMEOUT),
        ({"session_ms": 6_000}, E.MEMBER_ID_REQUIRED),
        ({"session_ms": 1_800_000}, E.MEMBER_ID_REQUIRED),
        ({"kind": ""}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": ()}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"member_id": "nobody", "instance": "i"}, E.UNKNOWN_MEMBER_ID),
        ({"protocols": (("range", b"x" * 1001),)}, E.GROUP_MAX_SIZE_REACHED),
    ],
)
def test_a_join_is_refused_for_what_is_wrong_with_it(how: dict[str, Any], error: ErrorCode) -> None:
    assert error_of(Scene(max_record_bytes=1_000).join("a", **how)) == error


@pytest.mark.parametrize(
    ("protocols", "kind", "error"),
    [
        ((("range", b""),), "consumer", E.MEMBER_ID_REQUIRED),
        ((("sticky", b""), ("range", b"")), "consumer", E.MEMBER_ID_REQUIRED),
        ((("sticky", b""),), "consumer", E.INCONSISTENT_GROUP_PROTOCOL),
        ((("range", b""),), "connect", E.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_a_member_must_share_a_protocol_with_all_others(
    protocols: Sequence[tuple[str, bytes]], kind: str, error: ErrorCode
) -> None:
    scene = Scene()
    scene.stable(2)
    assert error_of(scene.join("x", protocols=protocols, kind=kind)) == error


def test_the_protocol_is_the_one_that_most_members_prefer_of_those_that_all_know() -> None:
    scene = Scene(delay_ms=10)
    scene.member("a", protocols=(("only-a", b""), ("x", b""), ("y", b"")))
    scene.member("b", protocols=(("y", b""), ("x", b"")))
    scene.member("c", protocols=(("y", b""), ("x", b"")))
    scene.pass_ms(100)
    assert scene.answers["a"].protocol == "y"


def test_a_protocol_named_twice_counts_once() -> None:
    scene = Scene(delay_ms=10)
    scene.member("a", protocols=(("x", b"1"), ("x", b"2")))
    scene.member("b", protocols=(("x", b""),))
    scene.pass_ms(100)
    assert scene.answers["b"].protocol == "x"


def test_a_full_group_takes_nobody_more_but_those_it_knows() -> None:
    scene = Scene(max_members=2)
    first, _ = scene.stable(2)
    assert error_of(scene.join("x")) == E.GROUP_MAX_SIZE_REACHED
    assert error_of(scene.join("y", first)) is None  # its leader asks for a rebalance


def test_ids_that_were_given_out_count_as_members_until_they_expire() -> None:
    scene = Scene(max_members=3)
    for number in range(3):
        assert error_of(scene.join(f"p{number}")) == E.MEMBER_ID_REQUIRED
    assert error_of(scene.join("full")) == E.GROUP_MAX_SIZE_REACHED
    scene.pass_ms(SESSION_MS)
    assert error_of(scene.join("late", "c-id1")) == E.UNKNOWN_MEMBER_ID
    assert error_of(scene.join("again")) == E.MEMBER_ID_REQUIRED


def test_a_promised_id_that_is_not_taken_up_holds_a_rebalance_no_longer_than_a_session() -> None:
    scene = Scene()
    first = scene.stable(1)[0]
    scene.join("promised")
    scene.join("again", first)  # the leader asks for a rebalance
    assert "again" not in scene.answers
    scene.beat(first)
    scene.pass_ms(SESSION_MS)
    assert scene.answers["again"].generation == 2


def test_a_promised_id_that_expires_leaves_a_stable_group_alone() -> None:
    scene = Scene()
    first = scene.stable(1)[0]
    scene.join("promised")
    scene.pass_ms(SESSION_MS - 1)
    assert scene.beat(first) == E.NONE
    scene.pass_ms(1)
    assert (scene.group.state, scene.group.generation) == (GroupState.STABLE, 1)
    scene.join("promised2")
    assert scene.leave("l", Identity("c-id3")) == (E.NONE,)
    assert scene.group.state == GroupState.STABLE


# ---- joining again -------------------------------------------------------------------------------------------------


def test_a_follower_that_joins_again_unchanged_does_not_disturb_a_stable_group() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    again = scene.join("again", follower)
    assert again is not None
    assert (again.error, again.generation, again.leader, again.members) == (E.NONE, 2, leader, ())
    assert scene.group.state == GroupState.STABLE


@pytest.mark.parametrize(("who", "protocols"), [(0, (("range", b"r"),)), (1, (("range", b"other topics"),))])
def test_the_leader_or_a_changed_member_has_the_group_rebalanced(
    who: int, protocols: Sequence[tuple[str, bytes]]
) -> None:
    scene = Scene()
    members = scene.stable(2)
    assert scene.join("again", members[who], protocols=protocols) is None
    assert [scene.beat(member) for member in members] == [E.REBALANCE_IN_PROGRESS] * 2
    scene.join("other", members[1 - who])
    assert scene.answers["again"].generation == scene.answers["other"].generation == 3


def test_a_join_that_is_repeated_before_the_assignment_gets_the_same_generation() -> None:
    scene = Scene()
    first = scene.member("a")
    again = scene.join("again", first)
    assert again == scene.answers["a"]
    assert len(scene.records) == 1


def test_a_join_that_is_repeated_while_it_waits_takes_the_place_of_the_first() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.join("one", leader)
    scene.join("two", leader)
    assert error_of(scene.answers["one"]) == E.REBALANCE_IN_PROGRESS
    scene.join("other", follower)
    assert scene.answers["two"].generation == 3


def test_members_that_do_not_join_in_time_are_left_out() -> None:
    scene = Scene()
    leader, lazy = scene.stable(2, rebalance_ms=7_000)
    scene.join("again", leader, rebalance_ms=7_000)
    scene.pass_ms(6_999)
    assert "again" not in scene.answers
    with reaching("a rebalance went on without a member that did not join in time"):
        scene.pass_ms(1)
    result = scene.answers["again"]
    assert [m.member_id for m in result.members] == [leader]
    assert scene.beat(lazy) == E.UNKNOWN_MEMBER_ID


def test_a_leader_that_does_not_join_is_replaced() -> None:
    scene = Scene()
    _, follower = scene.stable(2, rebalance_ms=7_000)
    scene.join("changed", follower, protocols=(("range", b"new"),), rebalance_ms=7_000)
    scene.pass_ms(7_000)
    result = scene.answers["changed"]
    assert (result.leader, [m.member_id for m in result.members]) == (follower, [follower])


# ---- assignments ---------------------------------------------------------------------------------------------------


def test_everybody_hears_its_assignment_when_the_leaders_is_replicated() -> None:
    scene = Scene(delay_ms=10)
    first, second = scene.member("a"), scene.member("b")
    scene.pass_ms(100)
    assert scene.sync("sb", second) is None
    scene.order.clear()
    result = scene.sync("sa", first, {first: b"one", second: b"two"})
    assert result == SyncResult(protocol_type="consumer", protocol="range", assignment=b"one")
    assert scene.answers["sb"].assignment == b"two"
    assert scene.order[0] == "save"
    record = scene.records[-1]
    assert (record.phase, record.leader, [m.assignment for m in record.members]) == (
        GroupPhase.STABLE,
        first,
        [b"one", b"two"],
    )
    late = scene.sync("again", second)
    assert late is not None and late.assignment == b"two"


def test_a_member_that_the_leader_forgot_gets_an_empty_assignment() -> None:
    scene = Scene(delay_ms=10)
    first, second = scene.member("a"), scene.member("b")
    scene.pass_ms(100)
    scene.sync("sb", second)
    scene.sync("sa", first, {first: b"all", "nobody": b"x"})
    assert scene.answers["sb"] == SyncResult(protocol_type="consumer", protocol="range", assignment=b"")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"member_id": "nobody"}, E.UNKNOWN_MEMBER_ID),
        ({"generation": 1}, E.ILLEGAL_GENERATION),
        ({"generation": 3}, E.ILLEGAL_GENERATION),
        ({"kind": "connect"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocol": "sticky"}, E.INCONSISTENT_GROUP_PROTOCOL),
        ({"instance": "i"}, E.UNKNOWN_MEMBER_ID),
        ({"kind": "consumer", "protocol": "range"}, E.NONE),
    ],
)
def test_a_sync_is_refused_for_what_is_wrong_with_it(how: dict[str, Any], error: ErrorCode) -> None:
    scene = Scene()
    leader, _ = scene.stable(2)
    how.setdefault("member_id", leader)
    assert error_of(scene.sync("x", how.pop("member_id"), **how)) == error


def test_a_sync_during_a_rebalance_sends_the_member_back_to_join() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.join("again", leader)
    assert error_of(scene.sync("s", follower)) == E.REBALANCE_IN_PROGRESS


def test_whoever_waits_for_an_assignment_is_told_when_a_new_rebalance_begins() -> None:
    scene = Scene(delay_ms=10)
    first, second = scene.member("a"), scene.member("b")
    scene.pass_ms(100)
    scene.sync("sb", second)
    scene.join("changed", first, protocols=(("range", b"new"),))
    assert error_of(scene.answers["sb"]) == E.REBALANCE_IN_PROGRESS
    assert scene.group.state == GroupState.PREPARING_REBALANCE


def test_members_that_never_ask_for_their_assignment_are_removed() -> None:
    scene = Scene(delay_ms=10)
    how: Any = {"rebalance_ms": 7_000}
    first, second = scene.member("a", **how), scene.member("b", **how)
    scene.pass_ms(100)
    scene.sync("sa", first, {first: b"x"})
    for _ in range(2):
        scene.pass_ms(3_400)
        assert (scene.beat(first), scene.beat(second)) == (E.NONE, E.NONE)
    with reaching("members that never asked for their assignment were removed from the group"):
        scene.pass_ms(200)
    assert scene.beat(second) == E.UNKNOWN_MEMBER_ID
    assert scene.beat(first) == E.REBALANCE_IN_PROGRESS


def test_an_assignment_that_never_comes_ends_the_generation() -> None:
    scene = Scene(delay_ms=10)
    how: Any = {"rebalance_ms": 7_000}
    first, second = scene.member("a", **how), scene.member("b", **how)
    scene.pass_ms(100)
    scene.sync("sb", second)
    scene.pass_ms(7_000)
    assert error_of(scene.answers["sb"]) == E.REBALANCE_IN_PROGRESS
    assert scene.beat(first) == E.UNKNOWN_MEMBER_ID
    scene.join("again", second, **how)
    assert scene.answers["again"].leader == second


# ---- staying and leaving -------------------------------------------------------------------------------------------


def test_a_session_lasts_as_long_as_heartbeats_come() -> None:
    scene = Scene()
    first, second = scene.stable(2)
    for _ in range(5):
        scene.pass_ms(SESSION_MS - 1)
        assert [scene.beat(first), scene.beat(second)] == [E.NONE, E.NONE]
    scene.pass_ms(SESSION_MS - 1)
    scene.beat(first)
    with reaching("a member's session ended without a heartbeat"):
        scene.pass_ms(1)
    assert scene.beat(second) == E.UNKNOWN_MEMBER_ID
    assert scene.beat(first) == E.REBALANCE_IN_PROGRESS


@pytest.mark.parametrize(
    ("member", "generation", "instance", "error"),
    [
        (0, 2, None, E.NONE),
        (0, 1, None, E.ILLEGAL_GENERATION),
        (0, -1, None, E.ILLEGAL_GENERATION),
        (None, 2, None, E.UNKNOWN_MEMBER_ID),
        (0, 2, "i", E.UNKNOWN_MEMBER_ID),
    ],
)
def test_a_heartbeat_is_refused_for_what_is_wrong_with_it(
    member: int | None, generation: int, instance: str | None, error: ErrorCode
) -> None:
    scene = Scene()
    members = scene.stable(2)
    assert scene.beat("nobody" if member is None else members[member], generation, instance) == error


def test_a_member_that_waits_for_others_to_join_is_not_thought_dead() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.join("again", leader)
    for _ in range(4):
        scene.pass_ms(SESSION_MS - 1)
        scene.beat(follower)
    scene.join("other", follower)
    assert scene.answers["again"].error == E.NONE


def test_a_new_member_whose_client_is_gone_does_not_hold_the_group_for_ever() -> None:
    scene = Scene(new_member_join_timeout_ms=20_000)
    leader = scene.stable(1, rebalance_ms=900_000)[0]
    scene.join("ghost", rebalance_ms=900_000, **OLD_CLIENT)
    scene.join("again", leader, rebalance_ms=900_000)
    assert {m.member_id for m in scene.answers["again"].members} == {leader, "c-id2"}
    scene.join("third", rebalance_ms=900_000, **OLD_CLIENT)
    scene.join("once more", leader, rebalance_ms=900_000)
    for _ in range(3):
        scene.pass_ms(9_000)
        scene.beat("c-id2")
    assert error_of(scene.answers["third"]) == E.UNKNOWN_MEMBER_ID


def test_who_leaves_is_gone_and_the_rest_is_rebalanced() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    assert scene.leave("l", Identity(leader)) == (E.NONE,)
    assert scene.beat(follower) == E.REBALANCE_IN_PROGRESS
    scene.join("again", follower)
    result = scene.answers["again"]
    assert (result.leader, result.generation) == (follower, 3)


def test_the_last_one_who_leaves_leaves_an_empty_group_that_keeps_its_generation() -> None:
    scene = Scene()
    (only,) = scene.stable(1)
    scene.order.clear()
    scene.leave("l", Identity(only))
    assert scene.order == ["save", "l"]
    assert scene.records[-1] == GroupRecord(GroupPhase.EMPTY, 2, "consumer", "", "", ())
    assert scene.group.is_forgettable
    joined = scene.member("next")
    assert scene.answers["next"].generation == 3 and scene.group.leader == joined


def test_several_leave_at_once_each_with_an_answer_of_its_own() -> None:
    scene = Scene()
    first, second = scene.stable(2)
    errors = scene.leave("l", Identity(first), Identity("nobody"), Identity("", "no-instance"), Identity(second))
    assert errors == (E.NONE, E.UNKNOWN_MEMBER_ID, E.UNKNOWN_MEMBER_ID, E.NONE)
    assert scene.group.state == GroupState.EMPTY


def test_who_leaves_while_it_waits_is_told_that_it_is_nobody() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.join("waits", leader)
    scene.leave("l", Identity(leader))
    assert error_of(scene.answers["waits"]) == E.UNKNOWN_MEMBER_ID
    scene.join("again", follower)
    assert scene.answers["again"].generation == 3


# ---- static members (KIP-345) --------------------------------------------------------------------------------------


def static_pair() -> tuple[Scene, str, str]:
    """A stable group of the static members "one" (its leader) and "two"."""
    scene = Scene(delay_ms=10)
    scene.join("a", instance="one")
    scene.join("b", instance="two")
    scene.pass_ms(100)
    one, two = scene.answers["a"].member_id, scene.answers["b"].member_id
    scene.sync("sb", two, instance="two")
    scene.sync("sa", one, {one: b"1", two: b"2"}, instance="one")
    return scene, one, two


def test_a_static_member_that_comes_back_takes_its_place_without_a_rebalance() -> None:
    scene, _, two = static_pair()
    before = scene.group.generation
    with reaching("a static member came back and the group went on without a rebalance"):
        back = scene.join("back", instance="two")
    assert back is not None
    assert (back.error, back.generation, back.members) == (E.NONE, before, ())
    assert back.member_id not in ("", two)
    assert scene.order[-2:] == ["save", "back"]
    assert [m.member_id for m in scene.records[-1].members][1] == back.member_id
    synced = scene.sync("s", back.member_id, instance="two")
    assert synced is not None and synced.assignment == b"2"
    assert scene.beat(two, instance="two") == E.FENCED_INSTANCE_ID
    assert error_of(scene.join("zombie", two, instance="two")) == E.FENCED_INSTANCE_ID
    assert error_of(scene.sync("zs", two, instance="two")) == E.FENCED_INSTANCE_ID
    assert scene.leave("zl", Identity(two, "two")) == (E.FENCED_INSTANCE_ID,)
    assert scene.group.refuse_commit(Identity(two, "two"), before, 0) == E.FENCED_INSTANCE_ID


@pytest.mark.parametrize("can_skip", [False, True])
def test_a_static_leader_that_comes_back_is_kept_from_assigning_again(can_skip: bool) -> None:
    scene, one, _ = static_pair()
    back = scene.join("back", instance="one", can_skip_assignment=can_skip)
    assert back is not None
    assert scene.group.leader == back.member_id
    if can_skip:
        assert (back.skip_assignment, back.leader, len(back.members)) == (True, back.member_id, 2)
    else:
        assert (back.skip_assignment, back.leader, back.members) == (False, one, ())
    synced = scene.sync("s", back.member_id, {back.member_id: b"all"} if can_skip else {}, instance="one")
    assert synced is not None and synced.assignment == b"1"


def test_a_static_member_that_comes_back_with_other_protocols_has_the_group_rebalanced() -> None:
    scene = Scene(delay_ms=10)
    both = (("range", b"r"), ("sticky", b"s"))
    scene.join("a", instance="one", protocols=both)
    scene.join("b", instance="two", protocols=both)
    scene.pass_ms(100)
    one, two = scene.answers["a"].member_id, scene.answers["b"].member_id
    scene.sync("sb", two, instance="two")
    scene.sync("sa", one, {}, instance="one")
    assert scene.join("back", instance="two", protocols=both[1:]) is None
    scene.join("again", one, instance="one", protocols=both)
    assert scene.answers["back"].protocol == "sticky"


def test_a_static_member_that_comes_back_before_the_assignment_starts_over() -> None:
    scene = Scene(delay_ms=10)
    scene.join("a", instance="one")
    scene.join("b", instance="two")
    scene.pass_ms(100)
    one, two = scene.answers["a"].member_id, scene.answers["b"].member_id
    scene.sync("sb", two, instance="two")
    assert scene.join("back", instance="two") is None
    assert error_of(scene.answers["sb"]) == E.FENCED_INSTANCE_ID
    scene.join("again", one, instance="one")
    assert scene.answers["back"].generation == 2


def test_a_second_client_of_the_same_name_fences_the_first_while_both_join() -> None:
    scene = Scene(delay_ms=10)
    scene.join("first", instance="one")
    scene.join("second", instance="one")
    scene.pass_ms(100)
    assert error_of(scene.answers["first"]) == E.FENCED_INSTANCE_ID
    assert scene.answers["second"].error == E.NONE
    assert len(scene.group.members) == 1


def test_a_static_member_that_does_not_join_keeps_its_place_until_its_session_ends() -> None:
    scene, one, _ = static_pair()
    scene.join("again", one, instance="one", rebalance_ms=7_000)
    scene.pass_ms(SESSION_MS - 1_000)
    assert "again" not in scene.answers  # the rebalance takes as long as the slowest member may
    scene.pass_ms(1_000)
    assert [m.instance_id for m in scene.answers["again"].members] == ["one"]


def test_a_static_member_can_be_removed_by_its_name_alone() -> None:
    scene, _, _ = static_pair()
    assert scene.leave("l", Identity("", "two")) == (E.NONE,)
    assert scene.group.members.static("two") is None
    assert scene.group.state == GroupState.PREPARING_REBALANCE


# ---- offsets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "member", "generation", "error"),
    [
        ("new", None, -1, E.NONE),
        ("new", None, 0, E.UNKNOWN_MEMBER_ID),
        ("stable", 0, 2, E.NONE),
        ("stable", 1, 2, E.NONE),
        ("stable", 0, 1, E.ILLEGAL_GENERATION),
        ("stable", "nobody", 2, E.UNKNOWN_MEMBER_ID),
        ("stable", None, -1, E.UNKNOWN_MEMBER_ID),
        ("stable", 0, -1, E.ILLEGAL_GENERATION),
        ("preparing", 1, 2, E.NONE),  # before it joins again, a member may commit what it has read
        ("completing", 0, 3, E.REBALANCE_IN_PROGRESS),
        ("left", None, -1, E.NONE),
        ("left", 0, 2, E.UNKNOWN_MEMBER_ID),
        ("dead", None, -1, E.COORDINATOR_NOT_AVAILABLE),
    ],
)
def test_offsets_are_taken_from_members_of_this_generation_or_for_an_empty_group(
    state: str, member: int | str | None, generation: int, error: ErrorCode
) -> None:
    scene = Scene()
    members = ["", ""]
    if state not in ("new", "dead"):
        members = scene.stable(2)
    if state in ("preparing", "completing"):
        scene.join("again", members[0])
    if state == "completing":
        scene.join("other", members[1])
    if state == "left":
        scene.leave("l", *map(Identity, members))
    if state == "dead":
        assert scene.group.die() == E.NONE
    member_id = members[member] if isinstance(member, int) else member or ""
    assert scene.group.refuse_commit(Identity(member_id), generation, scene.now_ms) == error


def test_a_commit_is_as_good_as_a_heartbeat() -> None:
    scene = Scene()
    (only,) = scene.stable(1)
    for _ in range(4):
        scene.pass_ms(SESSION_MS - 1)
        assert scene.group.refuse_commit(Identity(only), 1, scene.now_ms) == E.NONE


def test_only_an_empty_group_can_be_deleted() -> None:
    scene = Scene()
    (only,) = scene.stable(1)
    assert scene.group.die() == E.NON_EMPTY_GROUP
    scene.leave("l", Identity(only))
    assert scene.group.die() == E.NONE
    assert error_of(scene.join("x")) == E.COORDINATOR_NOT_AVAILABLE
    assert scene.beat(only) == E.COORDINATOR_NOT_AVAILABLE


# ---- failover ------------------------------------------------------------------------------------------------------


def test_a_stable_group_goes_on_at_another_coordinator_as_if_nothing_had_happened() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    other = scene.failed_over()
    assert [other.beat(m, 2) for m in (leader, follower)] == [E.NONE, E.NONE]
    assert other.group.refuse_commit(Identity(follower), 2, other.now_ms) == E.NONE
    synced = other.sync("s", follower, generation=2)
    assert synced is not None and synced.assignment == follower.encode()
    again = other.join("again", follower)
    assert again is not None and (again.error, again.generation, again.leader) == (E.NONE, 2, leader)
    assert other.group.state == GroupState.STABLE


def test_sessions_begin_anew_at_another_coordinator() -> None:
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.pass_ms(SESSION_MS - 1)
    other = scene.failed_over()
    other.pass_ms(SESSION_MS - 1)
    assert other.beat(leader) == E.NONE
    other.pass_ms(1)
    assert other.beat(follower) == E.UNKNOWN_MEMBER_ID


def test_a_rebalance_that_was_half_done_goes_on_at_another_coordinator() -> None:
    scene = Scene(delay_ms=10)
    first, second = scene.member("a"), scene.member("b")
    scene.pass_ms(100)
    with reaching("a coordinator went on with a rebalance that another one had begun"):
        other = scene.failed_over()
    assert other.group.state == GroupState.COMPLETING_REBALANCE
    assert other.sync("sb", second, generation=1) is None
    other.sync("sa", first, {second: b"2"}, generation=1)
    assert other.answers["sb"].assignment == b"2"


def test_a_half_done_rebalance_whose_leader_is_gone_is_begun_again() -> None:
    scene = Scene(delay_ms=10)
    scene.member("a", rebalance_ms=7_000)
    second = scene.member("b", rebalance_ms=7_000)
    scene.pass_ms(100)
    other = scene.failed_over()
    other.sync("sb", second, generation=1)
    other.pass_ms(7_000)
    assert error_of(other.answers["sb"]) == E.REBALANCE_IN_PROGRESS
    other.join("again", second, rebalance_ms=7_000)
    assert (other.answers["again"].generation, other.answers["again"].leader) == (2, second)


def test_static_members_are_known_to_another_coordinator() -> None:
    scene, _, two = static_pair()
    other = scene.failed_over()
    back = other.join("back", instance="two")
    assert back is not None and (back.error, back.generation) == (E.NONE, 1)
    assert other.beat(two, 1, "two") == E.FENCED_INSTANCE_ID


def test_a_generation_is_never_given_twice() -> None:
    """Also not by a coordinator that takes over from one that died right after it had begun the generation."""
    scene = Scene()
    leader, follower = scene.stable(2)
    scene.join("again", leader)
    scene.join("other", follower)
    assert scene.answers["again"].generation == 3
    other = scene.failed_over()
    other.join("changed", leader, protocols=(("range", b"new"),))
    other.join("as well", follower)
    assert other.answers["changed"].generation == 4


# ---- all together --------------------------------------------------------------------------------------------------


def test_thousands_of_members_join_in_time_that_grows_with_their_number_alone() -> None:
    scene = Scene(delay_ms=10)
    members = [scene.member(f"m{number}") for number in range(1_500)]
    scene.pass_ms(100)
    result = scene.answers["m0"]
    assert (result.generation, len(result.members)) == (1, 1_500)
    scene.sync("s", members[0], dict.fromkeys(members, b"x"))
    assert len(scene.records[-1].members) == 1_500
    assert all(scene.beat(member) == E.NONE for member in members)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_members_do_every_request_is_answered_once_and_states_follow_each_other_legally(seed: int) -> None:
    """Random members, static ones among them, at random moments; in the end all that still live agree."""
    import random

    rng = random.Random(seed)
    scene = Scene(delay_ms=rng.choice((0, 50)))
    ids: list[Identity] = []
    tickets: set[str] = set()
    for step in range(300):
        identity = rng.choice(ids) if ids and rng.random() < 0.7 else Identity("", rng.choice((None, None, "x", "y")))
        action = rng.random()
        ticket = f"t{step}"
        before = scene.group.state
        if action < 0.5:
            tickets.add(ticket)
            protocols = (("range", rng.choice((b"1", b"2"))),)
            scene.join(ticket, identity.member_id, instance=identity.instance_id, protocols=protocols)
        elif action < 0.75:
            tickets.add(ticket)
            scene.sync(ticket, identity.member_id, {}, instance=identity.instance_id)
        elif action < 0.82:
            tickets.add(ticket)
            scene.leave(ticket, identity)
        elif action < 0.9:
            scene.beat(identity.member_id, instance=identity.instance_id)
        else:
            scene.pass_ms(rng.choice((10, 500, 6_000)))
        after = scene.group.state
        assert after == before or after in reachable(before), (before, after)
        for result in scene.answers.values():
            if isinstance(result, JoinResult) and result.error in (E.NONE, E.MEMBER_ID_REQUIRED):
                known = scene.group.members.get(result.member_id)
                found = Identity(result.member_id, known.instance_id if known else None)
                if found not in ids:
                    ids.append(found)
        generations = [record.generation for record in scene.records]
        assert generations == sorted(generations)
        assert scene.group.members.joining == sum(m.joining is not None for m in scene.group.members)
    scene.pass_ms(400_000)
    assert scene.group.state == GroupState.EMPTY
    assert scene.group.is_forgettable
    assert tickets <= scene.answers.keys()
    assert scene.group.next_deadline_ms is None or scene.group.next_deadline_ms > scene.now_ms


def reachable(state: GroupState) -> set[GroupState]:
    """In one step of a test, which may be several of the group."""
    found: set[GroupState] = set()
    edge = [state]
    while edge:
        for following in LEGAL[edge.pop()]:
            if following not in found and following != GroupState.DEAD:
                found.add(following)
                edge.append(following)
    return found
