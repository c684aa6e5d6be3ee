"""Real nodes as processes on loopback addresses that belong to this test alone."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

DEADLINE_S = 20.0
_ATTEMPTS = itertools.count()  # so that the next test does not meet the last one's connections in TIME_WAIT
_LIBC = ctypes.CDLL(None, use_errno=True)
# One for all, for each loads the certificates of this machine: ten times the cost of a request.  No connection is kept,
# for nodes come and go behind their addresses.
HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


def _die_with_parent() -> None:
    _LIBC.prctl(1, signal.SIGKILL)


@contextmanager
def leased_network() -> Iterator[str]:
    """`127.A.B` that no other test uses while it is leased: a listening socket on .254 keeps it."""
    for _ in range(1000):
        number = (os.getpid() * 7 + next(_ATTEMPTS) * 31) % (120 * 250)
        prefix = f"127.{120 + number // 250}.{1 + number % 250}"
        lease = socket.socket()
        try:
            lease.bind((f"{prefix}.254", 1024))
            lease.listen(1)
        except OSError:
            lease.close()
            continue
        try:
            yield prefix
        finally:
            lease.close()
        return
    raise AssertionError("no free 127.A.B.0/24")


def until(condition: Callable[[], Any], what: Callable[[], object], deadline_s: float = DEADLINE_S) -> Any:
    """The condition's first true value; on expiry what was last seen."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s; last seen: {what()}"
        time.sleep(0.02)
    return value


class Server:
    """One node's process; started anew after each end with the same settings."""

    def __init__(self, node: int, host: str, peers: str | None, directory: Path, options: tuple[str, ...]) -> None:
        self.node = node
        self.kafka = f"{host}:9092"
        self.http = f"http://{host}:9644"
        self.raft = f"{host}:7101"
        self.directory = directory
        self.log = directory.with_suffix(".stderr")
        self.arguments = [
            sys.executable, "-m", "seatrial.server", "--node-id", str(node),
            *(("--peers", peers) if peers is not None else ()), "--raft-addr", self.raft,
            "--kafka-addr", self.kafka, "--http-addr", f"{host}:9644", "--data-dir", str(directory), *options,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str, preexec: Callable[[], None] = _die_with_parent) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self.arguments, *more], stderr=log, preexec_fn=preexec)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def ended(self, deadline_s: float = DEADLINE_S) -> int:
        assert self.process is not None
        return self.process.wait(deadline_s)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def info(self) -> dict[str, Any] | None:
        """None while it does not answer."""
        try:
            response = HTTP.get(f"{self.http}/api/v1/raft/info", timeout=1)
        except httpx.HTTPError:
            return None
        found: dict[str, Any] = response.json()
        return found

    def group(self, name: str) -> dict[str, Any] | None:
        info = self.info()
        return next((g for g in info["groups"] if g["group"] == name), None) if info else None


class Servers:
    """A cluster of them."""

    def __init__(self, prefix: str, root: Path, count: int, options: tuple[str, ...]) -> None:
        self.prefix = prefix
        numbers = range(1, count + 1)
        peers = ",".join(f"{n}@{prefix}.{n}:7101" for n in numbers)
        self.nodes = {n: Server(n, f"{prefix}.{n}", peers, root / f"node{n}", options) for n in numbers}
        self.root = root
        self.options = options

    def join(self, node: int, *more: str) -> Server:
        """A further node, started, which asks all that are there to be added by."""
        asked = ",".join(server.http for server in self)
        options = (*self.options, "--join", asked, *more)
        joining = Server(node, f"{self.prefix}.{node}", None, self.root / f"node{node}", options)
        self.nodes[node] = joining
        joining.start()
        return joining

    def __iter__(self) -> Iterator[Server]:
        return iter(self.nodes.values())

    @property
    def bootstrap(self) -> str:
        return ",".join(server.kafka for server in self)

    def start(self) -> None:
        for server in self:
            server.start()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            try:
                return all(HTTP.get(f"{s.http}/readyz", timeout=1).status_code == 200 for s in self if s.is_running())
            except httpx.HTTPError:
                return False

        until(ready, self.describe)

    def leader(self, group: str, other_than: Server | None = None) -> Server:
        """The running node that leads the group, with a leader that the others name too."""

        def found() -> Server | None:
            running = [s for s in self if s.is_running() and s is not other_than]
            states = [(s, s.group(group)) for s in running]
            leaders = [s for s, state in states if state and state["role"] == "leader"]
            agreed = all(state and leaders and state["leader_id"] == leaders[0].node for _, state in states)
            return leaders[0] if len(leaders) == 1 and agreed else None

        leader: Server = until(found, self.describe)
        return leader

    def describe(self) -> object:
        return {s.node: (s.is_running(), s.info(), s.log.read_text()[-600:]) for s in self}

    def close(self) -> None:
        for server in self:
            server.kill()


@contextmanager
def servers(root: Path, count: int = 3, *options: str) -> Iterator[Servers]:
    """Started and ready; killed at the end, with their logs printed (pytest shows them when the test failed)."""
    with leased_network() as prefix:
        cluster = Servers(prefix, root, count, options)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()
            for server in cluster:
                print(f"== node {server.node}\n{server.log.read_text()[-4000:]}")
