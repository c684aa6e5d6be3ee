"""Real systems under the same calls: our own server, and etcd in the versions that this machine has."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.drivers.etcd import EtcdDriver
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec
from seatrial.cluster.status import StatusByNode

pytestmark = pytest.mark.slow
OWN = pytest.param("own", None, id="own")
ETCDS = [
    pytest.param("etcd", version, id=f"etcd {version}", marks=pytest.mark.external)
    for version in ("3.5.1", "3.4.23", "3.5.0")
]


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], system: str, version: str | None, **more: Any) -> None:
    """Run a scenario on a fresh cluster, or skip with the reason why this machine cannot."""
    if system == "etcd":
        driver = EtcdDriver(version)
        try:
            driver.prepare()
        except Unavailable as reason:
            pytest.skip(str(reason))

    async def run() -> None:
        async with spawn_cluster(ClusterSpec(system=system, version=version, **more)) as cluster:
            await scenario(cluster)

    asyncio.run(run())


async def put(cluster: Cluster, node: int, value: str, *, timeout: float = 20.0) -> None:
    """Write through one node, retried until it is acknowledged."""
    address = cluster.addresses(node).http
    deadline = asyncio.get_running_loop().time() + timeout
    async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
        while True:
            try:
                if cluster.driver.name == "etcd":
                    body = {"key": encode("x"), "value": encode(value)}
                    answer = await http.post(f"{address}/v3/kv/put", json=body)
                else:
                    answer = await http.put(f"{address}/api/v1/kv/x", content=value)
                if answer.is_success:
                    return
                last = f"{answer.status_code} {answer.text}"
            except httpx.HTTPError as error:
                last = repr(error)
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"no write was acknowledged in {timeout} s; last {last}; {await cluster.statuses()}")
            await asyncio.sleep(0.02)


async def get(cluster: Cluster, node: int) -> str:
    """A linearizable read through one node."""
    address = cluster.addresses(node).http
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        if cluster.driver.name == "etcd":
            answer = await http.post(f"{address}/v3/kv/range", json={"key": encode("x")})
            return base64.b64decode(answer.json()["kvs"][0]["value"]).decode()
        return (await http.get(f"{address}/api/v1/kv/x")).text


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def digests(statuses: StatusByNode) -> dict[str, set[str | None]]:
    """Of each group, the digests that the nodes gave."""
    found: dict[str, set[str | None]] = {}
    for answers in statuses.values():
        for status in answers:
            found.setdefault(status.group, set()).add(status.digest)
    return found


@pytest.mark.parametrize(("system", "version"), [OWN, *ETCDS])
def test_a_killed_leader_is_replaced_and_catches_up(system: str, version: str | None) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.wait_for_leader(15)
        await put(cluster, leader, "before")
        await cluster.kill(leader)
        successor = await cluster.wait_for_leader(15, other_than=leader)
        await put(cluster, successor, "after")
        await cluster.start(leader)
        await cluster.wait_for_consensus(15)
        assert await get(cluster, leader) == "after"
        await cluster.wait_for_consensus(15)
        for group, values in digests(await cluster.statuses(digest=True)).items():
            assert len(values) == 1 and None not in values, f"{group}: {values}"
        incarnations = {s.incarnation for s in await cluster.status(leader)}
        assert incarnations == {2}
        assert cluster.unexpected_exits == []

    with_cluster(scenario, system, version)


@pytest.mark.parametrize(("system", "version"), [OWN, ETCDS[0], ETCDS[1]])
def test_a_cut_off_leader_is_replaced_and_follows_after_the_heal(system: str, version: str | None) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.wait_for_leader(15)
        async with cluster.isolate(leader) as cut:
            successor = await cluster.wait_for_leader(15, other_than=leader)
            await put(cluster, successor, "written without it")
        assert cut.bit
        assert all(cut.by_link[f"{leader}->{other}"].get("bytes_held") for other in cluster.others(leader))
        await cluster.wait_for_consensus(15)
        assert await get(cluster, leader) == "written without it"

    with_cluster(scenario, system, version)


@pytest.mark.parametrize(("system", "version"), [OWN, ETCDS[0]])
def test_a_leader_that_nobody_hears_is_replaced(system: str, version: str | None) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.wait_for_leader(15)
        links = [(leader, other) for other in cluster.others(leader)]
        async with cluster.cut_links(links):
            await cluster.wait_for_leader(15, other_than=leader)
        await cluster.wait_for_consensus(15)

    with_cluster(scenario, system, version)


@pytest.mark.parametrize(("system", "version"), [OWN, ETCDS[0]])
def test_all_killed_at_once_come_back_with_what_was_acknowledged(system: str, version: str | None) -> None:
    async def scenario(cluster: Cluster) -> None:
        await put(cluster, 1, "kept")
        await cluster.kill_all()
        await cluster.start_all()
        await cluster.wait_for_consensus(20)
        assert [await get(cluster, node) for node in cluster.nodes] == ["kept"] * 3

    with_cluster(scenario, system, version)


def test_our_server_ends_with_status_zero_when_it_is_asked_to() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.wait_for_leader(15)
        assert [report.exit_status for report in await cluster.terminate_all()] == [0, 0, 0]

    with_cluster(scenario, "own", None)


def test_our_servers_options_reach_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.wait_for_leader(15)
        assert "stale-reads" in (cluster.run.node(1) / "stderr.log").read_text()

    options = {"durability": "os", "unsafe": ["stale-reads"], "heartbeat_ms": 40, "fetch_from_followers": False}
    with_cluster(scenario, "own", None, options=options)


@pytest.mark.external
def test_etcd_nodes_are_told_apart_after_their_restart_too() -> None:
    """The proxies know callers by process id, and each restart brings a new one."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.kill_all()
        await cluster.start_all()
        leader = await cluster.wait_for_leader(15)
        async with cluster.isolate(leader) as cut:
            await cluster.wait_for_leader(15, other_than=leader)
        assert cut.bit
        await cluster.wait_for_consensus(15)

    with_cluster(scenario, "etcd", "3.5.1")
