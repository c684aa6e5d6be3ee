"""The HTTP API over a real key-value group: consistency, preconditions, sessions, refusals, the token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from seatrial.env import RealClock
from seatrial.server.admin import AdminApi
from seatrial.server.key_value import KeyValueService
from seatrial.server.logs import Logger
from seatrial.server.replica import Replica

pytestmark = pytest.mark.slow


class OneGroup:
    """What the API is told of a node that has only the key-value group."""

    def __init__(self, cluster: Any, replica: Replica) -> None:
        self._cluster = cluster
        self.replica = replica
        self.key_value = KeyValueService(
            replica,
            cluster.machines[replica.node.node_id],
            new_request_id=lambda: cluster.put(b"", b"")[1],
        )
        self.missing: str | None = None
        self.hooks = None

    def info(self) -> dict[str, Any]:
        return {"node_id": self.replica.node.node_id, "groups": [self.group_info(self.replica)]}

    def group_info(self, replica: Replica) -> dict[str, Any]:
        return {"group": replica.name, "term": replica.node.term}

    def leader_of(self, name: str) -> int | None:
        return self.replica.node.leader

    def replica_named(self, name: str) -> Replica | None:
        return self.replica if name == self.replica.name else None

    def is_ready(self) -> str | None:
        return self.missing

    def metrics_text(self) -> bytes:
        return b"seatrial_up 1\n"


class Nodes:
    """HTTP clients of the leader and of a follower."""

    def __init__(self, cluster: Any, leader: Replica, token: str = "") -> None:
        self.cluster = cluster
        self.lines: list[str] = []
        logger = Logger(self.lines.append, RealClock(), "debug")
        follower = cluster.follower()
        self.status = {"leader": OneGroup(cluster, leader), "follower": OneGroup(cluster, follower)}
        self.leader, self.follower = (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(AdminApi(self.status[name], logger, token).app), base_url="http://node"
            )
            for name in ("leader", "follower")
        )


@pytest.fixture
def run(run_cluster: Callable[..., None]) -> Callable[..., None]:
    def start(scenario: Callable[[Nodes], Awaitable[None]], token: str = "") -> None:
        async def whole(cluster: Any) -> None:
            leader = await cluster.leader()
            await cluster.converged()
            await scenario(Nodes(cluster, leader, token))

        run_cluster(whole)

    return start


def test_any_node_takes_writes_and_any_node_reads_them_at_once(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        written = await nodes.follower.put("/api/v1/kv/a/b", content=b"\x00binary")
        assert written.status_code == 200
        version = written.json()["version"]
        for client in (nodes.leader, nodes.follower):
            read = await client.get("/api/v1/kv/a/b")
            assert (read.status_code, read.content, read.headers["etag"]) == (200, b"\x00binary", f'"{version}"')
        assert (await nodes.leader.delete("/api/v1/kv/a/b")).json()["existed"] is True
        gone = await nodes.follower.get("/api/v1/kv/a/b")
        assert (gone.status_code, gone.json()["definite"]) == (404, True)

    run(scenario)


def test_if_match_compares_and_sets(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        first = await nodes.leader.put("/api/v1/kv/k", content=b"1", headers={"If-None-Match": "*"})
        assert first.status_code == 200
        again = await nodes.leader.put("/api/v1/kv/k", content=b"2", headers={"If-None-Match": "*"})
        assert again.status_code == 412
        assert again.json() == {"error": "the version differs", "definite": True, "version": first.json()["version"]}
        etag = first.headers["etag"]
        second = await nodes.follower.put("/api/v1/kv/k", content=b"2", headers={"If-Match": etag})
        assert second.status_code == 200
        stale = await nodes.follower.put("/api/v1/kv/k", content=b"3", headers={"If-Match": etag})
        assert stale.status_code == 412
        assert (await nodes.leader.delete("/api/v1/kv/k", headers={"If-Match": etag})).status_code == 412
        assert (await nodes.leader.get("/api/v1/kv/k")).content == b"2"

    run(scenario)


def test_a_retry_with_the_same_sequence_is_answered_and_not_applied_again(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        session = {"Seatrial-Client-Id": "c1", "Seatrial-Sequence": "1"}
        first = await nodes.leader.put("/api/v1/kv/k", content=b"1", headers=session)
        await nodes.leader.put("/api/v1/kv/k", content=b"other")
        retry = await nodes.follower.put("/api/v1/kv/k", content=b"1", headers=session)
        assert retry.json() == first.json()
        assert (await nodes.follower.get("/api/v1/kv/k")).content == b"other"

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "headers", "says"),
    [
        ("GET", "/api/v1/kv/k?consistency=eventual", {}, "none of linearizable, lease, stale"),
        ("GET", "/api/v1/kv/k?timeout_ms=0", {}, "timeout_ms=0"),
        ("PUT", "/api/v1/kv/k", {"If-Match": "abc"}, "not a version"),
        ("PUT", "/api/v1/kv/k", {"If-Match": "1", "If-None-Match": "*"}, "not both"),
        ("PUT", "/api/v1/kv/k", {"If-None-Match": '"1"'}, "* alone"),
        ("PUT", "/api/v1/kv/k", {"Seatrial-Client-Id": "c"}, "go together"),
        ("PUT", "/api/v1/kv/k", {"Seatrial-Sequence": "1"}, "go together"),
        ("PUT", "/api/v1/kv/k", {"Seatrial-Client-Id": "c" * 256, "Seatrial-Sequence": "1"}, "go together"),
        ("PUT", "/api/v1/kv/" + "k" * 2000, {}, "a key has 1 to"),
        ("GET", "/api/v1/raft/groups/topic/7", {}, "no group 'topic/7'"),
        ("POST", "/api/v1/raft/groups/kv/transfer?to=9", {}, "not a voter"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_what_is_wrong(
    run: Callable[..., None], method: str, path: str, headers: dict[str, str], says: str
) -> None:
    async def scenario(nodes: Nodes) -> None:
        answer = await nodes.leader.request(method, path, headers=headers)
        assert answer.status_code == 400
        assert says in answer.json()["error"]
        assert answer.json()["definite"] is True

    run(scenario)


def test_without_a_majority_reads_fail_definitely_and_sent_writes_do_not(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        nodes.cluster.wires.isolate(nodes.status["leader"].replica.node.node_id)
        write = await nodes.leader.put("/api/v1/kv/k?timeout_ms=400", content=b"1")
        assert write.status_code in (503, 504)
        assert write.json()["definite"] is False
        read = await nodes.leader.get("/api/v1/kv/k?timeout_ms=300")
        assert (read.status_code, read.json()["definite"]) == (504, True)
        assert (await nodes.leader.get("/api/v1/kv/k?consistency=stale")).status_code == 404
        never_sent = await nodes.leader.put("/api/v1/kv/k?timeout_ms=100", content=b"1")
        assert (never_sent.status_code, never_sent.json()["definite"]) == (504, True)
        assert never_sent.json()["leader_id"] is None

    run(scenario)


def test_leadership_is_handed_over_on_request(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        to = nodes.status["follower"].replica.node.node_id
        asked_wrongly = await nodes.follower.post(f"/api/v1/raft/groups/kv/transfer?to={to}")
        assert asked_wrongly.status_code == 503
        assert "does not lead" in asked_wrongly.json()["error"]
        assert (await nodes.leader.post(f"/api/v1/raft/groups/kv/transfer?to={to}")).status_code == 202
        replica = nodes.status["follower"].replica
        for _ in range(1000):
            if replica.node.is_leader:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(replica.status())

    run(scenario)


def test_a_snapshot_is_made_on_request(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        assert (await nodes.leader.post("/api/v1/raft/groups/kv/snapshot")).status_code == 202
        storage = nodes.status["leader"].replica.storage
        for _ in range(1000):
            if storage.snapshot_meta is not None:
                return
            await asyncio.sleep(0.005)
        raise AssertionError("no snapshot")

    run(scenario)


def test_a_snapshot_on_request_keeps_as_much_of_the_log_as_is_asked_for(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        path = "/api/v1/raft/groups/kv/snapshot"
        for number in range(5):
            assert (await nodes.leader.put(f"/api/v1/kv/k{number}", content=b"v")).status_code == 200
        storage = nodes.status["leader"].replica.storage
        assert storage.first_index == 1
        answer = await nodes.leader.post(f"{path}?keep=2")
        assert (answer.status_code, answer.json()["made"]) == (202, True)
        for _ in range(1000):
            if storage.first_index == answer.json()["last_applied"] - 1:
                break
            await asyncio.sleep(0.005)
        assert storage.first_index == answer.json()["last_applied"] - 1
        refused = await nodes.leader.post(f"{path}?keep=none")
        assert (refused.status_code, "?keep=100" in refused.json()["error"]) == (400, True)

    run(scenario)


def test_readiness_says_what_is_missing_and_health_does_not_care(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        assert (await nodes.leader.get("/readyz")).status_code == 200
        nodes.status["leader"].missing = "the metadata group has no leader yet"
        answer = await nodes.leader.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "the metadata group has no leader yet")
        assert (await nodes.leader.get("/healthz")).status_code == 200
        assert (await nodes.leader.get("/metrics")).text == "seatrial_up 1\n"
        told = [(await node.get("/api/v1/raft/groups/kv")).json() for node in (nodes.leader, nodes.follower)]
        assert [one["group"] for one in told] == ["kv", "kv"]
        assert {peer["state"] for peer in told[0]["peers"].values()} == {"replicate"}
        assert [one["snapshot_index"] for one in told] == [0, 0]
        assert told[1]["peers"] == {}, "only a leader knows how far the others are"

    run(scenario)


def test_with_a_token_nothing_is_answered_without_it(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = await nodes.leader.get("/api/v1/raft/info", headers=headers)
            assert answer.status_code == 401
            assert "--http-token" in answer.json()["error"]
        good = await nodes.leader.get("/api/v1/raft/info", headers={"Authorization": "Bearer secret"})
        assert good.status_code == 200

    run(scenario, token="secret")


def test_a_bug_is_told_and_logged_and_never_definite(run: Callable[..., None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        def broken() -> dict[str, Any]:
            raise ZeroDivisionError("planted")

        nodes.status["leader"].info = broken  # type: ignore[method-assign]
        answer = await nodes.leader.get("/api/v1/raft/info")
        assert (answer.status_code, answer.json()["definite"]) == (500, False)
        assert [json.loads(line)["event"] for line in nodes.lines] == ["http_request_failed"]

    run(scenario)
