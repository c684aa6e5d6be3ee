"""Nodes started by hand, by `seatrial serve` as an operator writes it: each with settings of its own.

    with serving(tmp_path, 3) as site:
        site.start(1, *site.flags(1))

Rule: every node has addresses that nobody else uses; every wait has a deadline and says what the nodes wrote; whatever
happens, no process is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from seatrial.cluster.ports import AddressLease, lease_addresses

DEADLINE_S = 40.0
LOOK_S = 0.05
PORTS = {"raft": 7101, "kafka": 9092, "http": 9644}
SERVE = (sys.executable, "-c", "from seatrial.launcher import main; main()", "serve")


def until(condition: Callable[[], Any], seen: Callable[[], object], deadline_s: float = DEADLINE_S) -> Any:
    """The condition's first true value.  Raises AssertionError with what was last seen."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s; last seen: {seen()}"
        time.sleep(LOOK_S)
    return value


class Site:
    """Addresses, directories and processes of the nodes 1 to N."""

    def __init__(self, root: Path, nodes: int, lease: AddressLease) -> None:
        self.root = root
        self.nodes = tuple(range(1, nodes + 1))
        self.peers = ",".join(f"{node}@{lease.address(node, PORTS['raft'])}" for node in self.nodes)
        self._lease = lease
        self._http = httpx.Client(trust_env=False, timeout=5)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def address(self, node: int, service: str) -> str:
        return self._lease.address(node, PORTS[service])

    def directory(self, node: int) -> Path:
        return self.root / f"node{node}"

    def settings(self, node: int, **changes: object) -> dict[str, str]:
        """What the node has to be told, by the names of TOML keys; `changes` by names with underscores."""
        told = {
            "node-id": str(node),
            "data-dir": str(self.directory(node)),
            "peers": self.peers,
            **{f"{service}-addr": self.address(node, service) for service in PORTS},
        }
        return told | {name.replace("_", "-"): str(value) for name, value in changes.items()}

    def start(self, node: int, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start the node's process, and do not wait for anything."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEATRIAL_")}
        with self.log(node).open("ab") as log:
            self.processes[node] = subprocess.Popen(
                [*SERVE, *arguments], stderr=log, env={**inherited, **(environment or {})}, cwd=self.root
            )

    def start_by_flags(self, node: int, **changes: object) -> None:
        self.start(node, *flags_of(self.settings(node, **changes)))

    def log(self, node: int) -> Path:
        return self.root / f"node{node}.stderr"

    def said(self, node: int) -> str:
        return self.log(node).read_text()

    def exit_status(self, node: int) -> int:
        """Wait for its end."""
        return self.processes[node].wait(DEADLINE_S)

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes[node].wait(DEADLINE_S)

    def terminate(self, node: int) -> int:
        self.processes[node].send_signal(signal.SIGTERM)
        return self.exit_status(node)

    # -- asking

    def ask(self, method: str, node: int, path: str, content: str | None = None) -> httpx.Response | None:
        """One request; None where nobody answers."""
        try:
            return self._http.request(method, f"http://{self.address(node, 'http')}{path}", content=content)
        except httpx.HTTPError:
            return None

    def put(self, node: int, key: str, value: str, deadline_s: float = DEADLINE_S) -> None:
        until(lambda: _succeeded(self.ask("PUT", node, f"/api/v1/kv/{key}", value)), self.describe, deadline_s)

    def get(self, node: int, key: str, deadline_s: float = DEADLINE_S) -> str:
        """What the node answers to a linearizable read, once it does."""

        def read() -> httpx.Response | None:
            answer = self.ask("GET", node, f"/api/v1/kv/{key}")
            return answer if _succeeded(answer) else None

        answer: httpx.Response = until(read, self.describe, deadline_s)
        return answer.text

    def kv_group(self, node: int) -> dict[str, Any] | None:
        """The node's own account of the group behind the key-value store."""
        answer = self.ask("GET", node, "/api/v1/raft/info")
        if answer is None or not answer.is_success:
            return None
        return next((group for group in answer.json()["groups"] if group["group"] == "kv"), None)

    def wait_for_leader(self, *nodes: int) -> int:
        """The node that these (by default: all) name as leader, and that says so itself."""
        asked = nodes or self.nodes

        def agreed() -> int | None:
            told = {node: self.kv_group(node) for node in asked}
            leaders = {group["leader_id"] if group else None for group in told.values()}
            leader = leaders.pop() if len(leaders) == 1 else None
            return leader if leader in told and (told[leader] or {}).get("role") == "leader" else None

        leader: int = until(agreed, self.describe)
        return leader

    def describe(self) -> str:
        parts = (
            f"node {node} ({self.processes[node].poll()}): {self.kv_group(node)}\n{self.said(node)[-1500:]}"
            for node in self.processes
        )
        return "\n".join(parts)

    def close(self) -> None:
        self._http.close()
        for process in self.processes.values():
            process.kill()
            process.wait(DEADLINE_S)


def _succeeded(answer: httpx.Response | None) -> bool:
    return answer is not None and answer.is_success


def flags_of(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def environment_of(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"SEATRIAL_{name.replace('-', '_').upper()}": value for name, value in settings.items()}


def toml_of(settings: Mapping[str, str]) -> str:
    return "".join(f'{name} = "{value}"\n' for name, value in settings.items())


@contextmanager
def serving(root: Path, nodes: int) -> Iterator[Site]:
    """A site where nothing runs yet; at the end nothing does."""
    lease = lease_addresses()
    site = Site(root, nodes, lease)
    try:
        yield site
    finally:
        site.close()
        lease.close()
