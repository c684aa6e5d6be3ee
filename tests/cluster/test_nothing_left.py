"""However a harness ends, nothing that it started lives on: no process, no grandchild, no directory, no port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from seatrial.cluster.ports import split_address

pytestmark = pytest.mark.slow
TESTDATA = Path(__file__).parent / "testdata"
DEADLINE_S = 10.0


def start_harness(
    request: pytest.FixtureRequest, system: Path, how: str
) -> tuple[subprocess.Popen[str], dict[str, Any], list[psutil.Process]]:
    """The harness, what it printed, and every process below it."""
    harness = subprocess.Popen(
        [sys.executable, str(TESTDATA / "harness.py"), str(system), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    request.addfinalizer(harness.kill)
    assert harness.stdout is not None
    printed = json.loads(harness.stdout.readline())
    try:
        below = psutil.Process(harness.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    known = {process.pid for process in below}
    for pid in printed["pids"]:
        if pid not in known and psutil.pid_exists(pid):
            below.append(psutil.Process(pid))
    return harness, printed, below


def poll(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


def assert_nothing_left(printed: dict[str, Any], below: list[psutil.Process]) -> None:
    def alive() -> list[psutil.Process]:
        return [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    poll("every process has ended", lambda: not alive())
    poll("the directory is gone", lambda: not Path(printed["root"]).exists())
    for address in printed["addresses"]:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(split_address(address))


def test_an_exception_leaves_nothing(request: pytest.FixtureRequest) -> None:
    harness, printed, below = start_harness(request, TESTDATA / "dummy.toml", "raise")
    assert harness.wait(DEADLINE_S) == 1
    assert_nothing_left(printed, below)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_leaves_nothing(request: pytest.FixtureRequest, number: signal.Signals) -> None:
    harness, printed, below = start_harness(request, TESTDATA / "dummy.toml", "wait")
    assert len(below) >= 5, "three nodes, the proxy and the guardian"
    harness.send_signal(number)
    assert harness.wait(DEADLINE_S) != 0
    assert_nothing_left(printed, below)


def test_a_group_that_is_interrupted_as_a_terminal_does_it_leaves_nothing(request: pytest.FixtureRequest) -> None:
    harness, printed, below = start_harness(request, TESTDATA / "dummy.toml", "wait")
    os.killpg(harness.pid, signal.SIGINT)
    assert harness.wait(DEADLINE_S) != 0
    assert_nothing_left(printed, below)


def test_grandchildren_end_even_when_the_harness_is_killed(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A system that is started by a script: only the guardian can reach what the script has started."""
    description = (TESTDATA / "dummy.toml").read_text().replace("{here}", str(TESTDATA))
    system = tmp_path / "wrapped.toml"
    system.write_text(description.replace('["python3",', '["sh", "-c", \'"$@" & wait\', "sh", "python3",'))
    harness, printed, below = start_harness(request, system, "wait")
    assert len(below) >= 8, "three scripts, three nodes, the proxy and the guardian"
    harness.kill()
    harness.wait(DEADLINE_S)
    assert_nothing_left(printed, below)
