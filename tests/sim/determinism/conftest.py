"""Lets the tests of this directory import the programs that stand beside them, and warms one process for them all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seatrial.sim.zygote import Zygote

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    import programs

    with Zygote(programs.echo) as zygote:
        yield zygote
