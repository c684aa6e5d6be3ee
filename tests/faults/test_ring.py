"""The ring of majorities, by its definition."""

from __future__ import annotations

import pytest

from seatrial.cluster.status import majority_of
from seatrial.faults.network import links_across_ring


@pytest.mark.parametrize("count", range(4, 12))
def test_every_node_reaches_a_majority_and_no_two_the_same(count: int) -> None:
    nodes = list(range(1, count + 1))
    cut = set(links_across_ring(nodes))
    reached = {a: frozenset(b for b in nodes if (a, b) not in cut) for a in nodes}
    assert all(len(others) >= majority_of(count) for others in reached.values())
    assert len(set(reached.values())) == count
    assert all((b, a) in cut for a, b in cut)
