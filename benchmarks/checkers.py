"""What the register checkers can do: speed with unique and with reused values, agreement with a reference, core sizes.

Exits with 1 where a floor is missed.  Times are CPU time of this process, the best of several rounds; what is timed is
from columns to verdict, and making the columns from a history is printed apart.

    python benchmarks/checkers.py [--histories 100000] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from _random_histories import Mix, columns_of, run_register, spoil, with_distinct_times
from _reference_search import explains, is_linearizable
from seatrial.checkers import registers_numpy
from seatrial.checkers.columns import INITIAL, MISMATCH, NO_VALUE, OK, READ, WRITE, Row, columns_by_key
from seatrial.checkers.explain import minimise
from seatrial.checkers.linearizability import Linearizability
from seatrial.checkers.refute import decide
from seatrial.checkers.registers import ReusedValue, check_unique
from seatrial.checkers.schedule import Limits
from seatrial.checkers.search import search
from seatrial.checkers.weakening import ANY_STATE
from seatrial.history import History, Op, OpType

OPERATIONS = 100_000
ROUNDS = 7
PLAIN_FLOOR = 1e6  # operations per second
NUMPY_FLOOR = 5e6
STALE_READ_SECONDS_MAX = 1.0
CORE_MEDIAN_MAX = 3
UNUSED_VALUE = 1_000_000

Answer = TypeVar("Answer")
missed: list[str] = []


def floor(holds: bool, what: str) -> str:
    """Note a floor that is missed; the mark for the line that shows it."""
    if not holds:
        missed.append(what)
    return "ok" if holds else "MISSED"


def best_time(run: Callable[[], Answer], rounds: int = ROUNDS) -> tuple[float, Answer]:
    """CPU seconds of the quickest round, and what it returned."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        answer = run()
        times.append(time.process_time() - began)
    return min(times), answer


def limits() -> Limits:
    return Limits(configurations=2_000_000, deadline=time.monotonic() + 600, clock=time.monotonic)


def unique_values() -> None:
    print(f"unique written values, 10 clients, 1 key x {OPERATIONS:,} operations (50 % reads, 35 % writes, 15 % cas)")
    rows = run_register(OPERATIONS, Mix(unknown=0.002, failed=0.002), seed=1)
    columns = columns_of(rows)
    seconds, violation = best_time(lambda: check_unique(columns))
    assert violation is None, violation
    speed = OPERATIONS / seconds
    mark = floor(speed >= PLAIN_FLOOR, "plain zone check")
    print(f"  pure Python   {speed / 1e6:6.2f} M ops/s   floor {PLAIN_FLOOR / 1e6:.0f}   {mark}")
    seconds, linearizable = best_time(lambda: registers_numpy.is_linearizable(columns))
    assert linearizable
    speed = OPERATIONS / seconds
    mark = floor(speed >= NUMPY_FLOOR, "NumPy zone check")
    print(f"  NumPy         {speed / 1e6:6.2f} M ops/s   floor {NUMPY_FLOOR / 1e6:.0f}   {mark}")
    history = history_of([row for row in rows if row.kind in (READ, WRITE)])
    count = len(history) // 2
    seconds, _ = best_time(lambda: columns_by_key(history), rounds=3)
    print(f"  (history to columns: {count / seconds / 1e6:.2f} M ops/s)")


def history_of(rows: list[Row]) -> History:
    """Reads and writes as a run records them."""
    events: list[tuple[int, OpType, int, Row]] = []
    for client, row in enumerate(rows):
        events.append((row.start, OpType.INVOKE, client, row))
        if row.status == OK:
            events.append((row.end, OpType.OK, client, row))
    events.sort(key=lambda event: event[0])
    return History(
        Op(
            index=index,
            time_ns=index,
            client=client,
            type=kind,
            f="read" if row.kind == READ else "write",
            key="x",
            value=(row.old if row.kind == READ else row.new) or None,
        )
        for index, (_, kind, client, row) in enumerate(events)
    )


def late_stale_read(rows: list[Row]) -> list[Row]:
    """The history, then two writes one after the other, then a read of the first."""
    end = 2 * len(rows) + 10
    first, second = 101, 102  # used by nobody else
    return with_distinct_times(
        [
            *rows,
            Row(WRITE, NO_VALUE, first, end, end + 1, OK),
            Row(WRITE, NO_VALUE, second, end + 2, end + 3, OK),
            Row(READ, first, NO_VALUE, end + 4, end + 5, OK),
        ]
    )


def reused_values() -> None:
    print("five reused values, 10 clients, r/w/cas/mismatch, with a late stale read; and the same without it")
    for count in (1_000, 10_000, 100_000):
        mix = Mix(values=5, unknown=0.0005, mismatches=True)
        rows = run_register(count, mix, seed=2)
        bad = late_stale_read(rows)
        seconds, decision = best_time(partial(decide, bad, INITIAL, limits()), rounds=1)
        assert decision.linearizable is False
        began = time.process_time()
        core = minimise(decision.core, decision.core_initial, limits())
        explaining = time.process_time() - began
        assert core is not None
        clean_seconds, clean = best_time(partial(decide, rows, INITIAL, limits()), rounds=1)
        assert clean.linearizable
        mark = ""
        if count == 10_000:
            mark = f"floor {STALE_READ_SECONDS_MAX:g} s   " + floor(seconds < STALE_READ_SECONDS_MAX, "late stale read")
        print(
            f"  {count:7,} ops: INVALID in {seconds:.3f} s + {explaining * 1e3:.1f} ms for a core of {len(core.rows)}; "
            f"clean VALID in {clean_seconds:.3f} s   {mark}"
        )


