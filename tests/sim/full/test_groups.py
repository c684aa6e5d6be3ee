"""Consumer groups under faults: whatever becomes of their coordinators, no acknowledged commit is lost."""

from __future__ import annotations

import pytest

from seatrial.sim.hunt import outcomes, run_quietly
from seatrial.sim.mutants_cases_full import group_hand_overs
from seatrial.sim.swarm import draw_case

SEEDS = range(8)
MOVED = "a coordinator of consumer groups ended with its lead"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_commit_is_lost_when_coordinators_are_cut_off_killed_paused_and_handed_over() -> None:
    """And none goes back, and every record that was acknowledged reaches the group; see `checkers.group_offsets`.

    That this would be noticed is shown by the mutants of consumer groups, which are hunted in the same cases.
    """
    ran = list(outcomes([group_hand_overs(seed, "full") for seed in SEEDS], "full", run_quietly, jobs=1))
    for case, outcome in ran:
        assert [(violation.name, violation.message) for violation in outcome.violations] == [], case.seed
    assert all(outcome.operations["ok"] > 50 for _, outcome in ran)
    assert sum(MOVED in outcome.marks for _, outcome in ran) >= len(SEEDS) // 2


def test_a_swarm_has_a_consumer_group_in_some_cases() -> None:
    loads = [draw_case(seed, "full").load for seed in range(200)]
    assert 8 <= sum(load.members > 0 for load in loads) <= 40
    assert {load.members for load in loads} == {0, 1, 2, 3}
    assert not any(draw_case(seed, "core").load.members for seed in range(50))
