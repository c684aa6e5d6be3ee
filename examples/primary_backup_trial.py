"""Finds the bug in `primary_backup.py`: many seeds, one replayed exactly, and its plan of faults made small.

    python examples/primary_backup_trial.py

A plan of faults is data, drawn from the seed; so it can be cut down, item by item, while the seed stays the same.
"""

import asyncio
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from primary_backup import Node, ask_either, request

from seatrial.env import Rng
from seatrial.sim import SimNetwork, simulate
from seatrial.sim.shrink import shrink_list
from seatrial.sim.zygote import Died, Zygote, map_forked

NODES = ("alice", "bob")  # alice is the primary
KINDS = ("pause", "cut", "delay")


class Fault(NamedTuple):
    """What happens when (seconds), for how long, to a node; a cut or a delay hits its link to the other node."""

    at: float
    kind: str
    node: str
    duration: float


class Try(NamedTuple):
    """One run: the seed decides everything that the faults do not.  careful: with the bug mended."""

    seed: int
    faults: tuple[Fault, ...]
    careful: bool = False


def draw(seed: int) -> Try:
    rng = Rng(seed).child("faults")
    times = sorted(rng.uniform(0, 4) for _ in range(6))
    return Try(seed, tuple(Fault(at, rng.choice(KINDS), rng.choice(NODES), rng.uniform(0.1, 2)) for at in times))


class Careful(Node):
    """Says "ok" only when the backup did: it can do without the backup, or without losing writes, and not both."""

    async def answer(self, line: list[str]) -> str:
        if line[0] == "put" and self.backup is not None:
            await request(self.backup, " ".join(line), patience=0.2)
        return await super().answer(line)


def lost(run: Try) -> str | None:
    """What was lost, in a sentence; None if nothing was."""

    async def main(network: SimNetwork) -> str | None:
        for name in NODES:
            node = (Careful if run.careful else Node)(backup="bob" if name == "alice" else None)
            network.add_host(name).spawn(node.serve())
        client = network.add_host("client")
        faults = asyncio.gather(*(carry_out(network, fault) for fault in run.faults))
        written = await client.run(write_for(5))
        await faults
        network.hosts["alice"].crash(power=True)
        missing = await client.run(missing_from(written))
        return f"{len(missing)} of {written} acknowledged writes are lost: {missing[:5]}" if missing else None

    return simulate(main, seed=run.seed).value


async def write_for(seconds: float) -> int:
    """Write one key after the other; how many were acknowledged."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    for number in count(1):
        await ask_either(NODES, f"put {number} here")
        await asyncio.sleep(0.02)
        if loop.time() > end:
            return number
    return 0


async def missing_from(written: int) -> list[int]:
    return [number for number in range(1, written + 1) if await ask_either(NODES, f"get {number}") == "nothing"]


async def carry_out(network: SimNetwork, fault: Fault) -> None:
    host = network.hosts[fault.node]
    other = NODES[1 - NODES.index(fault.node)]
    await asyncio.sleep(fault.at)
    if fault.kind == "pause":
        host.pause()
        await asyncio.sleep(fault.duration)
        host.resume()
    else:
        undo = network.link(fault.node, other).impose(fault.kind, 400_000)
        await asyncio.sleep(fault.duration)
        undo()


def find(seeds: Sequence[int]) -> tuple[Try, str] | None:
    """The first of the seeds under which something is lost."""
    for run, sentence in map_forked(lost, map(draw, seeds)):
        if checked(sentence):
            return run, str(sentence)
    return None


def shrunk(run: Try) -> tuple[Try, str]:
    """The same seed with as few faults as still lose something; each try is a process of its own."""
    with Zygote(lost) as zygote:

        def sentence(faults: Sequence[Fault]) -> str | None:
            return checked(zygote.run(lost, Try(run.seed, tuple(faults))))

        fewest = shrink_list(run.faults, lambda faults: sentence(faults) is not None)
        return Try(run.seed, tuple(fewest)), str(sentence(fewest))


def checked(result: str | Died | None) -> str | None:
    if isinstance(result, Died):
        raise RuntimeError(result.reason)
    return result


def main() -> None:
    found = find(range(100))
    if found is None:
        print("nothing was lost in 100 seeds")
        return
    for run, sentence in (found, shrunk(found[0])):
        print(f"seed {run.seed}, {len(run.faults)} faults: {sentence}")
        for fault in run.faults:
            print(f"  at {fault.at:.2f} s: {fault.kind} of {fault.node} for {fault.duration:.2f} s")


if __name__ == "__main__":
    main()
