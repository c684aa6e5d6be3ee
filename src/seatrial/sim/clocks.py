"""The clocks of one simulated host: a monotonic one with a rate of its own, and a wall clock that may jump.

Rule: both are functions of the world's time alone; the monotonic one never goes back, whatever is done to it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from seatrial.sim.world import World

MILLION: Final = 1_000_000
# For a reader that is no Python: the world's time since which this rate holds, what the clock showed then, the drift,
# and the wall clock's distance from the monotonic one.
Rate: TypeAlias = tuple[int, int, int, int]
WALL_EPOCH_MS: Final = 1_700_000_000_000  # what the world's clock shows when a run begins


class HostClock:
    """A `seatrial.env.Clock` in a simulated world.

    drift_ppm: how much faster (or slower) than the world's it runs.  wall_offset_us: what the wall clock is off by.
    uptime_us: what the monotonic clock showed when the world began; no machine's shows 0, and programs know that.
    drifts: if not, `now_us` is the world's time and `ahead_us`, and who asks it for every event may add them in place.
    rate: what `now_us` and `wall_us` are made of; another object whenever anything of it changes.
    """

    __slots__ = (
        "_local_us",
        "_since_us",
        "_wall_offset_us",
        "_world",
        "ahead_us",
        "drift_ppm",
        "drifts",
        "rate",
        "uptime_us",
    )

    def __init__(self, world: World, *, drift_ppm: int = 0, wall_offset_us: int = 0, uptime_us: int = 0) -> None:
        self._world = world
        self._since_us = world.now_us
        self._local_us = world.now_us + uptime_us
        self.drift_ppm = drift_ppm
        self.drifts = drift_ppm != 0
        self.ahead_us = uptime_us
        self._wall_offset_us = wall_offset_us
        self.uptime_us = uptime_us
        self._settle()

    def _settle(self) -> None:
        self.rate: Rate = (
            self._since_us,
            self._local_us,
            self.drift_ppm,
            WALL_EPOCH_MS * 1000 - self.uptime_us + self._wall_offset_us,
        )

    @property
    def wall_offset_us(self) -> int:
        return self._wall_offset_us

    @wall_offset_us.setter
    def wall_offset_us(self, offset_us: int) -> None:
        self._wall_offset_us = offset_us
        self._settle()

    def now_us(self) -> int:
        elapsed = self._world.now_us - self._since_us
        return self._local_us + elapsed + elapsed * self.drift_ppm // MILLION

    def wall_ms(self) -> int:
        return WALL_EPOCH_MS + (self.now_us() - self.uptime_us + self.wall_offset_us) // 1000

    def wall_us(self) -> int:
        """As `wall_ms`, in microseconds."""
        return WALL_EPOCH_MS * 1000 + self.now_us() - self.uptime_us + self.wall_offset_us

    def world_time(self, local_us: int) -> int:
        """The world's time, rounded up, at which `now_us` will be at least `local_us`, at today's rate."""
        ahead = local_us - self._local_us
        return self._since_us - (-ahead * MILLION // (MILLION + self.drift_ppm))

    def set_drift(self, drift_ppm: int) -> None:
        """Change the rate from now on; timers that were set by the old one fire early or late, as they do in life."""
        self._local_us = self.now_us()
        self._since_us = self._world.now_us
        self.drift_ppm = drift_ppm
        self.drifts = drift_ppm != 0
        self.ahead_us = self._local_us - self._since_us
        self._settle()

    def jump_wall(self, by_us: int) -> None:
        """Set the wall clock forward, or back if negative."""
        self.wall_offset_us += by_us
