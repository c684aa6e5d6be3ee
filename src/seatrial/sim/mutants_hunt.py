"""One process of a hunt: plant one bug (or none), run cases until one is INVALID, and say so as one line of JSON.

    python -m seatrial.sim.mutants_hunt NAME [--first-seed 0] [--seeds 2000] [--case FILE] [--untouched]

For `mutants.hunt_mutants`, which starts one such process for each mutant: a bug is in everything that is imported.
Rule: nothing that a bug may be in is imported before it is planted.  About the real process: it measures wall time,
and gives up a case that hangs (a bug may make a loop endless, which no cap on events sees).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, TypeAlias

from seatrial.sim.forked import die_with_parent
from seatrial.sim.launch import ensure_deterministic_process
from seatrial.sim.mutants_catalogue import MUTANTS
from seatrial.sim.mutation import Mutant, plant

CORE_CASE_SECONDS_MAX: Final = 60
FULL_CASE_SECONDS_MAX: Final = 240
NO_OUTCOME: Final = "simulator-crash"  # of the simulator, or of the machine: proves nothing of a mutant
_DIED: Final = (NO_OUTCOME, "the process that ran the case ended without an outcome")

Violations: TypeAlias = list[tuple[str, str]]


class CaseHangs(Exception):
    """One case took far longer than any should."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    mutant = MUTANTS[options.name]
    die_with_parent(os.getppid())
    if mutant.level == "full":
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
            if name == NO_OUTCOME:
                return {"found": False, "problem": f"seed {case.seed}: {message}", "tried": tried, "seconds": seconds}
            found = {"found": True, "seed": case.seed, "violation": name, "message": message, "case": case.to_toml()}
            return {**found, "tried": tried, "seconds": seconds}
        if seconds > seconds_max:
            break
    return {"found": False, "tried": tried, "seconds": time.monotonic() - began}


def _core_outcomes(cases: Iterable[Any]) -> Iterator[tuple[Any, Violations]]:
    from seatrial.sim.core import run_case

    return ((case, _watched(run_case, case)) for case in cases)


def _watched(run_case: Callable[[Any], Any], case: Any) -> Violations:
    """In this process, under an alarm."""

    def hangs(signum: int, frame: FrameType | None) -> None:
        raise CaseHangs(f"the case of seed {case.seed} did not end within {CORE_CASE_SECONDS_MAX} s")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(CORE_CASE_SECONDS_MAX)
    try:
        outcome = run_case(case)
    except CaseHangs as error:
        return [("hang", str(error))]
    finally:
        signal.alarm(0)
    return [(violation.name, violation.message) for violation in outcome.violations]


def _full_outcomes(cases: Iterable[Any]) -> Iterator[tuple[Any, Violations]]:
    """Each in a process forked from this one, once everything is imported here (as `zygote` does for the rest)."""
    from seatrial.sim import escape
    from seatrial.sim.full import run_case
    from seatrial.sim.full.warm import warm

    escape.install()
    warm()
    gc.collect()
    gc.freeze()
    gc.disable()
    return ((case, _forked(run_case, case)) for case in cases)


def _forked(run_case: Callable[[Any], Any], case: Any) -> Violations:
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _be_child(run_case, case, writing, parent)
    os.close(writing)
    said = bytearray()
    deadline = time.monotonic() + FULL_CASE_SECONDS_MAX
    try:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([reading], [], [], left)[0]:
                break
            part = os.read(reading, 1 << 16)
            if not part:
                return [(name, message) for name, message in json.loads(said)] if said else [_DIED]
            said += part
        os.kill(child, signal.SIGKILL)
        return [("hang", f"the case of seed {case.seed} did not end within {FULL_CASE_SECONDS_MAX} s")]
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def _be_child(run_case: Callable[[Any], Any], case: Any, writing: int, parent: int) -> NoReturn:
    try:
        die_with_parent(parent)
        violations = [(violation.name, violation.message) for violation in run_case(case).violations]
        with os.fdopen(writing, "w") as channel:
            json.dump(violations, channel)
    except BaseException:  # said to the parent by saying nothing; the traceback is for whoever looks
        traceback.print_exc()
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
