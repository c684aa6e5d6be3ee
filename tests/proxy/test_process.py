"""The proxy as a process: how it starts, what it says, and that it never outlives its owner."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from seatrial.cluster.proxy.process import main

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "seatrial.cluster.proxy"]
OWNER = """
import subprocess, sys, os
child = subprocess.Popen(sys.argv[1:] + ["--parent-pid", str(os.getpid())], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode(), flush=True)
sys.stdin.read()
"""


def start(*options: str, **streams: Any) -> tuple[subprocess.Popen[bytes], Any]:
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(number: int) -> None:
    process, ready = start("--listen", "127.0.0.1:0", "--seed", "5")
    assert ready["event"] == "ready"
    assert (ready["seed"], ready["pid"]) == (5, process.pid)
    assert listens(ready["listen"])
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")
    assert not listens(ready["listen"])


def test_live_connections_do_not_delay_the_end(start_proxy: Any) -> None:
    process, server = start_proxy()
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        target = f"127.0.0.1:{upstream.getsockname()[1]}"
        listen = server.ask("POST", "/proxies", {"name": "p", "listen": "127.0.0.1:0", "upstream": target}).json[
            "listen"
        ]
        server.ask("POST", "/proxies/p/toxics", {"type": "hold", "stream": "upstream"})
        with socket.create_connection(("127.0.0.1", int(listen.rpartition(":")[2]))) as client:
            client.sendall(b"x")
            process.terminate()
            _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, b"")


def test_it_goes_when_its_parent_is_killed(tools: Any) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *COMMAND, "--listen", "127.0.0.1:0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    pid, _, ready = owner.stdout.readline().decode().partition(" ")
    assert listens(json.loads(ready)["listen"])
    owner.kill()
    owner.communicate(timeout=10)
    tools.until(lambda: not Path(f"/proc/{pid}/fd").exists() or "Z" in state(pid), lambda: state(pid))
    assert not listens(json.loads(ready)["listen"])


def state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_it_goes_when_its_stdin_ends() -> None:
    process, _ = start("--listen", "127.0.0.1:0", "--exit-on-stdin-eof", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=10) == 0


def test_it_is_ready_soon() -> None:
    """0.3 s is the aim on an idle machine; the fastest of three, against a bound with room for a busy one."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        process, _ = start("--listen", "127.0.0.1:0")
        times.append(time.monotonic() - began)
        process.terminate()
        process.communicate(timeout=10)
    assert min(times) < 1.0


def test_a_configuration_file_and_toxiproxys_own_flags(tmp_path: Path) -> None:
    config = tmp_path / "toxiproxy.json"
    config.write_text(json.dumps([{"name": "a", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}]))
    options = [
        "-host",
        "localhost",
        "-port",
        "0",
        "-config",
        str(config),
        "-seed=9",
        "-proxy-metrics",
        "-runtime-metrics",
    ]
    process, ready = start(*options, "-config", str(config))
    assert ready["seed"] == 9
    host, _, port = ready["listen"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as api:
        api.sendall(b"GET /proxies/a HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert api.recv(100).startswith(b"HTTP/1.1 200 OK")
    process.terminate()
    process.communicate(timeout=10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read --config"),
        ("{", "cannot read --config"),
        ('[{"name": "a"}]', "missing required field: upstream at proxy 1"),
        ("{}", "a JSON list of proxies is needed here"),
    ],
)
def test_a_bad_configuration_ends_the_start(tmp_path: Path, capsys: Any, content: str | None, reason: str) -> None:
    config = tmp_path / "c.json"
    if content is not None:
        config.write_text(content)
    assert main(["--listen", "127.0.0.1:0", "--config", str(config)]) == 64
    assert reason in capsys.readouterr().err


def test_a_port_in_use_ends_the_start_and_names_it(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        assert main(["--listen", address]) == 69
    assert f"listen tcp {address}: bind: address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--nonsense"], "unrecognized arguments"),
        (["--seed", "x"], "invalid int value"),
    ],
)
def test_bad_usage_exits_with_64(capsys: Any, arguments: list[str], reason: str) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 64
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "127.0.0.1:0", "--port", "1"], "either --listen or -host and -port"),
        (["--listen", "127.0.0.1:0", "--parent-pid", str(2**30)], "is not running"),
    ],
)
def test_options_that_contradict_are_refused(capsys: Any, arguments: list[str], reason: str) -> None:
    assert main(arguments) == 64
    assert reason in capsys.readouterr().err


def test_a_listen_address_without_port_is_refused(capsys: Any) -> None:
    assert main(["--listen", "localhost"]) == 69
    assert "missing port in address" in capsys.readouterr().err
