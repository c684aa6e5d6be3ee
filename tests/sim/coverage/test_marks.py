"""Every rare event that the code names has an owner: this search, or the nightly one, which must get there.

`seatrial sim --level core --seeds 20000 --coverage` and `seatrial sim --seeds 2000 --coverage` (`make nightly`) are
INVALID while a mark of their level was never reached.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from seatrial.sim.coverage import OWNED_BY_TESTS, PACKAGES, marks_in_code, never_reached, owner
from seatrial.sim.hunt import Draw, hunt

SEEDS = 60
SOURCE = Path(__file__).parents[3] / "src" / "seatrial"

# Of the Raft core: what at least 8 of 60 seeds reached when this was written.
OFTEN = {
    "a candidate lost an election",
    "a change of members was refused because another was pending",
    "a forwarded proposal was lost",
    "a forwarded read expired",
    "a forwarded read was refused because the leader changed",
    "a leader truncated its own uncommitted suffix",
    "a leader without contact to a quorum stepped down",
    "a lease read was answered",
    "a pre-candidate heard from a leader",
    "a pre-candidate was refused by a majority",
    "a proposal was dropped because too much is uncommitted",
    "a read waited for a new leader's first commit",
    "a read was forwarded to a node that does not lead",
    "a read was refused because the leadership ended",
    "a second candidate of a term was refused a vote",
    "a stale append response was ignored",
    "entries of an older term on a quorum waited for one of the leader's own",
}

# What it takes the nightly number of seeds to reach; `tests/raft` has a directed test for most of them.
SELDOM = {
    "a candidate heard from the leader of its term",
    "a candidate of a later term was ignored out of loyalty to the leader",
    "a candidate whose log is behind was refused a vote",
    "a configuration was rolled back by truncation",
    "a conflict was backed off by term",
    "a follower truncated a suffix that conflicted",
    "a follower was too far behind for the log",
    "a joining node was asked for its vote",
    "a leader removed itself",
    "a learner was refused its promotion because it had not caught up",
    "a new leader left the joint consensus of its predecessor",
    "a new leader refused a change of members before its first commit",
    "a node came back under the leader that removed it",
    "a node campaigned although it was being removed or demoted",
    "a proposal was dropped during a transfer",
    "a removed leader stepped down without an heir",
    "a removed node was given up before it knew",
    "a snapshot arrived during joint consensus",
    "a snapshot came too late to be of use",
    "a snapshot under way gave way to another",
    "a transfer timed out",
    "an acknowledgement that may be of a former life was not counted",
    "an append response that concerns nobody was ignored",
    "an installed snapshot kept the log's suffix",
    "an old leader was told of a later term",
    "an order to campaign was ignored",
    "no snapshot that helps a follower was there yet",
    "what a follower had lost was compacted meanwhile",
}


def test_every_mark_of_the_core_has_an_owner() -> None:
    """A new mark goes to OFTEN if this number of seeds reaches it, and to SELDOM otherwise."""
    assert not OFTEN & SELDOM
    assert set(marks_in_code("core")) == OFTEN | SELDOM


@pytest.mark.slow
def test_a_short_search_reaches_what_is_often_reached() -> None:
    report = hunt(range(SEEDS), Draw(level="core"), jobs=2)
    assert report.failing == []
    assert OFTEN - set(report.marks) == set()


def test_a_mark_is_named_once_in_the_code() -> None:
    names: Counter[str] = Counter()
    for package in PACKAGES["full"]:
        for path in (SOURCE / package).rglob("*.py"):
            names.update(
                line.split('reached("')[1].split('"')[0]
                for line in path.read_text().splitlines()
                if 'reached("' in line
            )
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names) == set(marks_in_code("full"))


def test_what_was_never_reached_is_told_with_its_place() -> None:
    first, second, *_ = marks_in_code("core").items()
    missed = never_reached("core", {name for name in marks_in_code("core") if name != second[0]})
    assert missed == [f"{second[0]}  ({second[1]})"]
    assert second[1].startswith("raft/") and ".py:" in second[1]
    assert first[0] not in missed[0]
    assert never_reached("core", marks_in_code("core")) == []


def test_the_full_level_answers_for_the_whole_server_wing() -> None:
    assert set(marks_in_code("core")) < set(marks_in_code("full"))


def test_every_mark_has_one_owner_and_the_core_owns_what_it_runs() -> None:
    owners = {name: owner(name) for name in marks_in_code("full")}
    assert {name for name, who in owners.items() if who == "core"} == set(marks_in_code("core")) - set(OWNED_BY_TESTS)
    asked = {line.split("  (")[0] for level in PACKAGES for line in never_reached(level, ())}
    assert asked == set(owners) - set(OWNED_BY_TESTS)


@pytest.mark.parametrize("mark", OWNED_BY_TESTS)
def test_a_mark_that_no_search_is_asked_for_is_in_the_code_and_asserted_by_its_test(mark: str) -> None:
    assert mark in marks_in_code("full")
    why, test = OWNED_BY_TESTS[mark]
    path, name = test.split("::")
    tree = ast.parse((SOURCE.parents[1] / path).read_text())
    bodies = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    texts = {node.value for body in bodies for node in ast.walk(body) if isinstance(node, ast.Constant)}
    assert why and mark in texts, f"{test} does not name the mark"
