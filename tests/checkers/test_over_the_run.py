"""Checkers of the run as a whole: availability, Raft's invariants, replicas; and the catalogue that names them all."""

from __future__ import annotations

import pytest

from seatrial.checkers.availability import Availability, connected_windows
from seatrial.checkers.base import Evidence, Validity
from seatrial.checkers.catalogue import UnknownModel, by_model, models, names
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.checkers.sessions import Sessions
from seatrial.history import FaultEvent, History, Op, OpType, StatusSample

SECOND = 1_000_000_000


def fault(second: float, kind: str, majority: tuple[int, ...] | None, name: str = "partition") -> FaultEvent:
    return FaultEvent(
        time_ns=int(second * SECOND), type=kind, id=1, fault=name, description=name, targets=(1,), majority=majority
    )


def writes(*times: tuple[float, float, str]) -> History:
    """(begun, over, outcome) in seconds, each by its own client."""
    events: list[tuple[float, int, OpType]] = []
    for client, (begun, over, outcome) in enumerate(times):
        events += [(begun, client, OpType.INVOKE), (over, client, OpType(outcome))]
    events.sort()
    return History(
        Op(index=i, time_ns=int(t * SECOND), client=client, type=kind, f="write", key="x", value=client)
        for i, (t, client, kind) in enumerate(events)
    )


def test_windows_end_when_the_majority_is_lost_and_begin_when_it_is_back() -> None:
    faults = [fault(2, "inject", (1, 2)), fault(3, "inject", None), fault(4, "skip", None), fault(5, "heal", (1, 2, 3))]
    assert connected_windows(faults, 8 * SECOND) == [(0, 3 * SECOND), (5 * SECOND, 8 * SECOND)]
    assert connected_windows([fault(0, "inject", None)], 8 * SECOND) == []


def test_a_gap_without_a_majority_does_not_count() -> None:
    history = writes((0, 1, "ok"), (1, 9, "ok"))
    faults = [fault(1, "inject", None), fault(8.5, "heal", (1, 2, 3))]
    verdict = Availability(gap_max_s=3.0).check(Evidence(history=history, faults=faults, duration_ns=10 * SECOND))
    assert verdict.validity is Validity.VALID
    assert verdict.stats["gap_max_s"] == pytest.approx(1.0)


def test_time_in_which_nobody_tried_is_no_gap() -> None:
    history = writes((0, 1, "ok"), (8, 8.5, "ok"))
    verdict = Availability(gap_max_s=3.0).check(Evidence(history=history, duration_ns=10 * SECOND))
    assert verdict.validity is Validity.VALID


def test_a_service_that_stays_silent_to_the_end_is_a_gap() -> None:
    history = writes((0, 1, "ok"), (1, 3, "info"), (3, 9, "info"))
    evidence = Evidence(history=history, duration_ns=9 * SECOND)
    verdict = Availability(gap_max_s=3.0).check(evidence)
    assert verdict.validity is Validity.INVALID
    assert verdict.stats["gap_max_s"] == pytest.approx(8.0)
    assert Availability().check(evidence).validity is Validity.VALID, "without a limit it is a figure"


def test_pauses_between_failing_attempts_do_not_end_a_gap() -> None:
    """Refused at once, clients wait before they try again: ten seconds of that are no ten milliseconds."""
    refused = [(1 + n / 2, 1.01 + n / 2, "fail") for n in range(18)]
    history = writes((0, 1, "ok"), *refused, (10, 10.5, "ok"))
    verdict = Availability(gap_max_s=3.0).check(Evidence(history=history, duration_ns=11 * SECOND))
    assert verdict.validity is Validity.INVALID
    assert verdict.stats["gap_max_s"] == pytest.approx(9.5)


def test_a_long_rest_between_attempts_is_taken_out_of_a_gap() -> None:
    history = writes((0, 1, "ok"), (1, 2, "fail"), (8, 8.5, "ok"))
    verdict = Availability(gap_max_s=3.0).check(Evidence(history=history, duration_ns=9 * SECOND))
    assert verdict.stats["gap_max_s"] == pytest.approx(1.5)


def test_recovery_counts_only_operations_begun_after_the_fault() -> None:
    history = writes((0, 1, "ok"), (1.5, 2.1, "ok"), (2.5, 4, "ok"))
    faults = [fault(2, "inject", (2, 3), "kill"), fault(6, "heal", (1, 2, 3), "kill")]
    verdict = Availability().check(Evidence(history=history, faults=faults, duration_ns=10 * SECOND))
    assert [row["recovery_s"] for row in verdict.stats["recoveries"]] == [2.0, None]
    assert verdict.stats["recovery_max_s"] == 2.0


