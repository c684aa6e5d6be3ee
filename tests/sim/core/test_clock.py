"""A host's monotonic clock: what it shows, and what those who read it for every event may add up themselves."""

from __future__ import annotations

import pytest

from seatrial.sim.clocks import HostClock
from seatrial.sim.world import World


def shown_after(world: World, clock: HostClock, duration_us: int) -> int:
    world.run(world.now_us + duration_us)
    return clock.now_us()


def test_a_clock_without_drift_is_the_worlds_time_and_what_it_is_ahead() -> None:
    world = World(1)
    clock = HostClock(world, uptime_us=5_000)
    assert not clock.drifts
    assert shown_after(world, clock, 1_000_000) == world.now_us + clock.ahead_us == 1_005_000


@pytest.mark.parametrize("drift_ppm", [100_000, -100_000])
def test_a_clock_keeps_what_a_drift_that_is_over_made_of_it(drift_ppm: int) -> None:
    world = World(1)
    clock = HostClock(world)
    clock.set_drift(drift_ppm)
    assert clock.drifts
    assert shown_after(world, clock, 1_000_000) == 1_000_000 + drift_ppm
    clock.set_drift(0)
    assert not clock.drifts
    assert shown_after(world, clock, 500_000) == world.now_us + clock.ahead_us == 1_500_000 + drift_ppm


def test_a_clock_that_drifts_from_the_start_says_so() -> None:
    world = World(1)
    clock = HostClock(world, drift_ppm=1_000)
    assert clock.drifts
    assert shown_after(world, clock, 1_000_000) == 1_001_000
