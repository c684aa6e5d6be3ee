"""Turns what a run recorded into violations: the house's checkers over its history and its nodes' statuses.

Rule: INVALID is a violation, named by the first anomaly; UNKNOWN is one only for records that
nobody was given by the end, and where a checker crashed.
Knows nothing of how the run went.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seatrial.checkers.base import Checker, Evidence, Validity, Verdict, run_checkers
from seatrial.checkers.group_offsets import GroupOffsets
from seatrial.checkers.linearizability import Linearizability
from seatrial.checkers.partition_log import PartitionLog
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.history import History, StatusSample
from seatrial.sim.case import Violation
from seatrial.sim.full.kv_load import PREFIX
from seatrial.workloads.kafka_groups import TOPIC as GROUPS_TOPIC
from seatrial.workloads.scoped import ScopedChecker

ANOMALIES_SHOWN: int = 3
OPERATIONS_SHOWN: int = 12


def judge(
    history: History, samples: Sequence[StatusSample], *, duration_ns: int, retains: bool = False
) -> list[Violation]:
    """Every broken promise that the records show.  retains: the topics have a retention time or size."""
    evidence = Evidence(history=history, statuses=samples, duration_ns=duration_ns)
    checkers: tuple[Checker, ...] = (
        ScopedChecker(Linearizability(), "kv", PREFIX),
        ScopedChecker(PartitionLog(asked_only=not retains), "log", "t"),
        ScopedChecker(GroupOffsets(), "groups", f"{GROUPS_TOPIC}/"),
        RaftInvariants(),
        ReplicaEquality(),
    )
    found: list[Violation] = []
    for verdict in run_checkers(checkers, evidence):
        found.extend(_violations(verdict, history))
    return found


def _violations(verdict: Verdict, history: History) -> list[Violation]:
    if verdict.validity is Validity.VALID:
        return []
    if verdict.validity is Validity.UNKNOWN:
        if "the checker itself failed" in verdict.reason:
            return [Violation(name="checker-crash", message=f"{verdict.checker}: {verdict.reason}", at_us=0)]
        unseen = [anomaly for anomaly in verdict.anomalies if anomaly.name == "unseen"]
        if not unseen:
            return []
        return [Violation(name="unseen", message=unseen[0].message, at_us=(unseen[0].time_ns or 0) // 1000)]
    first = verdict.anomalies[0]
    others = [f"{anomaly.name}: {anomaly.message}" for anomaly in verdict.anomalies[:ANOMALIES_SHOWN]]
    detail: dict[str, Any] = {
        "checker": verdict.checker,
        "anomalies": others,
        "operations": [_shown(history, index) for index in first.ops[:OPERATIONS_SHOWN]],
    }
    return [Violation(name=first.name, message=first.message, at_us=(first.time_ns or 0) // 1000, detail=detail)]


def _shown(history: History, index: int) -> str:
    op = history[index]
    value = str(op.value)
    shown = value if len(value) < 60 else value[:57] + "..."
    return (
        f"{op.time_ns / 1e9:.6f} client {op.client} {op.type.value} {op.f} {op.key} {shown} {op.error or ''}".rstrip()
    )
