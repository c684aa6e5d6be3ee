"""`seatrial sim`: from options to an exit status.

Rule: 0 VALID, 1 INVALID, 2 could not run; with --json stdout carries one object and nothing else, and whatever people
may want to read meanwhile goes to stderr.  A trace goes to stdout, line by line, before the verdict.
"""

from __future__ import annotations

import json as json_library
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case, Level, Violation
from seatrial.sim.console import Console, describe_outcome, describe_report, describe_shrinking
from seatrial.sim.coverage import never_reached
from seatrial.sim.hunt import Draw, Failing, Report, hunt
from seatrial.sim.regression import pasteable_test, save
from seatrial.sim.shrink import Progress, shrink
from seatrial.sim.single import Runner, single_runner
from seatrial.sim.sources import SourcesChanged
from seatrial.sim.zygote import ZygoteFailed

VALID: Final = 0
INVALID: Final = 1
COULD_NOT_RUN: Final = 2
SEEDS: Final = 1_000


class BadCase(ValueError):
    """What was asked for makes no sense; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `seatrial sim`.

    case_file or seed: that one case; else `seeds` from `first_seed` on.  duration_s, nodes: None for what is drawn.
    mutant: planted bugs by name, or "all"; `save` is then the page that lists them (`docs/mutants.md`).
    """

    case_file: Path | None = None
    seed: int | None = None
    seeds: int = SEEDS
    first_seed: int = 0
    level: Level = "full"
    duration_s: float | None = None
    nodes: int | None = None
    jobs: int = 2
    trace: bool = False
    shrink: bool = False
    save: Path | None = None
    mutant: str | None = None
    coverage: bool = False
    json: bool = False

    def draw(self) -> Draw:
        duration_us = None if self.duration_s is None else round(self.duration_s * 1e6)
        return Draw(level=self.level, duration_us=duration_us, nodes=self.nodes)


def sim_command(asked: Asked) -> int:
    """Do what was asked for.  Raises BadCase for what makes no sense.  Returns the exit status."""
    _refuse_nonsense(asked)
    console = Console(sys.stderr, quiet=asked.json and not sys.stderr.isatty())
    try:
        if asked.mutant is not None:
            return _mutants(asked, console)
        if asked.case_file is not None or asked.seed is not None:
            return _one_case(asked, console)
        return _hunt(asked, console)
    except BrokenPipeError:
        # Whoever read our stdout has seen enough (`| head`): no complaint, and no second one at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return COULD_NOT_RUN
    except (OSError, ImportError, ZygoteFailed, SourcesChanged) as error:
        return _could_not_run(f"could not run at level {asked.level}: {error}", json=asked.json)
    finally:
        console.close()


def _refuse_nonsense(asked: Asked) -> None:
    one = asked.case_file is not None or asked.seed is not None
    if asked.case_file is not None and asked.seed is not None:
        raise BadCase("a case file holds its seed; give the file or --seed, not both")
    if asked.level not in ("core", "full"):
        raise BadCase(f"there is no level {asked.level!r}; there are: core, full")
    if asked.trace and not one:
        raise BadCase("--trace shows one run; give --seed N or a case file")
    if asked.coverage and (one or asked.mutant):
        raise BadCase("--coverage asks what many seeds reached; leave out --seed, the case file and --mutant")
    if asked.save is not None and not asked.shrink and not one and asked.mutant is None:
        raise BadCase("--save keeps one case: with --seed N or a case file, or with --shrink")
    if asked.mutant is not None and (one or asked.shrink):
        raise BadCase("--mutant plants bugs and hunts for them; it goes with --seeds, --first-seed, --jobs and --json")
    if asked.seeds < 1 or asked.jobs < 1 or asked.first_seed < 0:
        raise BadCase("--seeds and --jobs must be 1 or more, --first-seed 0 or more")
    if asked.nodes is not None and not 1 <= asked.nodes <= 9:
        raise BadCase(f"--nodes {asked.nodes}: a cluster has 1 to 9 nodes")
    if asked.duration_s is not None and not 0 < asked.duration_s <= 3600:
        raise BadCase(f"--duration {asked.duration_s:g}s: more than 0 and at most an hour of virtual time")


