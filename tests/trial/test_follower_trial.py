"""`seatrial run --workload log --read-from followers`, whole: what readers at followers are told, and who notices."""

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
from seatrial.trial.model import Trial
from seatrial.trial.simulated import run_simulated

pytestmark = pytest.mark.slow

# A bug is planted before anything else is imported, so in a process of its own.
PLANTED = """
import json, sys
from pathlib import Path
from seatrial.sim.mutation import plant
from seatrial.sim.mutants_catalogue import MUTANTS
plant(MUTANTS[sys.argv[1]])
from seatrial.rundir import RunDirectory
from seatrial.trial.model import Trial
from seatrial.trial.simulated import Order, in_replayable_process
run = RunDirectory(Path(sys.argv[3]))
verdict = in_replayable_process(Order(trial=Trial.load(Path(sys.argv[2])), root=str(run.root), quiet=True))
print(json.dumps(verdict))
"""


def reading(seed: int, *faults: str, **more: Any) -> Trial:
    return Trial(environment="sim", workloads=("log",), read_from="followers", faults=faults, seed=seed, **more)


def test_a_trial_that_reads_from_followers_is_judged_by_the_log_and_by_its_sessions(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    verdict = run_simulated(reading(3, "partition", "kill", duration_s=8.0), run, quiet=True)
    assert verdict["validity"] == "VALID", verdict["checkers"]
    checkers = {checker["checker"]: checker for checker in verdict["checkers"]}
    assert checkers["log-sessions (log)"]["stats"]["tails"] > 20
    assert checkers["partition-log (log)"]["stats"]["acknowledged"] > 50
    tails = [op for op in run.load_history() if op.f == "tail" and op.type is OpType.OK]
    assert {op.node for op in tails} == {1, 2, 3}
    polled = [op for op in run.load_history() if op.f == "poll" and op.type is OpType.OK and op.value]
    assert polled


@pytest.mark.parametrize(
    ("mutant", "trial", "anomalies"),
    [
        (
            "read-before-applied",
            reading(2, "messages", "isolate", duration_s=8.0),
            {"monotonic-tail", "read-your-writes", "stale-tail"},
        ),
        # What is applied is what a fetch shows: followers serve beyond the commit.
        (
            "applied-before-committed",
            reading(42, "messages", duration_s=12.0),
            {"applied-beyond-commit", "monotonic-tail"},
        ),
    ],
)
def test_a_planted_bug_is_found(mutant: str, trial: Trial, anomalies: set[str], tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    file = tmp_path / "trial.toml"
    trial.save(file)
    told = subprocess.run(
        [sys.executable, "-c", PLANTED, mutant, str(file), str(root)],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
    )
    verdict = json.loads(told.stdout)
    found = {anomaly["name"] for checker in verdict["checkers"] for anomaly in checker["anomalies"]}
    assert verdict["validity"] == "INVALID"
    assert found & anomalies, found
