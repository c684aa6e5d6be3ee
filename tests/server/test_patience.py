"""Who is waited for how long, with a clock of our own; and that a listener acts upon it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from test_listener import LARGE_ANSWER, Bench, answer, request

from seatrial import marks
from seatrial.server.listener import ListenerLimits
from seatrial.server.patience import PatienceLimits, Waiting, in_the_way

LIMITS = PatienceLimits(idle_s=600, frame_s=60, waiting_bytes=1000)
RESTING: dict[str, Any] = {"moved": False, "frames": 0, "half_frame": 0, "receives": True, "unsent": 0}


def looked_at(*looks: tuple[float, dict[str, Any]]) -> str | None:
    waiting = Waiting(0.0)
    for now_s, seen in looks:
        waiting.look(now_s, **{**RESTING, **seen})
    return waiting.why_overdue(looks[-1][0], LIMITS)


def test_a_frame_that_gains_a_byte_now_and_then_is_waited_for_once() -> None:
    trickle = [(float(now), {"moved": True, "half_frame": now + 1}) for now in range(1, 61)]
    assert looked_at(*trickle) is None
    assert looked_at(*trickle, (61.0, {"moved": True, "half_frame": 62})) == "a frame that is not whole after 60 s"


@pytest.mark.parametrize(
    "between",
    [
        pytest.param({"frames": 1, "half_frame": 9, "moved": True}, id="it became whole, and this is another one"),
        pytest.param({"half_frame": 9, "receives": False}, id="the node did not read"),
    ],
)
def test_a_frame_is_not_held_to_the_time_of_another_nor_to_the_nodes_own(between: dict[str, Any]) -> None:
    later = {"frames": between.get("frames", 0), "half_frame": 9, "moved": True}
    assert looked_at((1.0, {"half_frame": 9}), (40.0, between), (70.0, later)) is None
    assert looked_at((1.0, {"half_frame": 9}), (70.0, later | {"frames": 0})) is not None


def test_a_connection_on_which_nothing_moves_ends_after_a_long_time() -> None:
    assert looked_at((1.0, {"moved": True}), (600.9, {})) is None
    assert looked_at((1.0, {"moved": True}), (601.0, {})) == "nothing came in 600 s"
    assert looked_at((1.0, {"moved": True}), (300.0, {"moved": True}), (601.0, {})) is None


def test_an_answer_must_be_taken_at_all() -> None:
    held = {"unsent": 5_000}
    assert looked_at((1.0, held), (700.0, held)) == "5000 bytes of answers that were not taken in 600 s"
    assert looked_at((1.0, held), (500.0, {"unsent": 4_000}), (700.0, {"unsent": 4_000})) is None


class One:
    def __init__(self, moved_s: float, held: int) -> None:
        self.waiting = Waiting(moved_s)
        self.waiting.bytes = held


def test_room_is_made_by_those_on_which_nothing_moved_for_longest() -> None:
    fresh, old, oldest, empty = One(9, 800), One(5, 300), One(2, 200), One(0, 0)
    assert in_the_way([fresh, old, oldest, empty], LIMITS) == [oldest, old]
    assert in_the_way([fresh, oldest], LIMITS) == []


# ---- a listener ----------------------------------------------------------------------------------------------------


class Clocked:
    """A bench whose listener has a clock that is moved by hand, and looks when it is told to."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now_s = 1_000.0
        bench.listener.now = lambda: self.now_s

    def pass_and_look(self, seconds: float) -> None:
        self.now_s += seconds
        looking = self.bench.listener._looking
        if looking is not None:
            looking.cancel()
        self.bench.listener._look()

    def reasons(self) -> list[str]:
        return [line["reason"] for line in self.bench.lines if line["event"] == "kafka_connection_closed"]


