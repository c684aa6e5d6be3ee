"""Two nodes and their connections over real loopback sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from seatrial.env import Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Configuration, InstallSnapshot, SnapshotMeta
from seatrial.transport import parse_address
from seatrial.transport.codec import FRAME_HEADER, HELLO, PING, REJECT, WELCOME, encode_message, pack_frame
from seatrial.transport.filters import Duplicate, drop, on
from seatrial.transport.handshake import Hello, Purpose

GROUP = GroupId(5)


def hello(sender: int = 1, to: int = 2, cluster: str = "test", purpose: Purpose = Purpose.MESSAGES) -> bytes:
    return Hello(sender=NodeId(sender), to=NodeId(to), cluster_id=cluster, purpose=purpose).packed()


def frame_of(message: Any) -> bytes:
    buffers: list[Any] = []
    encode_message(GROUP, message, buffers)
    return b"".join(buffers)


def terms(received: list[tuple[int, Any]]) -> list[int]:
    return [message.term for _, message in received]


async def raw(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*parse_address(address))


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length, kind = FRAME_HEADER.unpack(await asyncio.wait_for(reader.readexactly(8), 5))
    return kind, await asyncio.wait_for(reader.readexactly(length), 5)


async def ends(reader: asyncio.StreamReader) -> None:
    """The other side closes or resets the connection."""
    try:
        while await asyncio.wait_for(reader.read(1 << 16), 10):
            pass
    except ConnectionError:
        pass


def test_messages_of_all_groups_arrive_both_ways_in_order(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        for term in range(1, 101):
            first.send(GroupId(term % 3), [nodes.vote(term)])
        second.send(GROUP, [nodes.vote(7, sender=2, to=1), nodes.beat(8, sender=2, to=1)])
        await nodes.until(lambda: len(nodes.received[2]) == 100 and len(nodes.received[1]) == 2, "all messages")
        assert [(g, m.term) for g, m in nodes.received[2]] == [(t % 3, t) for t in range(1, 101)]
        assert {(m.sender, m.to) for _, m in nodes.received[2]} == {(1, 2)}
        status = first.peers()[NodeId(2)]
        assert status.bytes_sent > 0
        assert status.bytes_received > 0
        assert status.last_received_us is not None
        assert (status.messages_dropped, status.last_error) == (0, None)

    nodes.run(scenario())


@pytest.mark.parametrize("size", [0, 1, 16_000, 16_384, 65_535, 65_536, 65_537, 5_000_000])
def test_entries_of_any_size_arrive_whole(nodes: Any, size: int) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair()
        data = bytes(range(256)) * (size // 256 + 2)
        first.send(GROUP, [nodes.append(i, data[i : i + size]) for i in range(1, 4)])
        first.send(GROUP, [nodes.vote(9)])
        await nodes.until(lambda: len(nodes.received[2]) == 4, "three appends and a vote")
        assert [m.entries[0].data for _, m in nodes.received[2][:3]] == [data[i : i + size] for i in range(1, 4)]

    nodes.run(scenario())


@pytest.mark.slow
def test_frames_split_at_every_byte_arrive_whole(nodes: Any) -> None:
    """Each split of the stream in two, and the stream in single bytes."""

    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        stream = hello() + frame_of(nodes.vote(1)) + frame_of(nodes.append(3, b"x" * 40)) + frame_of(nodes.beat(2))
        splits = [[stream[:at], stream[at:]] for at in range(1, len(stream))]
        for parts in [*splits, [stream[i : i + 1] for i in range(len(stream))]]:
            nodes.received[2].clear()
            _, writer = await raw(target.address)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            await nodes.until(lambda: len(nodes.received[2]) == 3, "three messages")
            assert terms(nodes.received[2]) == [1, 1, 2]
            writer.close()

    nodes.run(scenario())


def test_connections_have_no_delay(nodes: Any) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair()
        connection = first._peers[NodeId(2)].messages._connection.transport
        option = connection.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option == 1

    nodes.run(scenario())


def test_a_peer_that_restarts_is_connected_again(nodes: Any) -> None:
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


def test_a_peer_that_was_never_there_is_reported_and_costs_nothing(nodes: Any) -> None:
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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "other"}, "node 1 belongs to cluster 'other'; this is cluster 'test'"),
        ({"node": 3}, "node 3 is not known to node 2"),
        ({"calls": 9}, "node 1 looks for node 9; this is node 2"),
    ],
)
def test_a_stranger_is_refused_with_the_reason(nodes: Any, options: dict[str, Any], words: str) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        calls = options.get("calls", 2)
        stranger = await nodes.start(options.get("node", 1), {calls: target.address}, options.get("cluster", "test"))
        stranger.send(GROUP, [nodes.vote(1, to=calls)])
        await nodes.until(lambda: words in str(stranger.peers()[NodeId(calls)].last_error), "the reason")
        assert not stranger.peers()[NodeId(calls)].connected
        assert nodes.received[2] == []
        assert target.refusals["rejected"] >= 1
        assert any(words in report for report in nodes.reports)

    nodes.run(scenario())


def test_another_protocol_version_is_refused(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"})
        reader, writer = await raw(target.address)
        newer = bytearray(hello())
        newer[8 + 8] = 99
        writer.write(bytes(newer))
        kind, reason = await answer(reader)
        assert kind == REJECT
        assert b"version 99" in reason
        writer.close()

    nodes.run(scenario())


@pytest.mark.slow
def test_a_rejected_caller_that_does_not_hang_up_is_cut_off(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"}, dead_after_s=0.3)
        reader, writer = await raw(target.address)
        writer.write(hello(cluster="other") + frame_of(nodes.vote(1)))
        assert (await answer(reader))[0] == REJECT
        await ends(reader)
        assert nodes.received[2] == []
        writer.close()

    nodes.run(scenario())


@pytest.mark.slow
def test_a_caller_that_says_nothing_is_cut_off(nodes: Any) -> None:
    async def scenario() -> None:
        target = await nodes.start(2, {1: "127.0.0.1:1"}, dead_after_s=0.3)
        reader, writer = await raw(target.address)
        writer.write(hello()[:-1])
        await ends(reader)
        writer.close()

    nodes.run(scenario())


GARBAGE = {
    "no hello": (b"", frame_of),
    "http": (b"GET / HTTP/1.1\r\n\r\n", None),
    "a second hello": (hello() + hello(), None),
    "an unknown kind": (hello() + pack_frame(200, b"abc"), None),
    "a nonzero reserved byte": (hello() + b"\0\0\0\0\x20\0\0\x01", None),
    "a broken body": (hello() + pack_frame(32, b"abc"), None),
    "hello of another magic": (pack_frame(HELLO, b"Seatrail" + bytes(30)), None),
    "a welcome": (pack_frame(WELCOME, b""), None),
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_garbage_closes_that_connection_only(nodes: Any, name: str) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        second.add_peer(NodeId(3), "127.0.0.1:1")
        sent = GARBAGE[name][0] or frame_of(nodes.vote(1))
        reader, writer = await raw(second.address)
        writer.write(sent.replace(hello(), hello(sender=3)))
        await ends(reader)
        writer.close()
        assert second.refusals["malformed"] == 1
        first.send(GROUP, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the other connection to go on")
        assert terms(nodes.received[2]) == [42]
        assert first.peers()[NodeId(2)].last_error is None

    nodes.run(scenario())


def test_an_oversized_frame_closes_that_connection_only_and_is_counted(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair(max_frame_bytes=1000)
        second.add_peer(NodeId(3), "127.0.0.1:1")
        reader, writer = await raw(second.address)
        writer.write(hello(sender=3) + FRAME_HEADER.pack(1001, 16))
        await ends(reader)
        writer.close()
        assert second.refusals == {"oversized": 1}
        # And this side never sends one.
        first.send(GROUP, [nodes.append(1, bytes(2000)), nodes.append(2, bytes(500))])
        await nodes.until(lambda: nodes.received[2], "the smaller one")
        assert [m.entries[0].index for _, m in nodes.received[2]] == [2]
        status = first.peers()[NodeId(2)]
        assert status.messages_dropped == 1
        assert "AppendEntries" in str(status.last_error)

    nodes.run(scenario())


def test_half_a_frame_is_never_delivered(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        second.add_peer(NodeId(3), "127.0.0.1:1")
        for at in (3, 8, 20, 50_000):
            _, writer = await raw(second.address)
            writer.write(hello(sender=3) + frame_of(nodes.append(1, bytes(100_000)))[:at])
            await writer.drain()
            writer.close()
        first.send(GROUP, [nodes.vote(42)])
        await nodes.until(lambda: nodes.received[2], "the whole one")
        assert terms(nodes.received[2]) == [42]

    nodes.run(scenario())


async def deaf_peer() -> tuple[asyncio.Server, list[asyncio.StreamWriter], str]:
    """Welcomes whoever calls, then reads nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(pack_frame(WELCOME, b""))

    server = await asyncio.start_server(called, "127.0.0.1", 0)
    return server, writers, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.slow
