"""Majorities against their definition: some set of voters that any other quorum overlaps."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Configuration
from seatrial.raft.quorum import LOST, PENDING, WON, is_voter, joint_reached, majority_size, vote_outcome

VALUES = st.lists(st.integers(0, 6), min_size=1, max_size=6)
VOTERS = st.sets(st.integers(1, 6).map(NodeId), min_size=1)


def has_majority(values: list[int], at: int) -> bool:
    return sum(value >= at for value in values) * 2 > len(values)


@settings(deadline=None)
@given(incoming=VALUES, outgoing=st.one_of(st.just([]), VALUES))
def test_what_is_reached_is_the_highest_that_both_majorities_have(incoming: list[int], outgoing: list[int]) -> None:
    reached = joint_reached(list(incoming), list(outgoing))
    both = [v for v in range(8) if has_majority(incoming, v) and (not outgoing or has_majority(outgoing, v))]
    assert reached == max(both)


def test_without_voters_nothing_is_reached() -> None:
    assert joint_reached([], []) == 0


@settings(deadline=None)
@given(voters=VOTERS)
def test_any_two_majorities_overlap(voters: set[NodeId]) -> None:
    size = majority_size(len(voters))
    assert all(set(a) & set(b) for a in combinations(voters, size) for b in combinations(voters, size))
    assert len(voters) < 2 * size <= len(voters) + 2


@settings(deadline=None, max_examples=50)
@given(
    incoming=VOTERS,
    outgoing=st.one_of(st.just(set()), VOTERS),
    votes=st.dictionaries(st.integers(1, 8).map(NodeId), st.booleans()),
)
def test_an_election_is_decided_as_soon_as_no_further_vote_can_change_it(
    incoming: set[NodeId], outgoing: set[NodeId], votes: dict[NodeId, bool]
) -> None:
    halves = [half for half in (incoming, outgoing) if half]

    def wins(missing: bool) -> bool:
        return all(sum(votes.get(v, missing) for v in half) * 2 > len(half) for half in halves)

    outcome = vote_outcome(Configuration(list(incoming), list(outgoing), [NodeId(8)]), votes)
    expected = WON if wins(missing=False) else PENDING if wins(missing=True) else LOST
    assert outcome == expected


def test_learners_are_no_voters() -> None:
    configuration = Configuration([NodeId(1)], [NodeId(2)], [NodeId(3)])
    assert [is_voter(configuration, NodeId(n)) for n in (1, 2, 3, 4)] == [True, True, False, False]
