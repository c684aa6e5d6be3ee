"""Servers under test (ours on both event loops, and a real Toxiproxy), and sockets through them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
DEADLINE_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running proxy server.  `kind`: ours, asyncio (ours without uvloop) or toxiproxy."""

    kind: str
    host: str
    port: int

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """`body` is sent as it is if it is bytes, else as JSON."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=DEADLINE_SECONDS)
        try:
            content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            lower = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, lower, answer.read())
        finally:
            connection.close()

    def clear(self) -> None:
        for name in self.ask("GET", "/proxies").json:
            self.ask("DELETE", f"/proxies/{name}")


class Link:
    """A proxy with a server of ours behind it: `connect` gives the two ends of one proxied connection."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.path = f"/proxies/{name}"
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.upstream.settimeout(DEADLINE_SECONDS)
        self.opened: list[socket.socket] = [self.upstream]
        target = f"127.0.0.1:{self.upstream.getsockname()[1]}"
        wanted = {"name": name, "listen": "127.0.0.1:0", "upstream": target}
        answer = server.ask("POST", "/proxies", wanted)
        assert answer.status == 201, answer
        self.port = int(answer.json["listen"].rpartition(":")[2])

    def dial(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened.append(client)
        return client

    def accept(self) -> socket.socket:
        accepted, _ = self.upstream.accept()
        accepted.settimeout(DEADLINE_SECONDS)
        self.opened.append(accepted)
        return accepted

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = self.dial()
        return client, self.accept()

    def add(self, type_name: str, stream: str = "downstream", toxicity: float = 1.0, **attributes: Any) -> str:
        """Add a toxic; returns its path."""
        caller = attributes.pop("caller", None)
        body = {"type": type_name, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        answer = self.server.ask("POST", f"{self.path}/toxics", body | ({"caller": caller} if caller else {}))
        assert answer.status == 200, answer
        return f"{self.path}/toxics/{answer.json['name']}"

    def remove(self, toxic_path: str) -> None:
        assert self.server.ask("DELETE", toxic_path).status == 204

    def counters(self) -> Any:
        return self.server.ask("GET", self.path).json["counters"]

    def close(self) -> None:
        for each in self.opened:
            each.close()
        self.server.ask("DELETE", self.path)


def read_exactly(source: socket.socket, size: int) -> bytes:
    """Up to `size` bytes: fewer only if the stream ends."""
    got = bytearray()
    while len(got) < size and (part := source.recv(size - len(got))):
        got += part
    return bytes(got)


def silent(source: socket.socket, seconds: float) -> bool:
    """Whether nothing, not even an end, comes within that time."""
    before = source.gettimeout()
    source.settimeout(seconds)
    try:
        source.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        source.settimeout(before)
    return False


def until(claim: Callable[[], Any], describe: Callable[[], Any] = lambda: "") -> Any:
    """Poll until the claim holds and return what it gave; on expiry fail with what was last seen."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (held := claim()):
        assert time.monotonic() < deadline, f"not true within {DEADLINE_SECONDS} s; last seen: {describe()}"
        time.sleep(0.005)
    return held


@dataclass(frozen=True)
class Tools:
    """The functions above, for tests (pytest imports test files by path, so they cannot import this one)."""

    read_exactly: Callable[[socket.socket, int], bytes] = read_exactly
    silent: Callable[[socket.socket, float], bool] = silent
    until: Callable[..., Any] = until


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


def start_ours(*options: str) -> tuple[subprocess.Popen[bytes], Server]:
    command = [sys.executable, "-m", "seatrial.cluster.proxy", "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(
        [*command, "--parent-pid", str(os.getpid())], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
        raise AssertionError(f"proxy did not start: {errors.decode()}")
    host, _, port = json.loads(line)["listen"].rpartition(":")
    kind = "asyncio" if "asyncio" in options else "ours"
    return process, Server(kind, host, int(port))


@pytest.fixture(scope="session")
def start_proxy() -> Callable[..., tuple[subprocess.Popen[bytes], Server]]:
    return start_ours


def toxiproxy_binary() -> Path:
    """The real server, built once into the user's cache.  Skips the test with the reason where that cannot be done."""
    if given := os.environ.get("SEATRIAL_TOXIPROXY_SERVER"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seatrial" / "toxiproxy-2.12.0"
    binary = cache / "server"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        pytest.skip("a real Toxiproxy needs Go to be built, or SEATRIAL_TOXIPROXY_SERVER=<its binary>")
    environment = {**os.environ, "GOBIN": str(cache)}
    try:
        subprocess.run([go, "install", TOXIPROXY], env=environment, check=True, capture_output=True, timeout=400)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"a real Toxiproxy could not be built: {(error.stderr or b'').decode()[-300:] or error}")
    return binary


def start_toxiproxy() -> tuple[subprocess.Popen[bytes], Server]:
    binary = toxiproxy_binary()
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [str(binary), "-host", "127.0.0.1", "-port", str(port), "-proxy-metrics"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server = Server("toxiproxy", "127.0.0.1", port)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                server.ask("GET", "/version")
                return process, server
            except OSError:
                time.sleep(0.01)
        process.kill()
        process.wait()
    raise AssertionError("a real Toxiproxy did not answer on any of five ports")


def running(start: Callable[[], tuple[subprocess.Popen[bytes], Server]]) -> Iterator[Server]:
    process, server = start()
    yield server
    process.terminate()
    process.communicate(timeout=DEADLINE_SECONDS)


@pytest.fixture(scope="session")
def ours_running() -> Iterator[Server]:
    yield from running(start_ours)


@pytest.fixture(scope="session")
def asyncio_running() -> Iterator[Server]:
    yield from running(lambda: start_ours("--event-loop", "asyncio"))


@pytest.fixture(scope="session")
def toxiproxy_running() -> Iterator[Server]:
    yield from running(start_toxiproxy)


@pytest.fixture(
    params=[
        "ours",
        pytest.param("asyncio", marks=pytest.mark.slow),
        pytest.param("toxiproxy", marks=[pytest.mark.slow, pytest.mark.external, pytest.mark.timeout(450)]),
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    """Every implementation of the contract."""
    found: Server = request.getfixturevalue(f"{request.param}_running")
    found.clear()
    return found


@pytest.fixture(params=["ours", pytest.param("asyncio", marks=pytest.mark.slow)])
def ours(request: pytest.FixtureRequest) -> Server:
    """What only our own server has."""
    found: Server = request.getfixturevalue(f"{request.param}_running")
    found.clear()
    found.ask("PUT", "/callers", {})
    return found


@pytest.fixture
def make_link() -> Iterator[Callable[..., Link]]:
    made: list[Link] = []

    def make(server: Server, name: str = "link") -> Link:
        made.append(Link(server, name))
        return made[-1]

    yield make
    for link in made:
        link.close()
