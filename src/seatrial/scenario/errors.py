"""What a scenario test can run into: a thing that cannot be had here, an operation that was not done, a broken promise.

Rule: each error says what was tried and what was last seen; whether an operation surely did not happen is in the
error, not only in its words.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatrial.checkers.base import Validity, Verdict
from seatrial.cluster.errors import ClusterError
from seatrial.sim.case import Violation

SHOWN_MAX = 8  # anomalies of one verdict in an error's text


class NotHere(ClusterError):
    """This environment or this system cannot do it; `reason` says why, and where it can be done."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotDone(ClusterError):
    """An operation that did not come to a good end.

    definite: it surely did not happen, and never will; else nobody knows (the history says `info`).
    """

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.definite = definite


class Unavailable(NotDone):
    """Nobody carried it out in time: no connection, no leader, no majority, or no answer."""


class Refused(NotDone):
    """The system understood it and will not do it, whoever is asked and however often: too large, no such node, …

    code: the system's own word for the reason, where it has one.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message, definite=True)
        self.code = code


class CheckFailed(AssertionError):
    """What the clients were told cannot be explained by a correct system, or could not be judged.

    verdicts: those that are not VALID.
    """

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        super().__init__("\n".join(_told(verdict) for verdict in verdicts))
        self.verdicts = tuple(verdicts)


def _told(verdict: Verdict) -> str:
    lines = [f"{verdict.checker}: {verdict.validity.name}" + (f": {verdict.reason}" if verdict.reason else "")]
    if verdict.validity is Validity.INVALID:
        lines += [f"  {anomaly.name}: {anomaly.message}" for anomaly in verdict.anomalies[:SHOWN_MAX]]
        left = len(verdict.anomalies) - SHOWN_MAX
        lines += [f"  and {left} more"] if left > 0 else []
    return "\n".join(lines)


class BrokenPromise(AssertionError):
    """The simulator looked into the nodes at every step and saw what Raft promises never happens, or a server fail."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        lines = [f"{found.name} at {found.at_us / 1e6:.6f} s: {found.message}" for found in violations]
        super().__init__("\n".join(lines))
        self.violations = tuple(violations)
