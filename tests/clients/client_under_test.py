"""What every Kafka client is asked to do, in words that all of them have.

Rule: an adapter adds nothing to its client: no retry, no check and no wait that an application would not write.  It
raises what the client raises, and names in `cannot` what the client itself has no way to do.
Knows nothing of the claims that are made of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

DEADLINE_S: Final = 90.0  # for any one thing that a client is asked to do; far more than it needs
EARLIEST: Final = -2
LATEST: Final = -1


class Record(NamedTuple):
    """What is written; the broker keeps `timestamp_ms` as it is given, and None leaves it to the client."""

    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None


class Found(NamedTuple):
    """What is read."""

    offset: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Producing:
    """How a producer is set up.  `acks`: 0, 1 or -1 (all).  `pause_s` is waited after each record."""

    acks: int = -1
    idempotent: bool = False
    codec: str = "none"
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A client as a column of the table.

    `rack`: its setting for the rack that it is in.  `cannot`: by a claim's name, why the client itself cannot do that.
    """

    name: str
    version: str
    rack: str
    cannot: Mapping[str, str] = field(default_factory=dict)


class Client(Protocol):
    """One client, connected to the cluster under trial; its methods block, and may be called from several threads."""

    def create_topic(self, topic: str, partitions: int) -> None:
        """With three replicas."""
        ...

    def produce(self, topic: str, records: Sequence[Record], how: Producing) -> list[int]:
        """By one producer to partition 0; the offsets that it was told, which are none where the client tells none."""
        ...

    def read(self, topic: str, offset: int, count: int, *, rack: str = "") -> list[Found]:
        """So many records of partition 0 from an offset on, belonging to no group."""
        ...

    def read_as_group(self, group: str, topic: str, count: int) -> list[int]:
        """So many values, as numbers, from all partitions by a group's only member, which commits them and leaves."""
        ...

    def offset_at(self, topic: str, when: int) -> int:
        """In partition 0: EARLIEST, LATEST, or that of the first record which is not older than `when` (ms)."""
        ...

    def admin(self, call: str, **arguments: Any) -> Any:
        """One of the administrator's calls that `client_claims` makes."""
        ...

    def close(self) -> None: ...


def locked_version(package: str) -> str:
    """The version of a Python package that `make install` takes."""
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text().splitlines()
    return next(line.partition("==")[2] for line in lock if line.startswith(f"{package}=="))


def cache_directory() -> Path:
    """Where scripts/fetch-kafka-clients.sh puts what no package manager of the system has."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seatrial"


def missing_program(*programs: str) -> str | None:
    """Which of them is not installed, or None."""
    return next((program for program in programs if shutil.which(program) is None), None)
