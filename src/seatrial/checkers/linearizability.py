"""The checker of registers and key-value stores: is there one order of all operations that explains every answer?

Each key is decided alone (linearizability is local: Herlihy and Wing, TOPLAS 12(3), 1990).  Keys whose written values
are all different take the near-linear zone check, others the windowed search.

Rule: VALID and INVALID are exact; what time or memory did not suffice for is UNKNOWN.  INVALID carries, per key, the
least set of operations that is impossible by itself, proved again by the search.
A compare-and-set that was refused for any reason but "mismatch" counts as never having happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.checkers.columns import (
    INITIAL,
    MISMATCH,
    OK,
    REGISTER_OPERATIONS,
    Columns,
    MalformedHistory,
    columns_by_key,
)
from seatrial.checkers.explain import Core, evidence_rows, minimise
from seatrial.checkers.refute import decide
from seatrial.checkers.registers import ReusedValue, Violation, check_unique
from seatrial.checkers.schedule import Limits
from seatrial.checkers.sentences import describe, shown_records, tell
from seatrial.checkers.weakening import ANY_STATE, cut_left, refuted, relevant
from seatrial.history import History, Json

_EXPLAINED_KEYS_MAX: Final = 10
_NUMPY_FROM: Final = 4_000  # operations on one key from which the arrays repay their making
_PROOF_SECONDS: Final = 10.0  # to minimise one key's violation, on top of the limit for deciding


@dataclass(frozen=True, slots=True)
class Finding:
    """One key's decision.  `linearizable` None: gave up, for `reason`."""

    linearizable: bool | None
    core: Core | None = None
    violation: Violation | None = None
    reason: str = ""
    method: str = "zones"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearizability:
    """Linearizability of every key of a register, compare-and-set register or key-value store.

    `initial` is the value that every key has before its first write, or a mapping from key to it.
    `seconds_max` and `configurations_max` (about 300 bytes each) bound all keys together, and each key.
    """

    operations: frozenset[str] = REGISTER_OPERATIONS
    initial: Json = None
    seconds_max: float = 60.0
    configurations_max: int = 2_000_000
    numpy_from: int | None = _NUMPY_FROM  # None: never
    clock: Callable[[], float] = time.monotonic

    @property
    def name(self) -> str:
        return "linearizability"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        unexpected = {op.f for op in evidence.history} & (REGISTER_OPERATIONS - self.operations)
        if unexpected:
            return verdict(
                validity=Validity.UNKNOWN,
                reason=f"the history has {sorted(unexpected)}, which this model lacks: use cas-register or kv",
            )
        try:
            by_key = columns_by_key(evidence.history, initial=self.initial, operations=self.operations)
        except MalformedHistory as error:
            return verdict(validity=Validity.UNKNOWN, reason=str(error))
        if not any(len(columns) for columns in by_key.values()):
            return verdict(
                validity=Validity.UNKNOWN,
                reason=f"nothing to check: the history has none of {sorted(self.operations)} with an answer",
            )
        deadline = self.clock() + self.seconds_max
        findings = {key: self.decide(columns, deadline) for key, columns in by_key.items()}
        bad = [key for key, finding in findings.items() if finding.linearizable is False]
        undecided = {key: finding for key, finding in findings.items() if finding.linearizable is None}
        stats = {
            "keys": len(by_key),
            "operations": sum(map(len, by_key.values())),
            "keys_searched": sum(finding.method == "search" for finding in findings.values()),
            "keys_invalid": len(bad),
            "keys_undecided": len(undecided),
        }
        if bad:
            anomalies = (_anomaly(by_key[key], findings[key], evidence.history) for key in bad[:_EXPLAINED_KEYS_MAX])
            return verdict(validity=Validity.INVALID, anomalies=tuple(anomalies), stats=stats)
        if undecided:
            return verdict(validity=Validity.UNKNOWN, reason=_undecided(undecided), stats=stats)
        return verdict(validity=Validity.VALID, stats=stats)

    def decide(self, columns: Columns, deadline: float) -> Finding:
        """One key's verdict, with its core where it is False; `deadline` is on `clock`."""
        if self.clock() > deadline:
            return Finding(None, reason="out of time before this key's turn", method="none")
        try:
            violation = self._violation(columns)
        except ReusedValue:
            return self._searched(columns, deadline)
        if violation is not None:
            return Finding(False, core=self._core(columns, violation), violation=violation)
        if MISMATCH in columns.kind:
            return self._searched(columns, deadline)
        return Finding(True)

    def _violation(self, columns: Columns) -> Violation | None:
        large = self.numpy_from is not None and len(columns) >= self.numpy_from
        return None if large and _surely_linearizable(columns) else check_unique(columns)

    def _limits(self, deadline: float) -> Limits:
        return Limits(configurations=self.configurations_max, deadline=deadline, clock=self.clock)

    def _searched(self, columns: Columns, deadline: float) -> Finding:
        decision = decide(columns.rows(), INITIAL, self._limits(deadline))
        if decision.linearizable is not False:
            return Finding(decision.linearizable, reason=decision.reason, method="search")
        core = minimise(decision.core, decision.core_initial, self._limits(self.clock() + _PROOF_SECONDS))
        # Without time to minimise, what the decision rests on is the proof.
        return Finding(False, core=core or Core(decision.core, decision.core_initial), method="search")

    def _core(self, columns: Columns, violation: Violation) -> Core:
        """The operations that the zones point at, proved impossible by the search and made fewer."""
        rows = relevant(columns.rows())
        shown = evidence_rows(rows, violation.starts, violation.ends)
        limits = self._limits(self.clock() + _PROOF_SECONDS)
        first = min((row.start for row in shown if row.status == OK), default=0)
        # Long chains of compare-and-sets before the violation only cost time where it shows without them.
        recent = cut_left(shown, first)
        if refuted(recent, ANY_STATE, limits):
            core = minimise(recent, ANY_STATE, limits)
        else:
            core = minimise(shown, INITIAL, limits)
        if core is None:
            decision = decide(rows, INITIAL, limits)
            assert decision.linearizable is not True, f"zone check and search disagree on key {columns.key!r}"
            core = Core(decision.core or tuple(shown), decision.core_initial if decision.core else INITIAL)
        return core


def _surely_linearizable(columns: Columns) -> bool:
    """Whether NumPy is there and says so: importing it costs more than most histories do, so only large ones ask."""
    try:
        from seatrial.checkers.registers_numpy import is_linearizable
    except ImportError:
        return False
    return is_linearizable(columns)


def _anomaly(columns: Columns, finding: Finding, history: History) -> Anomaly:
    assert finding.core is not None, "a key that is not linearizable has its core"
    account = tell(finding.core, columns, history)
    accused = history[account.accused.end]
    return Anomaly(
        name="nonlinearizable",
        message=account.sentence,
        ops=shown_records(finding.core),
        key=columns.key,
        node=history[account.accused.start].node if accused.node is None else accused.node,
        time_ns=accused.time_ns,
        detail={
            "kind": account.kind,
            "from": "any state" if finding.core.initial == ANY_STATE else "the initial value",
            "core": describe(finding.core, columns, history),
        },
    )


def _undecided(undecided: Mapping[str | None, Finding]) -> str:
    key, finding = next(iter(undecided.items()))
    return (
        f"{len(undecided)} keys undecided; the first, {key!r}: {finding.reason}. "
        "Raise the limits, or let the workload write every value only once."
    )
