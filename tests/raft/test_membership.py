"""The arithmetic of changing members: pure functions, in tables."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.raft import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange, ConfigurationRefused
from seatrial.raft.ids import NodeId
from seatrial.raft.membership import (
    ConfigurationHistory,
    decode_configuration,
    encode_configuration,
    enter,
    leave,
    members,
    violation,
)
from seatrial.raft.messages import Configuration
from seatrial.raft.quorum import majority_size


def conf(
    voters: str, outgoing: str = "", learners: str = "", learners_next: str = "", auto_leave: bool = False
) -> Configuration:
    """Each digit is a node."""
    groups = [[NodeId(int(digit)) for digit in text] for text in (voters, outgoing, learners, learners_next)]
    return Configuration(groups[0], groups[1], groups[2], groups[3], auto_leave)


def change(text: str, *, explicit_leave: bool = False) -> ConfigurationChange:
    """`v4 l2 r1`: make 4 a voter, 2 a learner, remove 1."""
    operations = {"v": ADD_VOTER, "l": ADD_LEARNER, "r": REMOVE}
    pairs = [(operations[word[0]], NodeId(int(word[1:]))) for word in text.split()]
    return ConfigurationChange(pairs, explicit_leave)


@pytest.mark.parametrize(
    ("before", "wanted", "entered", "left"),
    [
        # one voter more or less goes directly
        (conf("123"), "v4", conf("1234"), None),
        (conf("123"), "r3", conf("12"), None),
        (conf("12"), "r1", conf("2"), None),
        (conf("123", learners="4"), "v4", conf("1234"), None),
        (conf("123"), "l3", conf("12", learners="3"), None),
        # learners never need a majority's consent twice
        (conf("123"), "l4", conf("123", learners="4"), None),
        (conf("123"), "l4 l5", conf("123", learners="45"), None),
        (conf("123", learners="45"), "r4 r5", conf("123"), None),
        (conf("123", learners="4"), "v4 l5", conf("1234", learners="5"), None),
        # anything else is joint
        (conf("123", learners="4"), "v4 r1", conf("234", "123", auto_leave=True), conf("234")),
        (conf("123"), "v4 v5", conf("12345", "123", auto_leave=True), conf("12345")),
        (conf("123"), "r1 r2", conf("3", "123", auto_leave=True), conf("3")),
        (conf("1"), "v2 v3 r1", conf("23", "1", auto_leave=True), conf("23")),
        # who still votes in the outgoing majority becomes a learner on leave
        (
            conf("123", learners="4"),
            "v4 l1",
            conf("234", "123", learners_next="1", auto_leave=True),
            conf("234", learners="1"),
        ),
        (conf("123"), "l2 l3", conf("1", "123", learners_next="23", auto_leave=True), conf("1", learners="23")),
        (
            conf("123", learners="45"),
            "v4 l1 r5",
            conf("234", "123", learners_next="1", auto_leave=True),
            conf("234", learners="1"),
        ),
    ],
)
def test_a_change_is_entered_and_left_as_written(
    before: Configuration, wanted: str, entered: Configuration, left: Configuration | None
) -> None:
    result = enter(before, change(wanted))
    assert result == entered
    if left is not None:
        assert leave(result) == left


@pytest.mark.parametrize("wanted", ["v4", "r3", "l4", "v4 r1", "l3"])
def test_with_explicit_leave_every_change_is_joint_and_stays_so(wanted: str) -> None:
    before = conf("123")
    joint = enter(before, change(wanted, explicit_leave=True))
    assert joint.voters_outgoing == before.voters and not joint.auto_leave
    assert leave(joint) == (
        leave(enter(before, change(wanted)))
        if enter(before, change(wanted)).voters_outgoing
        else enter(before, change(wanted))
    )


@pytest.mark.parametrize(
    ("before", "wanted", "code"),
    [
        (conf("1234", "123"), "r4", "pending"),
        (conf("123"), "r4", "unknown-node"),
        (conf("123"), "v3", "already"),
        (conf("123", learners="4"), "l4", "already"),
        (conf("1"), "r1", "no-voter"),
        (conf("1", learners="2"), "r1", "no-voter"),
        (conf("12"), "l1 r2", "no-voter"),
        (conf("123"), "v4 r4", "repeated"),
        (conf("123"), "v0", "repeated"),
        (conf("123"), "", "empty"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_what_to_do(before: Configuration, wanted: str, code: str) -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        enter(before, change(wanted))
    assert refused.value.code == code
    assert refused.value.definite
    assert len(str(refused.value)) > 20


def test_only_joint_consensus_can_be_left() -> None:
    with pytest.raises(ConfigurationRefused) as refused:
        leave(conf("123"))
    assert refused.value.code == "not-joint"


def test_an_unknown_operation_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="unknown operation 7"):
        enter(conf("123"), ConfigurationChange([(7, NodeId(1))]))


NODES = st.integers(1, 7).map(NodeId)


@st.composite
def simple_configurations(draw: st.DrawFn) -> Configuration:
    voters = draw(st.sets(NODES, min_size=1))
    learners = draw(st.sets(NODES)) - voters
    return Configuration(sorted(voters), (), sorted(learners))


CHANGES = st.lists(st.tuples(st.sampled_from([ADD_VOTER, ADD_LEARNER, REMOVE]), NODES), min_size=1, max_size=5)


def _majorities(voters: tuple[NodeId, ...]) -> list[set[NodeId]]:
    return [set(chosen) for chosen in combinations(voters, majority_size(len(voters)))]


@given(simple_configurations(), CHANGES, st.booleans())
def test_no_two_quorums_of_neighbouring_configurations_are_disjoint(
    before: Configuration, changes: list[tuple[int, NodeId]], explicit_leave: bool
) -> None:
    """What all safety of changes rests on: either majorities overlap, or joint consensus needs one of each."""
    try:
        entered = enter(before, ConfigurationChange(changes, explicit_leave))
    except ConfigurationRefused:
        return
    assert violation(entered) is None
    if entered.voters_outgoing:
        assert entered.voters_outgoing == before.voters
        assert violation(leave(entered)) is None
        assert leave(entered).voters == entered.voters
    else:
        assert all(one & other for one in _majorities(before.voters) for other in _majorities(entered.voters))


@given(simple_configurations(), CHANGES, st.booleans())
def test_what_is_encoded_is_decoded(
    before: Configuration, changes: list[tuple[int, NodeId]], explicit_leave: bool
) -> None:
    assert decode_configuration(encode_configuration(before)) == before
    try:
        entered = enter(before, ConfigurationChange(changes, explicit_leave))
    except ConfigurationRefused:
        return
    assert decode_configuration(encode_configuration(entered)) == entered


def test_the_unknown_configuration_is_encoded_as_well() -> None:
    unknown = Configuration(())
    assert decode_configuration(encode_configuration(unknown)) == unknown


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_in_one_way(data: bytes) -> None:
    try:
        configuration = decode_configuration(data)
    except ValueError:
        return
    assert encode_configuration(configuration) == encode_configuration(decode_configuration(data))


@pytest.mark.parametrize(
    ("broken", "number"),
    [
        (Configuration((), (NodeId(1),)), "1"),
        (conf("12", learners="2"), "2"),
        (conf("12", "13", learners="3"), "2"),
        (conf("12", "13", learners_next="1"), "3"),
        (conf("12", "", learners_next="3"), "3"),
        (conf("12", auto_leave=True), "4"),
        (conf("112"), "5"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_named_and_never_decoded(broken: Configuration, number: str) -> None:
    reason = violation(broken)
    assert reason is not None and reason.startswith(number)
    with pytest.raises(ValueError, match=f"^{number}: "):
        decode_configuration(encode_configuration(broken))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (encode_configuration(conf("123"))[:-1], "in 32 bytes"),
        (encode_configuration(conf("123")) + b"x", "in 34 bytes"),
        (b"\x02" + encode_configuration(conf("123"))[1:], "unknown flags"),
    ],
)
def test_damaged_bytes_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_configuration(data)


def test_members_are_all_who_are_sent_to() -> None:
    assert members(conf("234", "123", learners="5", learners_next="1")) == [1, 2, 3, 4, 5]
    assert members(Configuration(())) == []


def test_a_history_falls_back_when_the_log_loses_what_it_brought() -> None:
    history = ConfigurationHistory(conf("123"))
    assert (history.latest, history.latest_index, history.previous) == (conf("123"), 0, None)
    history.append(4, conf("1234"))
    history.append(7, conf("234"))
    assert (history.latest_index, history.previous) == (7, conf("1234"))
    assert not history.truncate_from(8)
    assert history.truncate_from(7)
    assert (history.latest, history.latest_index) == (conf("1234"), 4)
    assert history.truncate_from(1)
    assert history.latest == conf("123")


def test_a_history_knows_what_was_in_effect_at_each_index_until_that_is_forgotten() -> None:
    history = ConfigurationHistory(conf("123"))
    history.append(4, conf("1234"))
    history.append(7, conf("234"))
    assert [history.at(index) for index in (0, 3, 4, 6, 7, 100)] == [
        conf("123"),
        conf("123"),
        conf("1234"),
        conf("1234"),
        conf("234"),
        conf("234"),
    ]
    history.forget_before(5)
    assert history.at(5) == conf("1234")
    with pytest.raises(ValueError, match="known from 4 on"):
        history.at(3)


def test_a_snapshot_without_members_leaves_those_of_the_start() -> None:
    """A node that was added with nothing but the log does not know who took part before the first change."""
    history = ConfigurationHistory(conf("123"))
    history.restart_at(5, Configuration(()))
    assert (history.latest, history.latest_index) == (conf("123"), 5)
    history.restart_at(9, conf("34"))
    assert history.latest == conf("34")


def test_a_change_prints_itself() -> None:
    assert repr(change("v4 l2 r1", explicit_leave=True)) == (
        "ConfigurationChange(add as a voter 4, add as a learner 2, remove 1, explicit leave)"
    )
