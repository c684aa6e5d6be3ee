"""`seatrial run`: from options to an exit status.

Rule: the seed and the replay command are printed before anything is started; stdout carries the JSON object alone
when that was asked for.
"""

from __future__ import annotations

import asyncio
import json as json_library
import sys
import traceback
from datetime import datetime
from pathlib import Path

import msgspec

from seatrial.checkers.base import Validity
from seatrial.env import fresh_seed
from seatrial.faults.plan import ALL_KINDS, every_kind
from seatrial.history import Json
from seatrial.report.console import Console
from seatrial.rundir import RunDirectory
from seatrial.trial.conduct import CouldNotRun
from seatrial.trial.model import ENVIRONMENTS, BadTrial, Trial
from seatrial.trial.run import run_trial
from seatrial.trial.verdict import COULD_NOT_RUN, EXIT_STATUS


def run_command(base: Trial | None, changes: dict[str, Json], *, out: Path | None, json: bool) -> int:
    """Build the trial from a file's fields and the options that override them, run it, print the verdict.

    Raises BadTrial for what makes no sense.  Returns the exit status.
    """
    if base is None and "seed" not in changes:
        changes = changes | {"seed": fresh_seed()}
    trial = build_trial(base, changes)
    run = RunDirectory(out if out is not None else _fresh_directory(trial))
    if run.history.exists():
        raise BadTrial(f"{run.root} already holds a run; give another --out")
    console = Console(sys.stderr, quiet=json)
    console.begin(trial.command())
    try:
        verdict = _carried_out(trial, run, console, quiet=json)
    except CouldNotRun as error:
        return _could_not_run(trial, f"could not run: {error}", json=json)
    except BadTrial:
        raise
    except Exception:  # a defect of ours says nothing of the cluster: never INVALID
        return _could_not_run(trial, f"a defect of seatrial itself:\n{traceback.format_exc()}", json=json)
    finally:
        console.close()
    if json:
        print(json_library.dumps(verdict))
    else:
        Console(sys.stdout).verdict(verdict)
    return EXIT_STATUS[Validity[verdict["validity"]]]


def _carried_out(trial: Trial, run: RunDirectory, console: Console, *, quiet: bool) -> dict[str, Json]:
    if trial.environment == "sim":
        from seatrial.trial.simulated import run_simulated  # it is large, and real processes need none of it

        return run_simulated(trial, run, quiet=quiet)
    if trial.environment != "local":
        raise CouldNotRun(f"environment {trial.environment!r} is {ENVIRONMENTS[trial.environment]}; use local or sim")
    return asyncio.run(run_trial(trial, run, console=console))


def _could_not_run(trial: Trial, reason: str, *, json: bool) -> int:
    print(f"seatrial: {reason}", file=sys.stderr)
    if json:
        print(json_library.dumps({"validity": "UNKNOWN", "reason": reason, "seed": trial.seed}))
    return COULD_NOT_RUN


def build_trial(base: Trial | None, changes: dict[str, Json]) -> Trial:
    """A trial with some fields replaced; the system decides the default workload, and what faults "all" are.

    Raises BadTrial.
    """
    if base is None and "workloads" not in changes:
        changes = changes | {"workloads": ("log", "kv") if changes.get("system", "own") == "own" else ("kv",)}
    trial = msgspec.structs.replace(base or Trial(), **changes)
    if trial.faults != (ALL_KINDS,):
        return trial
    # The names themselves, so that the stored trial says what was done whatever kinds there are later.
    return msgspec.structs.replace(trial, faults=every_kind(nodes=trial.nodes, messages=trial.system == "own"))


def _fresh_directory(trial: Trial) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{trial.system}-{trial.seed}"
