"""The scenarios of elections and partitions on a system that is not ours: nothing in the harness knows our own.

Those that are left out say themselves what they need of our server, or claim that a leader or a term stays as it is,
which with etcd's timeouts of 200 ms a busy machine does not keep.  By hand: pytest --cluster-env=local
--cluster-system=etcd tests/scenarios/test_partitions.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.cluster.drivers.etcd import find_binary
from seatrial.cluster.drivers.registry import by_name

HERE = Path(__file__).parent
VERSION = "3.4.23"
DEADLINE_S = 300
SCENARIOS = {
    "leader election": (
        "test_leader_election.py::test_initial_election",
        "test_leader_election.py::test_majority_required",
        "test_leader_election.py::test_terms_survive_a_restart_of_everyone",
        "test_leader_election.py::test_check_quorum_isolated_leader_steps_down_and_refuses_linearizable_reads",
        "test_leader_election.py::test_node_with_missing_entries_is_not_elected",
    ),
    "partitions": (
        "test_partitions.py::test_majority_elects_and_minority_cannot",
        "test_partitions.py::test_minority_blocks_writes",
        "test_partitions.py::test_minority_blocks_linearizable_reads",
        "test_partitions.py::test_cascading_partitions",
        "test_partitions.py::test_partition_and_crash_at_once",
    ),
}


@pytest.mark.slow
@pytest.mark.external
@pytest.mark.timeout(DEADLINE_S + 10)
@pytest.mark.parametrize("suite", SCENARIOS)
def test_etcd_passes(suite: str, tmp_path: Path) -> None:
    binary = find_binary(VERSION)
    if binary is None:
        pytest.skip(str(by_name("etcd", VERSION, {}).unavailable()))
    scenarios = [str(HERE / scenario) for scenario in SCENARIOS[suite]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--cluster-directory={tmp_path}"]
    command += ["--cluster-env=local", "--cluster-system=etcd", *scenarios]
    environment = {**os.environ, "SEATRIAL_ETCD": str(binary)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    said = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0, said
    assert f"{len(scenarios)} passed" in said, said
