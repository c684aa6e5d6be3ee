"""Millions of damaged inputs against one parser after the other: `make fuzz`, or

    python tests/fuzz/campaign.py --inputs 10000000 --jobs 2 [--seed 1] [--target kafka|raft]

Rule: a seed gives the same inputs; what is wrong is told once, with the first input that shows it, in hexadecimal.
Ends with 1 if anything was.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil

if __name__ == "__main__":
    sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "kafka")]

import raft_frames
from captures import captures
from damage import damaged
from drawn_requests import drawn_frame
from victim import Victim, framed

BATCH: Final = 64
POOL: Final = 1_500  # requests that are damaged again and again
POOL_BATCHES: Final = 500  # after which there are new ones, and a new victim
GROWTH_MAX: Final = 128 << 20  # of the process, in bytes, after the first victims
KEPT: Final = 20  # findings


@dataclass(slots=True)
class Report:
    """What a campaign came to."""

    inputs: int = 0
    found: dict[str, bytes] = field(default_factory=dict)  # what was wrong, and with which input first
    seconds: float = 0.0


def kafka_inputs(chance: Random, pool_size: int = POOL) -> Iterator[list[bytes]]:
    """Batches of what connections may bring: whole requests, damaged ones, several in one, and no requests at all."""
    recorded = [capture.frame for capture in captures()]
    pool = [drawn_frame(chance) for _ in range(pool_size)] + recorded
    for _ in range(POOL_BATCHES):
        yield [_kafka_input(pool, chance) for _ in range(BATCH)]


def _kafka_input(pool: Sequence[bytes], chance: Random) -> bytes:
    frame = chance.choice(pool)
    kind = chance.random()
    if kind < 0.05:
        return framed(frame)
    if kind < 0.85:
        return framed(damaged(frame, pool, chance))
    if kind < 0.95:
        return damaged(framed(frame) + framed(chance.choice(pool)), pool, chance)  # the framing as well
    return chance.randbytes(chance.randint(0, 200))


def raft_inputs(chance: Random, pool_size: int = POOL) -> Iterator[list[bytes]]:
    pool = [raft_frames.drawn_frames(chance) for _ in range(pool_size)]
    for _ in range(POOL_BATCHES):
        yield [damaged(chance.choice(pool), pool, chance) for _ in range(BATCH)]


Told = Callable[[int, list[tuple[bytes, str]]], bool]  # how many inputs, and what was found; whether to go on


def attack_kafka(inputs: Iterator[list[bytes]], told: Told, dispatcher: Any = None) -> None:
    loop = asyncio.new_event_loop()
    victim = Victim(loop, dispatcher=dispatcher)
    try:
        for batch in inputs:
            found: list[tuple[bytes, str]] = []
            if problems := victim.suffer(batch):
                victim = Victim(loop, dispatcher=dispatcher)
                found = _singled_out(loop, batch, problems, dispatcher)
            if not told(len(batch), found):
                return
    finally:
        victim.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def _singled_out(
    loop: asyncio.AbstractEventLoop, batch: list[bytes], problems: list[str], dispatcher: Any
) -> list[tuple[bytes, str]]:
    """Which inputs of the batch do it alone; the whole batch where none does."""
    alone = [(data, problem) for data in batch for problem in Victim(loop, dispatcher=dispatcher).suffer([data])]
    return alone or [(b"".join(batch), problem) for problem in problems]


def attack_raft(inputs: Iterator[list[bytes]], told: Told) -> None:
    for batch in inputs:
        if not told(len(batch), [(data, problem) for data in batch for problem in raft_frames.suffer([data])]):
            return


def campaign(target: str, seed: int, inputs: int, *, dispatcher: Any = None) -> Report:
    """So many inputs, from this seed on; `dispatcher` in the place of our own, to see that a bug in it is found."""
    report, began = Report(), time.perf_counter()
    process, before, rounds = psutil.Process(), 0, 0

    def told(count: int, found: list[tuple[bytes, str]]) -> bool:
        report.inputs += count
        for data, problem in found:
            report.found.setdefault(problem, data)
        return report.inputs < inputs and len(report.found) < KEPT

    while report.inputs < inputs and len(report.found) < KEPT:
        chance, pool = Random(f"{target} {seed} {rounds}"), min(POOL, inputs // 10)
        if target == "kafka":
            attack_kafka(kafka_inputs(chance, pool), told, dispatcher)
        else:
            attack_raft(raft_inputs(chance, pool), told)
        rounds += 1
        size = process.memory_info().rss
        before = before if rounds > 3 else size
        if size - before > GROWTH_MAX:
            report.found["the process grew and grew"] = b""
            break
    report.seconds = time.perf_counter() - began
    return report


def _one(job: tuple[str, int, int]) -> Report:
    return campaign(*job)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("kafka", "raft"), default="kafka")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    each = -(-chosen.inputs // chosen.jobs)
    jobs = [(chosen.target, chosen.seed * 1000 + number, each) for number in range(chosen.jobs)]
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        reports = pool.map(_one, jobs)
    found = {problem: data for report in reports for problem, data in report.found.items()}
    for problem, data in found.items():
        print(f"{problem}\n    {data.hex()}")
    inputs, seconds = sum(report.inputs for report in reports), max(report.seconds for report in reports)
    print(f"{chosen.target}: {inputs:,} inputs in {seconds:.0f} s, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
