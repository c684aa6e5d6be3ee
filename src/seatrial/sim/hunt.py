"""The hunt: many seeds, several processes, what broke and how to see it again, and what all of it came to.

    report = hunt(range(1_000), Draw(level="core"), jobs=2)

Core cases run in batches in worker processes; full cases each in a process forked from a warmed one (`zygote`), because
third-party clients leave traces in their process.
Rule: a failing seed is run once more, in another process where there are several and with its trace on, and its digest
must be the same; so must one in a hundred of those that pass.  About the real process: it starts processes and measures
wall time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, Final

import msgspec

from seatrial.env import RealClock
from seatrial.sim.case import Case, Level, Outcome, Violation
from seatrial.sim.pool import in_batches
from seatrial.sim.sources import SourcesChanged, fingerprint
from seatrial.sim.swarm import DURATION_US, draw_case

CASE_SECONDS_MAX: Final = 120
REPLAY_ONE_IN: Final = 100
Run = Callable[[Case], Outcome]
Trace = Callable[[str], None]


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """How seeds become cases; `command` is how a user sees one of them again."""

    level: Level
    duration_us: int | None = None
    nodes: int | None = None

    def case(self, seed: int) -> Case:
        return draw_case(seed, self.level, duration_us=self.duration_us, nodes=self.nodes)

    def command(self, seed: int, *options: str) -> str:
        words = ["seatrial", "sim", "--seed", str(seed)]
        if self.level != "full":
            words += ["--level", self.level]
        if self.duration_us not in (None, DURATION_US):
            words += ["--duration", f"{(self.duration_us or 0) / 1e6:g}s"]
        if self.nodes is not None:
            words += ["--nodes", str(self.nodes)]
        return " ".join([*words, *options])


class Failing(msgspec.Struct, frozen=True, kw_only=True):
    """A seed that broke a promise, and the command that shows it again."""

    seed: int
    violation: Violation
    digest: str
    replay: str


class Report(msgspec.Struct, kw_only=True):
    """What a hunt came to so far.

    operations, bit, marks: sums over all cases, as in `Outcome`.  replayed: how many were run twice to compare digests.
    """

    level: Level
    first_seed: int
    seeds: int
    done: int = 0
    seconds: float = 0.0
    virtual_us: int = 0
    events: int = 0
    replayed: int = 0
    operations: dict[str, int] = {}
    bit: dict[str, tuple[int, int]] = {}
    marks: dict[str, int] = {}
    failing: list[Failing] = []

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        self.virtual_us += outcome.virtual_us
        self.events += outcome.events
        for name, count in outcome.operations.items():
            self.operations[name] = self.operations.get(name, 0) + count
        for name, count in outcome.marks.items():
            self.marks[name] = self.marks.get(name, 0) + count
        for kind, (carried_out, bit) in outcome.bit.items():
            before = self.bit.get(kind, (0, 0))
            self.bit[kind] = (before[0] + carried_out, before[1] + bit)


def run_case_of(level: Level) -> Callable[..., Outcome]:
    """The level's `run_case(case, *, trace=None)`; imported only now, because the full level is heavy."""
    if level == "core":
        from seatrial.sim import core

        return core.run_case
    from seatrial.sim import full

    run_case: Callable[..., Outcome] = full.run_case
    return run_case


def run_quietly(case: Case) -> Outcome:
    return run_case_of(case.level)(case)


def run_to_first_violation(case: Case) -> Outcome:
    """As `run_quietly` for who asks for the first violation alone: a full case ends when it has one."""
    if case.level == "core":
        return run_quietly(case)
    return run_case_of(case.level)(case, stops_at_first=True)


def run_with_trace(case: Case) -> Outcome:
    """As `run_quietly`, with the trace on and thrown away: it must make no difference."""
    return run_case_of(case.level)(case, trace=lambda line: None)


def hunt(
    seeds: Sequence[int], draw: Draw, *, jobs: int = 1, told: Callable[[Report], None] = lambda report: None
) -> Report:
    """Run the case of every seed; `told` is called with the report after each.

    Failing seeds come sorted.  Raises OSError where processes cannot be started, and SourcesChanged where a replay
    differs after an edit.
    """
    clock = RealClock()
    began_us = clock.now_us()
    sources = fingerprint()
    report = Report(level=draw.level, first_seed=min(seeds, default=0), seeds=len(seeds))
    again: dict[int, Outcome] = {}
    for case, outcome in outcomes(map(draw.case, seeds), draw.level, run_quietly, jobs):
        report.add(outcome)
        if outcome.violations:
            report.failing.append(_failing(draw, case, outcome, outcome.violations[0]))
        if outcome.violations or case.seed % REPLAY_ONE_IN == 0:
            again[case.seed] = outcome
        report.seconds = (clock.now_us() - began_us) / 1e6
        told(report)
    for case, outcome in outcomes(map(draw.case, sorted(again)), draw.level, run_with_trace, jobs):
        report.replayed += 1
        if outcome.digest != again[case.seed].digest:
            if fingerprint() != sources:
                raise SourcesChanged(
                    "the sources were edited while the seeds ran, so replays prove nothing; run it again"
                )
            report.failing.append(_failing(draw, case, outcome, _not_deterministic(again[case.seed], outcome)))
            told(report)
    report.failing.sort(key=lambda failing: failing.seed)
    report.seconds = (clock.now_us() - began_us) / 1e6
    told(report)
    return report


def _failing(draw: Draw, case: Case, outcome: Outcome, violation: Violation) -> Failing:
    return Failing(seed=case.seed, violation=violation, digest=outcome.digest, replay=draw.command(case.seed))


def _not_deterministic(first: Outcome, second: Outcome) -> Violation:
    said = "; ".join(
        f"the {word} time {outcome.violations[0].name if outcome.violations else 'VALID'}, digest {outcome.digest}"
        for word, outcome in (("first", first), ("second", second))
    )
    return Violation(
        name="not-deterministic",
        message=f"two runs of this case differ: {said}",
        at_us=0,
        detail={"first": first.digest},
    )


def outcomes(cases: Iterable[Case], level: Level, run: Run, jobs: int) -> Iterator[tuple[Case, Outcome]]:
    """Each case with its outcome, as they end."""
    run_case_of(level)  # imported before anything is forked
    if level == "full":
        from seatrial.sim.zygote import run_many

        yield from run_many(cases, run, jobs, timeout_s=CASE_SECONDS_MAX, warm=[run_case_of(level)])
        return
    for case, outcome in in_batches(cases, _Watched(run), jobs):
        yield case, outcome if isinstance(outcome, Outcome) else _died(outcome)


def _died(reason: str) -> Outcome:
    violation = Violation(name="simulator-crash", message=reason, at_us=0)
    return Outcome(violations=(violation,), digest="", events=0, virtual_us=0, operations={}, bit={}, marks={})


class Hangs(BaseException):
    """A case took far longer than any should; not an Exception, so that no level takes it for its own."""


class _Watched:
    """A run in a worker process, under an alarm: a loop without end is seen by no cap on events."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, case: Case) -> Outcome:
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.alarm(CASE_SECONDS_MAX)
        try:
            return self._run(case)
        except Hangs:
            return _died(f"it did not end within {CASE_SECONDS_MAX} s of real time")
        finally:
            signal.alarm(0)


def _on_alarm(signum: int, frame: FrameType | None) -> Any:
    raise Hangs
