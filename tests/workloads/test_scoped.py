"""A workload's checker sees its own operations only, and names them by the run's indexes."""

from __future__ import annotations

from seatrial.checkers.base import Evidence, Validity
from seatrial.checkers.linearizability import Linearizability
from seatrial.history import History, Json, Op, OpType
from seatrial.workloads.registry import by_names, names
from seatrial.workloads.scoped import ScopedChecker


def history(*events: tuple[int, OpType, str, str, Json]) -> History:
    return History(
        Op(index=index, time_ns=index, client=client, type=kind, f=f, key=key, value=value)
        for index, (client, kind, f, key, value) in enumerate(events)
    )


STALE = history(
    (9, OpType.INVOKE, "append", "log/0", 1),
    (0, OpType.INVOKE, "write", "kv.1", 1),
    (0, OpType.OK, "write", "kv.1", 1),
    (0, OpType.INVOKE, "write", "kv.1", 2),
    (9, OpType.OK, "append", "log/0", [0, 1]),
    (0, OpType.OK, "write", "kv.1", 2),
    (1, OpType.INVOKE, "read", "kv.1", None),
    (1, OpType.OK, "read", "kv.1", 1),
)


def test_the_verdict_names_the_workload_and_the_runs_own_indexes() -> None:
    verdict = ScopedChecker(Linearizability(), "kv", "kv.").check(Evidence(history=STALE))
    assert verdict.checker == "linearizability (kv)"
    assert verdict.validity is Validity.INVALID
    assert {6, 7} & set(verdict.anomalies[0].ops)
    assert all(STALE[op].key == "kv.1" for op in verdict.anomalies[0].ops)


def test_operations_of_another_workload_are_not_judged() -> None:
    """Nothing is left to judge, which is no pass either."""
    verdict = ScopedChecker(Linearizability(), "kv-txn", "kv-txn.").check(Evidence(history=STALE))
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.anomalies == ()


def test_no_workload_owns_a_key_of_another() -> None:
    prefixes = {
        workload.name: checker.prefix
        for workload in by_names(",".join(names()))
        for checker in workload.checkers()
        if isinstance(checker, ScopedChecker)
    }
    assert set(prefixes) == set(names())
    for name, prefix in prefixes.items():
        assert not any(prefix.startswith(other) for key, other in prefixes.items() if key != name)
