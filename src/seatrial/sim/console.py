"""What `seatrial sim` says to people: a line that follows the hunt, the verdict, and how to see a failure again.

Rule: progress goes to stderr, redrawn in place on a terminal and a line every few seconds elsewhere; numbers come from
the report.  About the real process: it knows whether there is a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import rich.console
from rich.live import Live
from rich.text import Text

from seatrial.env import Clock, RealClock
from seatrial.sim.case import Case, Outcome, Violation
from seatrial.sim.hunt import Failing, Report
from seatrial.sim.shrink import Progress

PLAIN_LINE_EVERY_US: Final = 5_000_000
REDRAW_EVERY_US: Final = 100_000
BAR_COLUMNS: Final = 24
FAILING_SHOWN: Final = 20
MESSAGE_COLUMNS: Final = 400


class Console:
    """Progress on one stream.  `quiet`: nothing at all."""

    def __init__(self, stream: TextIO, *, quiet: bool = False, clock: Clock | None = None) -> None:
        self._rich = rich.console.Console(file=stream, quiet=quiet, highlight=False)
        self._clock = clock or RealClock()
        self._live: Live | None = None
        self._next_us = 0
        self._shown = ""
        self._failing_said = 0

    def hunting(self, report: Report) -> None:
        """A moment of a hunt; a seed that failed gets a line that stays, for the hunt may not be let end."""
        for failing in report.failing[self._failing_said : FAILING_SHOWN]:
            self.say(f"✗ {failing.replay}  {_violation_line(failing.violation)}")
        self._failing_said = len(report.failing)
        self._show(hunt_line(report), last=report.done == report.seeds)

    def shrinking(self, progress: Progress) -> None:
        """A moment of shrinking."""
        self._show(shrink_line(progress), last=False)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.close()
        self._rich.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back; safe to call twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, line: Text, *, last: bool) -> None:
        now_us = self._clock.now_us()
        if (now_us < self._next_us and not last) or line.plain == self._shown:
            return
        self._shown = line.plain
        if not self._rich.is_terminal:
            self._next_us = now_us + PLAIN_LINE_EVERY_US
            self._rich.print(line, soft_wrap=True)
            return
        self._next_us = now_us + REDRAW_EVERY_US
        if self._live is None:
            # Redrawn only when there is something new: no thread that a fork could catch holding a lock.
            self._live = Live(line, console=self._rich, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(line, refresh=True)


def hunt_line(report: Report) -> Text:
    """One line: how far, how fast, how many failed."""
    done = BAR_COLUMNS * report.done // max(1, report.seeds)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("━" * done, style="cyan")
    line.append("━" * (BAR_COLUMNS - done), style="dim")
    line.append(f"  {report.done:,} / {report.seeds:,} seeds", style="bold")
    if report.failing:
        line.append(f"  {len(report.failing):,} INVALID", style="bold red")
    seconds = max(report.seconds, 1e-6)
    line.append(f"  {report.virtual_us / 1e6 / seconds:,.0f} virtual s a second")
    if 0 < report.done < report.seeds:
        line.append(f"  {seconds / report.done * (report.seeds - report.done):,.0f} s left", style="dim")
    return line


def shrink_line(progress: Progress) -> Text:
    """One line: what is tried, and how small the case is by now."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("shrinking  ", style="bold")
    line.append(f"{progress.runs:,} runs  {_size(progress.case)}  ")
    line.append(progress.doing, style="dim")
    return line


def describe_shrinking(last: Progress, first: Case) -> str:
    """What it came to, when it has ended: how small, in how many runs, and whether nothing smaller was left to try."""
    how = f"after {last.runs:,} runs the time was over: it may go further" if last.is_late else f"in {last.runs:,} runs"
    return f"{_size(first)} became {_size(last.case)} {how}"


def _size(case: Case) -> str:
    faults = f"{len(case.faults)} fault{'' if len(case.faults) == 1 else 's'}"
    return f"{faults}, {case.nodes} nodes, {case.duration_us / 1e6:g} s"


def describe_report(report: Report) -> str:
    """The verdict of a hunt, and what it came to."""
    last = report.first_seed + report.seeds - 1
    where = f"level {report.level}, seeds {report.first_seed:,} to {last:,}"
    if report.failing:
        count = len({failing.seed for failing in report.failing})
        head = f"✗ INVALID  {count:,} of {report.done:,} seeds broke a promise ({where})"
    else:
        done = "" if report.done == report.seeds else f"{report.done:,} of "
        head = f"✓ VALID  {done}{report.seeds:,} seeds, no promise broken ({where})"
    lines = [head, "", *_failing_lines(report.failing)]
    seconds = max(report.seconds, 1e-6)
    lines.append(
        f"{report.virtual_us / 1e6:,.0f} virtual seconds in {report.seconds:,.1f} s "
        f"({report.virtual_us / 1e6 / seconds:,.0f} a second); {report.events:,} events"
    )
    lines.append(f"operations: {_counts(report.operations)}")
    if report.bit:
        bit = ", ".join(f"{kind} {bit:,}/{carried_out:,}" for kind, (carried_out, bit) in sorted(report.bit.items()))
        lines.append(f"faults that bit: {bit}")
    lines.append(f"marks reached: {len(report.marks)}; cases run twice, for equal digests: {report.replayed:,}")
    return "\n".join(lines)


def _failing_lines(failing: Sequence[Failing]) -> list[str]:
    lines = []
    for one in failing[:FAILING_SHOWN]:
        lines += [f"  {_violation_line(one.violation)}", f"    replay  {one.replay} --trace", ""]
    if len(failing) > FAILING_SHOWN:
        lines += [f"  and {len(failing) - FAILING_SHOWN:,} more; --json lists all", ""]
    return lines


def _violation_line(violation: Violation) -> str:
    said = " ".join(violation.message.split())
    said = said if len(said) <= MESSAGE_COLUMNS else f"{said[: MESSAGE_COLUMNS - 1]}…"
    return f"{violation.name} at {violation.at_us / 1e6:.3f} s: {said}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def describe_outcome(case: Case, outcome: Outcome) -> str:
    """The verdict of one case."""
    verdict = "✗ INVALID" if outcome.violations else "✓ VALID"
    lines = [f"{verdict}  level {case.level}, seed {case.seed}: {_size(case)}"]
    for violation in outcome.violations:
        lines.append(f"  {_violation_line(violation)}")
        lines += [f"    {name}: {_indented(value)}" for name, value in violation.detail.items()]
    lines.append(
        f"digest {outcome.digest}; {outcome.virtual_us / 1e6:,.1f} virtual seconds, {outcome.events:,} events; "
        f"operations: {_counts(outcome.operations)}"
    )
    return "\n".join(lines)


def _indented(value: object) -> str:
    return str(value).rstrip().replace("\n", "\n      ")
