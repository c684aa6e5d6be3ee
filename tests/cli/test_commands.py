"""The commands' exit statuses, and what they print where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from seatrial.cli import run_arguments

GOOD = [
    {"index": 0, "time_ns": 0, "client": 0, "type": "invoke", "f": "write", "key": "x", "value": 1},
    {"index": 1, "time_ns": 1, "client": 0, "type": "ok", "f": "write", "key": "x", "value": 1},
    {"index": 2, "time_ns": 2, "client": 0, "type": "invoke", "f": "read", "key": "x"},
    {"index": 3, "time_ns": 3, "client": 0, "type": "ok", "f": "read", "key": "x", "value": 1},
]
BAD = [*GOOD[:3], GOOD[3] | {"value": None}]


def stored(path: Path, lines: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(("lines", "status", "validity"), [(GOOD, 0, "VALID"), (BAD, 1, "INVALID")])
def test_check_exits_with_the_verdict(
    lines: list[dict[str, object]], status: int, validity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(tmp_path / "history.jsonl", lines)
    assert run_arguments(["check", path, "--model", "kv"]) == status
    assert capsys.readouterr().out.startswith(validity)
    assert run_arguments(["check", path, "--model", "kv", "--json"]) == status
    assert json.loads(capsys.readouterr().out)["validity"] == validity


def test_a_history_that_cannot_be_read_is_unknown_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("{}\n")
    assert run_arguments(["check", str(path)]) == 2
    assert "history.jsonl:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "x", "--model", "nonsense"], "no model 'nonsense'"),
        (["run", "--duration", "soon"], "not a duration"),
        (["run", "--nodes", "0"], "1 to 9 nodes"),
        (["run", "--faults", "gremlins"], "no fault 'gremlins'"),
        (["run", "--workload", "gremlins"], "no workload 'gremlins'"),
        (["run", "--system", "gremlins"], "no system 'gremlins'"),
        (["run", "--option", "unsafe"], "KEY=VALUE"),
        (["run", "--etcd-version", "3.5.1", "--system", "own"], "--system etcd"),
        (["run", "--no-such-option"], "no-such-option"),
        (["list", "gremlins"], "no list of 'gremlins'"),
        (["gremlins"], "gremlins"),
    ],
)
def test_bad_usage_exits_with_64_and_says_what_there_is(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_arguments(arguments) == 64
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing is left behind by a command that could not begin"


@pytest.mark.parametrize("what", ["systems", "faults", "workloads", "checkers", "environments"])
def test_list_prints_a_line_each(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arguments(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run_arguments(["list", what, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(lines) > 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "up", "serve", "check", "proxy", "list", "report"])
def test_every_command_has_its_help(command: str) -> None:
    program = [sys.executable, "-c", "from seatrial.launcher import main; main()", command, "--help"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()


@pytest.mark.slow
def test_python_without_assertions_is_refused() -> None:
    program = [sys.executable, "-O", "-c", "from seatrial.launcher import main; main()", "list", "faults"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "assertions" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "begun"),
    [
        (["sim", "--level", "core", "--seeds", "1000000"], "1,000,000 seeds"),
        (["sim", "--seeds", "1000000"], "1,000,000 seeds"),
        (["sim", "--level", "core", "--mutant", "all"], "found"),
        (["run", "--env", "sim", "--duration", "1h", "--seed", "7"], "under load"),
        (["run", "--duration", "1h", "--seed", "7"], "under load"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_interrupt_is_one_line_its_own_exit_status_and_leaves_nothing(
    arguments: list[str], begun: str, tmp_path: Path
) -> None:
    """As a terminal does it: the whole process group hears of it."""
    said = tmp_path / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", "from seatrial.launcher import main; main()", *arguments],
            stdout=stderr, stderr=stderr, cwd=tmp_path, process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # not ignored, as by nohup
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while begun not in said.read_text():
        assert process.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130, said.read_text()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    lines = said.read_text().splitlines()
    assert lines[-1] == "seatrial: interrupted; everything that was started has been stopped"
    assert sum("interrupt" in line.lower() or "Error" in line or "Traceback" in line for line in lines) == 1, lines
