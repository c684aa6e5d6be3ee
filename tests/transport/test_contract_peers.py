"""Contract of every transport: peers come, go, are not there, restart; clients share connections; replicas register."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from raw_callers import deaf_peer
from wired_nodes import GROUP, terms

from seatrial.env import RealClock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.transport import LinkPool, RaftClient, make_wire


def test_add_and_remove_peers(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        third = await nodes.start(3, {1: first.address})
        await nodes.until(lambda: "not known" in str(third.peers()[NodeId(1)].last_error), "the refusal")
        first.add_peer(NodeId(3), third.address)
        await nodes.connected(first, 3)
        await nodes.connected(third, 1)
        third.send(GROUP, [nodes.vote(5, sender=3, to=1)])
        await nodes.until(lambda: nodes.received[1], "a message of the new peer")
        first.remove_peer(NodeId(3))
        assert sorted(first.peers()) == [2]
        first.send(GROUP, [nodes.vote(6, to=3)])  # dropped
        await nodes.until(lambda: not third.peers()[NodeId(1)].connected, "the other side to notice")
        third.send(GROUP, [nodes.vote(7, sender=3, to=1)])
        second.send(GROUP, [nodes.vote(8, sender=2, to=1)])
        await nodes.until(lambda: len(nodes.received[1]) == 2, "the other peer's message")
        assert terms(nodes.received[1]) == [5, 8]
        assert nodes.received[3] == []

    nodes.run(scenario())


def test_a_peer_that_moved_is_reached_at_its_new_address(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        await second.close()
        moved = await nodes.start(2, {1: first.address})
        first.add_peer(NodeId(2), moved.address)
        await nodes.connected(first, 2)
        first.send(GROUP, [nodes.vote(1)])
        await nodes.until(lambda: nodes.received[2], "a message at the new address")

    nodes.run(scenario())


def test_unreachable_peer_is_reported_and_costs_nothing(nodes: Any) -> None:
    async def scenario() -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # bound and not listening: refused
            address = f"127.0.0.1:{held.getsockname()[1]}"
            first = await nodes.start(1, {2: address})
            for term in range(100):
                first.send(GROUP, [nodes.vote(term)])
            await nodes.until(lambda: first.peers()[NodeId(2)].last_error, "an error")
            status = first.peers()[NodeId(2)]
            assert address in str(status.last_error)
            await nodes.until(lambda: first.peers()[NodeId(2)].messages_dropped >= 100, "the messages to be dropped")
            assert not status.connected

    nodes.run(scenario())


def test_unreachable_peer_holds_nobody_else_up(nodes: Any) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair()
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            first.add_peer(NodeId(3), f"127.0.0.1:{held.getsockname()[1]}")
            for term in range(1, 201):
                first.send(GROUP, [nodes.vote(term), nodes.vote(term, to=3), nodes.append(term, bytes(10_000), to=3)])
                await asyncio.sleep(0)
            await nodes.until(lambda: len(nodes.received[2]) == 200, "all that was for the other one")
            assert terms(nodes.received[2]) == list(range(1, 201))
            dropped = first.peers()[NodeId(3)].messages_dropped
            await nodes.until(lambda: first.peers()[NodeId(3)].messages_dropped == 400, f"more than {dropped} dropped")

    nodes.run(scenario())


def test_reconnect_after_the_peer_restarts(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        address = second.address
        for round_number in range(3):
            await second.close()
            await nodes.until(lambda: not first.peers()[NodeId(2)].connected, "the loss to be noticed")
            assert first.peers()[NodeId(2)].last_error
            second = await nodes.start(2, {1: first.address}, listen=address)
            await nodes.connected(first, 2)
            await nodes.connected(second, 1)
            first.send(GROUP, [nodes.vote(round_number)])
            await nodes.until(lambda: nodes.received[2], "a message")
            assert terms(nodes.received[2]) == [round_number]

    nodes.run(scenario())


def nothing_leaves(node: Any) -> Callable[[], bool]:
    """Whether no byte has left for a while."""
    loop = asyncio.get_running_loop()
    seen, since = -1, loop.time()

    def still() -> bool:
        nonlocal seen, since
        if (sent := node.peers()[NodeId(2)].bytes_sent) != seen:
            seen, since = sent, loop.time()
        return loop.time() - since > 0.3

    return still


@pytest.mark.slow
def test_unreachable_peer_that_accepts_and_reads_nothing_costs_bounded_memory(plain_nodes: Any) -> None:
    async def scenario() -> None:
        nodes = plain_nodes
        deaf = await deaf_peer(nodes)
        first = await nodes.start(1, {2: deaf.address}, queue_bytes_max=1_000_000, dead_after_s=60)
        await nodes.connected(first, 2)
        link = first.client.peer(NodeId(2)).messages
        for index in range(1, 200):  # more than the kernel and the queue will take
            first.send(GROUP, [nodes.append(index, bytes(100_000))])
            await asyncio.sleep(0)
        await nodes.until(nothing_leaves(first), "the buffers on the way to be full")
        dropped, refused_in_a_row = first.peers()[NodeId(2)].messages_dropped, 0
        assert dropped > 50
        while refused_in_a_row < 20:  # and the queue is full again
            first.send(GROUP, [nodes.append(200, bytes(100_000))])
            await asyncio.sleep(0)
            before, dropped = dropped, first.peers()[NodeId(2)].messages_dropped
            refused_in_a_row = refused_in_a_row + 1 if dropped > before else 0
        assert link._held_bytes() <= 1_000_000 + 100_200
        messages = link._pending_messages
        first.send(GROUP, [nodes.vote(1), nodes.append(200, b""), nodes.beat(1)])
        await asyncio.sleep(0)
        assert first.peers()[NodeId(2)].messages_dropped == dropped + 1, "heartbeats and votes still have room"
        assert link._pending_messages == messages + 1
        assert len(link._beats) == 4
        for term in range(40_000):  # but even these are bounded
            first.send(GROUP, [nodes.vote(term)])
        assert link._held_bytes() <= 2_000_100
        assert first.peers()[NodeId(2)].messages_dropped > dropped + 1000

    plain_nodes.run(scenario())


@pytest.mark.slow
def test_a_peer_that_takes_no_bytes_is_given_up_and_dialled_again(plain_nodes: Any) -> None:
    async def scenario() -> None:
        nodes = plain_nodes
        deaf = await deaf_peer(nodes)
        first = await nodes.start(1, {2: deaf.address}, dead_after_s=0.4)
        await nodes.connected(first, 2)
        quiet_until = asyncio.get_running_loop().time() + 1
        await nodes.until(lambda: asyncio.get_running_loop().time() > quiet_until, "a while with nothing to send")
        assert deaf.calls == 1, "with nothing under way, nobody is suspected"

        def again() -> bool:
            first.send(GROUP, [nodes.vote(1)])
            return deaf.calls >= 3

        await nodes.until(again, "two more calls")

    plain_nodes.run(scenario())


async def client_of(nodes: Any, node: int) -> tuple[LinkPool, RaftClient]:
    """A client of its own, without a service; closed at the end."""
    pool = LinkPool(NodeId(node), "test", make_wire(nodes.wire_name, nodes.tls), clock=RealClock(), rng=Rng(node))
    client = RaftClient(pool)
    nodes.finally_(client.close)
    return pool, client


def test_a_client_connects_lazily(nodes: Any) -> None:
    async def scenario() -> None:
        second = await nodes.start(2, {1: "127.0.0.1:1"})
        _, client = await client_of(nodes, 1)
        client.add_peer(NodeId(2), second.address)
        third = await nodes.start(3, {2: second.address})
        second.add_peer(NodeId(3), third.address)
        await nodes.connected(third, 2)
        assert [c.hello.sender for c in second.service.connections if c.hello] == [3], "nobody else has called"
        client.send(GROUP, [nodes.vote(4)])
        await nodes.until(lambda: nodes.received[2], "the message that made it connect")
        await nodes.until(lambda: client.peers()[NodeId(2)].connected, "the answer to its HELLO")
        assert terms(nodes.received[2]) == [4]

    nodes.run(scenario())


def test_clone_shares_the_pool(nodes: Any) -> None:
    async def scenario() -> None:
        second = await nodes.start(2, {1: "127.0.0.1:1"})
        pool, client = await client_of(nodes, 1)
        client.add_peer(NodeId(2), second.address)
        clone = client.clone()
        nodes.finally_(clone.close)
        assert pool.links == 2, "one for messages and one for snapshots, whoever uses them"
        client.send(GROUP, [nodes.vote(1)])
        await nodes.until(lambda: nodes.received[2], "a message of the client")
        clone.send(GROUP, [nodes.vote(2)])
        client.send(GROUP, [nodes.vote(3)])
        await nodes.until(lambda: len(nodes.received[2]) == 3, "messages of both")
        assert terms(nodes.received[2]) == [1, 2, 3], "in order, because it is one connection"
        assert len(second.service.connections) == 1

    nodes.run(scenario())


def test_clone_works_independently(nodes: Any) -> None:
    async def scenario() -> None:
        second, third = await nodes.start(2, {1: "127.0.0.1:1"}), await nodes.start(3, {1: "127.0.0.1:1"})
        pool, client = await client_of(nodes, 1)
        client.add_peer(NodeId(2), second.address)
        clone = client.clone()
        clone.add_peer(NodeId(3), third.address)
        assert (sorted(client.peers()), sorted(clone.peers())) == ([2], [2, 3])
        client.send(GROUP, [nodes.vote(1, to=3)])  # not its peer: dropped
        clone.send(GROUP, [nodes.vote(2, to=3), nodes.vote(3)])
        await nodes.until(lambda: nodes.received[3] and nodes.received[2], "the clone's messages")
        client.remove_peer(NodeId(2))
        await client.close()
        assert pool.links == 4, "the clone still uses them"
        clone.send(GROUP, [nodes.vote(4)])
        await nodes.until(lambda: len(nodes.received[2]) == 2, "a message after the other one was closed")
        assert terms(nodes.received[2]) == [3, 4]
        assert terms(nodes.received[3]) == [2]
        await clone.close()
        assert pool.links == 0, "closed with its last user"
        await nodes.until(lambda: not second.service.connections, "the connection to end")
        await clone.close()  # once more is no error

    nodes.run(scenario())


def test_service_registers_looks_up_and_unregisters_replicas_by_topic_and_partition(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        service = second.service
        got: dict[str, list[int]] = {"orders/0": [], "orders/1": []}
        for partition in (1, 0):
            took = got[f"orders/{partition}"]
            service.register(
                "orders",
                partition,
                GroupId(10 + partition),
                lambda group, message, took=took: took.append(message.term),
            )
        found = service.lookup("orders", 1)
        assert (found.topic, found.partition, found.group) == ("orders", 1, 11)
        assert service.lookup("orders", 2) is None
        assert [(r.topic, r.partition) for r in service.replicas] == [("orders", 0), ("orders", 1)]
        for group, term in ((10, 1), (11, 2), (12, 3), (11, 4)):
            first.send(GroupId(group), [nodes.vote(term)])
        await nodes.until(lambda: len(got["orders/1"]) == 2 and nodes.received[2], "each its own")
        assert got == {"orders/0": [1], "orders/1": [2, 4]}
        assert [(g, m.term) for g, m in nodes.received[2]] == [(12, 3)], "the host gets what nobody registered for"
        service.unregister("orders", 1)
        assert service.lookup("orders", 1) is None
        first.send(GroupId(11), [nodes.vote(5)])
        await nodes.until(lambda: len(nodes.received[2]) == 2, "the host to get it now")
        assert got["orders/1"] == [2, 4]
        service.register("orders", 1, GroupId(11), lambda group, message: None)  # and it may come back

    nodes.run(scenario())


def test_service_refuses_two_replicas_in_one_place(nodes: Any) -> None:
    async def scenario() -> None:
        node = await nodes.start(1)
        service = node.service
        service.register("orders", 0, GroupId(10), lambda group, message: None)
        with pytest.raises(ValueError, match="orders/0 is registered already"):
            service.register("orders", 0, GroupId(11), lambda group, message: None)
        with pytest.raises(ValueError, match="group 10 is registered already"):
            service.register("orders", 1, GroupId(10), lambda group, message: None)
        with pytest.raises(LookupError, match="registered: orders/0"):
            service.unregister("orders", 1)

    nodes.run(scenario())


def test_a_bound_socket_may_be_handed_over(nodes: Any) -> None:
    async def scenario() -> None:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        second = await nodes.start(2, listen=bound)
        assert second.address == address
        first = await nodes.start(1, {2: address})
        second.add_peer(NodeId(1), first.address)
        await nodes.connected(first, 2)

    nodes.run(scenario())


def test_a_port_in_use_is_an_error_at_start(nodes: Any) -> None:
    async def scenario() -> None:
        first = await nodes.start(1)
        with pytest.raises(OSError, match="in use"):
            await nodes.start(2, listen=first.address)

    nodes.run(scenario())
