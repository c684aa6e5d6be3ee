"""What a driver is: how one system is started, where its addresses are, and how it tells its state.

Rule: a driver describes and asks; it starts no process and keeps no file open, so that all faults work on all systems.
Knows nothing of faults, workloads or the other drivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import httpx

from seatrial.cluster.ports import split_address
from seatrial.cluster.status import NodeStatus


class LinkStyle(StrEnum):
    """How a system lets proxies stand between its nodes."""

    PER_LINK = "per_link"  # each node is told its own list of peers' addresses: one proxy for each directed link
    PER_DESTINATION = "per_destination"  # one advertised address a node: one proxy each, callers told apart by pid


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Where one node lives: its directory and its addresses ("host:port").

    `listen`: service name -> where it listens; always has "peer", the one the other nodes talk to.
    `peers`: for every node, itself included, the peer address under which this node is to reach it.
    `advertised`: of a node that joins a cluster which runs already, the peer address that all others are told; "" of
    those with which the cluster begins.
    """

    node: int
    directory: Path
    listen: Mapping[str, str]
    peers: Mapping[int, str]
    advertised: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run; `environment` is added to the harness's own, without what could configure the system by accident."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddresses:
    """Where clients reach one node; None for what the system does not speak."""

    node: int
    kafka: str | None = None  # "host:port"
    http: str | None = None  # "http://host:port"
    rack: str | None = None
    peer: str = ""  # the node's own peer address, past all proxies


class NoAnswer(Exception):
    """The node did not answer, or its answer cannot be understood; the message says which, in a few words."""


class Driver(Protocol):
    """One system that can be put through trials."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str | None: ...

    @property
    def link_style(self) -> LinkStyle: ...

    @property
    def ports(self) -> Mapping[str, int]:
        """Service name -> port that it listens on; "peer" is required."""

    @property
    def group(self) -> str:
        """The Raft group that `wait_for_leader` means when it is told none."""

    @property
    def gives_digests(self) -> bool:
        """Whether a node tells a digest of its state, by which replicas can be compared."""

    @property
    def status_is_atomic(self) -> bool:
        """Whether one status is what the node held at one instant: leader, term and indexes read together."""

    @property
    def test_hooks(self) -> bool:
        """Whether its nodes filter their messages on demand, as `seatrial serve --test-hooks` does."""

    def unavailable(self) -> str | None:
        """Why this machine cannot run it, and what to install; None when it can.  Quick, and without the network."""

    def prepare(self) -> None:
        """Fetch or find what is needed, before the first start.  May take seconds.  Raises Unavailable."""

    def command(self, place: NodePlace) -> Command: ...

    def addresses(self, place: NodePlace) -> NodeAddresses: ...

    async def check_ready(self, place: NodePlace, http: httpx.AsyncClient) -> None:
        """Return when the node accepts connections.  Raises NoAnswer while it does not."""

    async def status(self, place: NodePlace, http: httpx.AsyncClient, *, digest: bool) -> tuple[NodeStatus, ...]:
        """What the node says of each of its groups.  Raises NoAnswer.

        `digest`: also the digest of its state, where asking for it costs the node something.
        """


async def get_json(http: httpx.AsyncClient, url: str) -> object:
    """The JSON at a URL.  Raises NoAnswer for everything else."""
    return await _json_of(http, "GET", url, None)


async def post_json(http: httpx.AsyncClient, url: str, body: object) -> object:
    """The JSON that answers a JSON request.  Raises NoAnswer for everything else."""
    return await _json_of(http, "POST", url, body)


async def _json_of(http: httpx.AsyncClient, method: str, url: str, body: object) -> object:
    try:
        response = await http.request(method, url, json=body) if body is not None else await http.get(url)
        if response.status_code != 200:
            raise NoAnswer(f"HTTP status {response.status_code} from {url}")
        return response.json()
    except httpx.HTTPError as error:
        raise NoAnswer(f"no answer from {url}: {error or type(error).__name__}") from error
    except ValueError as error:
        raise NoAnswer(f"not JSON from {url}: {error}") from error


async def accepts(address: str) -> None:
    """Return when a connection to "host:port" is accepted.  Raises NoAnswer."""
    host, port = split_address(address)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        raise NoAnswer(f"{address} does not accept: {error.strerror or error}") from error
    writer.close()