def test_each_partition_log_is_a_service_of_its_own() -> None:
    """One partition's progress does not hide another's silence."""
    ops: list[Op] = []
    events = [(0, 0, "invoke", "t/0"), (1, 0, "ok", "t/0"), (1, 1, "invoke", "t/1"), (1, 1, "ok", "t/1")]
    events += [(2, 2, "invoke", "t/1")]
    events += [event for s in range(2, 9) for event in ((s, 0, "invoke", "t/0"), (s + 0.5, 0, "ok", "t/0"))]
    for second, client, kind, key in events:
        op = Op(
            index=len(ops),
            time_ns=int(second * SECOND),
            client=client,
            type=OpType(kind),
            f="append",
            key=key,
            value=len(ops),
        )
        ops.append(op)
    verdict = Availability(gap_max_s=3.0).check(Evidence(history=History(ops), duration_ns=9 * SECOND))
    assert [anomaly.key for anomaly in verdict.anomalies] == ["t/1"]


def status(second: int, node: int, **fields: object) -> StatusSample:
    given: dict[str, object] = {"group": "kv", "role": "follower", "term": 1, "incarnation": 1} | fields
    return StatusSample(time_ns=second * SECOND, node=node, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("checker", [RaftInvariants(), ReplicaEquality(), Availability(), Sessions()])
def test_nothing_recorded_is_unknown(
    checker: RaftInvariants | ReplicaEquality | Availability | Sessions,
) -> None:
    verdict = checker.check(Evidence(history=History(), nodes=(1, 2, 3)))
    assert verdict.validity is Validity.UNKNOWN
    assert "nothing to check" in verdict.reason


def test_groups_have_leaders_of_their_own() -> None:
    samples = [status(1, 1, role="leader"), status(1, 2, role="leader", group="topic/0")]
    assert RaftInvariants().check(Evidence(history=History(), statuses=samples)).validity is Validity.VALID


def test_without_a_count_of_starts_an_unanswered_sample_may_hide_a_restart() -> None:
    before = status(1, 1, incarnation=None, commit_index=5, last_applied=5, last_index=5)
    after = status(3, 1, incarnation=None, commit_index=2, last_applied=2, last_index=5)
    silent = status(2, 1, incarnation=None, role=None, term=None)
    evidence = Evidence(history=History(), statuses=[before, silent, after])
    assert RaftInvariants().check(evidence).validity is Validity.VALID
    evidence = Evidence(history=History(), statuses=[before, after])
    assert RaftInvariants().check(evidence).validity is Validity.INVALID


def test_a_divergence_is_shown_at_its_first_index() -> None:
    samples = [
        status(second, node, last_applied=index, digest=f"{node}" if index > 3 else "same")
        for second, index in ((1, 2), (2, 4), (3, 6))
        for node in (1, 2)
    ]
    verdict = ReplicaEquality().check(Evidence(history=History(), statuses=samples, nodes=(1, 2)))
    (anomaly,) = verdict.anomalies
    assert anomaly.detail["last_applied"] == 4


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([status(1, 1, last_applied=5, digest="a")], "node 2 of group kv never reported its status"),
        (
            [
                status(1, 1, last_applied=5, digest="a"),
                status(1, 2, last_applied=5, digest="a"),
                status(2, 2, role=None, error="connection refused"),
            ],
            "node 2 of group kv did not answer at the end (connection refused)",
        ),
        (
            [status(1, 1, last_applied=5), status(1, 2, last_applied=5)],
            "no two nodes ever gave a digest at the same applied index",
        ),
    ],
)
def test_replicas_that_cannot_be_compared_are_unknown(samples: list[StatusSample], reason: str) -> None:
    verdict = ReplicaEquality().check(Evidence(history=History(), statuses=samples, nodes=(1, 2)))
    assert (verdict.validity, verdict.reason) == (Validity.UNKNOWN, reason)


def test_sessions_cannot_be_judged_where_values_are_reused() -> None:
    events = [(0, "invoke", 1), (0, "ok", 1), (0, "invoke", 1), (0, "ok", 1)]
    history = History(
        Op(index=i, time_ns=i, client=client, type=OpType(kind), f="write", key="x", value=value)
        for i, (client, kind, value) in enumerate(events)
    )
    verdict = Sessions().check(Evidence(history=history))
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.reason.startswith("a value was written twice to key 'x'")


def test_every_model_has_a_checker_and_a_line() -> None:
    for model in models():
        assert by_model(model).check(Evidence(history=History())).validity is Validity.UNKNOWN
    assert set(models()) < set(names())
    assert {"raft-invariants", "replica-equality", "availability"} <= set(names())
    assert all(line and "\n" not in line for line in names().values())


def test_an_unknown_model_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownModel, match="no model 'regster'; there are register, cas-register, kv, log"):
        by_model("regster")
