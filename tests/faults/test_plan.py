"""Plans are data, decided by their seed."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.faults import registry
from seatrial.faults.plan import (
    KINDS,
    QUICKEST,
    RAPID,
    SECOND_US,
    STEADY,
    Choice,
    FaultPlan,
    PlannedFault,
    every_kind,
    generate,
    pace_of,
    parse_kinds,
)
from seatrial.faults.targets import Target

DEMO = parse_kinds("partition,kill,pause")
seeds = st.integers(0, 2**32)
choices = st.lists(st.builds(Choice, st.sampled_from(sorted(KINDS)), st.none() | st.sampled_from(Target)), max_size=6)


@given(choices, st.integers(4, 7), st.integers(0, 60), seeds)
def test_a_plan_is_decided_by_its_seed_and_survives_json(
    choices: list[Choice], nodes: int, seconds: int, seed: int
) -> None:
    plan = generate(choices, nodes=nodes, duration_us=seconds * SECOND_US, seed=seed)
    assert plan == generate(choices, nodes=nodes, duration_us=seconds * SECOND_US, seed=seed)
    assert FaultPlan.from_data(json.loads(json.dumps(plan.to_data()))) == plan


@given(choices, st.integers(4, 7), st.integers(0, 60), seeds)
def test_faults_follow_each_other_and_end_before_the_run(
    choices: list[Choice], nodes: int, seconds: int, seed: int
) -> None:
    plan = generate(choices, nodes=nodes, duration_us=seconds * SECOND_US, seed=seed)
    for before, after in pairwise(plan.faults):
        assert after.at_us >= before.at_us + before.duration_us + QUICKEST * RAPID.calm_us[0]
    assert all(fault.at_us + fault.duration_us <= seconds * SECOND_US for fault in plan.faults)
    assert {fault.kind for fault in plan.faults} <= {choice.kind for choice in choices}


@given(seeds)
def test_the_demo_has_three_of_each_of_its_faults_in_thirty_seconds(seed: int) -> None:
    plan = generate(DEMO, nodes=3, duration_us=30 * SECOND_US, seed=seed)
    counts = Counter(fault.kind for fault in plan.faults)
    assert min(counts[kind] for kind in ("partition", "kill", "pause")) >= 3
    assert max(counts.values()) - min(counts.values()) <= 1


@given(seeds, st.integers(30, 90))
def test_every_fault_that_three_nodes_can_suffer_has_its_place_in_thirty_seconds(seed: int, seconds: int) -> None:
    kinds = every_kind(nodes=3, messages=True)
    plan = generate(parse_kinds(",".join(kinds)), nodes=3, duration_us=seconds * SECOND_US, seed=seed)
    assert {fault.kind for fault in plan.faults} == set(kinds)
    long_enough = [fault for fault in plan.faults if fault.duration_us >= QUICKEST * STEADY.on_us[0]]
    assert {"restart", "reset"} >= {fault.kind for fault in plan.faults} - {fault.kind for fault in long_enough}


@given(seeds)
def test_crashes_alone_come_about_one_a_second(seed: int) -> None:
    plan = generate(parse_kinds("kill"), nodes=3, duration_us=60 * SECOND_US, seed=seed)
    assert 48 <= len(plan.faults) <= 72
    assert all(200_000 <= fault.duration_us <= 500_000 for fault in plan.faults)


def test_the_pace_is_rapid_only_where_all_there_is_are_crashes() -> None:
    assert pace_of(parse_kinds("kill,kill-all")) == RAPID
    assert pace_of(parse_kinds("kill,pause")) == STEADY


@given(seeds)
def test_only_what_was_asked_for_by_name_may_exceed_the_budget(seed: int) -> None:
    ordinary = [Choice(kind) for kind, rule in KINDS.items() if not rule.over_budget]
    plan = generate(ordinary, nodes=5, duration_us=60 * SECOND_US, seed=seed)
    for fault in plan.faults:
        takes_out = registry.by_name(fault.kind).takes_out
        assert not fault.over_budget
        assert fault.target not in {Target.ALL, Target.MAJORITY, Target.FOLLOWERS} or not takes_out


def test_a_target_that_leaves_no_majority_may_be_asked_for() -> None:
    (fault, *_) = generate(parse_kinds("kill:followers"), nodes=3, duration_us=5 * SECOND_US, seed=1).faults
    assert (fault.target, fault.over_budget) == (Target.FOLLOWERS, True)
    (fault, *_) = generate(parse_kinds("kill:leader"), nodes=3, duration_us=5 * SECOND_US, seed=1).faults
    assert (fault.target, fault.over_budget) == (Target.LEADER, False)


def test_a_kind_that_needs_more_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="bridge needs at least 3 nodes; the cluster has 2"):
        generate(parse_kinds("bridge"), nodes=2, duration_us=SECOND_US, seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill,explode", "no fault 'explode'; there are: partition, isolate"),
        ("kill:king", "no target 'king' for kill; there are: one, leader"),
    ],
)
def test_unknown_words_are_refused_with_those_that_there_are(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_kinds(text)


def test_no_faults_is_an_empty_plan() -> None:
    assert parse_kinds("") == ()
    assert generate((), nodes=3, duration_us=SECOND_US, seed=1) == FaultPlan()


WRITTEN = """
[[faults]]
at_us = 2000000
duration_us = 100000
kind = "latency"
target = "all"
settings = { latency_ms = 30, jitter_ms = 5 }

