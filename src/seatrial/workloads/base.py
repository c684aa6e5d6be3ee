"""What a workload is: clients that turn operations into answers, and how their answers are checked.

Rule: clients are third-party libraries; this wing never imports the server's codec.
Knows nothing of how nodes are started or broken: it is given their addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from seatrial.checkers.base import Checker
from seatrial.env import Rng
from seatrial.history import Json, OpType


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where clients reach one node; None for what the system does not speak."""

    node: int
    kafka: str | None = None  # "host:port"
    http: str | None = None  # "http://host:port": our HTTP API, or etcd's JSON gateway
    rack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One operation to try; `node` pins it.

    With `keys` one request reads many keys at once: its completion's value maps each key to what was read, and it is
    recorded as one operation per key, each under a client number of its own, all over the same interval.
    """

    f: str
    key: str | None = None
    value: Json = None
    node: int | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """How a request ended.  When in doubt, INFO."""

    type: OpType
    value: Json = None
    error: str | None = None
    node: int | None = None


class Client(Protocol):
    """One logical client: one operation at a time; never raises for what the cluster does to it."""

    async def perform(self, request: Request) -> Completion:
        """Try it once, within the client's own time limit."""

    async def reconnect(self) -> None:
        """Drop what the last error may have spoilt."""

    async def close(self) -> None: ...


class Generator(Protocol):
    """Decides what each client does next; all of its choices come from its stream."""

    def next(self, client: int) -> Request | None:
        """None: this client has nothing to do now.  `client` is its place among the workload's clients, from 0."""

    def completed(self, request: Request, completion: Completion) -> None:
        """Told how each request ended, so that later choices can build on it (a compare-and-set on a value read)."""


class Workload(Protocol):
    """Clients, what they do, what they do at the end, and how it is judged."""

    @property
    def name(self) -> str: ...

    @property
    def clients(self) -> int:
        """How many clients run at once."""

    @property
    def rate(self) -> float:
        """Operations a second, over all clients; 0: as fast as they can."""

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        """Create topics, fill keys; retried until the deadline.  Raises SetupFailed that says what it
        last saw, or Unsupported."""

    def generator(self, rng: Rng) -> Generator: ...

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        """The client at place `number` (from 0 up to `clients`); called after `setup`."""

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        """Reads after everything is healed, some of every node; each is retried until it is `ok` or time is up."""

    def checkers(self) -> Sequence[Checker]:
        """Judges of this workload's operations; each picks them out of the whole run's history itself."""


class SetupFailed(TimeoutError):
    """A workload could not be prepared before its deadline, so that nothing was tried."""


class Unsupported(ValueError):
    """The system does not speak what the workload's clients speak; no waiting will help."""
