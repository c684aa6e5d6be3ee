"""One scenario, run before any other in the process from which those that count are forked: they find it warm.

    rehearse()

What a process does for the first time is dear: the interpreter adapts its code to what it meets (PEP 659), libraries
fill their caches of patterns, routes and classes.  Each forked run would do all that anew, and throw it away.

Rule: the rehearsal is the same wherever there is one, so a run is still decided by its file, its name and its seed.
What was made for it is kept for ever: to free it would end, at some time or other, what was under way in it.
Knows nothing of tests.
"""

from __future__ import annotations

from typing import Final

from seatrial.scenario.cluster import ScenarioCluster
from seatrial.scenario.simulated import Simulation

SEED: Final = 1
VIRTUAL_S: Final = 30.0  # it takes less than two
OPERATIONS: Final = 20  # of the traffic, before and after the failures: enough for hot code to be adapted
_kept: Final[list[Simulation]] = []


def rehearse() -> None:
    """Clients, a leader cut off, a leader killed and started, and the verdict.  Raises what `Simulation.run` does."""
    simulation = Simulation(seed=SEED)
    _kept.append(simulation)
    simulation.run(_everything_once, virtual_s=VIRTUAL_S)


async def _everything_once(cluster: ScenarioCluster) -> None:
    leader = await cluster.wait_for_leader(group=cluster.kv.group)
    async with cluster.traffic(kv=True, log=True) as traffic:
        await traffic.progress(more=OPERATIONS)
        async with cluster.isolate(leader):
            await cluster.wait_for_leader(group=cluster.kv.group, other_than=leader)
        await cluster.kill(leader)
        await cluster.start(leader)
        await traffic.progress(more=OPERATIONS)
    await cluster.wait_for_consensus()
    await traffic.assert_valid()
    await cluster.kv.put("rehearsed", 1)
    await cluster.log("rehearsed").append(1)
    await cluster.verify()