[[faults]]
at_us = 1000000
duration_us = 100000
kind = "kill-all"
target = "all"
over_budget = true
"""


def test_a_plan_written_by_hand_in_toml_is_read_in_order_of_time() -> None:
    plan = FaultPlan.from_data(tomllib.loads(WRITTEN)["faults"])
    assert plan.faults == (
        PlannedFault(at_us=1_000_000, duration_us=100_000, kind="kill-all", target=Target.ALL, over_budget=True),
        PlannedFault(
            at_us=2_000_000,
            duration_us=100_000,
            kind="latency",
            target=Target.ALL,
            settings={"latency_ms": 30, "jitter_ms": 5},
        ),
    )


GOOD = {"at_us": 1, "duration_us": 1, "kind": "kill", "target": "one"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": 1}, "fault 0 of the plan has no key 'at'"),
        ({"kind": None}, "fault 0 of the plan: there is no fault None"),
        ({"target": "king"}, "there is no target 'king'"),
        ({"at_us": -1}, "at_us has to be a whole number of microseconds, not -1"),
        ({"duration_us": 0.5}, r"duration_us has to be a whole number of microseconds, not 0\.5"),
        ({"settings": "fast"}, "settings has to be a table, not 'fast'"),
        ({"over_budget": 1}, "over_budget has to be true or false, not 1"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_faults_number_and_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaultPlan.from_data([{**GOOD, **change}])


def test_a_plan_without_a_required_key_is_refused() -> None:
    with pytest.raises(ValueError, match="fault 1 of the plan needs 'kind'"):
        FaultPlan.from_data([GOOD, {key: value for key, value in GOOD.items() if key != "kind"}])


def test_what_plans_name_is_exactly_what_can_be_carried_out() -> None:
    assert list(KINDS) == list(registry.names())


@given(st.sampled_from(sorted(KINDS)), seeds)
def test_every_planned_fault_can_be_built_with_its_settings(kind: str, seed: int) -> None:
    plan = generate([Choice(kind)], nodes=5, duration_us=20 * SECOND_US, seed=seed)
    for planned in plan.faults:
        fault = registry.build(planned)
        assert fault.kind == kind
        assert fault.target == planned.target
        assert all(getattr(fault, name) == value for name, value in planned.settings.items())


def test_a_setting_that_a_fault_does_not_have_is_refused_with_those_it_has() -> None:
    planned = PlannedFault(at_us=0, duration_us=0, kind="latency", target=Target.ONE, settings={"speed": 1})
    with pytest.raises(ValueError, match="latency has no setting speed; it has: jitter_ms, latency_ms"):
        registry.build(planned)


def test_every_fault_is_listed_with_a_line_its_settings_and_whether_it_can_be_done() -> None:
    entries = registry.entries()
    assert [entry.name for entry in entries] == list(KINDS)
    for entry in entries:
        assert entry.summary.endswith(".")
        assert len(entry.summary) < 120
        assert entry.settings == tuple(field.name for field in fields(registry.by_name(entry.name)))
        assert entry.unavailable is None


def test_all_kinds_are_those_that_the_cluster_can_suffer() -> None:
    assert set(every_kind(nodes=5, messages=True)) == set(KINDS)
    assert set(KINDS) - set(every_kind(nodes=3, messages=False)) == {"majorities-ring", "messages"}
    assert set(every_kind(nodes=1, messages=False)) == {"kill", "kill-all", "terminate", "pause", "restart"}
    generate(parse_kinds(",".join(every_kind(nodes=1, messages=False))), nodes=1, duration_us=SECOND_US, seed=1)
