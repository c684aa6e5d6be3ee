"""Members that come and go in real processes: a node joins, data moves, the leader is removed, nobody disturbs."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_processes import HTTP, Server, Servers, servers, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
FAST = ("--durability", "os")


def ask(server: Server, method: str, path: str, body: object = None) -> httpx.Response:
    return HTTP.request(method, f"{server.http}/api/v1/{path}", json=body, timeout=10)


def members(server: Server) -> dict[int, dict[str, Any]]:
    try:
        answer = ask(server, "GET", "members")
    except httpx.HTTPError:
        return {}
    return {member["node_id"]: member for member in answer.json()["members"]}


def state_of(server: Server, node: int) -> str | None:
    member = members(server).get(node)
    return None if member is None else str(member["state"])


def voters(server: Server, group: str) -> list[int]:
    found = server.group(group)
    return [] if found is None or found["voters_outgoing"] else found["voters"]


def put(server: Server, key: str, value: str) -> None:
    def written() -> bool:
        try:
            return HTTP.put(f"{server.http}/api/v1/kv/{key}", content=value.encode(), timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    until(written, lambda: server.log.read_text()[-1500:])


def get(server: Server, key: str) -> bytes | None:
    """The linearizable value; None while there is no answer."""
    try:
        answer = HTTP.get(f"{server.http}/api/v1/kv/{key}", timeout=10)
    except httpx.HTTPError:
        return None
    return answer.content if answer.status_code == 200 else None


def create_topic(cluster: Servers, name: str, partitions: int, replicas: int) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(name, partitions, replicas)])[name].result(20)


def produce(bootstrap: str, topic: str, values: range, partition: int = 0) -> None:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "topic.metadata.refresh.interval.ms": 300,
        }
    )
    for value in values:
        producer.produce(topic, b"%d" % value, partition=partition)
    assert producer.flush(30) == 0


def consume(bootstrap: str, topic: str, count: int, partition: int = 0) -> list[int]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0)])
    found: list[int] = []

    def more() -> bool:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            value = message.value()
            assert value is not None
            found.append(int(value))
        return len(found) >= count

    try:
        until(more, lambda: found)
    finally:
        consumer.close()
    return found


def equal_replicas(cluster: list[Server], group: str) -> None:
    def states() -> list[Any]:
        found = [server.group(group) for server in cluster]
        return [(g["last_applied"], g["digest"]) if g else None for g in found]

    until(lambda: None not in states() and len(set(states())) == 1, states)


def test_a_node_joins_catches_up_votes_and_the_leader_can_be_removed_with_nothing_lost(tmp_path: Path) -> None:
    with servers(tmp_path, 3, *FAST) as cluster:
        create_topic(cluster, "t", 2, 3)
        produce(cluster.bootstrap, "t", range(200))
        for number in range(20):
            put(cluster.nodes[1], f"k{number}", str(number))
        leader = cluster.leader("kv")
        assert ask(leader, "POST", "raft/groups/kv/snapshot").status_code == 202
        fourth = cluster.join(4)
        until(lambda: state_of(leader, 4) == "voter", cluster.describe)
        for group in ("metadata", "kv"):
            until(lambda group=group: voters(leader, group) == [1, 2, 3, 4], cluster.describe)  # type: ignore[misc]
        cluster.wait_until_ready()
        until(lambda: get(fourth, "k7") == b"7", cluster.describe)

        victim = cluster.leader("metadata")
        others = [server for server in cluster if server is not victim]
        asked = ask(others[0], "DELETE", f"members/{victim.node}")
        assert asked.status_code == 202, asked.text
        until(lambda: state_of(others[0], victim.node) is None, cluster.describe)
        left = [server.node for server in others]
        for server in others:
            for group in ("metadata", "kv", "t/0", "t/1"):
                until(lambda s=server, g=group: voters(s, g) == left, cluster.describe)  # type: ignore[misc]
        until(lambda: (victim.info() or {}).get("removed"), cluster.describe)
        assert victim.events("removed")
        assert HTTP.get(f"{victim.http}/readyz", timeout=5).status_code == 503
        bootstrap = ",".join(server.kafka for server in others)
        produce(bootstrap, "t", range(200, 250))
        assert consume(bootstrap, "t", 250) == list(range(250))
        for number in range(20):
            assert get(fourth, f"k{number}") == str(number).encode()
        for group in ("metadata", "kv", "t/0", "t/1"):
            equal_replicas(others, group)


def test_a_removed_node_that_is_started_again_stays_out_and_disturbs_nobody(tmp_path: Path) -> None:
    with servers(tmp_path, 4, *FAST) as cluster:
        leader = cluster.leader("metadata")
        victim = next(server for server in cluster if server is not leader)
        others = [server for server in cluster if server is not victim]
        victim.kill()
        assert ask(leader, "DELETE", f"members/{victim.node}").status_code == 202
        until(lambda: state_of(leader, victim.node) is None, cluster.describe)
        before = {server.node: server.group("metadata")["term"] for server in others}  # type: ignore[index]
        victim.start()
        until(lambda: (victim.info() or {}).get("removed"), cluster.describe)
        put(others[0], "k", "still here")
        after = {server.node: server.group("metadata")["term"] for server in others}  # type: ignore[index]
        assert after == before
        assert ask(victim, "PUT", "kv/k").status_code == 503
        again = ask(leader, "POST", "members", {"node_id": victim.node, "raft_addr": "127.0.0.1:1"})
        assert (again.status_code, again.json()["code"]) == (409, "NODE_REMOVED")


def test_a_node_without_its_directory_is_refused_in_place_and_replaced_by_a_new_one(tmp_path: Path) -> None:
    with servers(tmp_path, 3, *FAST) as cluster:
        create_topic(cluster, "t", 1, 3)
        produce(cluster.bootstrap, "t", range(50))
        victim = cluster.nodes[2]
        others = [cluster.nodes[1], cluster.nodes[3]]
        victim.kill()
        shutil.rmtree(victim.directory)
        victim.start()
        assert victim.ended() == 16
        assert "seatrial members replace 2" in victim.events("fatal")[0]["reason"]
        fifth = cluster.join(5)
        until(lambda: state_of(others[0], 5) == "voter", cluster.describe)
        asked = ask(others[1], "POST", "members/2/replace", {"node_id": 5})
        assert asked.status_code == 202, asked.text
        until(lambda: state_of(others[0], 2) is None, cluster.describe)
        for group in ("metadata", "kv", "t/0"):
            until(lambda g=group: voters(fifth, g) == [1, 3, 5], cluster.describe)  # type: ignore[misc]
            equal_replicas([*others, fifth], group)
        bootstrap = ",".join(server.kafka for server in (*others, fifth))
        assert consume(bootstrap, "t", 50) == list(range(50))


def test_a_partition_moves_with_its_data_and_a_change_under_way_refuses_another(tmp_path: Path) -> None:
    with servers(tmp_path, 4, *FAST) as cluster:
        create_topic(cluster, "t", 1, 2)
        path = "raft/groups/t/0/members"
        told = ask(cluster.nodes[1], "GET", path).json()
        old = told["target"]["replicas"]
        new = sorted({1, 2, 3, 4} - {*old})
        produce(cluster.bootstrap, "t", range(100))
        paused = cluster.nodes[new[1]]
        paused.signal(signal.SIGSTOP)
        try:
            moved = ask(cluster.nodes[old[0]], "POST", path, {"add": new, "remove": old})
            assert moved.status_code == 202, moved.text
            pending = ask(cluster.nodes[old[0]], "POST", path, {"add": old})
            assert (pending.status_code, pending.json()["code"]) == (409, "CHANGE_PENDING")
            leader = cluster.nodes[old[0]].group("t/0")["leader_id"]  # type: ignore[index]

            def waits() -> str:
                return str(ask(cluster.nodes[leader], "GET", path).json()["waiting_for"])

            until(lambda: f"node {paused.node} to catch up" in waits(), waits)
        finally:
            paused.signal(signal.SIGCONT)

        def done() -> dict[str, Any]:
            answer: dict[str, Any] = ask(cluster.nodes[new[0]], "GET", path).json()
            return answer

        until(lambda: done()["settled"] and not done()["lingering"], done)
        assert done()["voters"] == new
        for node in old:
            assert cluster.nodes[node].group("t/0") is None
            group = cluster.nodes[node].directory / "groups" / "16"
            assert not group.exists(), "the replica that was given up is deleted"
        equal_replicas([cluster.nodes[node] for node in new], "t/0")
        assert consume(cluster.bootstrap, "t", 100) == list(range(100))
        back = ask(cluster.nodes[1], "POST", path, {"add": [old[0]]})
        assert back.status_code == 202, back.text
        until(lambda: done()["settled"], done)
        equal_replicas([cluster.nodes[node] for node in (*new, old[0])], "t/0")


def test_a_learner_stays_one_until_it_is_promoted(tmp_path: Path) -> None:
    with servers(tmp_path, 3, *FAST) as cluster:
        leader = cluster.leader("metadata")
        unknown = ask(leader, "POST", "members/9/promote")
        assert (unknown.status_code, unknown.json()["definite"]) == (404, True)
        host = f"{cluster.prefix}.4"
        body = {"node_id": 4, "raft_addr": f"{host}:7101", "learner": True}
        assert ask(leader, "POST", "members", body).status_code == 202
        early = ask(leader, "POST", "members/4/promote")
        assert (early.status_code, early.json()["code"]) == (409, "NOT_CAUGHT_UP")
        assert "entries behind" in early.json()["error"]
        fourth = cluster.join(4)
        cluster.wait_until_ready()
        until(lambda: get(fourth, "none") is None and fourth.group("kv")["commit_index"] > 0, cluster.describe)  # type: ignore[index]
        assert state_of(leader, 4) == "learner"
        assert fourth.group("metadata")["voters"] == [1, 2, 3]  # type: ignore[index]

        def promoted() -> bool:
            return ask(cluster.leader("metadata"), "POST", "members/4/promote").status_code == 202

        until(promoted, cluster.describe)
        until(lambda: state_of(leader, 4) == "voter" and voters(fourth, "kv") == [1, 2, 3, 4], cluster.describe)


def test_a_joined_node_finds_the_others_again_after_a_start_without_asking_anyone(tmp_path: Path) -> None:
    with servers(tmp_path, 3, *FAST) as cluster:
        fourth = cluster.join(4)
        until(lambda: state_of(cluster.nodes[1], 4) == "voter", cluster.describe)
        cluster.wait_until_ready()
        put(fourth, "k", "v")
        for server in cluster:
            server.kill()
        at = fourth.arguments.index("--join")
        fourth.arguments[at + 1] = "http://127.0.0.1:1"  # nobody answers there
        for server in cluster:
            server.start()
        cluster.wait_until_ready()
        until(lambda: get(fourth, "k") == b"v", cluster.describe)
