"""Records that there is no room for: refused by leaders, not taken by followers, taken by all when there is room.

On whole nodes in one loop, whose disks are a number each; `test_full_disk` fills a real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from node_cluster import NodeCluster
from server_processes import leased_network

from seatrial import marks
from seatrial.kafka.backend import DiskNearlyFull
from seatrial.machines.kv import encode_delete, encode_put, holds_value
from seatrial.machines.metadata import CreateTopic, encode_command
from seatrial.machines.partition_log import encode_append, encode_trim, holds_records
from seatrial.raft.ids import NodeId
from seatrial.raft.inspection import Follower
from seatrial.raft.messages import COMMAND, CONFIGURATION, AppendEntries, Configuration, Entry
from seatrial.server.disk_room import DiskRoom, DiskState
from seatrial.server.logs import Logger
from seatrial.server.partition import HostedPartition
from seatrial.server.replica import ReplicaOptions
from seatrial.server.room import BELIEVED_US, HAND_OVER_US, PROBE_US, Room

MIB = 1 << 20
RESERVE = 64 * MIB  # of the option
LOW, FULL, ROOM = 40 * MIB, 10 * MIB, 1 << 40
RECORD = encode_append(bytes(1000), record_count=1)


# ---- what is decided -----------------------------------------------------------------------------------------------


class Group:
    """As much of a replica as decides: who leads, who votes, and how far the log goes."""

    group = 16

    def __init__(self, *voters: int, outgoing: tuple[int, ...] = (), leader: int = 1, last: int = 0) -> None:
        self.node = self
        self.options = ReplicaOptions(needs_room=holds_records)
        self.configuration = Configuration(tuple(map(NodeId, voters)), tuple(map(NodeId, outgoing)))
        self.leader = NodeId(leader)
        self.is_leader = leader == 1
        self.last_index = last
        self.peers: list[Follower] = []

    def followers(self) -> list[Follower]:
        return self.peers


class Scene:
    """Node 1's view, whose own disk has so much left."""

    def __init__(self, free: int = ROOM) -> None:
        self.free = free
        self.now_us = 10_000_000
        logger = Logger(lambda line: None, self, "error")  # type: ignore[arg-type]
        self.room = Room(
            NodeId(1), DiskRoom(lambda: self.free, RESERVE, lambda: self.now_us, logger), lambda: self.now_us
        )

    def refusal(self, group: Group) -> str | None:
        return self.room.refusal(group, 100)  # type: ignore[arg-type]

    def admitted(self, group: Group, *entries: Entry) -> list[int] | None:
        message = AppendEntries(NodeId(2), NodeId(1), 1, entries[0].index - 1, 1, 0, list(entries))
        taken = self.room.admitted(group, message)  # type: ignore[arg-type]
        return None if taken is None else [entry.index for entry in taken.entries]


def test_a_leader_takes_records_as_long_as_a_majority_has_room_for_them() -> None:
    scene = Scene()
    scene.room.heard(NodeId(2), "low")
    assert scene.refusal(Group(1, 2, 3)) is None
    marks.taken()
    scene.room.heard(NodeId(3), "full")
    assert scene.refusal(Group(1, 2, 3, 4, 5)) is None
    refusal = scene.refusal(Group(1, 2, 3))
    assert refusal is not None and "the disks of nodes 2, 3 are nearly full" in refusal
    assert marks.taken() == {"records were refused because a majority's disks were nearly full": 1}
    assert scene.refusal(Group(1, 4, 5, outgoing=(1, 2, 3))) is not None, "both majorities of a joint configuration"
    scene.room.heard(NodeId(2), "")
    assert scene.refusal(Group(1, 2, 3)) is None


def test_what_a_peer_said_of_its_disk_is_not_believed_for_ever() -> None:
    scene = Scene()
    scene.room.heard(NodeId(2), "low")
    scene.room.heard(NodeId(3), "low")
    scene.now_us += BELIEVED_US - 1
    assert scene.refusal(Group(1, 2, 3)) is not None
    scene.now_us += 1
    assert scene.refusal(Group(1, 2, 3)) is None


def test_a_full_peer_is_probed_now_and_then_and_at_once_as_often_as_it_likes_when_it_has_room() -> None:
    scene, peer = Scene(), NodeId(2)
    assert scene.room.heard(peer, "") is None and scene.room.heard(peer, "low") is None
    probes = []
    for _ in range(9):
        probes.append(scene.room.heard(peer, "full"))
        scene.now_us += PROBE_US // 4
    assert probes == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert scene.room.heard(peer, "low") == -1
    assert scene.room.heard(peer, "") is None


