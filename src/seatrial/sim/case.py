"""A case: everything that decides one simulated run, as data.

    seed  →  case (settings of a swarm, a plan of faults, keyed streams)  →  outcome

Rule: the case is the artefact of a failure, not the generator that drew it: it can be written to a file, read back, cut
smaller by hand or by `shrink`, and run again to the same trace.  Equal cases give equal outcomes, in any process.
Knows nothing of how a case is drawn (`swarm`) or run (`core`, `full`).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

Level = Literal["core", "full"]
_LONG_ARRAY: Final = re.compile(r"\[\n([^\[\]]*(?:\[[^\[\]\n]*\][^\[\]]*)*)\]")


def _on_one_line(array: re.Match[str]) -> str:
    return "[" + ", ".join(line.strip().rstrip(",") for line in array[1].splitlines() if line.strip()) + "]"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault.  Times in µs since the run began; with a duration of 0 it is momentary, or for ever.

    nodes: node ids that it hits; links: directed pairs (from, to) that it hits; value: the number that its kind wants
    (a probability, a delay in µs, ppm, bytes, …); mode: the word that its kind wants.  `faults.KINDS` has the meanings.
    """

    at_us: int
    kind: str
    duration_us: int = 0
    nodes: tuple[int, ...] = ()
    links: tuple[tuple[int, int], ...] = ()
    value: float = 0
    mode: str = ""


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every link's delay and damage when no fault says otherwise.

    A delay is uniform in `delay_us`; with the probability `tail` it is 10 to 50 times as long.
    loss, duplicate: of a message (core), or of a segment, which TCP sends again after a while (full).
    split: probability that a segment arrives in two pieces (full).
    """

    delay_us: tuple[int, int] = (200, 1_500)
    tail: float = 0.01
    loss: float = 0.0
    duplicate: float = 0.0
    split: float = 0.1


class Disk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Every disk's speed, and what a crash does to writes that were not synced.

    sync_us: how long a sync takes, uniform.  unsynced: at a crash of the machine, "lost" loses all of them, "prefix"
    keeps the first few, "some" keeps any of them (reordered), each at its sector boundaries; "kept" keeps them all (a
    crash of the process alone).
    """

    sync_us: tuple[int, int] = (100, 1_000)
    unsynced: Literal["lost", "prefix", "some", "kept"] = "prefix"


class Raft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of the nodes, all alike; the meanings are those of `seatrial.raft.RaftConfig`."""

    heartbeat_us: int = 50_000
    election_timeout_us: int = 300_000
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    max_message_bytes: int = 1 << 20
    max_inflight_messages: int = 256
    max_uncommitted_bytes: int = 64 << 20
    snapshot_entries: int = 200  # a snapshot is made after so many applied entries
    keep_entries: int = 50  # of the log, behind a snapshot
    snapshot_chunk_bytes: int = 4_096
    quiet_groups: int = 64  # idle groups fall quiet on a node that has so many (full; see `server.quiet`)
    quiet_beats: int = 20  # and idle is a group that had nothing to do for so many heartbeats


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the clients do: operations a second in all, evenly random; `operations_max` stops them after so many."""

    clients: int = 3
    rate: float = 100.0
    reads: float = 0.3  # share of reads
    keys: int = 5
    payload_bytes: int = 16
    operations_max: int = 1_000_000
    kafka_rate: float = 30.0  # records a second produced by aiokafka (full)
    members: int = 0  # of a consumer group, in which there is nothing without any (full)
    group_rate: float = 40.0  # operations a second of the group's clients, those that append for it included
    topics: int = 1
    partitions: int = 2
    large_bytes: int = 0  # one value in twenty, of keys and of records, has up to so many (full); 0: none has
    retention_bytes: int = -1  # of each partition of the topics; -1: all is kept (full)
    retention_ms: int = -1  # likewise, by the records' own time (full)
    deletions: float = 0.0  # requests a second to delete records (full)

    @property
    def deletes(self) -> bool:
        """Records are deleted, by whatever way."""
        return self.retains or self.deletions > 0

    @property
    def retains(self) -> bool:
        """The topics have a retention size or time."""
        return self.retention_bytes >= 0 or self.retention_ms >= 0


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One run: `duration_us` of faults and load (safety), then everything heals and it must recover (liveness).

    seed: of the streams alone.  nodes: how many; `spares` more exist and are members only after a fault adds them.
    drift_ppm: each node's clock rate is off by at most so much; jitter of the wall clocks alike in `wall_offset_us`.
    mutant: the planted bug that was on, for the record; running with it is up to the caller (`mutants`).
    """

    level: Level
    seed: int
    nodes: int = 3
    spares: int = 0
    duration_us: int = 10_000_000
    drift_ppm: int = 0
    wall_offset_us: int = 0
    network: Network = Network()
    disk: Disk = Disk()
    raft: Raft = Raft()
    load: Load = Load()
    faults: tuple[Fault, ...] = ()
    mutant: str = ""

    def to_toml(self) -> str:
        text = msgspec.toml.encode(msgspec.to_builtins(self)).decode()
        while (short := _LONG_ARRAY.sub(_on_one_line, text)) != text:  # from the innermost array outwards
            text = short
        return text

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Raises msgspec.ValidationError, which names the field, and tomllib.TOMLDecodeError, which names the line."""
        # Not msgspec.toml: it wants `datetime.datetime` to be the builtin type, and a simulation replaces it.
        return msgspec.convert(tomllib.loads(text), cls)

    @classmethod
    def load_file(cls, path: Path) -> Self:
        """Raises OSError, and as `from_toml`."""
        return cls.from_toml(path.read_text())


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A promise that was not kept.

    name: of the promise, stable, in the field's words ("election-safety", "lost-write", …), so that a shrunk case can
    be required to fail in the same way.  at_us: when it was seen.
    """

    name: str
    message: str
    at_us: int
    detail: dict[str, Any] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a case.

    digest: of the whole trace, hexadecimal; equal for equal cases.  bit: for each kind of fault, [how often it was
    carried out, how often there is evidence that it did something].  marks: what `seatrial.marks` counted.
    """

    violations: tuple[Violation, ...]
    digest: str
    events: int
    virtual_us: int
    operations: dict[str, int]  # "ok", "fail", "info"
    bit: dict[str, tuple[int, int]]
    marks: dict[str, int]
