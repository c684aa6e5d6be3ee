"""Two processes on loopback, one transport each: messages a second and CPU time a message, both sides.

python benchmarks/transport.py [--seconds 3] [--transport framed,grpc]

With several transports, each case is measured on one after the other, so that a machine's load meets both; the last
lines compare them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Any

from seatrial.env import RealClock, Rng
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import AppendEntries, AppendEntriesResponse, Entry, Message
from seatrial.transport import NodeTransport, make_wire

GROUP = GroupId(1)
CASES = [(64, 1), (64, 16), (65536, 1), (65536, 16)]  # bytes of payload, messages under way


def transport_of(wire: str, node: int, peer: int, bound: socket.socket, address: str) -> NodeTransport:
    peers = {NodeId(peer): address}
    return NodeTransport(
        NodeId(node), "bench", make_wire(wire), listen=bound, peers=peers, clock=RealClock(), rng=Rng(node)
    )


async def follow(wire: str, bound: socket.socket, address: str) -> None:
    """Answer each AppendEntries, until the other side is gone; a TimeoutNow asks for the CPU time used."""
    transport = transport_of(wire, 2, 1, bound, address)

    def received(group: GroupId, message: Message) -> None:
        if isinstance(message, AppendEntries):
            index = Index(message.prev_log_index + 1)
            cpu_us = Term(time.process_time_ns() // 1000)
            answer = AppendEntriesResponse(NodeId(2), NodeId(1), message.term, True, index, Index(0), cpu_us)
            transport.send(group, [answer])

    await transport.start(received)
    await asyncio.Event().wait()


async def lead(wire: str, bound: socket.socket, address: str, seconds: float, case: tuple[int, int]) -> dict[str, Any]:
    transport = transport_of(wire, 1, 2, bound, address)
    answers: asyncio.Queue[AppendEntriesResponse] = asyncio.Queue()

    def received(group: GroupId, message: Message) -> None:
        assert isinstance(message, AppendEntriesResponse)
        on_answer(message)

    on_answer: Callable[[AppendEntriesResponse], None] = answers.put_nowait
    await transport.start(received)
    while not transport.peers()[NodeId(2)].connected:
        await asyncio.sleep(0.01)
    size, under_way = case
    payload = bytes(size)

    def send(index: int) -> None:
        entry = Entry(Term(1), Index(index + 1), 0, payload)
        message = AppendEntries(NodeId(1), NodeId(2), Term(1), Index(index), Term(1), Index(0), [entry])
        transport.send(GROUP, [message])

    send(0)
    cpu_there = (await answers.get()).hint_term
    cpu_here, begin, count = time.process_time_ns(), time.monotonic(), 0
    finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def next_one(message: AppendEntriesResponse) -> None:
        nonlocal count
        count += 1
        if time.monotonic() - begin < seconds:
            send(count)
        elif not finished.done():
            finished.set_result(message.hint_term)

    on_answer = next_one
    for index in range(under_way):
        send(index)
    there = await finished
    elapsed, here = time.monotonic() - begin, (time.process_time_ns() - cpu_here) / 1000
    await transport.close()
    return {
        "transport": wire,
        "payload_bytes": size,
        "under_way": under_way,
        "messages_per_s": round(count / elapsed),
        "megabytes_per_s": round(count * size / elapsed / 1e6, 1),
        "cpu_us_per_message_sender": round(here / count, 1),
        "cpu_us_per_message_receiver": round((there - cpu_there) / count, 1),
    }


def bound_socket() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", 0))
    return made


def address_of(bound: socket.socket) -> str:
    return f"127.0.0.1:{bound.getsockname()[1]}"


def follower(wire: str, bound: socket.socket, address: str) -> None:
    asyncio.run(follow(wire, bound, address))


def measured(wire: str, seconds: float, case: tuple[int, int]) -> dict[str, Any]:
    here, there = bound_socket(), bound_socket()
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    process = context.Process(target=follower, args=(wire, there, address_of(here)), daemon=True)
    process.start()
    try:
        return asyncio.run(lead(wire, here, address_of(there), seconds, case))
    finally:
        process.kill()
        process.join()


def compared(first: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """How many times as much as the first one the other one costs, and how much of its rate it reaches."""
    cpu = [
        sum(float(result[f"cpu_us_per_message_{side}"]) for side in ("sender", "receiver")) for result in (first, other)
    ]
    return {
        "compared": f"{other['transport']} to {first['transport']}",
        "payload_bytes": first["payload_bytes"],
        "under_way": first["under_way"],
        "cpu_ratio": round(cpu[1] / cpu[0], 1),
        "rate_ratio": round(other["messages_per_s"] / first["messages_per_s"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    parser.add_argument("--transport", default="framed,grpc", help="which to measure, separated by commas")
    options = parser.parse_args()
    comparisons = []
    for case in CASES:
        results = [measured(wire, options.seconds, case) for wire in options.transport.split(",")]
        for result in results:
            print(json.dumps(result))
        comparisons += [compared(results[0], other) for other in results[1:]]
    for comparison in comparisons:
        print(json.dumps(comparison))


if __name__ == "__main__":
    main()
