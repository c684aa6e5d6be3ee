"""Lets the tests of this directory import what stands beside them, and runs scenarios on three replicas."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from group_cluster import GroupCluster

from seatrial.machines.commands import request_id_of
from seatrial.server.replica import ReplicaOptions

Scenario = Callable[[GroupCluster], Awaitable[None]]


@pytest.fixture
def run_cluster(tmp_path: Path) -> Callable[..., None]:
    """Run a scenario on three started nodes; everything is closed afterwards."""

    def run(scenario: Scenario, options: ReplicaOptions | None = None) -> None:
        async def whole() -> None:
            default = ReplicaOptions(request_id=request_id_of)
            cluster = GroupCluster(tmp_path, options or default)
            for node in cluster.members:
                await cluster.start(node)
            try:
                await asyncio.wait_for(scenario(cluster), 60)
            finally:
                for node in list(cluster.hosts):
                    await cluster.stop(node)

        asyncio.run(whole())

    return run
