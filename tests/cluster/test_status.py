"""What follows from the nodes' own words, taken together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from seatrial.cluster.status import NodeStatus, agreed_leader, disagreement, majority_of


def says(node: int, leader: int | None, *, group: str = "kv", **fields: Any) -> NodeStatus:
    role = "leader" if leader == node else "follower"
    figures = {"term": 2, "commit_index": 7, "last_applied": 7, **fields}
    return NodeStatus(node=node, group=group, role=role, leader=leader, **figures)


def silent(node: int) -> NodeStatus:
    return NodeStatus(node=node, group="kv", error="no answer")


def test_majority_is_more_than_half() -> None:
    assert [majority_of(count) for count in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]


def test_a_leader_needs_its_own_word_and_that_of_a_majority() -> None:
    nodes = [1, 2, 3]
    assert agreed_leader({1: [says(1, 1)], 2: [says(2, 1)], 3: [silent(3)]}, "kv", nodes) == 1
    assert agreed_leader({1: [says(1, 1)], 2: [silent(2)], 3: [silent(3)]}, "kv", nodes) is None
    assert agreed_leader({1: [silent(1)], 2: [says(2, 1)], 3: [says(3, 1)]}, "kv", nodes) is None


def test_a_cut_off_leader_of_an_old_term_does_not_count() -> None:
    statuses = {1: [says(1, 1, term=1)], 2: [says(2, 2)], 3: [says(3, 2)]}
    assert agreed_leader(statuses, "kv", [1, 2, 3]) == 2


def test_followers_of_another_term_do_not_back_a_leader() -> None:
    statuses = {1: [says(1, 1, term=3)], 2: [says(2, 1, term=2)], 3: [says(3, 1, term=2)]}
    assert agreed_leader(statuses, "kv", [1, 2, 3]) is None


def test_a_leader_is_looked_for_in_the_group_that_was_asked_about() -> None:
    statuses = {node: [says(node, 1, group="metadata"), says(node, 2, group="kv")] for node in (1, 2, 3)}
    assert agreed_leader(statuses, "metadata", [1, 2, 3]) == 1
    assert agreed_leader(statuses, "kv", [1, 2, 3]) == 2
    assert agreed_leader(statuses, "other", [1, 2, 3]) is None


def test_terms_that_a_system_does_not_tell_count_as_equal() -> None:
    statuses = {node: [replace(says(node, 3), term=None)] for node in (1, 2, 3)}
    assert agreed_leader(statuses, "kv", [1, 2, 3]) == 3


def test_consensus_is_one_leader_and_equal_figures_on_all() -> None:
    same = {node: [says(node, 1)] for node in (1, 2, 3)}
    assert disagreement(same, [1, 2, 3]) is None
    assert disagreement({**same, 3: [silent(3)]}, [1, 2, 3]) == "node 3 does not answer"
    assert disagreement({**same, 3: []}, [1, 2, 3]) == "node 3 does not answer"
    for name, value in (("term", 1), ("commit_index", 6), ("last_applied", 6)):
        reason = disagreement({**same, 3: [says(3, 1, **{name: value})]}, [1, 2, 3])
        assert reason is not None and f"kv: {name} differs" in reason
    assert disagreement({**same, 3: [says(3, 3)]}, [1, 2, 3]) == "group kv has 2 leaders"


def test_no_consensus_while_entries_are_stored_that_are_not_committed_or_applied_yet() -> None:
    """As after a restart of all: they agree on a commit index that is behind what they acknowledged before it."""
    behind = {node: [says(node, 1, last_index=9)] for node in (1, 2, 3)}
    reason = disagreement(behind, [1, 2, 3])
    assert reason is not None and "applied 7 of 7 committed of 9" in reason
    assert disagreement({node: [says(node, 1, last_index=7)] for node in (1, 2, 3)}, [1, 2, 3]) is None
    assert disagreement({node: [says(node, 1, last_applied=6)] for node in (1, 2, 3)}, [1, 2, 3]) is not None


def test_consensus_compares_a_group_only_among_the_nodes_that_hold_it() -> None:
    statuses = {node: [says(node, 1)] for node in (1, 2, 3)}
    statuses[2].append(says(2, 2, group="topic/0", term=9))
    statuses[3].append(says(3, 2, group="topic/0", term=9))
    assert disagreement(statuses, [1, 2, 3]) is None
