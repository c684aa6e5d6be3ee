"""Nodes that may not talk to others any more: removed ones, and those that lost their data directory."""

from __future__ import annotations

from typing import Any

from seatrial.raft.ids import GroupId, NodeId
from seatrial.transport.handshake import Refusal, Rejected, packed_reject, unpack_reject

GROUP = GroupId(5)


class Refusals(list[tuple[int, Rejected]]):
    """What a transport was told by peers that refuse it."""

    def add(self, peer: NodeId, rejected: Rejected) -> None:
        self.append((peer, rejected))


def test_a_removed_node_is_hung_up_on_and_told_so_when_it_calls_again(nodes: Any) -> None:
    async def scenario() -> None:
        told = Refusals()
        first, second = await nodes.start(1, on_rejected=told.add), await nodes.start(2)
        first.add_peer(NodeId(2), second.address)
        second.add_peer(NodeId(1), first.address)
        await nodes.connected(first, 2)
        second.remove_peer(NodeId(1), for_good=True)
        await nodes.until(lambda: told, "the refusal")
        peer, rejected = told[0]
        assert (peer, rejected.refusal) == (2, Refusal.REMOVED)
        assert "node 1 was removed from cluster 'test'" in str(rejected)
        first.send(GROUP, [nodes.vote(1)])
        await nodes.until(lambda: len(told) > 1, "the next refusal, with the vote behind the HELLO")
        assert nodes.received[2] == []

    nodes.run(scenario())


def test_a_node_that_comes_with_another_directory_is_refused_and_with_its_own_accepted(nodes: Any) -> None:
    async def scenario() -> None:
        told = Refusals()
        second = await nodes.start(2)
        first = await nodes.start(1, {2: second.address}, directory=77, on_rejected=told.add)
        second.add_peer(NodeId(1), first.address, directory=78)
        await nodes.until(lambda: told, "the refusal")
        assert told[0][1].refusal == Refusal.DIRECTORY
        second.add_peer(NodeId(1), first.address, directory=77)
        await nodes.connected(first, 2)

    nodes.run(scenario())


def test_a_connection_of_the_wrong_directory_ends_once_the_right_one_is_known(nodes: Any) -> None:
    async def scenario() -> None:
        told = Refusals()
        second = await nodes.start(2)
        first = await nodes.start(1, {2: second.address}, directory=77, on_rejected=told.add)
        second.add_peer(NodeId(1), first.address)
        await nodes.connected(first, 2)
        second.add_peer(NodeId(1), first.address, directory=78)
        await nodes.until(lambda: told, "the refusal")
        assert not first.peers()[NodeId(2)].connected

    nodes.run(scenario())


def test_a_refusal_of_a_kind_that_is_not_known_here_is_still_readable() -> None:
    body = memoryview(packed_reject(Rejected("because", Refusal.REMOVED)))[8:]
    assert (str(unpack_reject(body)), unpack_reject(body).refusal) == ("because", Refusal.REMOVED)
    assert unpack_reject(memoryview(b"\xffnew")).refusal == Refusal.OTHER
    assert unpack_reject(memoryview(b"")).refusal == Refusal.OTHER
