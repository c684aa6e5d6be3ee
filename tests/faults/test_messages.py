"""The fault `messages` on real nodes of our own server: it bites, tells what it did, and is undone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.errors import ClusterError
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.env import Rng
from seatrial.faults.base import Injection
from seatrial.faults.messages import Messages
from seatrial.faults.nemesis import run_plan
from seatrial.faults.plan import MESSAGE_RULES, FaultPlan, PlannedFault
from seatrial.faults.targets import Target
from seatrial.history import FaultEvent
from seatrial.transport.filters import RULES

DUMMY = str(Path(__file__).parents[1] / "cluster" / "testdata" / "dummy.toml")


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        async with spawn_cluster(ClusterSpec(**{"options": {"test_hooks": "true"}, **settings})) as cluster:
            await cluster.wait_for_consensus(15)
            await scenario(cluster)

    asyncio.run(run())


async def filters_of(cluster: Cluster, node: int) -> list[Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.get(f"{cluster.addresses(node).http}/api/v1/test/filters")
    told: list[Any] = response.json()["filters"]
    return told


async def until_counted(cluster: Cluster, node: int) -> int:
    """How many messages the node's filters have delayed, once it is any."""
    deadline = time.monotonic() + 10
    while True:
        count = sum(int(one["counters"].get("delayed", 0)) for one in await filters_of(cluster, node))
        if count:
            return count
        assert time.monotonic() < deadline, "no message was delayed"


def test_plans_name_only_rules_that_the_server_has_and_numbers_that_it_takes() -> None:
    for name, least, most in MESSAGE_RULES:
        rule = RULES[name]
        assert rule.fair, f"{name} lies: a red verdict would not be a bug"
        assert (least > 0 or most > 0) == bool(rule.value), name
        assert rule.whole or most <= 1, f"{name} takes a probability"


@pytest.mark.slow
def test_a_plan_of_message_faults_bites_on_every_node_and_leaves_no_filter() -> None:
    async def scenario(cluster: Cluster) -> None:
        events: list[FaultEvent] = []
        began = time.monotonic_ns()
        faults = [
            PlannedFault(
                at_us=number * 700_000,
                duration_us=500_000,
                kind="messages",
                target=Target.LEADER,
                settings={"rule": rule, "value": value, "direction": "both"},
            )
            for number, (rule, value) in enumerate([("delay-messages", 20_000), ("lose-heartbeats", 0.5)])
        ]
        now_ns = lambda: time.monotonic_ns() - began  # noqa: E731
        await run_plan(FaultPlan(tuple(faults)), cluster, events.append, now_ns=now_ns, rng=Rng(3))
        heals = [event for event in events if event.type == "heal"]
        assert [event.bit for event in heals] == [True, True], events
        assert heals[0].evidence["delayed"] > 0 and heals[1].evidence["dropped"] > 0
        assert [await filters_of(cluster, node) for node in cluster.nodes] == [[], [], []]
        assert cluster.links.cuts.links() == ()
        await cluster.wait_for_consensus(15)

    with_cluster(scenario)


@pytest.mark.slow
def test_filters_are_attached_again_when_their_node_is_back_and_counted_over_its_lives() -> None:
    async def scenario(cluster: Cluster) -> None:
        injection: Injection
        fault = Messages(rule="delay-messages", value=1_000)
        async with fault.injected(cluster, Rng(1), (2,)) as injection:
            await until_counted(cluster, 2)
            await cluster.kill(2)
            await cluster.start(2)
            assert len(await filters_of(cluster, 2)) == 2
            second = await until_counted(cluster, 2)
        evidence = injection.evidence or {}
        assert "lost" not in evidence
        assert evidence["delayed"] > second > 0
        assert injection.bit is True
        assert await filters_of(cluster, 2) == []

    with_cluster(scenario)


@pytest.mark.slow
def test_what_a_frozen_node_had_counted_goes_with_its_process_and_the_evidence_says_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with Messages(rule="drop-appends").injected(cluster, Rng(1), (2,)) as injection:
            await cluster.pause(2)
            await cluster.kill(2)
            await cluster.start(2)
            assert len(await filters_of(cluster, 2)) == 2
        assert injection.evidence["lost"] == ["node 2: its process ended before it was asked what it had counted"]

    with_cluster(scenario)


@pytest.mark.slow
def test_a_rule_that_the_nodes_do_not_have_is_refused_with_those_they_have() -> None:
    async def scenario(cluster: Cluster) -> None:
        with pytest.raises(ClusterError, match="drop-appends"):
            async with Messages(rule="drop-everything").injected(cluster, Rng(1), (1,)):
                raise AssertionError("it was injected")
        assert await filters_of(cluster, 1) == []

    with_cluster(scenario, nodes=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"), [({"options": {}}, "test_hooks=true"), ({"system": DUMMY}, "system own")]
)
def test_nodes_without_hooks_are_left_alone_and_the_skip_says_why(settings: dict[str, Any], says: str) -> None:
    async def run() -> None:
        async with spawn_cluster(ClusterSpec(**{"nodes": 2, **settings})) as cluster:
            reason = Messages().unavailable(cluster)
            assert reason is not None and says in reason

    if settings.get("system"):
        settings = {**settings, "options": {}}
    asyncio.run(run())
