"""`--test-hooks`: message filters of real nodes over HTTP, and their absence without the flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from server_processes import HTTP, Server, Servers, servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
FILTERS = "/api/v1/test/filters"


def put(server: Server, key: str) -> None:
    """As often as it takes: on a busy machine the leader may change under it."""
    url = f"{server.http}/api/v1/kv/{key}"
    until(lambda: HTTP.put(url, content=b"v", timeout=10).status_code == 200, lambda: (key, server.info()))


def holds(server: Server, key: str) -> bool:
    """Whether the node itself has applied the write of this key."""
    return HTTP.get(f"{server.http}/api/v1/kv/{key}?consistency=stale", timeout=10).status_code == 200


def attach(server: Server, **request: Any) -> dict[str, Any]:
    response = HTTP.post(f"{server.http}{FILTERS}", json=request, timeout=5)
    assert response.status_code == 201, response.text
    told: dict[str, Any] = response.json()
    return told


def leader_and_follower(cluster: Servers) -> tuple[Server, Server]:
    leader = cluster.leader("kv")
    return leader, next(server for server in cluster if server is not leader)


def test_without_the_flag_there_are_no_hooks(tmp_path: Path) -> None:
    with servers(tmp_path, 1) as cluster:
        node = cluster.nodes[1]
        assert HTTP.post(f"{node.http}{FILTERS}", json={"rule": "drop-messages"}).status_code == 404
        assert HTTP.get(f"{node.http}{FILTERS}").status_code == 404
        info = node.info()
        assert info is not None and info["test_hooks"] is False
        assert node.events("TEST_HOOKS") == []


def test_hooks_are_loud_in_the_log_and_refuse_what_cannot_be(tmp_path: Path) -> None:
    with servers(tmp_path, 1, "--test-hooks") as cluster:
        node = cluster.nodes[1]
        warning = node.events("TEST_HOOKS")[0]
        assert warning["level"] == "warning" and "never with data" in warning["message"]
        for body, says in [
            ({"rule": "drop-everything"}, "drop-appends"),
            ({"rule": "drop-messages", "messages": ["Hello"]}, "AppendEntries"),
            ({"rule": "drop-messages", "group": "none"}, "no group 'none'"),
            ({"rule": "drop-messages", "towards": [2]}, "towards"),
            ({"value": 3}, "rule"),
        ]:
            refused = HTTP.post(f"{node.http}{FILTERS}", json=body)
            assert refused.status_code == 400 and says in refused.json()["error"], refused.text
        absent = HTTP.delete(f"{node.http}{FILTERS}/7")
        assert absent.status_code == 404 and "no filter 7" in absent.json()["error"]
        told = HTTP.get(f"{node.http}{FILTERS}").json()
        assert told["filters"] == [] and told["rules"]["drop-appends"]["fair"] is True
        attached = attach(node, rule="hold-messages", to=[2], side="receive", group="kv", messages=["AppendEntries"])
        assert (attached["id"], attached["to"], attached["bit"]) == (1, [2], False)
        assert node.events("TEST_HOOKS")[-1]["filter"]["rule"] == "hold-messages"
        assert [f["id"] for f in HTTP.delete(f"{node.http}{FILTERS}").json()["filters"]] == [1]
        assert HTTP.get(f"{node.http}{FILTERS}").json()["filters"] == []


def test_a_follower_without_appends_lags_and_catches_up_when_they_flow_again(tmp_path: Path) -> None:
    with servers(tmp_path, 3, "--test-hooks") as cluster:
        leader, follower = leader_and_follower(cluster)
        third = next(server for server in cluster if server not in (leader, follower))
        attached = attach(follower, rule="drop-appends", side="receive", group="kv")
        keys = [f"k{number}" for number in range(20)]
        for key in keys:
            put(leader, key)
        until(lambda: holds(third, keys[-1]), cluster.describe)
        assert not any(holds(follower, key) for key in keys), "what it did not get it cannot have applied"
        detached = HTTP.delete(f"{follower.http}{FILTERS}/{attached['id']}", timeout=10).json()
        assert detached["bit"] and detached["counters"]["dropped"] > 0
        until(lambda: all(holds(follower, key) for key in keys), cluster.describe)


def test_held_appends_arrive_in_a_burst_when_they_are_released(tmp_path: Path) -> None:
    with servers(tmp_path, 3, "--test-hooks") as cluster:
        leader, follower = leader_and_follower(cluster)
        attached = attach(follower, rule="hold-appends", side="receive", group="kv")
        put(leader, "k")
        path = f"{follower.http}{FILTERS}"
        until(lambda: HTTP.get(path, timeout=10).json()["filters"][0]["held"] > 0, cluster.describe)
        assert not holds(follower, "k")
        released = HTTP.post(f"{path}/{attached['id']}/release", timeout=10).json()
        assert released["counters"]["released"] > 0
        HTTP.delete(path, timeout=10)
        until(lambda: holds(follower, "k"), cluster.describe)
