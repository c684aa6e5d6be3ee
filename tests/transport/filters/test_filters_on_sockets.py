"""Filters in the transport of real nodes: two of them, over loopback."""

from __future__ import annotations

import asyncio
from typing import Any

from seatrial.env import RealClock, Rng
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Configuration, Heartbeat, InstallSnapshot, InstallSnapshotResponse, SnapshotMeta
from seatrial.transport import FramedWire, NodeTransport
from seatrial.transport.filters import DropSnapshotsReportSuccess, delay, drop, hold, on

GROUP = GroupId(5)


def beat(term: int) -> Heartbeat:
    return Heartbeat(NodeId(1), NodeId(2), term, 0, 1)  # type: ignore[arg-type]


class Pair:
    """Two connected nodes and the terms of what each got."""

    def __init__(self) -> None:
        self.got: dict[int, list[Any]] = {1: [], 2: []}

    async def __aenter__(self) -> Pair:
        self.first, self.second = [
            NodeTransport(
                NodeId(n),
                "test",
                FramedWire(),
                listen="127.0.0.1:0",
                peers={},
                clock=RealClock(),
                rng=Rng(n),
                report=lambda text: None,
            )
            for n in (1, 2)
        ]
        await self.first.start(lambda group, message: self.got[1].append(message))
        await self.second.start(lambda group, message: self.got[2].append(message))
        self.first.add_peer(NodeId(2), self.second.address)
        self.second.add_peer(NodeId(1), self.first.address)
        await self.until(lambda: self.first.peers()[NodeId(2)].connected, "connected")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self.first.close(), self.second.close())

    async def until(self, condition: Any, what: str) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: not within 10 s; got {self.got}"
            await asyncio.sleep(0.002)

    def terms(self) -> list[int]:
        return [message.term for message in self.got[2]]


def test_a_filter_on_the_sending_side_drops_before_the_wire() -> None:
    async def scenario() -> None:
        async with Pair() as pair:
            active = pair.first.filters.attach(drop(Heartbeat, to=2, count=2))
            for term in (1, 2, 3):
                pair.first.send(GROUP, [beat(term)])
            await pair.until(lambda: 3 in pair.terms(), "the third")
            assert pair.terms() == [3]
            assert active.counters["dropped"] == 2

    asyncio.run(scenario())


def test_a_filter_on_the_receiving_side_holds_until_it_is_removed() -> None:
    async def scenario() -> None:
        async with Pair() as pair:
            active = pair.second.filters.attach(hold(Heartbeat, side="receive"))
            pair.first.send(GROUP, [beat(1), beat(2)])
            await pair.until(lambda: len(active.held) == 2, "both held")
            assert pair.terms() == []
            active.remove()
            assert pair.terms() == [1, 2]

    asyncio.run(scenario())


def test_a_delayed_message_arrives_behind_a_later_one() -> None:
    async def scenario() -> None:
        async with Pair() as pair:
            active = pair.first.filters.attach(delay(100_000))
            pair.first.send(GROUP, [beat(1)])
            active.remove()
            pair.first.send(GROUP, [beat(2)])
            await pair.until(lambda: len(pair.terms()) == 2, "both")
            assert pair.terms() == [2, 1]

    asyncio.run(scenario())


def test_an_answer_that_a_filter_makes_up_reaches_the_sender_itself() -> None:
    async def scenario() -> None:
        async with Pair() as pair:
            pair.first.filters.attach(on(DropSnapshotsReportSuccess()))
            meta = SnapshotMeta(9, 1, Configuration([NodeId(1)]))  # type: ignore[arg-type]
            chunk = InstallSnapshot(NodeId(1), NodeId(2), 1, meta, 0, 4, b"data")  # type: ignore[arg-type]
            pair.first.send(GROUP, [chunk])
            await pair.until(lambda: pair.got[1], "the answer")
            (answer,) = pair.got[1]
            assert isinstance(answer, InstallSnapshotResponse) and answer.sender == 2
            assert pair.got[2] == []

    asyncio.run(scenario())


def test_what_was_delayed_goes_nowhere_once_the_transport_is_closed() -> None:
    async def scenario() -> None:
        async with Pair() as pair:
            pair.second.filters.attach(delay(50_000, side="receive"))
            seen = pair.second.filters.active()[0]
            pair.first.send(GROUP, [beat(1)])
            await pair.until(lambda: seen.counters["delayed"], "delayed")
            await pair.second.close()
            passed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.1, passed.set_result, None)
            await passed
            assert pair.terms() == []

    asyncio.run(scenario())
