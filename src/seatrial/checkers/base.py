"""What every checker takes and gives: a run's records in, a verdict with evidence out.

Rule: INVALID names the records that show it; UNKNOWN says why; a crash in a checker is UNKNOWN, and UNKNOWN is not a
pass.  Knows nothing of clients, clusters or files.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from seatrial.history import FaultEvent, History, Json, StatusSample


class Validity(IntEnum):
    """Ordered by badness: merging verdicts is `max`."""

    VALID = 0
    UNKNOWN = 1
    INVALID = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """One broken promise and the records that show it."""

    name: str  # "lost-write", "nonlinearizable", "two-leaders-in-one-term", ...
    message: str  # one sentence a newcomer understands
    ops: tuple[int, ...] = ()  # Op.index of the invocations or completions that show it
    key: str | None = None
    node: int | None = None
    time_ns: int | None = None
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A checker's answer.  `reason` is required when UNKNOWN; `stats` are figures for the report."""

    checker: str
    validity: Validity
    anomalies: tuple[Anomaly, ...] = ()
    reason: str = ""
    stats: Mapping[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.validity is not Validity.UNKNOWN or self.reason, "UNKNOWN needs its reason"
        assert self.validity is not Validity.INVALID or self.anomalies, "INVALID needs its evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a run recorded."""

    history: History
    faults: Sequence[FaultEvent] = ()
    statuses: Sequence[StatusSample] = ()
    nodes: tuple[int, ...] = ()
    duration_ns: int = 0  # length of the phase with faults, from time 0


class Checker(Protocol):
    """Decides one kind of promise."""

    @property
    def name(self) -> str: ...

    def check(self, evidence: Evidence) -> Verdict: ...


def run_checkers(checkers: Iterable[Checker], evidence: Evidence) -> tuple[Verdict, ...]:
    """Every checker's verdict; a crash becomes UNKNOWN with its traceback as the reason."""
    return tuple(_guarded(checker, evidence) for checker in checkers)


def _guarded(checker: Checker, evidence: Evidence) -> Verdict:
    try:
        return checker.check(evidence)
    except Exception:
        return Verdict(
            checker=checker.name,
            validity=Validity.UNKNOWN,
            reason=f"the checker itself failed:\n{traceback.format_exc()}",
        )


def merge(verdicts: Iterable[Verdict]) -> Validity:
    """The worst of them; UNKNOWN where there is none, because nothing was checked."""
    return max((v.validity for v in verdicts), default=Validity.UNKNOWN)
