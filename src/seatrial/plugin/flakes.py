"""How often tests pass, and how sure that is: the table that `--flake-hunt` prints.

Rule: what fails most often comes first; a rate comes with the interval in which the true one lies with 95 % (Wilson's
score interval, E. B. Wilson 1927: it holds for few runs and for rates near 0 and 1 as well).
Knows nothing of how tests are run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Final

Z_95: Final = 1.959964
SEEDS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunted:
    """One test's runs.  failing: the seeds that failed, in the order of the runs."""

    test: str
    runs: int
    failing: tuple[int, ...]

    @property
    def passed(self) -> int:
        return self.runs - len(self.failing)


def wilson(passed: int, runs: int) -> tuple[float, float]:
    """The bounds, between 0 and 1, of the pass rate that `passed` of `runs` shows."""
    rate, square = passed / runs, Z_95 * Z_95
    middle = (rate + square / (2 * runs)) / (1 + square / runs)
    half = Z_95 * sqrt(rate * (1 - rate) / runs + square / (4 * runs * runs)) / (1 + square / runs)
    return max(0.0, middle - half), min(1.0, middle + half)


def table(hunted: Iterable[Hunted]) -> list[str]:
    """Lines for people: those that failed first, with their seeds."""
    rows = sorted(hunted, key=lambda one: (one.passed / one.runs, one.test))
    width = max((len(one.test) for one in rows), default=0)
    lines = [f"{'test':<{width}}  {'passed':>11}  {'rate':>7}  {'95 % interval':>17}  failing seeds"]
    for one in rows:
        low, high = wilson(one.passed, one.runs)
        seeds = " ".join(map(str, one.failing[:SEEDS_SHOWN]))
        more = f" and {len(one.failing) - SEEDS_SHOWN} more" if len(one.failing) > SEEDS_SHOWN else ""
        counted = f"{one.passed} of {one.runs}"
        interval = f"{low:.1%} to {high:.1%}"
        lines.append(
            f"{one.test:<{width}}  {counted:>11}  {one.passed / one.runs:>7.1%}  {interval:>17}  {seeds}{more}".rstrip()
        )
    return lines


def hunted_in(test: str, properties: Iterable[tuple[str, object]]) -> Hunted | None:
    """What a report's properties say of a test's runs (`conductor`); None where it was not repeated."""
    told = dict(properties)
    if "runs" not in told:
        return None
    failing = tuple(int(seed) for seed in str(told["failing_seeds"]).split())
    return Hunted(test=test, runs=int(str(told["runs"])), failing=failing)
