"""Records are deleted while machines lose their power: no promise is broken, and the rare paths are walked."""

from __future__ import annotations

import pytest

from seatrial.sim.hunt import outcomes, run_quietly
from seatrial.sim.mutants_cases_full import deletions
from seatrial.sim.swarm import draw_case

SEEDS = range(4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_that_is_kept_is_lost_where_records_are_deleted_between_power_cuts() -> None:
    """And no log starts again where it had been deleted; that this would be noticed is shown by the mutants."""
    ran = list(outcomes([deletions(seed, "full") for seed in SEEDS], "full", run_quietly, jobs=1))
    for case, outcome in ran:
        assert [(violation.name, violation.message) for violation in outcome.violations] == [], case.seed
        assert outcome.operations["ok"] > 20
    marks = {mark for _, outcome in ran for mark in outcome.marks}
    assert "records were deleted because they were too old or too many" in marks
    assert "a log gave up the entries that nobody needs any more" in marks


def test_a_swarm_deletes_in_every_way_and_in_most_cases_not_at_all() -> None:
    loads = [draw_case(seed, "full").load for seed in range(100)]
    ways = [(load.retention_bytes >= 0, load.retention_ms >= 0, load.deletions > 0) for load in loads]
    assert max(sum(way) for way in ways) == 1
    assert min(sum(column) for column in zip(*ways, strict=True)) >= 5
    assert sum(load.deletes for load in loads) < 60
    assert not any(draw_case(seed, "core").load.deletes for seed in range(20))
