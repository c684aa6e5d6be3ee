"""Two processes on loopback, one transport each: messages a second and CPU time a message, both sides.

python benchmarks/transport.py [--seconds 3]
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
from seatrial.transport import FramedTransport

GROUP = GroupId(1)
CASES = [(64, 1), (64, 16), (65536, 1), (65536, 16)]  # bytes of payload, messages under way


def transport_of(node: int, peer: int, listening: socket.socket, address: str) -> FramedTransport:
    peers = {NodeId(peer): address}
    return FramedTransport(NodeId(node), "bench", listen=listening, peers=peers, clock=RealClock(), rng=Rng(node))


async def follow(listening: socket.socket, address: str) -> None:
    """Answer each AppendEntries, until the other side is gone; a TimeoutNow asks for the CPU time used."""
    transport = transport_of(2, 1, listening, address)

    def received(group: GroupId, message: Message) -> None:
        if isinstance(message, AppendEntries):
            index = Index(message.prev_log_index + 1)
            cpu_us = Term(time.process_time_ns() // 1000)
            answer = AppendEntriesResponse(NodeId(2), NodeId(1), message.term, True, index, Index(0), cpu_us)
            transport.send(group, [answer])

    await transport.start(received)
    await asyncio.Event().wait()


async def lead(listening: socket.socket, address: str, seconds: float) -> list[dict[str, Any]]:
    transport = transport_of(1, 2, listening, address)
    answers: asyncio.Queue[AppendEntriesResponse] = asyncio.Queue()

    def received(group: GroupId, message: Message) -> None:
        assert isinstance(message, AppendEntriesResponse)
        on_answer(message)

    on_answer: Callable[[AppendEntriesResponse], None] = answers.put_nowait
    await transport.start(received)
    while not transport.peers()[NodeId(2)].connected:
        await asyncio.sleep(0.01)

    def send(index: int, payload: bytes) -> None:
        entry = Entry(Term(1), Index(index + 1), 0, payload)
        message = AppendEntries(NodeId(1), NodeId(2), Term(1), Index(index), Term(1), Index(0), [entry])
        transport.send(GROUP, [message])

    results = []
    for size, under_way in CASES:
        payload = bytes(size)
        send(0, payload)
        cpu_there = (await answers.get()).hint_term
        cpu_here, begin, count = time.process_time_ns(), time.monotonic(), 0
        finished = asyncio.get_running_loop().create_future()

        def next_one(
            message: AppendEntriesResponse,
            payload: bytes = payload,
            finished: asyncio.Future[int] = finished,
            begin: float = begin,
        ) -> None:
            nonlocal count
            count += 1
            if time.monotonic() - begin < seconds:
                send(count, payload)
            elif not finished.done():
                finished.set_result(message.hint_term)

        on_answer = next_one
        for index in range(under_way):
            send(index, payload)
        there = await finished
        elapsed, here = time.monotonic() - begin, (time.process_time_ns() - cpu_here) / 1000
        results.append(
            {
                "payload_bytes": size,
                "under_way": under_way,
                "messages_per_s": round(count / elapsed),
                "megabytes_per_s": round(count * size / elapsed / 1e6, 1),
                "cpu_us_per_message_sender": round(here / count, 1),
                "cpu_us_per_message_receiver": round((there - cpu_there) / count, 1),
            }
        )
        await asyncio.sleep(0.2)  # the answers that are still under way
        on_answer = answers.put_nowait
    await transport.close()
    return results


def listening_socket() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


def address_of(listening: socket.socket) -> str:
    return f"127.0.0.1:{listening.getsockname()[1]}"


def follower(listening: socket.socket, address: str) -> None:
    asyncio.run(follow(listening, address))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    seconds = parser.parse_args().seconds
    here, there = listening_socket(), listening_socket()
    process = multiprocessing.get_context("fork").Process(target=follower, args=(there, address_of(here)), daemon=True)
    process.start()
    try:
        for result in asyncio.run(lead(here, address_of(there), seconds)):
            print(json.dumps(result))
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    main()