def test_a_full_queue_drops_appends_and_keeps_votes(nodes: Any) -> None:
    async def scenario() -> None:
        server, writers, address = await deaf_peer()
        first = await nodes.start(1, {2: address}, send_queue_bytes=1_000_000, dead_after_s=60)
        await nodes.connected(first, 2)
        link = first._peers[NodeId(2)].messages
        for index in range(1, 200):  # more than the kernel and the queue will take
            first.send(GROUP, [nodes.append(index, bytes(100_000))])
            await asyncio.sleep(0)
        dropped = first.peers()[NodeId(2)].messages_dropped
        assert dropped > 50
        held = link._pending_bytes + link._in_transport()
        assert held <= 1_000_000 + 100_200
        messages = link._pending_messages
        first.send(GROUP, [nodes.vote(1), nodes.append(200, b""), nodes.beat(1)])
        await asyncio.sleep(0)
        assert first.peers()[NodeId(2)].messages_dropped == dropped + 1
        assert link._pending_messages == messages + 1
        assert len(link._beats) == 4
        for term in range(40_000):  # but even these are bounded
            first.send(GROUP, [nodes.vote(term)])
        assert link._pending_bytes + link._in_transport() <= 2_000_100
        assert first.peers()[NodeId(2)].messages_dropped > dropped + 1000
        server.close()
        for writer in writers:
            writer.transport.abort()

    nodes.run(scenario())


