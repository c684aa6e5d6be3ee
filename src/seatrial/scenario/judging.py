"""Judging what a scenario recorded: which checkers have something to say, and what they say.  PURE.

Rule: what was named is judged, and UNKNOWN is not a pass; what was not named is judged where there is anything to
judge.  Stale reads are no reads to the checker of linearizability, and are reads to that of sessions.
Knows nothing of clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Checker, Evidence, Validity, Verdict, run_checkers
from seatrial.checkers.columns import REGISTER_OPERATIONS
from seatrial.checkers.linearizability import Linearizability
from seatrial.checkers.partition_log import PartitionLog
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.checkers.sessions import Sessions
from seatrial.history import History, Op, OpType
from seatrial.scenario.errors import CheckFailed
from seatrial.scenario.key_value import STALE_READ

CONFIGURATIONS_MAX = 300_000  # of a search: some 100 MB

CHECKERS: Mapping[str, Callable[[], Checker]] = {
    # Without numpy, which a simulated process has not imported.
    "linearizability": lambda: Linearizability(configurations_max=CONFIGURATIONS_MAX, numpy_from=None),
    "partition-log": PartitionLog,
    "sessions": Sessions,
    "raft-invariants": RaftInvariants,
    "replica-equality": ReplicaEquality,
    "availability": Availability,
}


def by_name(name: str, *, atomic: bool) -> Checker:
    """The checker; `atomic` as in `RaftInvariants`.  Raises ValueError that says which there are."""
    if name not in CHECKERS:
        raise ValueError(f"there is no checker {name!r}; there are: {', '.join(CHECKERS)}")
    return RaftInvariants(atomic=atomic) if name == "raft-invariants" else CHECKERS[name]()


def fitting(evidence: Evidence) -> list[str]:
    """The checkers that have something to check."""
    acknowledged = {op.f for op in evidence.history if op.type is OpType.OK}
    names = ["linearizability"] if acknowledged & REGISTER_OPERATIONS else []
    names += ["partition-log"] if "append" in acknowledged else []
    names += ["raft-invariants"] if any(sample.role is not None for sample in evidence.statuses) else []
    return names


def judge(
    evidence: Evidence, names: Sequence[str], *, atomic: bool, hosts: Collection[tuple[int, str]]
) -> list[Verdict]:
    """The verdict of each of these checkers, or of those that fit where none is named.

    hosts: which node holds which group now; who gave one up, or has left, need not keep up with it.
    """
    verdicts: list[Verdict] = []
    for name in names or fitting(evidence):
        checker = by_name(name, atomic=atomic)
        verdicts += run_checkers([checker], _shown_to(name, evidence, hosts))
    if not verdicts:
        reason = "nothing to check: no operation was acknowledged, and no node was asked for its status"
        verdicts.append(Verdict(checker="scenario", validity=Validity.UNKNOWN, reason=reason))
    return verdicts


def demand_valid(verdicts: Sequence[Verdict]) -> None:
    """Raises CheckFailed unless all of them are VALID."""
    bad = [verdict for verdict in verdicts if verdict.validity is not Validity.VALID]
    if bad:
        raise CheckFailed(bad)


def _shown_to(name: str, evidence: Evidence, hosts: Collection[tuple[int, str]]) -> Evidence:
    if name == "sessions":
        return replace(evidence, history=_with_stale_reads(evidence.history))
    if name == "replica-equality":
        statuses = [sample for sample in evidence.statuses if (sample.node, sample.group) in hosts]
        return replace(evidence, statuses=statuses, nodes=())
    return evidence


def _with_stale_reads(history: History) -> History:
    def as_read(op: Op) -> Op:
        return replace(op, f="read") if op.f == STALE_READ else op

    return History(map(as_read, history))
