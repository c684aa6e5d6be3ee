"""A real node and clients that mean it harm, or are thousands: another client is served meanwhile, and memory stays.

What one damaged input does is in tests/fuzz; the pieces are in test_listener, test_patience and
tests/kafka/test_excess.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer
from raw_clients import (
    API_VERSIONS,
    CREATE_TOPICS,
    METADATA,
    Bystander,
    ask,
    close_all,
    connected,
    ended,
    fetch_frame,
    frame,
    names_frame,
    raise_file_limit,
)
from server_processes import HTTP, Server, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

IDLE = 10_000
SLOW = 300
DEADLINE_S = 60.0
MIB = 1 << 20


def against_a_node(root: Path, scenario: Callable[[Server], Awaitable[None]], *options: str) -> Server:
    with servers(root, 1, *options) as cluster:
        node = cluster.nodes[1]
        asyncio.run(asyncio.wait_for(scenario(node), 150))
        assert node.is_running()
        return node


def pid_of(node: Server) -> int:
    assert node.process is not None
    return node.process.pid


def memory_of(node: Server) -> int:
    """Resident bytes."""
    resident: int = psutil.Process(pid_of(node)).memory_info().rss
    return resident


def answered_bytes(node: Server) -> int:
    """In all, whether they were taken or not."""
    text = HTTP.get(f"{node.http}/metrics", timeout=20).text
    (line,) = (line for line in text.splitlines() if line.startswith("seatrial_kafka_sent_bytes_total "))
    return int(float(line.split()[1]))


async def trickle(socks: list[socket.socket], first: bytes) -> None:
    """A byte of each now and then, until it is closed."""
    left = list(socks)
    for sock in left:
        sock.send(first)
    while left:
        await asyncio.sleep(0.1)
        for sock in list(left):
            try:
                sock.send(b"x")
            except BlockingIOError:
                continue
            except OSError:
                left.remove(sock)


def test_slow_clients_hold_no_memory_keep_nobody_waiting_and_are_closed_after_their_time(tmp_path: Path) -> None:
    """Some send a byte of a frame now and then, some declare 100 MB and stop, some stop within the frame's size."""

    async def scenario(node: Server) -> None:
        (warm,) = await connected(node.kafka, 1)
        await ask(warm, frame(API_VERSIONS, 0, b""))
        before = memory_of(node)
        begun = asyncio.get_running_loop().time()
        socks = await connected(node.kafka, 3 * SLOW)
        trickling, large, early = socks[:SLOW], socks[SLOW : 2 * SLOW], socks[2 * SLOW :]
        async with Bystander(node.kafka, pid_of(node)).asking() as bystander:
            slowly = asyncio.ensure_future(trickle(trickling, struct.pack(">i", 1_000_000)))
            for sock in large:
                sock.send(struct.pack(">i", 100_000_000) + bytes(2_000))
            for sock in early:
                sock.send(b"\0\0")
            await asyncio.sleep(0.5)
            grown = memory_of(node) - before
            assert all(await asyncio.wait_for(asyncio.gather(*map(ended, large + early)), DEADLINE_S))
            await asyncio.wait_for(slowly, DEADLINE_S)
        took = asyncio.get_running_loop().time() - begun
        close_all([*socks, warm])
        print(f"{len(socks)} slow clients: {grown / MIB:.1f} MiB, closed after {took:.1f} s")
        assert took >= 1, "each has its time"
        assert grown < 16 * MIB, f"{grown / len(socks):.0f} bytes each"
        assert max(bystander.cpu_seconds) < 0.3
        told = [line["reason"] for line in node.events("kafka_connection_closed")]
        assert told == ["a frame that is not whole after 1 s"] * len(socks)

    against_a_node(tmp_path, scenario, "--request-arrival-max-ms", "1000")


