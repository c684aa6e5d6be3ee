"""Contract of every transport: what is sent arrives, whole and in order, and snapshots stand in nobody's way."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from wired_nodes import GROUP

from seatrial.env import Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.transport.filters import Duplicate, drop, on
from seatrial.transport.handshake import Purpose


def test_two_nodes_pass_messages_of_all_groups_over_real_sockets_in_order(nodes: Any) -> None:
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


def test_snapshots_go_by_a_connection_of_their_own(nodes: Any) -> None:
    async def scenario() -> None:
        first, second = await nodes.pair()
        assert len(second.service.connections) == 1, "dialled only when needed"
        chunks = [nodes.chunk(i * 1_000_000, 1_000_000) for i in range(10)]
        first.send(GROUP, chunks)
        first.send(GROUP, [nodes.beat(3)])
        await nodes.until(lambda: len(nodes.received[2]) == 11, "all of it")
        order = [type(m).__name__ for _, m in nodes.received[2]]
        assert order[0] == "Heartbeat", order
        assert [m.offset for _, m in nodes.received[2][1:]] == [c.offset for c in chunks]
        purposes = sorted(c.hello.purpose for c in second.service.connections if c.hello)
        assert purposes == [Purpose.MESSAGES, Purpose.SNAPSHOTS]

    nodes.run(scenario())


@pytest.mark.slow
def test_a_snapshot_stream_does_not_hold_up_heartbeats(nodes: Any) -> None:
    """As many chunks as the queue takes are under way all the time; beats still arrive within an election timeout."""

    async def scenario() -> None:
        first, _ = await nodes.pair(queue_bytes_max=8_000_000)
        offsets = itertools.count(step=1_000_000)
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for term in range(1, 31):
            first.send(GROUP, [nodes.chunk(next(offsets), 1_000_000) for _ in range(8)])
            first.send(GROUP, [nodes.beat(term)])
            sent = loop.time()
            seen = len(nodes.received[2])

            def arrived(term: int = term, seen: int = seen) -> bool:
                return any(type(m).__name__ == "Heartbeat" and m.term == term for _, m in nodes.received[2][seen:])

            await nodes.until(arrived, f"heartbeat {term}")
            slowest = max(slowest, loop.time() - sent)
        chunks = [m.offset for _, m in nodes.received[2] if type(m).__name__ == "InstallSnapshot"]
        assert len(chunks) > 10  # it streams meanwhile, as fast as the machine lets it
        assert chunks == sorted(chunks)
        assert slowest < 0.3, f"a heartbeat took {slowest:.3f} s"

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


@pytest.mark.slow
def test_a_busy_connection_that_gets_through_is_never_given_up(nodes: Any) -> None:
    async def scenario() -> None:
        first, _ = await nodes.pair(dead_after_s=1)
        loop = asyncio.get_running_loop()
        end, sent = loop.time() + 2, 0
        while loop.time() < end:
            sent += 1
            first.send(GROUP, [nodes.append(sent, bytes(100_000))])
            await nodes.until(lambda most=sent - 5: len(nodes.received[2]) >= most, "most of them")
        assert first.peers()[NodeId(2)].last_error is None
        await nodes.until(lambda: len(nodes.received[2]) == sent, "all of them")

    nodes.run(scenario())
