"""Values and records of many sizes: what is larger than a read, a frame or a batch takes paths of its own."""

from __future__ import annotations

import pytest

from seatrial.sim.hunt import outcomes, run_quietly
from seatrial.sim.mutants_cases_full import large_values
from seatrial.sim.swarm import draw_case

SEEDS = range(6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_large_values_and_records_are_kept_whole_under_faults() -> None:
    """And every node takes one in the end; that this would be noticed is shown by a mutant of the HTTP listener."""
    ran = list(outcomes([large_values(seed, "full") for seed in SEEDS], "full", run_quietly, jobs=1))
    for case, outcome in ran:
        assert [(violation.name, violation.message) for violation in outcome.violations] == [], case.seed
        assert outcome.operations["ok"] > 50


def test_a_swarm_has_large_values_in_some_cases() -> None:
    sizes = [draw_case(seed, "full").load.large_bytes for seed in range(200)]
    assert 15 <= sum(size > 0 for size in sizes) <= 50
    assert 0 < min(size for size in sizes if size) < 20_000 < 100_000 < max(sizes)
    assert not any(draw_case(seed, "core").load.large_bytes for seed in range(50))