def run(scenario: Callable[[Clocked], Awaitable[None]], limits: ListenerLimits) -> None:
    async def whole() -> None:
        bench = Bench(limits)
        clocked = Clocked(bench)
        await bench.start()
        try:
            await asyncio.wait_for(scenario(clocked), 20)
        finally:
            await bench.listener.close()

    asyncio.run(whole())


@pytest.mark.parametrize("sent", [2, 50, 40_000])
def test_a_half_frame_costs_its_own_connection_after_its_time(sent: int) -> None:
    async def scenario(clocked: Clocked) -> None:
        bench = clocked.bench
        healthy, asking = await bench.connect()
        reader, writer = await bench.connect()
        writer.write(request(0, bytes(100_000))[:sent])
        await bench.until(lambda: any(connection._moved for connection in bench.listener.clients.open))
        clocked.pass_and_look(1)
        clocked.pass_and_look(59)
        assert clocked.reasons() == []
        marks.taken()
        clocked.pass_and_look(1)
        assert marks.taken() == {"a client was waited for long enough": 1}
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert clocked.reasons() == ["a frame that is not whole after 60 s"]
        asking.write(request(0, b"still here"))
        assert (await answer(healthy))[2:] == b"still here"

    run(scenario, ListenerLimits())


def test_an_idle_client_is_closed_and_one_that_waits_for_its_answer_is_not() -> None:
    async def scenario(clocked: Clocked) -> None:
        bench = clocked.bench
        reader, _ = await bench.connect()
        waiting, writer = await bench.connect()
        writer.write(request(1, b"x"))
        await bench.until(lambda: len(bench.dispatcher.seen) == 1 and len(bench.listener.clients.open) == 2)
        for _ in range(3):
            clocked.pass_and_look(400)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert clocked.reasons() == ["nothing came in 600 s"]
        bench.dispatcher.release(0)
        assert (await answer(waiting))[2:] == b"x"

    run(scenario, ListenerLimits())


def test_answers_that_nobody_takes_are_given_up_where_others_need_the_room() -> None:
    async def scenario(clocked: Clocked) -> None:
        bench = clocked.bench
        stuck = [await bench.connect() for _ in range(3)]
        for number, (_, writer) in enumerate(stuck):
            writer.write(request(5, b"x") * 100)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await bench.until(lambda wanted=number: len(held_by(bench)) > wanted)  # type: ignore[misc]
            clocked.pass_and_look(1)
        assert len(clocked.reasons()) == 1 and "have no room for" in clocked.reasons()[0]
        await bench.until(lambda: len(bench.listener.clients.open) == 2)
        assert list(bench.listener.clients.open) == held_by(bench)

    def held_by(bench: Bench) -> list[Any]:
        full = 20 * LARGE_ANSWER
        return [
            one
            for one in bench.listener.clients.open
            if one._transport is not None and one._transport.get_write_buffer_size() + one._held_bytes > full
        ]

    patience = PatienceLimits(waiting_bytes=15_000_000)
    run(scenario, ListenerLimits(unsent_bytes=5_000_000, patience=patience))


def test_more_clients_than_may_be_are_turned_away_and_counted() -> None:
    async def scenario(clocked: Clocked) -> None:
        bench = clocked.bench
        first, asking = await bench.connect()
        _, leaving = await bench.connect()
        await bench.until(lambda: len(bench.listener.clients.open) == 2)
        for _ in range(3):
            turned_away, _ = await bench.connect()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await turned_away.readexactly(1)
        clocked.pass_and_look(1)
        told = [line for line in bench.lines if line["event"] == "kafka_connections_turned_away"]
        assert [line["count"] for line in told] == [3]
        assert "--max-connections is 2" in told[0]["reason"]
        leaving.close()
        await bench.until(lambda: len(bench.listener.clients.open) == 1)
        later, writer = await bench.connect()
        for reader, there in ((first, asking), (later, writer)):
            there.write(request(0, b"served"))
            assert (await answer(reader))[2:] == b"served"

    run(scenario, ListenerLimits(connections=2))