def load_case(path: Path) -> Case:
    """Read a case file.  Raises BadCase that names the file and what is wrong with it."""
    try:
        case = Case.load_file(path)
    except OSError as error:
        raise BadCase(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        raise BadCase(f"{path}: {error}") from error
    complaint = malformed(case)
    if complaint is not None:
        raise BadCase(f"{path}: {complaint}")
    return case


def _one_case(asked: Asked, console: Console) -> int:
    if asked.case_file is not None:
        case, replay = load_case(asked.case_file), f"seatrial sim {shlex.quote(str(asked.case_file))}"
    else:
        assert asked.seed is not None
        case, replay = asked.draw().case(asked.seed), asked.draw().command(asked.seed)
    if (outside := over_budget(case)) is not None:
        console.say(f"beyond what Raft claims to survive, so a violation need not be a bug: {outside}")
    with single_runner(case.level) as runner:
        outcome = runner.run(case, trace_to=(sys.stderr if asked.json else sys.stdout) if asked.trace else None)
        result: dict[str, Any] = {
            "validity": "INVALID" if outcome.violations else "VALID",
            "replay": replay,
            "case": msgspec.to_builtins(case),
            "outcome": msgspec.to_builtins(outcome),
        }
        if not asked.json:
            print(describe_outcome(case, outcome))
        if outcome.violations and asked.shrink:
            case, violation = _shrunk(runner, case, asked, console)
            result["shrunk"] = {"case": msgspec.to_builtins(case), "violation": msgspec.to_builtins(violation)}
        elif outcome.violations:
            violation = outcome.violations[0]
        if outcome.violations and asked.save is not None:
            result["saved"] = _saved(case, violation, asked, replay)
    if asked.json:
        print(json_library.dumps(result))
    return INVALID if outcome.violations else VALID


def _shrunk(runner: Runner, case: Case, asked: Asked, console: Console) -> tuple[Case, Violation]:
    """The smaller case; it and a test to paste are printed."""
    last: list[Progress] = []

    def told(progress: Progress) -> None:
        last[:] = [progress]
        console.shrinking(progress)

    smaller, violation = shrink(
        case, runner.first_violation, told=told, find_each=runner.first_violations, jobs=asked.jobs
    )
    console.close()
    if not asked.json:
        print(f"\nthe smallest case found that breaks {violation.name} ({violation.message}):")
        print(describe_shrinking(last[0], case) + "\n")
        print(smaller.to_toml())
        print("as a test:\n")
        print(pasteable_test(smaller, violation))
    return smaller, violation


def _saved(case: Case, violation: Violation, asked: Asked, replay: str) -> str:
    assert asked.save is not None
    path = save(case, violation, asked.save, found_by=replay)
    if not asked.json:
        print(f"saved {path}")
    return str(path)


def _hunt(asked: Asked, console: Console) -> int:
    draw = asked.draw()
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    so_far: list[Report] = []

    def told(report: Report) -> None:
        so_far[:] = [report]
        console.hunting(report)

    try:
        report = hunt(seeds, draw, jobs=asked.jobs, told=told)
    except KeyboardInterrupt:
        console.close()
        for unfinished in so_far:
            print(describe_report(unfinished), file=sys.stderr)
        raise
    console.close()
    missed = never_reached(report.level, report.marks) if asked.coverage else []
    result = _as_json(report) | ({"never_reached": missed} if asked.coverage else {})
    if not asked.json:
        print(describe_report(report))
        if asked.coverage:
            print(f"marks never reached at level {report.level}: {len(missed)}")
            print("".join(f"  {name}\n" for name in missed), end="")
    if report.failing and asked.shrink:
        result["shrunk"] = [_shrink_found(one, draw, asked, console) for one in _one_of_each(report.failing)]
    if asked.json:
        print(json_library.dumps(result))
    return INVALID if report.failing or missed else VALID


def _one_of_each(failing: list[Failing]) -> list[Failing]:
    """The first seed of each violation by name."""
    first: dict[str, Failing] = {}
    for one in failing:
        if one.violation.name not in ("not-deterministic", "simulator-crash"):
            first.setdefault(one.violation.name, one)
    return list(first.values())


def _shrink_found(failing: Failing, draw: Draw, asked: Asked, console: Console) -> dict[str, Any]:
    case = draw.case(failing.seed)
    with single_runner(case.level) as runner:
        smaller, violation = _shrunk(runner, case, asked, console)
    result = {"seed": failing.seed, "case": msgspec.to_builtins(smaller), "violation": msgspec.to_builtins(violation)}
    if asked.save is not None:
        result["saved"] = _saved(smaller, violation, asked, failing.replay)
    return result


def _as_json(report: Report) -> dict[str, Any]:
    return {"validity": "INVALID" if report.failing else "VALID", **msgspec.to_builtins(report)}


def _mutants(asked: Asked, console: Console) -> int:
    from seatrial.sim.mutants import hunt_mutants
    from seatrial.sim.mutants_catalogue import UnknownMutant
    from seatrial.sim.mutants_table import describe_results, result_line, save_page

    assert asked.mutant is not None
    names = "all" if asked.mutant == "all" else asked.mutant.split(",")
    try:
        results = hunt_mutants(
            names,
            seeds_max=asked.seeds,
            first_seed=asked.first_seed,
            jobs=asked.jobs,
            progress=lambda result: console.say(result_line(result)),
        )
    except UnknownMutant as error:
        raise BadCase(str(error)) from error
    print(describe_results(results, json=asked.json))
    if asked.save is not None:
        save_page(results, asked.save)
    return VALID if all(result.found for result in results) else INVALID


def _could_not_run(reason: str, *, json: bool) -> int:
    print(f"seatrial: {reason}", file=sys.stderr)
    if json:
        print(json_library.dumps({"validity": "UNKNOWN", "reason": reason}))
    return COULD_NOT_RUN