def random_history(seed: int) -> tuple[list[Row], bool]:
    """A small history with everything in it, and whether its values are unique; two in three are spoilt."""
    chance = random.Random(seed)
    unique = chance.random() < 0.5
    mix = Mix(
        clients=chance.randint(1, 6),
        reads=chance.choice((0.3, 0.5)),
        writes=chance.choice((0.2, 0.35)),
        unknown=chance.choice((0.0, 0.1, 0.3)),
        failed=chance.choice((0.0, 0.1)),
        values=None if unique else chance.randint(1, 4),
        mismatches=chance.random() < 0.4,
    )
    rows = run_register(chance.randint(1, 14), mix, seed)
    return (spoil(rows, seed, chance.randint(1, 3)) if chance.random() < 0.67 else rows), unique


def cross_validation(histories: int, first_seed: int) -> None:
    print(f"against the reference search, {histories:,} random histories from seed {first_seed}")
    bad = by_zones = 0
    sizes: list[int] = []
    disagreements: list[str] = []
    for seed in range(first_seed, first_seed + histories):
        rows, unique = random_history(seed)
        expected = is_linearizable(rows, INITIAL)
        bad += not expected
        searched = search(rows, INITIAL, limits())
        if searched.linearizable is not expected or (expected and not explains(searched.witness, rows, INITIAL)):
            disagreements.append(f"search, seed {seed}")
        # A stall of three configurations sends most histories through the local refutation.
        decision = decide(rows, INITIAL, limits(), stall=3)
        if decision.linearizable is not expected:
            disagreements.append(f"decide, seed {seed}")
        elif not expected:
            sizes.append(certified_core_size(decision.core, decision.core_initial, seed, disagreements))
        if unique:
            by_zones += zones_agree(rows, seed, disagreements)
    mark = floor(not disagreements, "agreement with the reference")
    print(
        f"  {bad:,} not linearizable, {by_zones:,} by the zone check too; {len(disagreements)} disagreements   {mark}"
    )
    for disagreement in disagreements[:10]:
        print(f"    {disagreement}")
    median = statistics.median(sizes)
    mark = floor(median <= CORE_MEDIAN_MAX and 0 not in sizes, "size of cores")
    print(f"  cores proved by the reference: median {median:g} operations, largest {max(sizes)}   {mark}")


def certified_core_size(rows: tuple[Row, ...], initial: int, seed: int, disagreements: list[str]) -> int:
    """How many operations the core has; 0 and a note where the reference does not find it impossible."""
    core = minimise(rows, initial, limits())
    states = {initial}
    if core is not None and core.initial == ANY_STATE:
        states = {row.old for row in core.rows if row.kind != WRITE} | {UNUSED_VALUE}
    if core is None or any(is_linearizable(core.rows, state) for state in states):
        disagreements.append(f"core, seed {seed}")
        return 0
    return len(core.rows)


def zones_agree(rows: list[Row], seed: int, disagreements: list[str]) -> bool:
    """Whether the zone check applied; a note where either version of it disagrees with the reference."""
    columns = columns_of(rows)
    try:
        linearizable = check_unique(columns) is None
    except ReusedValue:
        return False
    expected = is_linearizable([row for row in rows if row.kind != MISMATCH], INITIAL)
    if linearizable is not expected:
        disagreements.append(f"zones, seed {seed}")
    if registers_numpy.is_linearizable(columns) is not expected:
        disagreements.append(f"NumPy zones, seed {seed}")
    return True


def realistic_cores() -> None:
    """Violations as a cluster makes them: one read of a value that was overwritten long ago, decided as shipped."""
    print("cores of one stale answer among 2,000 operations of 10 clients, deciding included")
    checker = Linearizability()
    sizes: list[int] = []
    times: list[float] = []
    seed = 0
    while len(sizes) < 200:
        seed += 1
        chance = random.Random(seed)
        rows = run_register(2_000, Mix(values=None if seed % 4 else 5, unknown=0.002), seed=seed)
        late_reads = [number for number, row in enumerate(rows) if row.kind == READ and row.end > 2_000]
        position = chance.choice(late_reads)
        start = rows[position].start
        past = [row.new for row in rows if row.new != NO_VALUE and row.status == OK and row.end < start]
        rows[position] = rows[position]._replace(old=chance.choice(past))
        columns = columns_of(rows)
        began = time.process_time()
        finding = checker.decide(columns, time.monotonic() + 60)
        if finding.linearizable is False:  # with few values a changed answer is often right as well
            assert finding.core is not None
            sizes.append(len(finding.core.rows))
            times.append(time.process_time() - began)
    median = statistics.median(sizes)
    mark = floor(median <= CORE_MEDIAN_MAX, "size of realistic cores")
    print(
        f"  {len(sizes)} violations: median {median:g} operations, largest {max(sizes)}; "
        f"median {statistics.median(times) * 1e3:.0f} ms, longest {max(times) * 1e3:.0f} ms   {mark}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100_000, help="how many to compare with the reference")
    parser.add_argument("--seed", type=int, default=0, help="of the first of them")
    options = parser.parse_args()
    unique_values()
    reused_values()
    realistic_cores()
    cross_validation(options.histories, options.seed)
    if missed:
        print(f"floors missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
