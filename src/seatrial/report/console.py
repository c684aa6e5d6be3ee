"""What a run says on the console: one line that follows it while it runs, and a block with the verdict at the end.

Rule: everything goes to the given console (stderr under `--json`), numbers come from the caller, and nothing is shown
that the run directory does not hold as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec
import rich.console
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seatrial.history import Json
from seatrial.report.summary import RunSummary, one_sentence, ordered_checkers

STYLES = {"VALID": "green", "INVALID": "red", "UNKNOWN": "yellow", "UNFINISHED": "blue"}
GLYPHS = {"VALID": "✓", "INVALID": "✗", "UNKNOWN": "?", "UNFINISHED": "…"}
ANOMALIES_SHOWN = 5
LEADERS_SHOWN = 6
PLAIN_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a run.  `leaders` maps each Raft group to its leader's node id, None where there is none."""

    elapsed_s: float
    duration_s: float
    ok: int = 0
    fail: int = 0
    info: int = 0
    faults: Sequence[str] = ()  # descriptions of those that are on
    leaders: Mapping[str, int | None] | None = None


def progress_line(progress: Progress, phase: str) -> Text:
    """One line: elapsed time, operations by outcome, leaders, and the faults that are on."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{progress.elapsed_s:6.1f} / {progress.duration_s:g} s  ", style="bold")
    line.append(f"{phase}  ")
    line.append(f"{progress.ok:,} ok", style="green")
    line.append("  ")
    line.append(f"{progress.fail:,} fail", style="red" if progress.fail else "dim")
    line.append("  ")
    line.append(f"{progress.info:,} info", style="yellow" if progress.info else "dim")
    if progress.leaders:
        line.append(f"  leads: {_leaders(progress.leaders)}", style="cyan")
    for fault in progress.faults:
        line.append(f"  ⚡ {fault}", style="bold magenta")
    return line


def _leaders(leaders: Mapping[str, int | None]) -> str:
    """Groups by leader: "1: metadata, kv · 2: log/0 · nobody: log/1"; only counts where there are many."""
    by_node: dict[int | None, list[str]] = {}
    for group, node in leaders.items():
        by_node.setdefault(node, []).append(group)
    ordered = sorted(by_node.items(), key=lambda item: (item[0] is None, item[0] or 0))
    return " · ".join(
        f"{'nobody' if node is None else node}: "
        + (", ".join(groups) if len(leaders) <= LEADERS_SHOWN else f"{len(groups)} groups")
        for node, groups in ordered
    )


class Console:
    """A run's messages to people, on the given stream; with `quiet` there are none.

    On a terminal the progress line is redrawn in place; elsewhere it is printed every 5 s of the run and at each new
    phase, so that logs stay readable.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._rich = rich.console.Console(file=stream, quiet=quiet, highlight=False)
        self._quiet = quiet
        self._live: Live | None = None
        self._phase = ""
        self._printed_s = float("-inf")

    def begin(self, command: str) -> None:
        """Say first how the run is replayed, so that it is known even when the run never ends."""
        self._rich.print(Text.assemble(("replay  ", "dim"), command), soft_wrap=True)

    def phase(self, name: str) -> None:
        """What is being done from now on."""
        self._phase = name
        self._printed_s = float("-inf")
        if self._live is not None:
            self._live.update(Text(f"{name} …", style="bold"))
        elif self._rich.is_terminal and not self._quiet:
            # Redrawn only when there is something new: no thread of its own beside the event loop.
            self._live = Live(Text(f"{name} …", style="bold"), console=self._rich, transient=True, auto_refresh=False)
            self._live.start()
        else:
            self._rich.print(f"{name} …", markup=False)
        if self._live is not None:
            self._live.refresh()

    def progress(self, progress: Progress) -> None:
        """Show a moment of the run."""
        line = progress_line(progress, self._phase)
        if self._live is not None:
            self._live.update(line, refresh=True)
        elif progress.elapsed_s >= self._printed_s + PLAIN_LINE_EVERY_S:
            self._printed_s = progress.elapsed_s
            self._rich.print(line, soft_wrap=True)

    def verdict(self, verdict: Mapping[str, Json]) -> None:
        """The final block, from the object of verdict.json (`report` and `acknowledged` in it are shown)."""
        self.close()
        summary = msgspec.convert(verdict, RunSummary, strict=False)
        print_summary(self._rich, summary, report=verdict.get("report"))

    def close(self) -> None:
        """Give the terminal back; safe to call twice."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def print_summary(console: rich.console.Console, summary: RunSummary, *, report: str | None = None) -> None:
    """The final block: verdict, why, each checker, the first anomalies, faults, how to replay, where the report is."""
    style = STYLES.get(summary.validity, "yellow")
    head = Text(f"{GLYPHS.get(summary.validity, '?')} {summary.validity}", style=f"bold {style}")
    parts: list[Text | Table] = [head, Text(one_sentence(summary)), Text()]
    parts.append(_checkers(summary))
    parts += _anomalies(summary)
    if summary.faults.injected:
        counts = (
            f"{kind} {summary.faults.bit.get(kind, 0)}/{injected}" for kind, injected in summary.faults.injected.items()
        )
        parts += [Text(), Text(f"faults that bit: {', '.join(counts)}")]
    console.print(Panel(Group(*parts), border_style=style, title="seatrial", title_align="left"))
    # Outside the frame and unbroken, so that they can be copied.
    if summary.replay:
        console.print(Text.assemble(("replay  ", "dim"), summary.replay), soft_wrap=True)
    if report is not None:
        console.print(Text.assemble(("report  ", "dim"), report), soft_wrap=True)


def _checkers(summary: RunSummary) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for checker in ordered_checkers(summary):
        style = STYLES.get(checker.validity, "yellow")
        first = checker.reason.strip().splitlines()[-1] if checker.reason.strip() else ""
        said = first or (f"{len(checker.anomalies):,} found" if checker.anomalies else "")
        table.add_row(
            f"[{style}]{GLYPHS.get(checker.validity, '?')} {checker.validity}[/]", escape(checker.checker), escape(said)
        )
    return table


def _anomalies(summary: RunSummary) -> list[Text | Table]:
    found = summary.anomalies
    lines: list[Text | Table] = [Text()] if found else []
    for _, anomaly in found[:ANOMALIES_SHOWN]:
        lines.append(Text.assemble((anomaly.name, "bold red"), f"  {anomaly.message}"))
    if len(found) > ANOMALIES_SHOWN:
        lines.append(Text(f"and {len(found) - ANOMALIES_SHOWN:,} more in the report", style="dim"))
    return lines
