"""What hosts tell each other of the groups that they lead in silence: what changed, and all of it to who missed it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from seatrial.raft.ids import GroupId, NodeId, Term
from seatrial.raft.messages import Configuration, ForwardProposal, Message
from seatrial.server.quiet import HOST_GROUP, LIST_EVERY_BEATS, QuietGroups
from seatrial.server.replica import Replica

LEADER, FOLLOWER = NodeId(1), NodeId(2)
TIMEOUT_US = 300_000
GROUPS = [GroupId(16 + number) for number in range(400)]


def replica(group: GroupId, *, term: int = 3, leader: NodeId = LEADER) -> Replica:
    node = SimpleNamespace(
        term=term,
        leader=leader,
        commit_index=7,
        last_index=7,
        is_occupied=False,
        followers=list,
        configuration=Configuration([NodeId(1), NodeId(2), NodeId(3)]),
        step=lambda message, now_us: None,
    )
    return cast(Replica, SimpleNamespace(group=group, node=node, idle_beats=1_000))


class Pair:
    """A leader's host and a follower's, with the messages between them in hand."""

    def __init__(self) -> None:
        self.sent: dict[NodeId, list[Message]] = {LEADER: [], FOLLOWER: []}
        self.led = {group: replica(group) for group in GROUPS}
        self.followed = {group: replica(group) for group in GROUPS}
        self.leader = self._host(LEADER, FOLLOWER, self.led)
        self.follower = self._host(FOLLOWER, LEADER, self.followed)
        self.now_us = 1_000_000

    def _host(self, me: NodeId, other: NodeId, replicas: dict[GroupId, Replica]) -> QuietGroups:
        def send(group: GroupId, messages: Any) -> None:
            assert group == HOST_GROUP
            self.sent[me] += messages

        return QuietGroups(me, lambda: [other], replicas, send, election_timeout_us=TIMEOUT_US)

    def beat(self, *, lost: bool = False) -> int:
        """One beat and its answer, or the beat alone that is lost; how many bytes the beat took."""
        self.now_us += 50_000
        self.leader.beat(self.now_us)
        (beat,) = self.sent[LEADER]
        self.sent[LEADER].clear()
        if not lost:
            self.follower.receive(beat, self.now_us)
            for answer in self.sent[FOLLOWER]:
                self.leader.receive(answer, self.now_us)
            self.sent[FOLLOWER].clear()
        assert isinstance(beat, ForwardProposal)
        return len(beat.data)

    def rest(self, groups: list[GroupId]) -> None:
        assert all(self.leader.may_rest(self.led[group]) for group in groups)

    def vouched(self) -> list[GroupId]:
        """The groups whose leader the follower's host takes to be there."""
        return [group for group in GROUPS if self.follower.is_led_quietly(self.followed[group], self.now_us)]


@pytest.fixture
def pair() -> Pair:
    """Of which 300 groups rest, as both hosts know."""
    pair = Pair()
    pair.rest(GROUPS[:300])
    pair.beat()
    assert pair.vouched() == GROUPS[:300]
    return pair


def test_a_beat_carries_only_what_changed(pair: Pair) -> None:
    nothing_new = pair.beat()
    pair.rest(GROUPS[300:302])
    pair.leader.wake(pair.led[GROUPS[0]], pair.now_us)
    with_changes = pair.beat()
    assert nothing_new < 16
    assert with_changes < 120
    assert pair.vouched() == GROUPS[1:302]


def test_a_group_that_fell_quiet_and_woke_between_two_beats_is_not_vouched_for(pair: Pair) -> None:
    pair.rest([GROUPS[310]])
    pair.leader.wake(pair.led[GROUPS[310]], pair.now_us)
    pair.beat()
    assert pair.vouched() == GROUPS[:300]


def test_a_host_that_missed_a_change_vouches_for_nothing_until_it_has_the_whole_list(pair: Pair) -> None:
    pair.leader.wake(pair.led[GROUPS[0]], pair.now_us)
    pair.beat(lost=True)
    pair.rest([GROUPS[300]])
    pair.beat()
    assert GROUPS[300] not in pair.vouched()  # its list is an old one, and it says so
    assert pair.beat() > 24 * 300
    assert pair.vouched() == GROUPS[1:301]
    assert pair.beat() < 16


def test_a_host_that_comes_when_others_know_the_list_already_is_told_all_of_it() -> None:
    pair = Pair()
    pair.rest(GROUPS[:300])
    pair.beat(lost=True)
    pair.rest([GROUPS[300]])
    pair.beat()  # changes of a list that it never saw
    assert not pair.vouched()
    pair.beat()
    assert pair.vouched() == GROUPS[:301]


def test_the_whole_list_is_told_again_at_times_even_to_those_that_said_nothing(pair: Pair) -> None:
    sizes = [pair.beat() for _ in range(LIST_EVERY_BEATS)]
    assert sum(size > 24 * 300 for size in sizes) == 1


def test_followers_are_roused_by_a_change_that_unlists_their_group_and_no_others_are(pair: Pair) -> None:
    for group in GROUPS[:300]:
        pair.follower.rest(pair.followed[group])
    pair.leader.wake(pair.led[GROUPS[5]], pair.now_us)
    pair.beat()
    assert [replica.group for replica, _ in pair.follower.roused(pair.now_us)] == [GROUPS[5]]


def test_silence_is_longer_than_an_election_timeout_and_rouses_all(pair: Pair) -> None:
    for group in GROUPS[:300]:
        pair.follower.rest(pair.followed[group])
    late_us = pair.now_us + 2 * TIMEOUT_US  # as long as a loop turn of a loaded node may take
    assert not pair.follower.roused(late_us)
    assert pair.follower.is_led_quietly(pair.followed[GROUPS[0]], late_us)
    silent_us = pair.now_us + 3 * TIMEOUT_US
    assert not pair.follower.is_led_quietly(pair.followed[GROUPS[0]], silent_us)
    assert len(pair.follower.roused(silent_us)) == 300


@pytest.mark.parametrize("surplus", [b"", b"\x01", bytes(23)])
def test_what_is_no_whole_line_of_a_list_is_left_out(pair: Pair, surplus: bytes) -> None:
    """A list that was cut short, as no host of ours sends it, must not end the node."""
    pair.now_us += 50_000
    pair.leader.beat(pair.now_us)
    for _ in range(LIST_EVERY_BEATS):
        pair.now_us += 50_000
        pair.leader.beat(pair.now_us)
    lists = [beat for beat in pair.sent[LEADER] if isinstance(beat, ForwardProposal) and len(beat.data) > 24 * 300]
    cut = ForwardProposal(LEADER, FOLLOWER, Term(0), lists[-1].data[: 9 + 24 * 100] + surplus)
    pair.follower.receive(cut, pair.now_us)
    assert pair.vouched() == GROUPS[:100]
