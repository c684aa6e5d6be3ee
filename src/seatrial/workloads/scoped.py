"""Shows a checker only the operations of one workload, by the keys that the workload owns.

Rule: ownership is readable from the history alone (a key's prefix), so that a stored run can be judged again; indexes
stay those of the whole run.
Knows nothing of what is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seatrial.checkers.base import Checker, Evidence, Verdict


@dataclass(frozen=True, slots=True)
class ScopedChecker:
    """`checker`, seeing only operations whose key begins with `prefix`; its verdict is named after the workload."""

    checker: Checker
    workload: str
    prefix: str

    @property
    def name(self) -> str:
        return f"{self.checker.name} ({self.workload})"

    def check(self, evidence: Evidence) -> Verdict:
        owned = evidence.history.select(lambda op: op.key is not None and op.key.startswith(self.prefix))
        return replace(self.checker.check(replace(evidence, history=owned)), checker=self.name)
