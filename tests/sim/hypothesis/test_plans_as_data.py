"""Hypothesis over plans as data: our core keeps its promises, and a core with a planted bug is caught and shrunk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from seatrial.raft.config import RaftConfig
from seatrial.sim.budget import malformed
from seatrial.sim.case import Case, Disk, Load
from seatrial.sim.core import run_case
from seatrial.sim.core.adapter import make_raft_node
from seatrial.sim.strategies import KINDS, ON_LINKS, ON_NODES, cases, faults

BRISK = Case(level="core", seed=0, disk=Disk(sync_us=(5_000, 20_000)), load=Load(rate=30, clients=2))


@pytest.mark.slow
@settings(max_examples=40)
@given(case=cases(kinds=sorted(ON_LINKS | ON_NODES), nodes=4))
def test_every_case_that_is_drawn_can_be_carried_out(case: Case) -> None:
    assert malformed(case) is None
    assert [fault.at_us for fault in case.faults] == sorted(fault.at_us for fault in case.faults)


def test_a_kind_without_a_simple_form_is_refused() -> None:
    @settings(database=None)
    @given(plan=faults(kinds=("wipe",)))
    def draw(plan: object) -> None:
        raise AssertionError(f"drew {plan}")

    with pytest.raises(ValueError, match="no strategy for wipe"):
        draw()


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(case=cases(like=BRISK))
def test_raft_keeps_its_promises_under_any_plan(case: Case) -> None:
    assert run_case(case).violations == ()


def make_forgetful_core(config: RaftConfig, *arguments: Any, **keywords: Any) -> tuple[Any, Any]:
    """A node that votes again in a term in which it has voted."""
    return make_raft_node(replace(config, unsafe=frozenset({"forget-vote"})), *arguments, **keywords)


@pytest.mark.slow
def test_a_core_that_forgets_its_vote_is_caught_and_shrunk_to_a_few_faults() -> None:
    """What the prototype measured: a plan as data comes down to 1 to 4 faults, and here the seed to a small one."""

    def is_caught(case: Case) -> bool:
        return bool(run_case(case, make_core=make_forgetful_core).violations)

    smallest = find(
        cases(like=BRISK, kinds=KINDS),
        is_caught,
        settings=settings(
            max_examples=300,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert len(smallest.faults) <= 4
    assert run_case(smallest).violations == (), "the sound core is sound under the same case"


@pytest.mark.slow
@settings(max_examples=40)
@given(plan=faults(), data=st.data())
def test_plans_hold_no_more_faults_than_asked_for(plan: tuple[object, ...], data: st.DataObject) -> None:
    most = data.draw(st.integers(0, 5))
    assert len(plan) <= 12
    assert len(data.draw(faults(faults_max=most))) <= most
