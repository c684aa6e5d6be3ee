"""verdict.json, read into types: the merged verdict, each checker's, and the figures of a run.

Rule: fields that a newer or older version wrote or left out do no harm; a file that is no verdict at all is refused
with its name.  A run without the file has not finished, which is a state of its own and not an error.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from seatrial.history import Json

UNFINISHED = "UNFINISHED"
_WORST_FIRST = ("INVALID", "UNKNOWN", "VALID")


class MalformedVerdict(ValueError):
    """verdict.json is there but cannot be read; the message names the file and the field."""


class AnomalySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One broken promise; the fields are those of checkers.base.Anomaly."""

    name: str
    message: str = ""
    ops: tuple[int, ...] = ()
    key: str | None = None
    node: int | None = None
    time_ns: int | None = None
    detail: dict[str, Json] = {}


class CheckerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One checker's verdict."""

    checker: str
    validity: str
    reason: str = ""
    stats: dict[str, Json] = {}
    anomalies: tuple[AnomalySummary, ...] = ()


class FaultCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many faults of each kind were injected, and how many left evidence that they bit."""

    injected: dict[str, int] = {}
    bit: dict[str, int] = {}


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run; `validity` is UNFINISHED when there is no verdict (yet)."""

    validity: str = UNFINISHED
    seed: int | None = None
    replay: str = ""
    system: str = ""
    environment: str = ""
    started: str = ""
    duration_s: float = 0.0
    workloads: tuple[str, ...] = ()
    stats: dict[str, Json] = {}
    checkers: tuple[CheckerSummary, ...] = ()
    faults: FaultCounts = FaultCounts()
    assumptions: tuple[str, ...] = ()

    @property
    def anomalies(self) -> tuple[tuple[CheckerSummary, AnomalySummary], ...]:
        """Every anomaly with the checker that found it."""
        return tuple((checker, anomaly) for checker in self.checkers for anomaly in checker.anomalies)


def load_summary(path: Path) -> RunSummary:
    """Read verdict.json; an unfinished run's summary when there is none.  Raises MalformedVerdict."""
    if not path.exists():
        return RunSummary()
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunSummary)
    except msgspec.DecodeError as error:
        raise MalformedVerdict(f"{path}: {error}") from error


def one_sentence(summary: RunSummary, *, acknowledged: int | None = None) -> str:
    """Why the verdict is what it is, for people who read nothing else.

    `acknowledged`: operations, where the caller counted them; otherwise as the run itself did.
    """
    if acknowledged is None and isinstance(summary.stats.get("ok"), int):
        acknowledged = summary.stats["ok"]
    found = summary.anomalies
    if summary.validity == "INVALID" and found:
        first = found[0][1].message or found[0][1].name
        if len(found) == 1:
            return _sentence(first)
        others = len(found) - 1
        return f"{_sentence(first)} And {others:,} more anomal{'y' if others == 1 else 'ies'} below."
    if summary.validity == "UNKNOWN":
        reasons = [c.reason.strip().splitlines()[-1] for c in summary.checkers if c.validity == "UNKNOWN" and c.reason]
        return _sentence("; ".join(reasons) or "nothing was checked") + " This is not a pass."
    if summary.validity == "VALID":
        bit = sum(summary.faults.bit.values())
        under = f", under {bit:,} fault{'' if bit == 1 else 's'} that left evidence" if bit else ", without any fault"
        kept = f"{len(summary.checkers)} checkers" if len(summary.checkers) != 1 else "The checker"
        of = "" if acknowledged is None else f" in {acknowledged:,} acknowledged operations"
        return f"{kept} found every promise kept{of}{under}."
    return "This run has no verdict (yet): it is still going on, or it was cut off. What it recorded so far is below."


def ordered_checkers(summary: RunSummary) -> list[CheckerSummary]:
    """The worst first."""
    rank = {name: place for place, name in enumerate(_WORST_FIRST)}
    return sorted(summary.checkers, key=lambda c: rank.get(c.validity, len(rank)))


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