def test_a_leader_without_room_hands_over_to_a_voter_that_has_some_and_has_all() -> None:
    scene, group = Scene(free=LOW), Group(1, 2, 3, 4, 5)
    match_indexes = {2: 9, 3: 7, 4: 3, 5: 9, 6: 9, 7: 7}
    group.peers = [Follower(NodeId(peer), at, 0, peer != 4) for peer, at in match_indexes.items()]

    def heir() -> int | None:
        return scene.room.heir(group)  # type: ignore[arg-type]

    assert heir() is None, "its own disk was not looked at yet"
    scene.room.look(0)
    scene.now_us += BELIEVED_US - 1
    for peer, said in ((2, "low"), (3, ""), (4, ""), (6, ""), (7, "")):
        scene.room.heard(NodeId(peer), said)
    assert heir() is None, "the others' disks may be the same one"
    scene.now_us += 1
    scene.room.look(0)
    marks.taken()
    assert heir() == 3, "2 has no room either, 4 lacks records, 5 was not heard, 6 and 7 have no vote"
    assert marks.taken() == {"a leader handed over because its disk was nearly full": 1}
    assert heir() is None, "not again at once: that one may be about to lead"
    scene.room.heard(NodeId(5), "")
    scene.now_us += HAND_OVER_US
    assert heir() is None, "nobody was heard lately"
    scene.room.heard(NodeId(5), "")
    scene.room.heard(NodeId(3), "")
    assert heir() == 5, "who has the most"
    scene.now_us += HAND_OVER_US
    scene.room.heard(NodeId(5), "")
    scene.free = ROOM
    scene.room.look(0)
    assert heir() is None


def test_who_passes_records_on_asks_for_the_leaders_disk_and_not_for_its_own() -> None:
    scene = Scene(free=LOW)
    scene.room.look(0)
    assert scene.refusal(Group(1, 2, 3, leader=2)) is None
    scene.room.heard(NodeId(2), "low")
    refusal = scene.refusal(Group(1, 2, 3, leader=2))
    assert refusal is not None and "the disk of node 2 is nearly full" in refusal


def test_a_follower_that_is_full_passes_nothing_on_of_which_it_would_never_hear() -> None:
    scene = Scene(free=FULL)
    scene.room.look(0)
    refusal = scene.refusal(Group(1, 2, 3, leader=2))
    assert refusal is not None and "this node does not follow" in refusal and "the disk of node 1" in refusal


def entry(index: int, data: bytes, kind: int = COMMAND) -> Entry:
    return Entry(1, index, kind, data)


def test_a_follower_takes_records_of_its_leader_until_half_of_the_reserve_is_left() -> None:
    scene = Scene(free=LOW)
    assert scene.admitted(Group(1, 2, 3, leader=2), entry(1, RECORD)) == [1]
    scene.free = FULL
    marks.taken()
    assert scene.admitted(Group(1, 2, 3, leader=2), entry(1, RECORD)) is None
    assert marks.taken()["a follower did not take the records of an append, for want of room"] == 1
    scene.free = ROOM
    assert scene.admitted(Group(1, 2, 3, leader=2), entry(1, RECORD)) == [1]


def test_a_follower_without_room_takes_what_it_has_and_what_needs_none_up_to_the_first_that_does() -> None:
    scene = Scene(free=FULL)
    follower = Group(1, 2, 3, leader=2, last=2)
    no_op, configuration = entry(4, b""), entry(5, RECORD, CONFIGURATION)
    assert scene.admitted(follower, entry(1, RECORD), entry(2, RECORD)) == [1, 2], "these are there already"
    assert scene.admitted(follower, entry(2, RECORD), entry(3, RECORD), no_op) == [2]
    assert scene.admitted(follower, entry(3, encode_trim(7)), no_op, configuration, entry(6, RECORD)) == [3, 4, 5]
    assert scene.admitted(follower, entry(3, encode_trim(7)), no_op) == [3, 4]
    assert scene.room.appends_held == 2


def test_only_what_brings_data_needs_room() -> None:
    assert holds_records(RECORD) and not holds_records(encode_trim(3))
    assert holds_value(encode_put(b"k", b"v", request_id=bytes(16)))
    assert not holds_value(encode_delete(b"k", request_id=bytes(16)))


# ---- what comes of it ----------------------------------------------------------------------------------------------

