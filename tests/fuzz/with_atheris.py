"""The same targets, with inputs that a coverage-guided fuzzer makes: `pip install atheris`, then

    python tests/fuzz/with_atheris.py kafka|raft [libFuzzer's options, such as -runs=1000000 or a directory of inputs]

Ends, as libFuzzer does, with a file `crash-…` of the input that did it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import atheris

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "kafka")]

with atheris.instrument_imports(include=["seatrial.kafka", "seatrial.machines", "seatrial.transport"]):
    import raft_frames
    from victim import Victim, framed

RESTS_AFTER = 20_000  # inputs a victim lives for: what it was made to keep goes with it


class Found(Exception):
    """What was wrong with an input."""


class Target:
    """Judges one input after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._victim: Victim | None = None
        self._suffered = 0

    def __call__(self, data: bytes) -> None:
        if self._name == "raft":
            problems = raft_frames.suffer([data])
        else:
            if self._victim is None or self._suffered % RESTS_AFTER == 0:
                self._victim = Victim(self._loop)
            self._suffered += 1
            problems = self._victim.suffer([framed(data)])
        if problems:
            raise Found("; ".join(problems))


if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], Target(sys.argv[1]))
    atheris.Fuzz()