@pytest.mark.slow
def test_a_peer_that_takes_no_bytes_is_given_up_and_dialled_again(nodes: Any) -> None:
    async def scenario() -> None:
        server, writers, address = await deaf_peer()
        first = await nodes.start(1, {2: address}, dead_after_s=0.4)
        await nodes.connected(first, 2)
        await asyncio.sleep(1)
        assert len(writers) == 1, "with nothing under way, nobody is suspected"

        def again() -> bool:
            first.send(GROUP, [nodes.vote(1)])
            return len(writers) >= 3

        await nodes.until(again, "two more calls")
        server.close()
        for writer in writers:
            writer.transport.abort()

    nodes.run(scenario())


@pytest.mark.slow
def test_a_busy_connection_that_gets_through_is_never_given_up(nodes: Any) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair(dead_after_s=2)
        loop = asyncio.get_running_loop()
        end, sent, arrived = loop.time() + 5, 0, 0

        def taken() -> int:
            """How many have arrived; they are not kept, for together they are most of a gigabyte."""
            nonlocal arrived
            arrived += len(nodes.received[2])
            nodes.received[2].clear()
            return arrived

        while loop.time() < end:
            sent += 1
            first.send(GROUP, [nodes.append(sent, bytes(100_000))])
            await nodes.until(lambda most=sent - 5: taken() >= most, "most of them")
        assert first.peers()[NodeId(2)].last_error is None
        await nodes.until(lambda: taken() == sent, "all of them")

    nodes.run(scenario())


def chunk(offset: int, size: int) -> InstallSnapshot:
    meta = SnapshotMeta(9, 1, Configuration([1, 2]))  # type: ignore[arg-type, list-item]
    return InstallSnapshot(NodeId(1), NodeId(2), 1, meta, offset, 100 * size, bytes(size))  # type: ignore[arg-type]


def test_snapshots_go_by_a_connection_of_their_own(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        assert len(second._connections) == 1, "dialled only when needed"
        chunks = [chunk(i * 1_000_000, 1_000_000) for i in range(10)]
        first.send(GROUP, chunks)
        first.send(GROUP, [nodes.beat(3)])
        await nodes.until(lambda: len(nodes.received[2]) == 11, "all of it")
        order = [type(m).__name__ for _, m in nodes.received[2]]
        assert order[0] == "Heartbeat", order
        assert [m.offset for _, m in nodes.received[2][1:]] == [c.offset for c in chunks]
        purposes = sorted(c.hello.purpose for c in second._connections if c.hello)
        assert purposes == [Purpose.MESSAGES, Purpose.SNAPSHOTS]

    nodes.run(scenario())


def test_peers_come_and_go(nodes: Any) -> None:
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


def test_what_was_sent_before_close_still_leaves(nodes: Any) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair()
        first.send(GROUP, [nodes.vote(1)])
        await first.close()
        await nodes.until(lambda: nodes.received[2], "the last message")

    nodes.run(scenario())


def test_filters_of_both_sides_act_on_one_message(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        first.filters.attach(drop(count=1))
        second.filters.attach(on(Duplicate(1.0, Rng(1)), side="receive"))
        first.send(GROUP, [nodes.vote(1), nodes.vote(2)])
        await nodes.until(lambda: nodes.received[2], "what passed")
        assert [(g, m.term) for g, m in nodes.received[2]] == [(GROUP, 2), (GROUP, 2)]

    nodes.run(scenario())


def test_a_listening_socket_may_be_handed_over(nodes: Any) -> None:
    async def scenario() -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        target = await nodes.start(2, {1: "127.0.0.1:1"}, listen=listening)
        reader, writer = await raw(target.address)
        writer.write(hello() + pack_frame(PING, b""))
        assert (await answer(reader))[0] == WELCOME
        writer.close()

    nodes.run(scenario())


def test_a_port_in_use_is_an_error_at_start(nodes: Any) -> None:
    async def scenario() -> None:
        first = await nodes.start(1)
        with pytest.raises(OSError, match="in use"):
            await nodes.start(2, listen=first.address)

    nodes.run(scenario())


@pytest.mark.parametrize("address", ["", "host", "host:", ":7001", "host:x", "host:70000", "::1:7001", "h:-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        parse_address(address)


def test_addresses_of_both_families_are_understood() -> None:
    assert parse_address("127.0.0.1:7001") == ("127.0.0.1", 7001)
    assert parse_address("node-1.local:0") == ("node-1.local", 0)
    assert parse_address("[::1]:7001") == ("::1", 7001)
