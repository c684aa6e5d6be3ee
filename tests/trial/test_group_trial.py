"""`--workload groups` in simulation: aiokafka's own group members on the server as shipped, whose coordinators die."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.history import OpType
from seatrial.rundir import RunDirectory
from seatrial.trial.model import Trial
from seatrial.trial.simulated import run_simulated

pytestmark = pytest.mark.slow


def test_a_group_loses_nothing_while_nodes_are_killed_and_cut_off_and_the_run_can_be_repeated(tmp_path: Path) -> None:
    """With this seed, before the error stood at each partition, aiokafka took a refused OffsetFetch for "nothing"."""
    trial = Trial(environment="sim", workloads=("groups",), faults=("cut", "kill", "isolate"), duration_s=10.0, seed=1)
    first, again = RunDirectory(tmp_path / "first"), RunDirectory(tmp_path / "again")
    verdict = run_simulated(trial, first, quiet=True)
    assert verdict["validity"] == "VALID", verdict["checkers"]
    assert verdict["faults"]["bit"]["kill"] > 0
    history = first.load_history()
    for f in ("append", "consume", "offset-commit", "late-commit", "offset-fetch", "drain"):
        assert any(op.f == f and op.type is OpType.OK for op in history), f"no {f} was answered"
    run_simulated(trial, again, quiet=True)
    assert first.history.read_bytes() == again.history.read_bytes()
