"""One case at a time: run, traced on a stream, or asked for its first violation, as shrinking needs it.

Rule: a core case runs in this process; a full one in a process forked from one that is warmed once, exactly as in a
hunt, so that its digest is that of the hunt.  About the real process: it prints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from seatrial.sim.case import Case, Level, Outcome, Violation
from seatrial.sim.hunt import CASE_SECONDS_MAX, run_case_of, run_quietly, run_to_first_violation
from seatrial.sim.zygote import Died, Zygote, crashed


class Runner(Protocol):
    """Runs cases of one level."""

    def run(self, case: Case, *, trace_to: TextIO | None = None) -> Outcome:
        """The outcome; each line of the trace is written to `trace_to`, which is stdout or stderr."""

    def first_violation(self, case: Case) -> Violation | None: ...

    def first_violations(self, cases: Sequence[Case]) -> list[Violation | None]:
        """Of each; full cases run all at once."""


class _Here:
    def run(self, case: Case, *, trace_to: TextIO | None = None) -> Outcome:
        if trace_to is None:
            return run_quietly(case)
        return _run_printing(case, trace_to)

    def first_violation(self, case: Case) -> Violation | None:
        return _first(self.run(case))

    def first_violations(self, cases: Sequence[Case]) -> list[Violation | None]:
        return [self.first_violation(case) for case in cases]


class _Forked:
    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    def run(self, case: Case, *, trace_to: TextIO | None = None) -> Outcome:
        function = run_quietly if trace_to is None else _run_on_stdout if trace_to is sys.stdout else _run_on_stderr
        if trace_to is not None:
            trace_to.flush()  # the other process writes to the same file
        return self._outcome(function, case)

    def _outcome(self, function: Callable[[Case], Outcome], case: Case) -> Outcome:
        outcome = self._zygote.run(function, case, timeout_s=CASE_SECONDS_MAX)
        return crashed(outcome) if isinstance(outcome, Died) else outcome

    def first_violation(self, case: Case) -> Violation | None:
        return _first(self._outcome(run_to_first_violation, case))

    def first_violations(self, cases: Sequence[Case]) -> list[Violation | None]:
        start = self._zygote.start
        running = jobs = [start(run_to_first_violation, case, timeout_s=CASE_SECONDS_MAX) for case in cases]
        found: dict[int, Violation | None] = {}
        while running:
            for job, outcome in self._zygote.finished(running):
                found[job.pid] = _first(crashed(outcome) if isinstance(outcome, Died) else outcome)
            running = [job for job in running if job.pid not in found]
        return [found[job.pid] for job in jobs]


@contextmanager
def single_runner(level: Level) -> Iterator[Runner]:
    """A runner for cases of this level.  Raises OSError, ZygoteFailed."""
    if level == "core":
        yield _Here()
        return
    with Zygote(run_quietly, run_to_first_violation, run_case_of(level)) as zygote:
        yield _Forked(zygote)


def _first(outcome: Outcome) -> Violation | None:
    return outcome.violations[0] if outcome.violations else None


def _run_on_stdout(case: Case) -> Outcome:
    return _run_printing(case, sys.stdout)


def _run_on_stderr(case: Case) -> Outcome:
    return _run_printing(case, sys.stderr)


def _run_printing(case: Case, stream: TextIO) -> Outcome:
    def write(text: str) -> None:  # a line, or a block of lines that end
        stream.write(text if text.endswith("\n") else text + "\n")

    try:
        return run_case_of(case.level)(case, trace=write)
    finally:
        stream.flush()
