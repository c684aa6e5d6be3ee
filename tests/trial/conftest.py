"""A simulated cluster for a test: the scenario runs on the harness's host, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seatrial.cluster.drivers import registry
from seatrial.env import Rng
from seatrial.sim.full.warm import warm
from seatrial.sim.network import run
from seatrial.sim.trial_hosts import TrialHosts
from seatrial.trial.simulated_cluster import SimulatedCluster

Scenario = Callable[[SimulatedCluster], Awaitable[Any]]


def run_simulated(
    scenario: Scenario, *, nodes: int = 3, seed: int = 1, seconds: float = 60, **options: str
) -> TrialHosts:
    """Run the scenario on a started cluster; it has so many virtual seconds."""
    warm()
    hosts = TrialHosts(seed=seed, nodes=nodes, duration_s=seconds, options=options)
    cluster = SimulatedCluster(hosts, registry.by_name("own", None, {"test_hooks": "true"}), Rng(seed))

    async def whole() -> None:
        await cluster.start_all()
        await cluster.wait_for_consensus(20)
        await scenario(cluster)

    task = hosts.harness.spawn(whole())
    assert run(hosts.world, int(seconds * 1e6), until=task), f"not over after {seconds} virtual seconds"
    task.result()
    return hosts


@pytest.fixture(scope="session")
def simulate() -> Callable[..., TrialHosts]:
    return run_simulated
