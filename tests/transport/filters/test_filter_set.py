"""Filters in a row: scope, order, groups, release, removal; and the rules that have names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.env import Rng
from seatrial.raft.messages import AppendEntries, Heartbeat, InstallSnapshot
from seatrial.transport.filters import (
    RULES,
    Drop,
    DropRandomly,
    HoldAll,
    Rule,
    delay,
    drop,
    each_link,
    each_node,
    hold,
    isolate,
    named,
    of_types,
    on,
    partition,
)


def test_a_partition_cuts_both_ways_and_leaves_the_sides_alone(bench: Any, make: Any) -> None:
    bench.filter(partition([1, 2], [3]))
    inside = [make.append(1, 2), make.append(2, 1)]
    assert bench.send(make.append(1, 3), make.append(3, 2), *inside) == inside


def test_an_isolated_node_neither_hears_nor_is_heard(bench: Any, make: Any) -> None:
    bench.filter(isolate(2, [1, 2, 3]))
    others = make.append(1, 3)
    assert bench.send(make.append(1, 2), make.append(2, 3), others) == [others]


def test_a_filter_of_one_group_or_one_side_leaves_the_others_alone(bench: Any, make: Any) -> None:
    bench.filter(on(Drop(), group=7))  # type: ignore[arg-type]
    bench.filter(drop(Heartbeat, side="receive"))
    append, beat = make.append(), make.beat()
    assert bench.send(append, group=7) == []
    assert bench.send(append, group=8) == [append]
    assert bench.send(beat, group=8) == [beat]
    assert bench.receive(append, beat, group=7) == [append]


def test_hosts_can_see_when_there_is_nothing_to_ask(bench: Any) -> None:
    assert not bench.set.sending and not bench.set.receiving
    active = bench.filter(drop(side="receive"))
    assert bench.set.receiving and not bench.set.sending
    active.remove()
    assert not bench.set.receiving


def test_each_node_has_a_rule_of_its_own(bench: Any, make: Any) -> None:
    bench.filter(each_node(lambda name: Drop(allow=1), AppendEntries))
    sent = [make.append(1, 2), make.append(1, 3), make.append(2, 1), make.append(2, 3)]
    assert bench.send(*sent) == [sent[0], sent[2]]


def test_each_link_and_group_has_a_rule_and_a_stream_of_its_own(bench: Any, make: Any) -> None:
    """What is drawn for one link does not depend on what is sent on another."""

    def through(*, noise: bool) -> list[int]:
        rng = Rng(9)
        active = bench.filter(each_link(lambda name: DropRandomly(0.5, rng.child(name)), AppendEntries))
        passed = []
        for number in range(50):
            if noise:
                bench.send(make.append(1, 3), make.append(2, 1))
            passed.append(number if bench.send(make.append(1, 2)) else 0)
        active.remove()
        return passed

    assert through(noise=True) == through(noise=False)


def test_filters_act_in_the_order_in_which_they_were_attached(bench: Any, make: Any) -> None:
    counted = bench.filter(on(Drop(allow=1)))
    behind = bench.filter(drop(AppendEntries, allow=5))
    bench.send(make.append(), make.append())
    assert counted.counters["seen"] == 2
    assert behind.counters["seen"] == 1


def test_what_is_released_goes_on_with_the_filter_behind(bench: Any, make: Any) -> None:
    before = bench.filter(drop(allow=1))
    held = bench.filter(hold())
    behind = bench.filter(delay(50))
    message = make.append()
    assert bench.send(message) == []
    assert held.release() == 1
    assert before.counters["seen"] == 1, "it does not see it again"
    assert behind.counters["delayed"] == 1
    assert bench.pass_time(50) == [message]


def test_what_was_delayed_meets_a_filter_that_was_attached_meanwhile(bench: Any, make: Any) -> None:
    bench.filter(delay(50))
    bench.send(make.append())
    bench.filter(drop())
    assert bench.pass_time(50) == []


def test_a_held_message_keeps_its_group_when_another_group_s_releases_it(bench: Any, make: Any) -> None:
    bench.filter(on(HoldAll(of_types(Heartbeat))))
    bench.send(make.append(), group=4)
    bench.send(make.beat(), group=5)
    assert [group for group, _ in bench.through] == [4, 5]


def test_clear_releases_everything_and_leaves_nothing(bench: Any, make: Any) -> None:
    bench.filter(hold(AppendEntries))
    bench.filter(hold(Heartbeat))
    sent = [make.append(), make.beat()]
    bench.send(*sent)
    bench.set.clear()
    assert [message for _, message in bench.through] == sent
    assert bench.set.active() == ()


@pytest.mark.parametrize("name", RULES)
def test_every_named_rule_can_be_made_from_a_number_it_draws_itself(bench: Any, make: Any, name: str) -> None:
    rule = RULES[name]
    value = rule.draw(Rng(4).child(name))
    assert rule.least <= value <= rule.most
    active = bench.filter(named(name, value, Rng(1).child(name), links=frozenset({(1, 2)})))
    for _ in range(40):
        bench.send(
            make.append(commit=3),
            make.beat(commit=3, read_round=1),
            make.vote(last_log_index=1),
            make.timeout_now(),
            make.chunk(last=10),
            make.chunk(last=20),
        )
    assert active.counters["seen"] > 0 or "answers" in name or name.endswith("-reads")
    silent = {"divert-timeout-now"} if value in (1, 2) else set()
    assert active.bit or "answers" in name or name.endswith("-reads") or name in silent, active.counters


def test_a_name_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(ValueError, match="drop-appends"):
        named("drop-everything-twice", 0, Rng(1))


def test_named_rules_are_repeated_exactly_by_the_same_stream(bench: Any, make: Any) -> None:
    def run() -> list[int]:
        active = bench.filter(named("random-latency", 0.5, Rng(3)))
        before = len(bench.through)
        for term in range(100):
            message = make.beat(to=2 + term % 2)
            message.term = term
            bench.send(message)
        active.remove()
        return [message.term for _, message in bench.through[before:]]

    assert run() == run()


FAIR = [name for name, rule in RULES.items() if rule.fair]


@given(
    names=st.lists(st.sampled_from(FAIR), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    kinds=st.lists(st.integers(0, 4), max_size=60),
)
def test_no_row_of_fair_rules_invents_a_message(new_bench: Any, names: list[str], seed: int, kinds: list[int]) -> None:
    """What comes out came in, or states less: the same sender, type and term."""
    bench, make = new_bench()
    rng = Rng(seed)
    for number, name in enumerate(names):
        bench.filter(named(name, RULES[name].draw(rng), rng.child(f"{number}")))
    sent = []
    for kind in kinds:
        message = (make.append, make.beat, make.vote, make.timeout_now, make.chunk)[kind]()
        sent.append((message.sender, type(message), message.term))
        bench.send(message)
    bench.pass_time(10_000_000)
    bench.set.clear()
    bench.pass_time(10_000_000)
    assert {(m.sender, type(m), m.term) for _, m in bench.through} <= set(sent)


def test_rules_of_a_filter_can_be_looked_at(bench: Any, make: Any) -> None:
    made: list[Rule] = []

    def keep(name: str) -> Rule:
        made.append(Drop())
        return made[-1]

    active = bench.filter(each_link(keep, InstallSnapshot, links=[(1, 2)]))
    bench.send(make.chunk(), make.chunk(to=3), group=6)
    assert dict(active.rules()) == {"group 6 link 1-2": made[0]}
