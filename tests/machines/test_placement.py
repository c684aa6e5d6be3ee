"""Placement of replicas: turns for everybody, never two of a partition on one node, racks as far as there are racks."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.machines.placement import assign_replicas

RACKS = st.dictionaries(st.integers(1, 50), st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(RACKS, st.integers(1, 40), st.data(), st.integers(0, 1000))
def test_replicas_are_different_nodes_and_leaders_take_turns(
    racks: dict[int, str | None], partitions: int, data: st.DataObject, first: int
) -> None:
    factor = data.draw(st.integers(1, len(racks)))
    assignments = assign_replicas(racks, partitions=partitions, replication_factor=factor, first=first)
    assert len(assignments) == partitions
    for replicas in assignments:
        assert len(replicas) == len(set(replicas)) == factor
        assert set(replicas) <= set(racks)
        distinct = {racks[node] for node in racks}
        assert len({racks[node] for node in replicas}) == min(factor, len(distinct))
    leaders = Counter(dict.fromkeys(racks, 0)) + Counter(replicas[0] for replicas in assignments)
    counts = [leaders[node] for node in racks]
    assert max(counts) - min(counts) <= 1


def test_followers_of_one_leader_change_from_round_to_round() -> None:
    assignments = assign_replicas(dict.fromkeys(range(4)), partitions=12, replication_factor=2, first=0)
    assert len({replicas for replicas in assignments if replicas[0] == 0}) == 3


@pytest.mark.parametrize("factor", [0, 4])
def test_a_factor_that_cannot_be_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match="replication factor"):
        assign_replicas({1: None, 2: None, 3: None}, partitions=1, replication_factor=factor, first=0)
