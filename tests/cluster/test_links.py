"""Where a toxic has to sit so that it hits the bytes from one node to another, and how evidence is added up."""

from __future__ import annotations

from itertools import permutations

import pytest

from seatrial.cluster.drivers.base import LinkStyle
from seatrial.cluster.links import LinkFault, Place, count, places_of, proxy_names


def test_bytes_between_two_nodes_pass_the_proxies_of_both_diallers() -> None:
    assert places_of(LinkStyle.PER_LINK, (1, 2)) == (Place("1-2", "upstream"), Place("2-1", "downstream"))


def test_with_one_address_a_node_the_dialler_is_told_by_its_name() -> None:
    assert places_of(LinkStyle.PER_DESTINATION, (1, 2)) == (
        Place("to-2", "upstream", "n1"),
        Place("to-1", "downstream", "n2"),
    )


@pytest.mark.parametrize("style", LinkStyle)
def test_every_place_is_of_one_link_and_on_a_proxy_that_exists(style: LinkStyle) -> None:
    nodes = (1, 2, 3, 4)
    places = [place for link in permutations(nodes, 2) for place in places_of(style, link)]
    assert len(set(places)) == len(places) == 2 * 4 * 3
    assert {place.proxy for place in places} == set(proxy_names(style, nodes))


def test_only_bytes_and_connections_that_were_touched_prove_that_a_fault_bit() -> None:
    fault = LinkFault("hold", ((1, 2),))
    count(fault, (1, 2), {"connections_matched": 2, "bytes_seen": 9, "bytes_kept_now": 3, "bytes_held": 0})
    assert fault.bit is False
    count(fault, (1, 2), {"bytes_held": 9})
    assert fault.bit is True
    assert fault.evidence == {"connections_matched": 2, "bytes_seen": 9, "bytes_held": 9}
    assert fault.by_link == {"1->2": {"bytes_held": 9}}


def test_where_nothing_is_counted_nobody_knows_whether_it_bit() -> None:
    assert LinkFault("hold", ((1, 2),), observed=False).bit is None