Scenario = Callable[[NodeCluster], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    def start(scenario: Scenario) -> None:
        async def whole(prefix: str) -> None:
            cluster = NodeCluster(tmp_path, prefix, 3, election_timeout_ms=2_000)
            try:
                await cluster.start_founders()
                await scenario(cluster)
                assert not cluster.fatal
            finally:
                await cluster.close()

        with leased_network() as prefix:
            asyncio.run(whole(prefix))

    return start


async def leader_of_topic(cluster: NodeCluster) -> int:
    broker = cluster.nodes[1].broker
    command = encode_command(CreateTopic("t", ((1, 2, 3),)), request_id=broker.new_request_id())
    assert (await broker.propose_metadata(command, 10)).error == 0
    await cluster.until(lambda: cluster.leader("t/0"), cluster.readiness)
    leader = cluster.leader("t/0")
    assert leader is not None
    return leader


def hosted(cluster: NodeCluster, number: int) -> HostedPartition:
    found = cluster.nodes[number].broker.partition("t", 0)
    assert isinstance(found, HostedPartition)
    return found


async def led(cluster: NodeCluster) -> HostedPartition:
    """At its leader, who may be another one on a machine that is busy."""
    await cluster.until(lambda: cluster.leader("t/0"), cluster.readiness)
    leader = cluster.leader("t/0")
    assert leader is not None
    return hosted(cluster, leader)


async def append(cluster: NodeCluster, count: int = 1) -> None:
    for _ in range(count):
        outcome = await asyncio.wait_for((await led(cluster)).append(RECORD), 20)
        assert not outcome.error


async def until_at(cluster: NodeCluster, number: int, watermark: int) -> None:
    def there() -> bool:
        return hosted(cluster, number).high_watermark == watermark

    await cluster.until(there, lambda: {n: hosted(cluster, n).high_watermark for n in cluster.nodes})


async def put(cluster: NodeCluster, number: int, key: str, value: bytes = b"v") -> dict[str, Any] | None:
    """None, or the error."""
    status, answer = await cluster.ask(number, "PUT", f"kv/{key}?timeout_ms=4000", value.decode())
    return None if status == 200 else {**answer, "status": status}


@pytest.mark.slow
def test_a_follower_whose_disk_is_full_serves_on_and_catches_up_without_a_restart(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        leader = await leader_of_topic(cluster)
        follower = next(n for n in cluster.nodes if n != leader)
        await append(cluster, 3)
        await until_at(cluster, follower, 3)
        cluster.free_bytes[follower] = FULL
        node = cluster.nodes[follower]
        await cluster.until(lambda: node.room.state is DiskState.FULL, node.room.told)
        await append(cluster, 20)
        assert hosted(cluster, follower).high_watermark == 3
        assert (await cluster.ask(follower, "GET", "raft/info"))[1]["disk"]["state"] == "full"
        assert 'seatrial_disk_state{state="full"} 1.0' in node.metrics_text().decode()
        leads = cluster.nodes[leader]
        await cluster.until(lambda: leads.room.told()["peers"] == {str(follower): "full"}, leads.room.told)  # type: ignore[index]
        # It is up and hears its leader: other groups go on, it stands for no election, and is sent nothing in vain.
        held = node.room.appends_held
        await asyncio.sleep(1.0)
        assert node.room.appends_held - held <= 2, "and not one at each of twenty heartbeats"
        status, _ = await cluster.ask(follower, "GET", "kv/nothing")
        assert status == 404, "a linearizable read, which this node answers"
        del cluster.free_bytes[follower]
        await until_at(cluster, follower, 23)
        assert [bool(cluster.events(follower, name)) for name in ("disk_full", "disk_has_room")] == [True, True]

    run(scenario)


@pytest.mark.slow
def test_what_a_node_without_room_leads_is_led_by_others_and_it_stays_with_them(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        leader = await leader_of_topic(cluster)
        await append(cluster, 3)
        cluster.free_bytes[leader] = LOW
        await cluster.until(lambda: cluster.leader("t/0") not in (None, leader), cluster.readiness)
        await cluster.until(lambda: cluster.leader("kv") not in (None, leader), cluster.readiness)
        await append(cluster, 3)
        await until_at(cluster, leader, 6)
        assert await put(cluster, leader, "k") is None, "passed on to who leads now, and stored here as well"

    run(scenario)


@pytest.mark.slow
def test_without_room_on_a_majority_writes_are_refused_reads_and_deletions_go_on_and_all_returns(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        leader = await leader_of_topic(cluster)
        first, second = (n for n in cluster.nodes if n != leader)
        await append(cluster, 5)
        assert await put(cluster, leader, "before") is None
        cluster.free_bytes |= {first: LOW, second: LOW}
        room = cluster.nodes[leader].room
        await cluster.until(lambda: len((room.told() or {})["peers"]) == 2, room.told)
        with pytest.raises(DiskNearlyFull, match="nearly full"):
            (await led(cluster)).append(RECORD)
        for number in cluster.nodes:
            error = await put(cluster, number, "refused")
            assert error is not None and (error["status"], error["definite"]) == (503, True)
            assert "nearly full" in error["error"]
            assert (await cluster.ask(number, "GET", "kv/refused"))[0] == 404
        assert (await cluster.ask(first, "DELETE", "kv/before"))[0] == 200
        trimmed = await asyncio.wait_for((await led(cluster)).trim(4), 20)
        assert trimmed.log_start_offset == 4, "what makes room goes through"
        cluster.free_bytes.clear()
        await cluster.until(lambda: not (room.told() or {})["peers"], room.told)
        await append(cluster, 2)
        assert await put(cluster, second, "after") is None
        for number in cluster.nodes:
            await until_at(cluster, number, 7)

    run(scenario)
