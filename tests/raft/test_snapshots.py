"""Snapshots on their way: chunks lost, repeated, late, of another leader, out of date."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft_network import Host, Network

from seatrial import marks
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    AppendEntriesResponse,
    Configuration,
    InstallSnapshot,
    InstallSnapshotResponse,
    SnapshotMeta,
)

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
COMMANDS = [b"%d" % number for number in range(10)]


def behind(chunk: int = 100, **settings: int) -> Network:
    """Node 1 leads and has compacted what node 3 lacks; node 3 can be reached again, and nothing is under way."""
    network = Network(3, snapshot_chunk_bytes=chunk, **settings)
    leader = network.elect(1)
    network.isolate(3)
    for data in COMMANDS:
        network.propose(data)
    network.deliver()
    leader.make_snapshot()
    network.heal()
    return network


def made(host: Host) -> tuple[SnapshotMeta, bytes]:
    snapshot = host.disk.durable.snapshot
    assert snapshot is not None
    return snapshot.meta, snapshot.data


def beat(network: Network) -> None:
    leader = network[1]
    network.now_us = leader.node.next_deadline()
    leader.node.tick(network.now_us)
    leader.pump()


def sending(network: Network) -> InstallSnapshot:
    """Until the first chunk is under way, which is taken out."""
    for _ in range(5):
        beat(network)
        network.deliver(lambda m: not isinstance(m, InstallSnapshot))
        chunks = network.drop(lambda m: isinstance(m, InstallSnapshot))
        if chunks:
            (chunk,) = chunks
            assert isinstance(chunk, InstallSnapshot)
            return chunk
    raise AssertionError(network[1].node.status())


def chunk_of(
    data: bytes, *, offset: int = 0, total: int = 6, index: int = 5, term: int = 1, sender: NodeId = TWO
) -> InstallSnapshot:
    meta = SnapshotMeta(Index(index), Term(1), Configuration([ONE, TWO, THREE]))
    return InstallSnapshot(sender, ONE, Term(term), meta, offset, total, data)


def answer_to(network: Network, chunk: InstallSnapshot) -> int:
    network.deliver_one(chunk)
    (answer,) = network.drop()
    assert isinstance(answer, InstallSnapshotResponse)
    assert answer.last_included_index == chunk.meta.last_included_index
    return answer.next_offset


@pytest.mark.parametrize("chunk", [1 << 20, 100, 7])
def test_a_snapshot_arrives_whole_whatever_the_size_of_its_chunks(chunk: int) -> None:
    network = behind(chunk)
    network.advance(500_000)
    assert network[3].commands() == COMMANDS
    assert made(network[3]) == made(network[1])
    assert network[1].node.status().peers[THREE].state == "replicate"


@pytest.mark.parametrize("lose", [InstallSnapshot, InstallSnapshotResponse])
def test_what_is_lost_is_sent_again_after_a_heartbeat(lose: type) -> None:
    network = behind()
    network.send([sending(network)])
    for _ in range(40):
        network.deliver(lambda m: not isinstance(m, lose))
        if network[3].commands() == COMMANDS and lose is InstallSnapshot:
            break
        first = next((m for m in network.under_way if isinstance(m, lose)), None)
        if first is not None:
            network.under_way.remove(first)  # every first try is lost …
        beat(network)
        network.deliver(lambda m: not isinstance(m, lose))
        beat(network)
        network.deliver()  # … and the second arrives
    assert network[3].commands() == COMMANDS


def test_a_repeated_chunk_or_answer_does_not_multiply_the_stream() -> None:
    network = behind(chunk=50)
    chunk = sending(network)
    for _ in range(5):
        network.deliver_one(chunk)
    answers = network.drop()
    assert len(answers) == 5
    for answer in answers:
        network.deliver_one(answer)
    assert len([m for m in network.under_way if isinstance(m, InstallSnapshot)]) == 1
    network.deliver()
    assert network[3].commands() == COMMANDS


def test_the_follower_says_which_byte_it_wants_next() -> None:
    network = Network(3)
    assert answer_to(network, chunk_of(b"ab")) == 2
    assert answer_to(network, chunk_of(b"ef", offset=4)) == 2, "a gap"
    assert answer_to(network, chunk_of(b"ab")) == 2, "again"
    assert answer_to(network, chunk_of(b"cd", offset=2)) == 4


def test_chunks_of_different_snapshots_are_never_put_together() -> None:
    network = Network(3)
    assert answer_to(network, chunk_of(b"ab")) == 2
    assert answer_to(network, chunk_of(b"cd", offset=2, index=6)) == 0
    assert answer_to(network, chunk_of(b"ab")) == 2
    assert answer_to(network, chunk_of(b"cd", offset=2, term=2, sender=THREE)) == 0, "another leader's"
    assert answer_to(network, chunk_of(b"ab", total=7, term=2, sender=THREE)) == 2
    assert network[1].node.last_index == 0


def test_a_snapshot_that_is_not_ahead_is_ignored_and_reported_as_installed() -> None:
    network = Network(3)
    network.elect(2)
    for data in COMMANDS:
        network.propose(data)
    network.deliver()
    before = network[1].node.status()
    assert answer_to(network, chunk_of(b"zzzzzz", index=5)) == 6
    assert network[1].node.status() == before


def test_an_installed_snapshot_brings_its_configuration() -> None:
    network = behind()
    configuration = Configuration([ONE, TWO, THREE], (), [NodeId(4)])
    snapshot = network[1].disk.durable.snapshot
    assert snapshot is not None
    snapshot.meta.configuration = configuration
    network.advance(500_000)
    assert network[3].node.configuration == configuration
    network[3].crash()
    network[3].start()
    assert network[3].node.configuration == configuration


def test_a_snapshot_is_acknowledged_only_once_it_is_durable() -> None:
    network = behind(chunk=1 << 20)
    network[3].auto_sync = False
    network.deliver_one(sending(network))
    assert network.drop() == []
    assert network[3].applied_index < 11 and network[3].node.last_applied < 11
    network[3].crash()
    network[3].start()
    assert network[3].applied_index == 0, "nothing of it survived, and nobody was told that it had arrived"
    network[3].auto_sync = True
    network.advance(500_000)
    assert network[3].commands() == COMMANDS


def test_entries_that_follow_a_snapshot_wait_for_it() -> None:
    network = behind(chunk=1 << 20)
    follower = network[3]
    follower.auto_sync = False
    network.deliver_one(sending(network))
    network.propose(b"after")
    network.drop()
    _, data = made(network[1])
    network.deliver_one(InstallSnapshotResponse(THREE, ONE, network[1].node.term, Index(11), len(data)))
    network.deliver()
    assert follower.node.last_index == 12
    assert follower.commands() == []
    follower.sync()
    network.deliver()
    follower.sync()
    assert follower.commands() == [*COMMANDS, b"after"]


def test_a_leader_without_a_usable_snapshot_waits_for_one() -> None:
    marks.taken()
    network = behind()
    disk = network[1].disk
    snapshot, disk.durable.snapshot = disk.durable.snapshot, None
    network.advance(500_000)
    assert network[3].commands() == []
    assert network[1].node.status().peers[THREE].state == "probe"
    assert "no snapshot that helps a follower was there yet" in marks.taken()
    disk.durable.snapshot = snapshot
    network.advance(500_000)
    assert network[3].commands() == COMMANDS


def test_a_peer_that_falls_behind_while_replicating_is_sent_a_snapshot() -> None:
    """Its window is full and everything in it is lost; meanwhile the log is compacted beyond it."""
    network = Network(3, max_inflight_messages=1)
    leader = network.elect(1)
    for data in COMMANDS:
        network.propose(data)
        network.drop(lambda m: m.to == THREE)
        network.deliver()
    assert leader.node.status().peers[THREE].state == "replicate"
    leader.make_snapshot()
    network.advance(500_000)
    assert network[3].commands() == COMMANDS
    assert network[3].node.status().snapshot_index == 11


def test_a_follower_that_catches_up_otherwise_ends_the_sending() -> None:
    network = behind()
    sending(network)
    leader = network[1]
    assert leader.node.status().peers[THREE].state == "snapshot"
    network.deliver_one(
        AppendEntriesResponse(THREE, ONE, leader.node.term, True, leader.node.last_index, Index(0), Term(0))
    )
    assert leader.node.status().peers[THREE].state == "replicate"
    assert leader.node._core.leadership is not None
    assert leader.node._core.leadership.snapshot is None, "its bytes are let go"


@settings(deadline=None)
@given(size=st.integers(0, 40), chunk=st.integers(1, 15), order=st.lists(st.integers(0, 3), max_size=60))
def test_any_order_of_chunks_gives_the_snapshot_or_nothing(size: int, chunk: int, order: list[int]) -> None:
    """Steps of 0: the chunk that is asked for; else: one that is 1 to 3 chunks off."""
    network = Network(3)
    data = bytes(range(size))
    wanted = 0
    host: Host = network[1]
    host._restore = lambda snapshot: None  # type: ignore[method-assign]
    for step in [*order, *[0] * 41]:
        offset = max(0, wanted + step * chunk)
        message = chunk_of(data[offset : offset + chunk], offset=offset, total=size)
        if offset > size:
            continue
        wanted = answer_to(network, message)
        if wanted == size and host.node.commit_index == 5:
            break
    snapshot = host.disk.durable.snapshot
    assert snapshot is not None and snapshot.data == data
