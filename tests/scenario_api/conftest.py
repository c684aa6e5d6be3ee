"""Scenarios in both environments, without the pytest plugin: it is tested on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seatrial import scenario
from seatrial.cluster.drivers.registry import by_name
from seatrial.scenario import ScenarioCluster

Scenario = Callable[[ScenarioCluster], Awaitable[Any]]
Run = Callable[..., Any]


def in_sim(body: Scenario, *, seed: int = 1, **settings: Any) -> Any:
    """Run it in virtual time, in this process."""
    scenario.warm()

    async def whole(cluster: ScenarioCluster) -> Any:
        return await body(cluster)

    return scenario.simulated(whole, seed=seed, **settings)


def in_local(body: Scenario, *, seed: int = 1, **settings: Any) -> Any:
    """Run it on real processes."""

    async def whole() -> Any:
        async with scenario.local(seed=seed, **settings) as cluster:
            return await body(cluster)

    return asyncio.run(whole())


def on_etcd(body: Scenario, **settings: Any) -> Any:
    """Run it on real processes of etcd."""
    reason = by_name("etcd", None, {}).unavailable()
    if reason is not None:
        pytest.skip(reason)
    return in_local(body, system="etcd", **settings)


@pytest.fixture
def simulate() -> Run:
    return in_sim


@pytest.fixture
def on_processes() -> Run:
    return in_local


@pytest.fixture
def etcd() -> Run:
    return on_etcd


@pytest.fixture(params=["sim", "local"])
def run(request: pytest.FixtureRequest) -> Run:
    """In each environment."""
    return in_sim if request.param == "sim" else in_local


@pytest.fixture(params=["sim", "local", pytest.param("etcd", marks=pytest.mark.external)])
def run_any(request: pytest.FixtureRequest) -> Run:
    """In each environment, and on a system that is not ours."""
    return {"sim": in_sim, "local": in_local, "etcd": on_etcd}[request.param]
