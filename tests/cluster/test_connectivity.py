"""Who can talk with whom: pure figures of cuts."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.cluster.connectivity import Cuts, connected_majority, links_between_groups, links_of
from seatrial.cluster.status import majority_of

sizes = st.integers(1, 6)


def cuts_of(*links: tuple[int, int]) -> Cuts:
    cuts = Cuts()
    cuts.add(links)
    return cuts


@given(sizes, st.data())
def test_a_connected_majority_is_one_and_none_larger_exists(size: int, data: st.DataObject) -> None:
    nodes = range(1, size + 1)
    up = data.draw(st.sets(st.sampled_from(list(nodes))))
    pairs = list(permutations(nodes, 2))
    cuts = cuts_of(*data.draw(st.lists(st.sampled_from(pairs)) if pairs else st.just([])))
    found = connected_majority(nodes, up, cuts)

    def whole(group: tuple[int, ...]) -> bool:
        return set(group) <= up and all(cuts.connected(a, b) for a, b in combinations(group, 2))

    if found is not None:
        assert len(found) >= majority_of(size)
        assert whole(found)
    larger = range((len(found) if found is not None else majority_of(size) - 1) + 1, size + 1)
    assert not any(whole(group) for count in larger for group in combinations(nodes, count))


def test_one_direction_cut_is_enough_to_leave_the_majority() -> None:
    assert connected_majority([1, 2, 3], [1, 2, 3], cuts_of((1, 2), (1, 3))) == (2, 3)
    assert connected_majority([1, 2, 3], [1, 2, 3], cuts_of((3, 1))) == (1, 2)


def test_a_ring_of_majorities_has_no_connected_majority() -> None:
    neighbours = {(a, a % 5 + 1) for a in range(1, 6)}
    apart = [(a, b) for a, b in permutations(range(1, 6), 2) if not {(a, b), (b, a)} & neighbours]
    assert connected_majority(range(1, 6), range(1, 6), cuts_of(*apart)) is None


def test_a_link_cut_twice_is_whole_only_after_both_cuts_end() -> None:
    cuts = cuts_of((1, 2), (1, 2))
    cuts.remove([(1, 2)])
    assert cuts.links() == ((1, 2),)
    cuts.remove([(1, 2)])
    assert cuts.links() == ()
    assert cuts.connected(1, 2)


def test_nodes_in_no_group_are_one_more_group_together() -> None:
    assert links_between_groups([1, 2, 3], [[1]]) == ((1, 2), (1, 3), (2, 1), (3, 1))
    assert links_between_groups([1, 2, 3], [[1], [2, 3]]) == links_between_groups([1, 2, 3], [[1]])
    assert links_of([1, 2, 3], 1) == links_between_groups([1, 2, 3], [[2, 3]])


@given(st.integers(2, 6), st.data())
def test_links_between_groups_join_no_two_nodes_of_one_group(size: int, data: st.DataObject) -> None:
    nodes = list(range(1, size + 1))
    group_of = {node: data.draw(st.integers(0, 2)) for node in nodes}
    groups = [[node for node in nodes if group_of[node] == number] for number in range(3)]
    expected = {(a, b) for a, b in permutations(nodes, 2) if group_of[a] != group_of[b]}
    assert set(links_between_groups(nodes, groups)) == expected


def test_groups_that_make_no_sense_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="no node 9; the cluster has"):
        links_between_groups([1, 2, 3], [[9]])
    with pytest.raises(ValueError, match="node 1 is in two groups"):
        links_between_groups([1, 2, 3], [[1], [1, 2]])
