"""A trial as data: what to start, how to load it, how to break it, for how long, from which seed.

Rule: a trial file is complete: the same file, environment and versions give the same plan.
Knows nothing of how any of it is carried out.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Literal, Self

import msgspec

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
ENVIRONMENTS = {
    "local": "processes on loopback, one proxy per directed link",
    "sim": "one process, virtual time, exact replay: a minute takes seconds",
    "netns": "not available: processes in network namespaces (planned)",
}


class BadTrial(ValueError):
    """What was asked for makes no sense; the message says what to write instead."""


def parse_duration(text: str) -> float:
    """Seconds from "30s", "500ms", "2m", "1h" or a bare number of seconds.  Raises BadTrial."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)?\s*", text)
    if match is None:
        raise BadTrial(f"{text!r} is not a duration; write for example 30s, 500ms or 2m")
    return float(match[1]) * _UNITS_S[match[2] or "s"]


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides a run.

    `faults` and `workloads` are names from `seatrial list`; `options` are the driver's own (for the system "own":
    `unsafe`, `durability` and other settings of `seatrial serve`).  `read_from` is about the workload `log`.
    """

    system: str = "own"
    version: str | None = None
    nodes: int = 3
    environment: str = "local"
    workloads: tuple[str, ...] = ("log", "kv")
    faults: tuple[str, ...] = ()
    duration_s: float = 30.0
    seed: int = 0
    unavailability_max_s: float | None = None
    read_from: Literal["leader", "followers"] = "leader"
    options: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 9:
            raise BadTrial(f"nodes = {self.nodes}: a cluster has 1 to 9 nodes")
        if not 0 < self.duration_s <= 24 * 3600:
            raise BadTrial(f"duration = {self.duration_s:g} s: between 0 and 24 h")
        if self.environment not in ENVIRONMENTS:
            raise BadTrial(f"environment {self.environment!r}: one of {', '.join(ENVIRONMENTS)}")
        if not self.workloads:
            raise BadTrial("no workload: name at least one of `seatrial list workloads`")
        if self.read_from not in ("leader", "followers"):
            raise BadTrial(f"read_from {self.read_from!r}: one of leader, followers")
        if self.seed < 0:
            raise BadTrial(f"seed {self.seed}: 0 or more")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a trial file.  Raises BadTrial that names the file and the field."""
        try:
            return msgspec.convert(tomllib.loads(path.read_text()), cls)
        except OSError as error:
            raise BadTrial(f"cannot read {path}: {error.strerror}") from error
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
            raise BadTrial(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        fields = {k: v for k, v in msgspec.to_builtins(self).items() if v is not None}
        path.write_bytes(msgspec.toml.encode(fields))

    def command(self) -> str:
        """The shell command that runs this trial again."""
        words = ["seatrial", "run", "--system", self.system]
        if self.version is not None:
            words += [f"--{self.system}-version" if self.system == "etcd" else "--system-version", self.version]
        if self.nodes != 3:
            words += ["--nodes", str(self.nodes)]
        if self.environment != "local":
            words += ["--env", self.environment]
        words += ["--workload", ",".join(self.workloads)]
        if self.read_from != "leader":
            words += ["--read-from", self.read_from]
        if self.faults:
            words += ["--faults", ",".join(self.faults)]
        words += ["--duration", f"{self.duration_s:g}s", "--seed", str(self.seed)]
        if self.unavailability_max_s is not None:
            words += ["--unavailability-max", f"{self.unavailability_max_s:g}s"]
        for key, value in sorted(self.options.items()):
            words += ["--option", f"{key}={value}"]
        return shlex.join(words)
