"""Two hosts on a quiet network, and how to run programs on them."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from seatrial.sim import Network, SimHost, SimNetwork, World, run

sys.path.append(str(Path(__file__).parent))

QUIET = Network(delay_us=(100, 100), tail=0.0, split=0.0)


class Pair:
    """A world with the hosts `a` and `b`."""

    def __init__(self, settings: Network = QUIET, seed: int = 1) -> None:
        self.world = World(seed)
        self.network = SimNetwork(self.world, settings)
        self.a: SimHost = self.network.add_host("a")
        self.b: SimHost = self.network.add_host("b")

    def run(
        self, coroutine: Coroutine[Any, Any, Any], *, on: SimHost | None = None, until_us: int = 300_000_000
    ) -> Any:
        """The coroutine's result; it has to end by that time."""
        task = (on or self.a).spawn(coroutine)
        ended = run(self.world, until_us, until=task)
        assert ended, f"still waiting at {self.world.now_us / 1e6} s"
        return task.result()


@pytest.fixture
def pair() -> Pair:
    return Pair()
