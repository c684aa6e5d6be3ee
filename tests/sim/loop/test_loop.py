"""The event loop keeps asyncio's order, the host's clock, and everybody inside."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import warnings
from typing import Any

import pytest

from seatrial.sim import EventStorm, SimNetwork, World, run
from seatrial.sim.loop import LOOKAHEAD_US


def test_ready_callbacks_run_first_in_first_out_and_new_ones_in_the_next_turn(pair: Any) -> None:
    seen: list[str] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: (seen.append("first"), loop.call_soon(seen.append, "third")))
        loop.call_soon(seen.append, "second")
        await asyncio.sleep(1)

    pair.run(program())
    assert seen == ["first", "second", "third"]


def test_timers_run_in_their_order_and_equal_ones_as_they_were_set(pair: Any) -> None:
    seen: list[int] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for number, delay in enumerate((3, 1, 2, 1)):
            loop.call_at(now + delay, seen.append, number)
        loop.call_at(now + 1.5, seen.append, 99).cancel()
        await asyncio.sleep(5)

    pair.run(program())
    assert seen == [1, 3, 2, 0]


def test_a_timer_never_fires_early_and_at_most_a_turn_late(pair: Any) -> None:
    late: list[float] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        for step in range(1, 200):
            due = loop.time() + step / 7919
            fired = loop.create_future()
            loop.call_at(due, fired.set_result, None)
            await fired
            late.append(loop.time() - due)

    pair.run(program())
    assert min(late) >= -1e-9
    assert max(late) < 10e-6


def test_an_hour_of_sleep_takes_no_time(pair: Any) -> None:
    began = time.perf_counter()
    pair.run(asyncio.sleep(3600), until_us=4_000_000_000)
    assert pair.world.now_us >= 3_600_000_000
    assert time.perf_counter() - began < 1
    assert pair.world.events < 20


def test_a_fast_clock_makes_timers_fire_early_for_the_world() -> None:
    world = World(1)
    network = SimNetwork(world)
    fast = network.add_host("fast", drift_ppm=100_000)
    run(world, 100_000_000, until=fast.spawn(asyncio.sleep(1.1)))
    assert 1_000_000 <= world.now_us < 1_000_020


def test_the_clock_moves_while_code_runs_so_that_waiting_for_the_rest_ends(pair: Any) -> None:
    """A loop that waits for "what is left" livelocks on a clock that stands still while it computes (aiokafka)."""

    async def linger() -> int:
        loop = asyncio.get_running_loop()
        created, turns = loop.time(), 0
        while (left := created + 0.01 - loop.time()) > 0:
            turns += 1
            await asyncio.sleep(max(left - 1e-13, 0))
        return turns

    assert pair.run(linger()) < 5


@pytest.mark.slow
def test_callbacks_without_end_are_a_storm_and_not_a_hang() -> None:
    world = World(1, events_max=5_000)
    host = SimNetwork(world).add_host("busy")

    def again() -> None:
        host.loop.call_soon(again)

    host.call(again)
    with pytest.raises(EventStorm):
        run(world, 60_000_000)


def test_a_busy_host_does_not_hold_up_another(pair: Any) -> None:
    """It runs ahead by less than any delay between hosts; then the others have their turn."""

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    ahead: list[int] = []

    async def watch() -> None:
        for _ in range(100):
            await asyncio.sleep(0.0001)
            ahead.append(pair.world.now_us)

    pair.a.spawn(spin())
    pair.run(watch(), on=pair.b)
    assert pair.world.now_us < 12_000
    assert all(later - earlier < 100 + LOOKAHEAD_US + 10 for earlier, later in itertools.pairwise(ahead))


def test_an_executor_runs_on_the_loop_after_a_while_without_a_thread(pair: Any) -> None:
    async def program() -> tuple[float, str]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await asyncio.to_thread(lambda: "done")
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 / 0)
        return loop.time() - began, result

    took_s, result = pair.run(program())
    assert result == "done"
    assert 0.0001 <= took_s < 0.005


def test_a_crash_runs_no_finally(pair: Any) -> None:
    said: list[str] = []

    async def program() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            said.append("goodbye")

    async def generator() -> Any:
        try:
            yield 1
            yield 2
        finally:
            said.append("goodbye from a generator")

    async def consume() -> None:
        async for _ in generator():
            await asyncio.sleep(100)

    pair.a.spawn(program())
    pair.a.spawn(consume())
    run(pair.world, 1_000_000)
    pair.a.crash(power=False)
    gc.collect()
    run(pair.world, 200_000_000)
    assert said == []


def test_a_crash_before_a_program_begins_leaves_nobody_to_complain_of_it() -> None:
    """A node that was started and crashed at one instant was told of as "never awaited" when the world was freed."""
    world = World(1)
    network = SimNetwork(world)
    host = network.add_host("a")
    said: list[str] = []

    async def program() -> None:
        said.append("begun")

    host.spawn(program())
    host.crash(power=False)
    run(world, 1_000_000)
    host.boot()
    host.spawn(program())
    run(world, 2_000_000)
    assert said == ["begun"]
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        del host, network, world
        gc.collect()
    assert [str(complaint.message) for complaint in complaints if "awaited" in str(complaint.message)] == []


def test_a_host_starts_again_with_nothing_of_its_earlier_life(pair: Any) -> None:
    seen: list[str] = []

    async def program(life: str) -> None:
        while True:
            await asyncio.sleep(1)
            seen.append(life)

    pair.a.spawn(program("first"))
    run(pair.world, 2_500_000)
    pair.a.crash(power=True)
    run(pair.world, 5_000_000)
    pair.a.boot()
    pair.a.spawn(program("second"))
    run(pair.world, 6_500_000)
    assert seen == ["first", "first", "second"]
    assert pair.a.incarnation == 2


def test_a_paused_host_stands_still_while_its_clock_does_not(pair: Any) -> None:
    async def program() -> list[float]:
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(4):
            times.append(loop.time())
            await asyncio.sleep(1)
        return times

    pair.world.at(1_500_000, lambda _: pair.a.pause())
    pair.world.at(4_500_000, lambda _: pair.a.resume())
    times = pair.run(program())
    assert [round(later - earlier, 1) for earlier, later in itertools.pairwise(times)] == [1.0, 3.5, 1.0]


def test_a_program_that_exits_ends_its_host_alone(pair: Any) -> None:
    async def program() -> None:
        raise SystemExit(3)

    async def other() -> None:
        await asyncio.sleep(1)

    pair.a.spawn(program())
    pair.run(other(), on=pair.b)
    assert not pair.a.is_up
    assert pair.a.exit_code == 3


def test_many_cancelled_timers_are_swept_away(pair: Any) -> None:
    async def program() -> int:
        loop = asyncio.get_running_loop()
        for _ in range(10_000):
            loop.call_later(1000, print).cancel()
        return len(loop._timers)  # type: ignore[attr-defined]

    assert pair.run(program()) < 300


def test_what_blocks_a_host_takes_its_time(pair: Any) -> None:
    async def program() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        pair.a.charge(30_000)
        return loop.time() - began

    assert pair.run(program()) == pytest.approx(0.03)


def test_an_error_nobody_caught_is_noted(pair: Any) -> None:
    async def program() -> None:
        raise ValueError("wrong")

    pair.a.spawn(program())
    run(pair.world, 1_000_000)
    assert [str(error) for error in pair.network.failures] == ["wrong"]
