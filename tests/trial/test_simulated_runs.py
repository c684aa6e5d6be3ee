"""`seatrial run --env sim`, whole: the same run directory as on processes, the same again from the same seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seatrial.history import OpType
from seatrial.rundir import RunDirectory
from seatrial.trial.model import BadTrial, Trial
from seatrial.trial.simulated import named, run_simulated

pytestmark = pytest.mark.slow


def seatrial(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from seatrial.cli import run_arguments; sys.exit(run_arguments(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}, check=False
    )


def test_the_same_trial_gives_the_same_history_in_another_process_watched_or_not(tmp_path: Path) -> None:
    trial = Trial(environment="sim", faults=("kill", "messages"), duration_s=6.0, seed=11)
    quiet = RunDirectory(tmp_path / "quiet")
    verdict = run_simulated(trial, quiet, quiet=True)
    assert verdict["validity"] == "VALID", verdict["checkers"]
    assert verdict["faults"]["bit"]["kill"] > 0 and verdict["faults"]["bit"]["messages"] > 0
    told = seatrial(
        *("run", str(quiet.trial), "--out", str(tmp_path / "watched")),
        PYTHONHASHSEED="77",
        SOME_OTHER_VARIABLE="x" * 999,
    )
    assert told.returncode == 0, told.stderr
    assert "VALID" in told.stdout and "under faults" in told.stderr
    watched = RunDirectory(tmp_path / "watched")
    for one, other in [
        (quiet.history, watched.history),
        (quiet.faults, watched.faults),
        (quiet.status, watched.status),
        (quiet.trial, watched.trial),
    ]:
        assert one.read_bytes() == other.read_bytes(), one.name
    assert "<html" in watched.report.read_text()[:200].lower()
    history = watched.load_history()
    for f in ("append", "poll", "final-read", "read", "write", "cas"):
        assert any(op.f == f and op.type is OpType.OK for op in history), f"no {f} was answered"
    assert {sample.node for sample in watched.load_statuses()} == {1, 2, 3}


def test_a_planted_bug_is_found_and_the_exit_status_says_so(tmp_path: Path) -> None:
    told = seatrial(
        *("run", "--env", "sim", "--workload", "kv", "--faults", "partition", "--duration", "10s", "--seed", "2"),
        *("--option", "unsafe=stale-reads", "--json", "--out", str(tmp_path / "run")),
    )
    verdict: dict[str, Any] = json.loads(told.stdout)
    assert (told.returncode, verdict["validity"]) == (1, "INVALID"), told.stderr
    found = {anomaly["name"] for checker in verdict["checkers"] for anomaly in checker["anomalies"]}
    assert "nonlinearizable" in found, found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system": "etcd"}, "--env local"),
        ({"workloads": ("kv-txn",)}, "kv-txn"),
        ({"options": {"durability": "wishes"}}, "none of fsync, os"),
        ({"options": {"colour": "red"}}, "colour"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_anything_is_run(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadTrial, match=says):
        named(Trial(environment="sim", **{"workloads": ("kv",), **changes}))
