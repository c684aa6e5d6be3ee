"""The leader's memory of its past, and what it says of a follower."""

from __future__ import annotations

from seatrial.server.lag import SAMPLES_MAX, Lag, LagMemory


def test_a_follower_that_has_everything_committed_does_not_lag() -> None:
    memory = LagMemory()
    memory.remember(10, 100, 1_000_000)
    assert memory.of(10, 10, 100, 9_000_000) == Lag(0, 0.0)


def test_lag_is_interpolated_between_two_memories() -> None:
    memory = LagMemory()
    memory.remember(10, 100, 1_000_000)
    memory.remember(20, 200, 2_000_000)
    assert memory.of(15, 20, 200, 3_000_000) == Lag(50, 1.5)


def test_an_idle_stretch_does_not_count_as_lag_time() -> None:
    memory = LagMemory()
    memory.remember(10, 100, 1_000_000)
    memory.remember(10, 100, 50_000_000)
    assert memory.of(10, 11, 101, 50_500_000) == Lag(1, 0.5)


def test_beyond_the_memory_the_lag_is_at_least_what_is_remembered() -> None:
    memory = LagMemory()
    for index in range(SAMPLES_MAX + 5):
        memory.remember(index, index * 10, index * 1_000_000)
    now = SAMPLES_MAX + 5
    assert memory.of(0, now, now * 10, now * 1_000_000) == Lag(now * 10 - 50, float(now - 5))


def test_what_is_lacking_since_the_memory_began_goes_on_ageing_while_nothing_changes() -> None:
    """It was forgotten once: the only sample's time was the latest look, and a follower far behind did not lag."""
    memory = LagMemory()
    for second in range(1, 60):
        memory.remember(20, 200, second * 1_000_000)
    assert memory.of(15, 20, 200, 60_000_000) == Lag(0, 59.0)


def test_what_was_appended_last_ages_from_the_moment_before_it() -> None:
    memory = LagMemory()
    memory.remember(10, 100, 1_000_000)
    memory.remember(10, 100, 5_000_000)
    for second in range(6, 60):
        memory.remember(11, 101, second * 1_000_000)
    assert memory.of(10, 11, 101, 60_000_000) == Lag(1, 55.0)


def test_what_was_forgotten_ages_nothing() -> None:
    """A node that led an hour ago, and leads again, does not take what a follower lacks for an hour old."""
    memory = LagMemory()
    memory.remember(10, 100, 1_000_000)
    memory.forget()
    assert not memory
    assert memory.of(15, 20, 200, 3_600_000_000) == Lag(0, 0.0)
