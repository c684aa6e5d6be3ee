"""The processes behind tests: all are measured, and none outlives an interrupted pytest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.plugin.conftest import PLAIN, RunTests

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

MEASURED = """
import pytest
import helper

@pytest.mark.cluster(nodes=1)
async def test_measured(cluster):
    await cluster.wait_for_leader()
    helper.called_by_the_test()
"""
HELPER = """
def called_by_the_test():
    return 1

def called_by_nobody():
    return 2
"""
HANGS = """
import asyncio, os, pathlib, pytest

@pytest.fixture
def process():
    pathlib.Path("runs.pid").write_text(str(os.getpid()))

@pytest.mark.cluster(nodes=1)
async def test_hangs(process, cluster):
    await cluster.wait_for_leader()
    if cluster.env == "local":
        pathlib.Path("node.pid").write_text(str(cluster.node_state(1).pid))
        await asyncio.sleep(1000)
    while True:
        pass
"""
AGAIN = """
import pytest

@pytest.mark.cluster(nodes=1)
async def test_fails(cluster):
    found = await cluster.kv.get("x")
    await cluster.kv.put("x", "left behind")
    assert False, f"found {found}"
"""
DEADLINE_S = 60.0


@pytest.mark.parametrize("environment", ["sim", "local"])
def test_coverage_includes_simulated_tests_and_the_nodes_processes(
    run_tests: RunTests, pytester: pytest.Pytester, environment: str
) -> None:
    pytester.makepyfile(helper=HELPER)
    measured = ("--cov=helper", "--cov=seatrial.server", "--cov-report=json")
    run_tests(MEASURED, f"--cluster-env={environment}", *measured).assert_outcomes(passed=1)
    files = json.loads((pytester.path / "coverage.json").read_text())["files"]
    ran = {Path(name).name: file for name, file in files.items()}
    assert (ran["helper.py"]["executed_lines"], ran["helper.py"]["missing_lines"]) == ([1, 2, 4], [5])
    assert ran["broker.py"]["summary"]["percent_covered"] > 30
    assert (ran["process.py"]["summary"]["percent_covered"] > 50) == (environment == "local")


@pytest.mark.parametrize("environment", ["sim", "local"])
def test_nothing_outlives_an_interrupted_pytest(
    run_tests: RunTests, pytester: pytest.Pytester, environment: str
) -> None:
    pytester.makepyfile(HANGS)
    command = [sys.executable, "-m", "pytest", *PLAIN, f"--cluster-env={environment}"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    pids = [_number_in(pytester.path / ("node.pid" if environment == "local" else "runs.pid")), process.pid]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert "KeyboardInterrupt" in output
    deadline = time.monotonic() + DEADLINE_S
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"processes {alive} live on after:\n{output}"
        time.sleep(0.02)


def _number_in(path: Path) -> int:
    deadline = time.monotonic() + DEADLINE_S
    while not (path.exists() and (text := path.read_text())):
        assert time.monotonic() < deadline, f"nobody wrote {path}"
        time.sleep(0.02)
    return int(text)


def test_nodes_begin_anew_where_an_earlier_run_of_the_seed_failed(run_tests: RunTests) -> None:
    """Its directory, with the data of its nodes, is kept for people to look at."""
    for _ in range(2):
        result = run_tests(AGAIN, "--cluster-env=local", "--cluster-seed=7")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E*found None*"])
