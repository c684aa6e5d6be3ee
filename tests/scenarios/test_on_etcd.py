"""Scenarios on a system that is not ours: nothing in the harness knows our own.

A sample of each suite is tried here; `etcd.toml` lists all that pass there, from which docs/scenarios.md is made.  The
others say themselves what they need of our server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from seatrial.cluster.drivers.etcd import find_binary
from seatrial.cluster.drivers.registry import by_name

HERE = Path(__file__).parent
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
    "replication": (
        "test_replication.py::test_data_replication_of_many_keys",
        "test_replication.py::test_catch_up_after_being_offline",
        "test_replication_logs.py::test_uncommitted_entries_at_a_leader_crash",
    ),
    "network layer": (
        "test_network_layer.py::test_reconnect_after_the_peer_restarts",
        "test_network_layer.py::test_black_hole_looks_like_a_connection_and_is_left",
        "test_network_layer.py::test_state_is_told_alike_by_all_nodes",
    ),
}
KNOWN = tomllib.loads((HERE / "etcd.toml").read_text())


def test_what_is_tried_is_known_to_pass() -> None:
    assert {scenario for suite in SCENARIOS.values() for scenario in suite} <= set(KNOWN["passed"])


@pytest.mark.slow
@pytest.mark.external
@pytest.mark.timeout(DEADLINE_S + 10)
@pytest.mark.parametrize("suite", SCENARIOS)
def test_etcd_passes(suite: str, tmp_path: Path) -> None:
    binary = find_binary(KNOWN["version"])
    if binary is None:
        pytest.skip(str(by_name("etcd", KNOWN["version"], {}).unavailable()))
    scenarios = [str(HERE / scenario) for scenario in SCENARIOS[suite]]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--cluster-directory={tmp_path}"]
    command += ["--cluster-env=local", "--cluster-system=etcd", *scenarios]
    environment = {**os.environ, "SEATRIAL_ETCD": str(binary)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    said = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0, said
    assert f"{len(scenarios)} passed" in said, said
