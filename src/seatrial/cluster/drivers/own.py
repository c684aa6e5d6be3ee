"""Driver of Seatrial's own server: a Raft-replicated log with a Kafka front.

Rule: the server is a binary like any other: it is started by its command line and asked over HTTP.
Knows nothing of the server's code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import httpx

from seatrial.cluster.drivers.base import Command, LinkStyle, NoAnswer, NodeAddresses, NodePlace, get_json
from seatrial.cluster.errors import Unavailable
from seatrial.cluster.status import NodeStatus

# Options of `ClusterSpec.options`, each handed over as the flag of the same name.
FLAGS = (
    "auto_create_topics",
    "cluster_id",
    "default_replication_factor",
    "durability",
    "election_timeout_ms",
    "fetch_from_followers",
    "follower_staleness_max_ms",
    "heartbeat_ms",
    "lease_reads",
    "log_level",
    "max_message_bytes",
    "max_request_bytes",
    "raft_tls_ca",  # files: give absolute paths
    "raft_tls_cert",
    "raft_tls_key",
    "raft_tls_name",
    "replica_selector",
    "test_hooks",
    "transport",
    "unsafe",  # planted bugs: one name, or a list of them
    "uvloop",
)


class OwnDriver:
    """Seatrial's own Kafka-compatible server (the default)."""

    name = "own"
    link_style = LinkStyle.PER_LINK
    ports: Mapping[str, int] = {"peer": 7400, "kafka": 9092, "http": 8080}
    group = "metadata"
    status_is_atomic = True
    gives_digests = True

    def __init__(self, version: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        if version is not None:
            raise ValueError("the own system has no version to choose: it is the one of this installation")
        self.version: str | None = None
        self._flags = _flags(options or {})
        self.test_hooks = str((options or {}).get("test_hooks", False)).lower() in ("true", "yes", "on", "1")

    def unavailable(self) -> str | None:
        return None

    def prepare(self) -> None:
        reason = self.unavailable()
        if reason is not None:
            raise Unavailable(reason)

    def command(self, place: NodePlace) -> Command:
        peers = {**place.peers, place.node: place.listen["peer"]}
        argv = [
            *(sys.executable, "-m", "seatrial.server"),
            *("--node-id", str(place.node)),
            *("--peers", ",".join(f"{peer}@{address}" for peer, address in sorted(peers.items()))),
            *("--raft-addr", place.listen["peer"]),
            *("--kafka-addr", place.listen["kafka"]),
            *("--http-addr", place.listen["http"]),
            *("--rack", rack_of(place.node)),
            *("--data-dir", str(place.directory)),
            *(("--join", "wait", "--advertise-raft", place.advertised) if place.advertised else ()),
            *self._flags,
        ]
        return Command(argv=tuple(argv))

    def addresses(self, place: NodePlace) -> NodeAddresses:
        return NodeAddresses(
            node=place.node,
            kafka=place.listen["kafka"],
            http=f"http://{place.listen['http']}",
            rack=rack_of(place.node),
            peer=place.listen["peer"],
        )

    async def check_ready(self, place: NodePlace, http: httpx.AsyncClient) -> None:
        await get_json(http, f"http://{place.listen['http']}/api/v1/raft/info")

    async def status(self, place: NodePlace, http: httpx.AsyncClient, *, digest: bool) -> tuple[NodeStatus, ...]:
        info = await get_json(http, f"http://{place.listen['http']}/api/v1/raft/info")
        try:
            assert isinstance(info, dict)
            return tuple(status_of(place.node, group) for group in info["groups"])
        except (AssertionError, KeyError, TypeError) as error:
            raise NoAnswer(f"/api/v1/raft/info is not as documented: {error!r}") from error


def rack_of(node: int) -> str:
    """Each node has a rack of its own, so that a client can ask to be served by it (KIP-392)."""
    return f"rack-{node}"


def status_of(node: int, group: Mapping[str, Any], incarnation: int | None = None) -> NodeStatus:
    """One group of `GET /api/v1/raft/info`.  Raises KeyError, TypeError where it is not as documented."""
    return NodeStatus(
        node=node,
        group=group["group"],
        role=group["role"],
        term=group["term"],
        leader=group.get("leader_id") or None,
        commit_index=group["commit_index"],
        last_applied=group["last_applied"],
        last_index=group.get("last_index"),
        digest=group.get("digest"),
        incarnation=incarnation,
    )


def _flags(options: Mapping[str, Any]) -> list[str]:
    unknown = sorted(set(options) - set(FLAGS))
    if unknown:
        raise ValueError(f"the own system has no option {', '.join(unknown)}; it has: {', '.join(FLAGS)}")
    flags: list[str] = []
    for name, value in sorted(options.items()):
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        flags += [f"--{name.replace('_', '-')}", text.lower() if isinstance(value, bool) else text]
    return flags
