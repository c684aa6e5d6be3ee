"""Judging and rendering what was stored: `seatrial check` and `seatrial report`.

Rule: nothing but files is read; the same files give the same answer.
"""

from __future__ import annotations

import json as json_library
import sys
from dataclasses import asdict
from pathlib import Path

from seatrial.checkers.base import Evidence, Verdict, run_checkers
from seatrial.checkers.catalogue import UnknownModel, by_model
from seatrial.history import History, MalformedRecord
from seatrial.report.html import render
from seatrial.rundir import RunDirectory
from seatrial.trial.model import BadTrial
from seatrial.trial.verdict import COULD_NOT_RUN, EXIT_STATUS


def check_command(path: Path, *, model: str, json: bool) -> int:
    """Check a stored history against a model.  Returns the exit status; raises BadTrial for bad input."""
    try:
        checker = by_model(model)
        history = History.load(path)
    except UnknownModel as error:
        raise BadTrial(str(error)) from error
    except (OSError, MalformedRecord) as error:
        print(f"seatrial: cannot check {path}: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    verdict = run_checkers([checker], Evidence(history=history))[0]
    if json:
        print(json_library.dumps(asdict(verdict) | {"validity": verdict.validity.name, "history": str(path)}))
    else:
        print(_describe(path, len(history), verdict))
    return EXIT_STATUS[verdict.validity]


def _describe(path: Path, events: int, verdict: Verdict) -> str:
    lines = [f"{verdict.validity.name}  {verdict.checker}: {path} ({events:,} events)"]
    if verdict.reason:
        lines.append(f"  {verdict.reason}")
    for anomaly in verdict.anomalies:
        where = "".join(f", {name} {value}" for name, value in (("key", anomaly.key), ("node", anomaly.node)) if value)
        lines.append(f"  {anomaly.name}{where}: {anomaly.message}")
        if anomaly.ops:
            lines.append(f"    operations {', '.join(map(str, anomaly.ops))}")
    return "\n".join(lines)


def report_command(root: Path) -> int:
    """Render a run directory's page and print its path.  Returns the exit status."""
    if not root.is_dir():
        print(f"seatrial: {root} is not a run directory", file=sys.stderr)
        return COULD_NOT_RUN
    try:
        print(render(RunDirectory(root)))
    except (MalformedRecord, OSError, ValueError) as error:
        print(f"seatrial: cannot render {root}: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    return 0