def test_ten_thousand_idle_clients_cost_a_node_little_and_another_is_served(tmp_path: Path) -> None:
    if raise_file_limit(IDLE + 1_000) < IDLE + 1_000:
        pytest.skip(f"this process may not open {IDLE + 1_000} files (ulimit -Hn)")

    async def scenario(node: Server) -> None:
        before = memory_of(node)
        async with Bystander(node.kafka, pid_of(node)).asking() as bystander:
            socks = await connected(node.kafka, IDLE)
            for sock in socks[:: IDLE // 100]:  # they are connections indeed, the last as the first
                await asyncio.wait_for(ask(sock, frame(API_VERSIONS, 0, b"")), DEADLINE_S)
            each, meanwhile = (memory_of(node) - before) / IDLE, max(bystander.cpu_seconds)
            close_all(socks)
        print(
            f"{IDLE} connections: {each:.0f} bytes each; another served in {meanwhile:.3f} s of CPU, "
            f"and in {max(bystander.cpu_seconds):.3f} s when all of them end at once"
        )
        assert each < 8_000
        assert meanwhile < 0.3

    against_a_node(tmp_path, scenario, "--max-connections", str(IDLE + 10))


def test_clients_beyond_the_bound_are_turned_away_and_the_log_says_why(tmp_path: Path) -> None:
    async def scenario(node: Server) -> None:
        socks = await connected(node.kafka, 20)
        for sock in socks:
            await ask(sock, frame(API_VERSIONS, 0, b""))
        more = await connected(node.kafka, 5)
        assert all(await asyncio.wait_for(asyncio.gather(*map(ended, more)), DEADLINE_S))
        await asyncio.wait_for(ask(socks[0], frame(API_VERSIONS, 0, b"")), DEADLINE_S)
        while not node.events("kafka_connections_turned_away"):
            await asyncio.sleep(0.05)
        (told,) = node.events("kafka_connections_turned_away")
        assert told["count"] == 5
        assert told["reason"] == "there are 20 already, and --max-connections is 20"
        close_all(socks + more)

    against_a_node(tmp_path, scenario, "--max-connections", "20")


@pytest.mark.parametrize("api_key", [METADATA, CREATE_TOPICS])
def test_a_hundred_thousand_topics_in_one_request_keep_nobody_waiting(tmp_path: Path, api_key: int) -> None:
    async def scenario(node: Server) -> None:
        before = memory_of(node)
        async with Bystander(node.kafka, pid_of(node)).asking() as bystander:
            for _ in range(5):
                (sock,) = await connected(node.kafka, 1)
                with pytest.raises(ConnectionError):
                    await asyncio.wait_for(ask(sock, names_frame(api_key, 100_000)), DEADLINE_S)
                sock.close()
        grown = memory_of(node) - before
        print(f"another served in {max(bystander.cpu_seconds):.3f} s of CPU; {grown / MIB:.1f} MiB")
        assert max(bystander.cpu_seconds) < 0.2
        assert grown < 32 * MIB
        reasons = [line["reason"] for line in node.events("kafka_connection_closed")]
        assert len(reasons) == 5
        assert all("100000 elements in one array; at most 10000 are served" in reason for reason in reasons)

    against_a_node(tmp_path, scenario)


def test_as_many_topics_as_one_request_may_create_are_answered_within_its_time(tmp_path: Path) -> None:
    """They took over a minute, in which a node looked at all of them for each that came: up to 1.5 s at a time."""

    async def scenario(node: Server) -> None:
        async with Bystander(node.kafka, pid_of(node)).asking() as bystander:
            (sock,) = await connected(node.kafka, 1)
            begun = asyncio.get_running_loop().time()
            answer = await asyncio.wait_for(ask(sock, names_frame(CREATE_TOPICS, 10_000, timeout_ms=2_000)), DEADLINE_S)
            took = asyncio.get_running_loop().time() - begun
            sock.close()
        print(f"answered in {took:.1f} s; another served in {max(bystander.cpu_seconds):.3f} s of CPU")
        assert b"not begun" in answer, "not even a quick machine makes so many in that time"
        assert max(bystander.cpu_seconds) < 0.5

    against_a_node(tmp_path, scenario)


def test_consumers_that_take_no_answers_hold_little_and_the_others_are_served(tmp_path: Path) -> None:
    """Twenty ask for 3 GB together, of records that are no longer in memory, and read nothing of it."""
    consumers, asked, records, size = 20, 200, 120, 800_000

    async def scenario(node: Server) -> None:
        producer = Producer({"bootstrap.servers": node.kafka, "message.max.bytes": 1_000_000})
        for _ in range(records):
            producer.produce("t", bytes(size), partition=0)
        assert await asyncio.to_thread(producer.flush, 30) == 0
        before = memory_of(node)
        async with Bystander(node.kafka, pid_of(node)).asking() as bystander:
            socks = await connected(node.kafka, consumers)
            for number, sock in enumerate(socks):
                sock.send(fetch_frame("t", number, size) * asked)
            while (given := await asyncio.to_thread(answered_bytes, node)) < consumers * 9_000_000:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
            grown, given = memory_of(node) - before, await asyncio.to_thread(answered_bytes, node)
            close_all(socks)
        print(f"{consumers} stuck consumers: {grown / MIB:.0f} MiB of {given / MIB:.0f} that they were given")
        assert given < consumers * 16_000_000, "8 MB each, what the system's own buffers took, and an answer"
        assert grown < consumers * 14 * MIB
        assert max(bystander.cpu_seconds) < 0.5

    against_a_node(tmp_path, scenario, "--auto-create-topics", "--default-replication-factor", "1")
