"""Words for "which nodes" become node ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seatrial.env import Rng
from seatrial.faults.targets import LEAVE_NO_MAJORITY, Target, View, budget_of, choose


@st.composite
def views(draw: st.DrawFn) -> View:
    nodes = tuple(range(1, draw(st.integers(1, 7)) + 1))
    running = tuple(sorted(draw(st.sets(st.sampled_from(nodes)))))
    leader = draw(st.none() | st.sampled_from(nodes))
    return View(nodes=nodes, running=running, leader=leader, room=draw(st.none() | st.integers(1, 3)))


@given(st.sampled_from(Target), views(), st.integers(0, 2**32))
def test_the_same_word_view_and_seed_give_the_same_running_nodes(target: Target, view: View, seed: int) -> None:
    chosen = choose(target, view, Rng(seed))
    assert chosen == choose(target, view, Rng(seed))
    assert set(chosen) <= set(view.running)
    assert list(chosen) == sorted(set(chosen))


@given(st.sampled_from(sorted(set(Target) - LEAVE_NO_MAJORITY)), views(), st.integers(0, 2**32))
def test_words_that_leave_a_majority_hit_no_more_than_the_budget(target: Target, view: View, seed: int) -> None:
    assert len(choose(target, view, Rng(seed))) <= budget_of(len(view.nodes))


@given(views(), st.integers(0, 2**32))
def test_a_minority_keeps_to_the_room_that_is_left(view: View, seed: int) -> None:
    chosen = choose(Target.MINORITY, view, Rng(seed))
    assert view.room is None or len(chosen) <= view.room
    assert bool(chosen) == bool(view.running)


def test_budget_is_a_minority_and_one_where_even_one_is_a_majority() -> None:
    assert [budget_of(nodes) for nodes in range(1, 8)] == [1, 1, 1, 1, 2, 2, 3]


def test_each_word_means_what_it_says() -> None:
    view = View(nodes=(1, 2, 3, 4, 5), running=(1, 2, 3, 4, 5), leader=4)
    rng = Rng(1)
    assert choose(Target.LEADER, view, rng) == (4,)
    assert choose(Target.FOLLOWERS, view, rng) == (1, 2, 3, 5)
    assert choose(Target.ALL, view, rng) == (1, 2, 3, 4, 5)
    assert len(choose(Target.ONE, view, rng)) == 1
    assert len(choose(Target.HALF, view, rng)) == 2
    assert len(choose(Target.MAJORITY, view, rng)) == 3


def test_without_a_leader_nothing_that_needs_one_is_hit() -> None:
    nobody = View(nodes=(1, 2, 3), running=(1, 2, 3))
    down = View(nodes=(1, 2, 3), running=(2, 3), leader=1)
    for view in (nobody, down):
        assert choose(Target.LEADER, view, Rng(1)) == ()
        assert choose(Target.FOLLOWERS, view, Rng(1)) == ()


def test_every_node_is_hit_sooner_or_later() -> None:
    view = View(nodes=(1, 2, 3), running=(1, 2, 3))
    assert {choose(Target.ONE, view, Rng(seed)) for seed in range(50)} == {(1,), (2,), (3,)}
