"""One process of a hunt: plant one bug (or none), run cases until one is INVALID, and say so as one line of JSON.

    python -m seatrial.sim.mutants_hunt NAME [--first-seed 0] [--seeds 2000] [--case FILE] [--untouched]

For `mutants.hunt_mutants`, which starts one such process for each mutant: a bug is in everything that is imported.
Rule: nothing that a bug may be in is imported before it is planted.  About the real process: it measures wall time,
and gives up a case that hangs (a bug may make a loop endless, which no cap on events sees).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from seatrial.sim.mutants_catalogue import MUTANTS
from seatrial.sim.mutation import Mutant, plant

CASE_SECONDS_MAX: Final = 60


class CaseHangs(Exception):
    """One case took far longer than any should."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    mutant = MUTANTS[options.name]
    if mutant.level == "full":
        from seatrial.sim.launch import ensure_deterministic_process

        ensure_deterministic_process()
    if not options.untouched:
        plant(mutant)
    if options.case:
        found = _hunt(mutant, [_loaded(options.case)], options.seconds)
    else:
        found = _hunt(
            mutant, _drawn(mutant, range(options.first_seed, options.first_seed + options.seeds)), options.seconds
        )
    print(json.dumps(found), flush=True)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m seatrial.sim.mutants_hunt")
    parser.add_argument("name", choices=list(MUTANTS))
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no further case after so long")
    parser.add_argument("--case", type=Path, help="only this case, a file")
    parser.add_argument("--untouched", action="store_true", help="the code without the bug, on the same cases")
    return parser.parse_args(arguments)


def _loaded(path: Path) -> Any:
    from seatrial.sim.case import Case

    return Case.load_file(path)


def _drawn(mutant: Mutant, seeds: Iterable[int]) -> Iterator[Any]:
    from seatrial.sim.mutants_cases import FAMILIES

    draw = FAMILIES[mutant.cases].draw
    return (draw(seed, mutant.level) for seed in seeds)


def _hunt(mutant: Mutant, cases: Iterable[Any], seconds_max: float) -> dict[str, Any]:
    """What was found, where, and how long it took; without the imports."""
    outcomes = _full_outcomes if mutant.level == "full" else _core_outcomes
    run = outcomes(cases)
    began = time.monotonic()
    tried = 0
    for case, violations in run:
        tried += 1
        seconds = time.monotonic() - began
        if violations:
            name, message = violations[0]
            found = {"found": True, "seed": case.seed, "violation": name, "message": message, "case": case.to_toml()}
            return {**found, "tried": tried, "seconds": seconds}
        if seconds > seconds_max:
            break
    return {"found": False, "tried": tried, "seconds": time.monotonic() - began}


Violations = list[tuple[str, str]]


def _core_outcomes(cases: Iterable[Any]) -> Iterator[tuple[Any, Violations]]:
    from seatrial.sim.core import run_case

    return ((case, _watched(run_case, case)) for case in cases)


def _watched(run_case: Callable[[Any], Any], case: Any) -> Violations:
    """In this process, under an alarm."""

    def hangs(signum: int, frame: FrameType | None) -> None:
        raise CaseHangs(f"the case of seed {case.seed} did not end within {CASE_SECONDS_MAX} s")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(CASE_SECONDS_MAX)
    try:
        outcome = run_case(case)
    except CaseHangs as error:
        return [("hang", str(error))]
    finally:
        signal.alarm(0)
    return [(violation.name, violation.message) for violation in outcome.violations]


def _full_outcomes(cases: Iterable[Any]) -> Iterator[tuple[Any, Violations]]:
    """Each in a process forked from this one, once everything is imported here."""
    from seatrial.sim.full import run_case
    from seatrial.sim.zygote import run_many

    for case, outcome in run_many(cases, run_case, 1):
        yield case, [(violation.name, violation.message) for violation in outcome.violations]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
