"""Members and replicas that move, asked for over HTTP and by the command, on whole nodes in one loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from node_cluster import NodeCluster
from server_processes import leased_network

from seatrial import marks
from seatrial.env import RealClock
from seatrial.kafka.backend import BackendError
from seatrial.machines.metadata import CreateTopic, ElectPreferred, encode_command
from seatrial.machines.partition_log import encode_append
from seatrial.raft.ids import NodeId
from seatrial.server.members_command import Failed, MembersOptions, carry_out, members_command, plan_of, told
from seatrial.server.partition import HostedPartition

Scenario = Callable[[NodeCluster], Awaitable[None]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def start(scenario: Scenario, founders: int = 3, **more: Any) -> None:
        async def whole(prefix: str) -> None:
            cluster = NodeCluster(tmp_path, prefix, founders, **more)
            try:
                await cluster.start_founders()
                await scenario(cluster)
            finally:
                await cluster.close()

        with leased_network() as prefix:
            asyncio.run(whole(prefix))

    return start


async def topic(cluster: NodeCluster, name: str, *assignments: tuple[int, ...]) -> None:
    broker = cluster.nodes[1].broker
    command = encode_command(CreateTopic(name, assignments), request_id=broker.new_request_id())
    assert (await broker.propose_metadata(command, 10)).error == 0
    for number, replicas in enumerate(assignments):
        await cluster.until(
            lambda number=number, replicas=replicas: cluster.leader(f"{name}/{number}") in replicas, cluster.readiness
        )


async def settled(cluster: NodeCluster, seen_by: int) -> None:
    """t/0 is where it shall be, and nothing is left of where it was."""

    def done() -> bool:
        partition = cluster.partition(seen_by, "t")
        return bool(partition.settled) and not partition.lingering

    def seen() -> object:
        waiting = [node.broker.membership.waiting_for for node in cluster.nodes.values()]
        return cluster.partition(seen_by, "t"), waiting, cluster.readiness()

    await cluster.until(done, seen)


async def put(cluster: NodeCluster, number: int, key: str) -> None:
    result = await cluster.nodes[number].broker.key_value.put(key.encode(), b"v", None, None, 20)
    assert result.applied


def equal(cluster: NodeCluster, numbers: list[int], group: str) -> bool:
    replicas = [cluster.nodes[n].replica_named(group) for n in numbers]
    return len({(r.last_applied, r.machine.digest) if r else None for r in replicas}) == 1 and None not in replicas


def test_a_node_that_joins_is_given_what_there_is_and_votes(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        for count in range(30):
            await put(cluster, 1, f"k{count}")
        await cluster.start(4, join=(1, 2))
        await cluster.ready()
        await cluster.until(lambda: cluster.state(2, 4) == "voter", cluster.readiness)
        await cluster.until(lambda: equal(cluster, [1, 2, 3, 4], "kv"), cluster.readiness)
        assert cluster.voters(4, "kv") == cluster.voters(4, "metadata") == (1, 2, 3, 4)
        assert cluster.nodes[4].info()["incarnation"] == 1

    run(scenario)


def test_a_node_waits_to_be_added_by_an_operator(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        node = await cluster.start(4, join=())
        await cluster.until(lambda: cluster.events(4, "not_joined_yet"), cluster.readiness)
        assert node.is_ready() == "this node has not joined yet"
        assert (await cluster.ask(4, "PUT", "kv/k?timeout_ms=100"))[0] in (503, 504)
        await cluster.ask(1, "POST", "members", {"node_id": 4, "raft_addr": f"{cluster.prefix}.4:7101"})
        await cluster.ready()
        assert cluster.nodes[1].broker.metadata.nodes[NodeId(4)].http_address == f"{cluster.prefix}.4:9644"

    run(scenario)


def test_a_cluster_of_another_name_and_a_second_node_of_the_same_id_are_refused_for_good(
    run: Callable[..., None],
) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        status, answer = await cluster.ask(
            1, "POST", "members", {"node_id": 4, "raft_addr": "127.0.0.1:1", "cluster_id": "other"}
        )
        assert (status, answer["code"], answer["definite"]) == (409, "CLUSTER_ID_MISMATCH", True)
        body = {"node_id": 2, "raft_addr": f"{cluster.prefix}.4:7101", "directory": 12345}
        status, answer = await cluster.ask(1, "POST", "members", body)
        assert (status, answer["code"]) == (409, "DIRECTORY_DIFFERS")
        assert "members replace 2" in answer["error"]
        await cluster.stop(3)
        for path in sorted((cluster.root / "node3").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        await cluster.start(3, join=(1,))
        await cluster.until(lambda: 3 in cluster.fatal, cluster.readiness)
        assert cluster.fatal[3].status == 16

    run(scenario)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"node_id": 4}, "raft_addr"),
        ({"node_id": 0, "raft_addr": "h:1"}, "1 to 65535"),
        ({"node_id": 4, "raft_addr": "h"}, "not host:port"),
        ({"node": 4}, "no such JSON object"),
        ({"raft_addr": "h:1"}, "node_id"),
    ],
)
def test_a_bad_request_says_what_is_wrong(run: Callable[..., None], body: dict[str, Any], says: str) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        status, answer = await cluster.ask(1, "POST", "members", body)
        assert (status, answer["definite"]) == (400, True)
        assert says in answer["error"]

    run(scenario, founders=1)


def test_what_cannot_be_changed_is_refused_with_a_reason(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1,))
        for method, path, body, status, code in (
            ("DELETE", "members/1", None, 409, "NO_VOTER_LEFT"),
            ("DELETE", "members/9", None, 404, "UNKNOWN_NODE"),
            ("POST", "members/9/promote", None, 404, "UNKNOWN_NODE"),
            ("POST", "members/9/replace", {"node_id": 1}, 404, "UNKNOWN_NODE"),
            ("POST", "members/1/replace", {"node_id": 1}, 404, "UNKNOWN_NODE"),
            ("POST", "raft/groups/t/0/members", {"remove": [1]}, 409, "NO_VOTER_LEFT"),
            ("POST", "raft/groups/t/0/members", {"remove": [7]}, 404, "UNKNOWN_NODE"),
            ("POST", "raft/groups/t/0/members", {"add": [7]}, 404, "UNKNOWN_NODE"),
            ("POST", "raft/groups/t/5/members", {"add": [1]}, 404, "UNKNOWN_TOPIC"),
            ("GET", "raft/groups/none/0/members", None, 404, "UNKNOWN_TOPIC"),
        ):
            found, answer = await cluster.ask(1, method, path, body)
            assert (found, answer.get("code"), answer["definite"]) == (status, code, True), (path, answer)

    run(scenario, founders=1)


def test_a_learner_of_a_partition_follows_and_can_be_made_a_replica(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2))
        status, answer = await cluster.ask(3, "POST", "raft/groups/t/0/members", {"learners": [3]})
        assert (status, answer["target"]) == (202, {"replicas": [1, 2], "learners": [3]})
        await settled(cluster, 1)
        await cluster.until(lambda: equal(cluster, [1, 2, 3], "t/0"), cluster.readiness)
        _, answer = await cluster.ask(3, "GET", "raft/groups/t/0/members")
        assert (answer["voters"], answer["learners"]) == ([1, 2], [3])
        await cluster.ask(3, "POST", "raft/groups/t/0/members", {"add": [3], "remove": [1]})
        await cluster.until(lambda: cluster.voters(3, "t/0") == (2, 3), cluster.readiness)
        await settled(cluster, 2)
        assert cluster.nodes[1].replica_named("t/0") is None
        # A learner whose hosts are full voters elsewhere may be demoted again.
        await cluster.ask(2, "POST", "raft/groups/t/0/members", {"learners": [2]})
        await cluster.until(lambda: cluster.voters(3, "t/0") == (3,), cluster.readiness)

    run(scenario)


def test_a_replica_that_moved_away_comes_back_empty_and_is_filled(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2))
        for add, remove in ((3, 1), (1, 2), (2, 3)):
            body = {"add": [add], "remove": [remove]}
            status, answer = await cluster.ask(add, "POST", "raft/groups/t/0/members", body)
            assert status == 202, answer
            await settled(cluster, 1)
        assert cluster.partition(1, "t").departed == (1, 2)
        assert cluster.partition(1, "t").first_configuration(NodeId(1)) == ()
        await cluster.until(lambda: equal(cluster, [1, 2], "t/0"), cluster.readiness)

    run(scenario)


def test_a_removed_founder_hears_of_it_stops_serving_and_its_partitions_move(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2), (2, 1))
        status, answer = await cluster.ask(2, "DELETE", "members/1")
        assert (status, answer["message"]) == (202, "")
        await cluster.until(lambda: cluster.state(2, 1) is None, cluster.readiness)
        await cluster.until(lambda: cluster.events(1, "removed"), cluster.readiness)
        assert cluster.nodes[1].info()["groups"] == []
        assert (await cluster.ask(1, "PUT", "kv/k"))[0] == 503
        for group in ("t/0", "t/1"):
            assert cluster.voters(2, group) == (2, 3)
        _, answer = await cluster.ask(3, "GET", "members")
        assert ([m["node_id"] for m in answer["members"]], answer["removed"]) == ([2, 3], [1])
        await put(cluster, 3, "after")

    run(scenario)


def test_a_node_whose_disk_is_gone_is_replaced_while_it_is_down(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2, 3))
        await put(cluster, 1, "before")
        await cluster.stop(3)
        await cluster.start(4, join=(1,))
        await cluster.ready()
        status, answer = await cluster.ask(4, "POST", "members/3/replace", {"node_id": 4})
        assert status == 202, answer
        await cluster.until(lambda: cluster.state(1, 3) is None, cluster.readiness)
        for group in ("metadata", "kv", "t/0"):
            await cluster.until(lambda group=group: cluster.voters(4, group) == (1, 2, 4), cluster.readiness)
            await cluster.until(lambda group=group: equal(cluster, [1, 2, 4], group), cluster.readiness)

    run(scenario)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_a_founder_that_never_came_up_can_be_replaced_and_removed(run: Callable[..., None], replaced: bool) -> None:
    """It was answered 404: nobody but the configuration knows of a voter that never registered."""

    async def scenario(cluster: NodeCluster) -> None:
        await put(cluster, 1, "before")
        status, answer = await cluster.ask(2, "GET", "members")
        assert ([m["node_id"] for m in answer["members"]], answer["never_registered"]) == ([1, 2], [3])
        assert "vote, and have never come up: 3" in told(answer)
        status, answer = await cluster.ask(2, "DELETE", "members/9")
        assert (status, answer["code"]) == (404, "UNKNOWN_NODE"), "nobody's configuration knows that one"
        if replaced:
            await cluster.start(4, join=(1,))
            await cluster.ready()
            status, answer = await cluster.ask(4, "POST", "members/3/replace", {"node_id": 4})
        else:
            status, answer = await cluster.ask(2, "DELETE", "members/3")
        assert status == 202, answer
        left = (1, 2, 4) if replaced else (1, 2)
        for group in ("metadata", "kv"):
            await cluster.until(lambda group=group: cluster.voters(2, group) == left, cluster.readiness)
        await cluster.until(lambda: 3 in cluster.nodes[2].broker.metadata.removed, cluster.readiness)
        status, answer = await cluster.ask(1, "GET", "members")
        assert ([m["node_id"] for m in answer["members"]], answer["never_registered"]) == (list(left), [])
        await cluster.start(3)
        await cluster.until(lambda: cluster.events(3, "removed"), cluster.readiness)
        await put(cluster, 2, "after")

    run(scenario, absent=(3,))


def test_the_command_lists_waits_and_tells_refusals(run: Callable[..., None], capsys: Any) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2))
        options = MembersOptions(http=cluster.url(2), token="secret", wait_s=20)
        answer = await carry_out(plan_of("list", [], options), options)
        assert [line.split()[:3] for line in told(answer).splitlines()[1:4]] == [
            ["1", "voter", "yes"],
            ["2", "voter", "yes"],
            ["3", "voter", "yes"],
        ]
        await cluster.start(4, join=(1,))
        added = plan_of("add", ["4", f"{cluster.prefix}.4:7101"], options)
        assert "4" in told(await carry_out(added, options))
        move = MembersOptions(http=cluster.url(2), token="secret", wait_s=20, add=(4,), remove=(1,))
        text = told(await carry_out(plan_of("move", ["t/0"], move), move))
        assert text.startswith("t/0: settled")
        assert "replicas [2, 4]" in text
        removed = await carry_out(plan_of("remove", ["1"], options), options)
        assert "removed for good: 1" in told(removed)
        with pytest.raises(Failed, match="node ids are never used again"):
            await carry_out(plan_of("add", ["1", "127.0.0.1:1"], options), options)
        with pytest.raises(Failed, match="--http-token"):
            wrong = MembersOptions(http=cluster.url(2), token="wrong")
            await carry_out(plan_of("list", [], wrong), wrong)

    run(scenario, token="secret")


def test_a_command_that_finds_nobody_exits_2_and_a_bad_one_64(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = MembersOptions(http="http://127.0.0.1:9", json=True)
    assert members_command("list", [], nobody) == 2
    assert "did not answer" in capsys.readouterr().out
    for action, arguments in (
        ("list", ["1"]),
        ("add", ["1"]),
        ("add", ["x", "h:1"]),
        ("add", ["1", "h"]),
        ("remove", []),
        ("replace", ["1"]),
        ("move", ["t"]),
        ("move", ["t/0"]),
        ("frobnicate", []),
    ):
        assert members_command(action, arguments, nobody) == 64
    assert "write: seatrial members" in capsys.readouterr().err


def test_any_node_takes_a_promotion_and_refuses_it_until_the_learner_has_caught_up(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        body = {"node_id": 4, "raft_addr": f"{cluster.prefix}.4:7101", "learner": True}
        await cluster.ask(1, "POST", "members", body)
        for asked in (1, 2, 3):
            status, answer = await cluster.ask(asked, "POST", "members/4/promote")
            assert (status, answer["code"]) == (409, "NOT_CAUGHT_UP")
        await cluster.start(4, join=(1,))
        await cluster.ready()
        assert cluster.state(1, 4) == "learner"
        await put(cluster, 4, "from a learner")
        options = MembersOptions(http=cluster.url(4), token="secret", wait_s=20)
        await carry_out(plan_of("promote", ["4"], options), options)
        await cluster.until(lambda: cluster.state(1, 4) == "voter", cluster.readiness)

    run(scenario, token="secret")


class Appender:
    """Appends numbers to t/0 wherever it is led; remembers at which offset each was acknowledged."""

    def __init__(self, cluster: NodeCluster) -> None:
        self._cluster = cluster
        self._stopped = False
        self.acknowledged: dict[int, int] = {}
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self._stopped:
            led = [p for n in self._cluster.nodes.values() if (p := n.broker.partition("t", 0)) and p.is_leader]
            if not led:
                await asyncio.sleep(0.01)
                continue
            number += 1
            batch = bytes(57) + number.to_bytes(8, "big")
            try:
                future = led[0].append(encode_append(batch, record_count=1))
                outcome = await asyncio.wait_for(asyncio.shield(future), 2)
            except (BackendError, TimeoutError):  # its fate does not matter: it was not acknowledged
                continue
            assert outcome.base_offset not in self.acknowledged, "two records were acknowledged at one offset"
            self.acknowledged[outcome.base_offset] = number

    async def stop(self) -> None:
        self._stopped = True
        await self._task


def records(partition: HostedPartition) -> dict[int, int]:
    """Number by offset, as this replica has them."""
    first, last = partition.replica.storage.first_index, partition.machine.applied_index
    found, offset = {}, 0
    for entry in partition.replica.storage.entries(first, last, 1 << 30):
        if partition.machine.records_of(entry):
            found[offset] = int.from_bytes(entry.data[-8:], "big")
            offset += 1
    return found


def test_partitions_that_move_at_random_under_load_lose_and_double_nothing(run: Callable[..., None]) -> None:
    """Records are appended while replicas move, nodes restart and leaders change."""

    async def scenario(cluster: NodeCluster) -> None:
        chance = random.Random(20251121)
        await cluster.start(4, join=(1,))
        await cluster.ready()
        await topic(cluster, "t", (1, 2, 3))
        appender = Appender(cluster)
        for _ in range(6):
            replicas = [*cluster.partition(2, "t").replicas]
            wanted = sorted(chance.sample([1, 2, 3, 4], chance.randint(1, 4)))
            body = {"add": wanted, "remove": [n for n in replicas if n not in wanted], "override": True}
            await cluster.ask(2, "POST", "raft/groups/t/0/members", body)
            if chance.random() < 0.5:
                victim = chance.choice([1, 3, 4])
                await cluster.stop(victim)
                await cluster.start(victim, join=(1, 2, 3) if victim == 4 else None)
            await asyncio.sleep(chance.random() * 0.3)
        await cluster.ready()
        await settled(cluster, 2)
        enough = len(appender.acknowledged) + 10
        await cluster.until(lambda: len(appender.acknowledged) >= enough, cluster.readiness)
        await appender.stop()
        members = [int(n) for n in cluster.partition(2, "t").replicas]
        await cluster.until(lambda: equal(cluster, members, "t/0"), cluster.readiness)
        for number, node in cluster.nodes.items():
            hosted = node.broker.partition("t", 0)
            assert (hosted is not None) == (number in members)
            if hosted is not None:
                found = records(hosted)
                assert len(set(found.values())) == len(found), "a record was appended twice"
                assert appender.acknowledged.items() <= found.items()

    run(scenario)


def test_a_node_that_was_away_while_its_leader_joined_is_told_by_others_who_that_is(run: Callable[..., None]) -> None:
    """It refused the new leader as a stranger, and nobody else could tell it: it stayed behind for ever."""

    async def scenario(cluster: NodeCluster) -> None:
        await cluster.stop(3)
        await cluster.start(4, join=(1,))
        await cluster.ready()
        await cluster.until(lambda: cluster.state(1, 4) == "voter", cluster.readiness)

        def handed_over(group: str) -> bool:
            leader = cluster.leader(group)
            if leader not in (None, 4):
                replica = cluster.nodes[leader].replica_named(group)  # type: ignore[index]
                assert replica is not None
                replica.transfer_leadership(NodeId(4))
            return leader == 4

        for group in ("metadata", "kv"):
            await cluster.until(lambda group=group: handed_over(group), cluster.readiness)
        await cluster.start(3)
        await cluster.ready()
        assert cluster.nodes[3].broker.metadata_replica.node.leader == 4

    run(scenario)


def test_nodes_without_a_common_group_leader_between_them_know_that_the_other_is_up(run: Callable[..., None]) -> None:
    """They once took each other for dead, so that a client could not learn from one who leads on the other."""

    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (2,))
        begun_us = RealClock().now_us()

        def heard_everybody() -> bool:
            heard = [peer.last_received_us for n in cluster.nodes.values() for peer in n.transport.peers().values()]
            return len(heard) == 6 and all(at_us is not None and at_us > begun_us for at_us in heard)

        await cluster.until(heard_everybody, cluster.readiness)
        for node in cluster.nodes.values():
            assert list(node.broker.alive_nodes()) == [1, 2, 3]
            assert node.broker.leadership("t", 0).leader_id == 2

    run(scenario)


def test_a_leader_hands_over_to_the_preferred_replica_when_a_client_asks_for_it(run: Callable[..., None]) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await topic(cluster, "t", (1, 2, 3))

        def led_by(node_id: int) -> Callable[[], bool]:
            return lambda: cluster.leader("t/0") == node_id

        leader = cluster.leader("t/0")
        if leader == 1:
            cluster.nodes[1].replica_named("t/0").transfer_leadership(NodeId(2))  # type: ignore[union-attr]
            await cluster.until(led_by(2), cluster.readiness)
        marks.taken()
        broker = cluster.nodes[1].broker
        command = ElectPreferred(((broker.metadata.topics["t"].topic_id, 0),))
        await broker.propose_metadata(encode_command(command, request_id=broker.new_request_id()), 10)
        await cluster.until(led_by(1), cluster.readiness)
        mark = "a leader handed over to the preferred replica because a client had asked for it"
        assert marks.taken().get(mark) == 1

    run(scenario)
