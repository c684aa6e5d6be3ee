"""The rehearsal: it comes to its end, and a scenario that follows it in a fork runs as one that follows none."""

from __future__ import annotations

import pytest

from seatrial import scenario
from seatrial.scenario import ScenarioCluster
from seatrial.scenario.rehearsal import rehearse
from seatrial.sim.zygote import Died, run_forked


async def replaced(cluster: ScenarioCluster) -> None:
    leader = await cluster.wait_for_leader()
    await cluster.log("t").append(1)
    await cluster.kill(leader)
    await cluster.wait_for_leader(other_than=leader)
    await cluster.kv.put("x", 1)
    await cluster.start(leader)
    await cluster.verify()


def trace_after(rehearsed: bool) -> tuple[str, int]:
    """The digest of a run's trace, and how many lines it has."""
    scenario.warm()
    if rehearsed:
        rehearse()
    simulation = scenario.Simulation(seed=3)
    simulation.run(replaced)
    trace = simulation.hosts.network.trace
    return trace.digest(), trace.lines


@pytest.mark.slow
def test_a_rehearsal_changes_nothing_of_what_is_run_after_it() -> None:
    cold, warm = run_forked(trace_after, False), run_forked(trace_after, True)
    assert not isinstance(cold, Died), cold.reason
    assert cold[1] > 500
    assert warm == cold
