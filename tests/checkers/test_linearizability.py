"""The checker of registers: what it says when it cannot know, how it treats keys, and that its bounds hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from _random_histories import Mix, columns_of, run_register, with_distinct_times
from seatrial.checkers.base import Evidence, Validity, Verdict, run_checkers
from seatrial.checkers.columns import CAS, FAIL, INFO, INITIAL, MISMATCH, NO_VALUE, OK, READ, WRITE, Row
from seatrial.checkers.linearizability import Linearizability
from seatrial.history import History, Op, OpType

OUTCOMES = {OK: OpType.OK, FAIL: OpType.FAIL, INFO: OpType.INFO}


def history_of(rows: list[Row], key: str = "x") -> History:
    """The history that has these rows on one key: each row is a client's only operation."""
    events: list[tuple[int, dict[str, Any]]] = []
    for client, row in enumerate(rows):
        value: Any = None if row.kind == READ else row.new
        f = {READ: "read", WRITE: "write", CAS: "cas", MISMATCH: "cas"}[row.kind]
        if f == "cas":
            value = [value_of(row.old), row.new if row.kind == CAS else 10_000]
        same = {"client": client, "f": f, "key": key}
        events.append((row.start, {**same, "type": OpType.INVOKE, "value": value}))
        answer = value_of(row.old) if row.kind == READ else value
        if row.kind == MISMATCH:
            events.append((row.end, {**same, "type": OpType.FAIL, "value": value, "error": "mismatch"}))
        elif row.status != INFO:
            events.append((row.end, {**same, "type": OUTCOMES[row.status], "value": answer}))
    events.sort(key=lambda event: event[0])
    return History(Op(index=i, time_ns=i, **fields) for i, (_, fields) in enumerate(events))


def value_of(identity: int) -> int | None:
    return None if identity == INITIAL else identity


def check(rows: list[Row], checker: Linearizability | None = None) -> Verdict:
    return (checker or Linearizability()).check(Evidence(history=history_of(rows)))


def stale_at_the_end(rows: list[Row]) -> list[Row]:
    """The history, then two values written one after the other, then a read of the first."""
    end = 2 * len(rows) + 10
    return with_distinct_times(
        [
            *rows,
            Row(WRITE, NO_VALUE, 900_001, end, end + 1, OK),
            Row(WRITE, NO_VALUE, 900_002, end + 2, end + 3, OK),
            Row(READ, 900_001, NO_VALUE, end + 4, end + 5, OK),
        ]
    )


@pytest.mark.parametrize("values", [None, 5], ids=["unique values", "five values"])
@pytest.mark.parametrize("numpy_from", [None, 0], ids=["plain", "numpy"])
def test_a_correct_register_is_valid_and_a_late_stale_read_is_not(values: int | None, numpy_from: int | None) -> None:
    checker = Linearizability(numpy_from=numpy_from)
    rows = run_register(400, Mix(values=values, unknown=0.01, failed=0.01), seed=5)
    assert check(rows, checker).validity is Validity.VALID
    verdict = check(stale_at_the_end(rows), checker)
    assert verdict.validity is Validity.INVALID
    (anomaly,) = verdict.anomalies
    assert anomaly.detail["kind"] == "stale-read"
    assert len(anomaly.detail["core"]) == 2
    assert verdict.stats["keys_searched"] == (0 if values is None else 1)


def test_out_of_time_is_unknown_and_says_what_to_do() -> None:
    ticks = iter(range(10**9))
    checker = Linearizability(seconds_max=3.0, clock=lambda: float(next(ticks)))
    verdict = check(stale_at_the_end(run_register(3_000, Mix(values=3, clients=12), seed=1)), checker)
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.reason.startswith("1 keys undecided; the first, 'x': out of time. Raise the limits")


def test_keys_whose_turn_never_comes_are_unknown() -> None:
    times = iter([0.0, 100.0])
    checker = Linearizability(seconds_max=3.0, clock=lambda: next(times))
    verdict = check(run_register(10, Mix(), seed=1), checker)
    assert verdict.validity is Validity.UNKNOWN
    assert "out of time before this key's turn" in verdict.reason


def test_out_of_memory_is_unknown() -> None:
    rows = run_register(400, Mix(values=3, clients=12), seed=1)
    verdict = check(rows, Linearizability(configurations_max=50))
    assert verdict.validity is Validity.UNKNOWN
    assert "more than 50 configurations" in verdict.reason


def test_a_violation_found_before_time_ran_out_stands() -> None:
    """UNKNOWN keys beside an INVALID one do not soften the verdict."""
    bad = [*history_of(stale_at_the_end([]), key="bad")]
    hard = [*history_of(run_register(400, Mix(values=3, clients=12), seed=1), key="hard")]
    both = [
        replace(op, index=index, client=op.client + 1_000 * (op.key == "hard")) for index, op in enumerate(bad + hard)
    ]
    verdict = Linearizability(configurations_max=50).check(Evidence(history=History(both)))
    assert verdict.validity is Validity.INVALID
    assert [anomaly.key for anomaly in verdict.anomalies] == ["bad"]
    assert verdict.stats["keys_undecided"] == 1


def test_keys_are_independent() -> None:
    one = [*history_of([Row(WRITE, NO_VALUE, 7, 0, 1, OK)], key="a")]
    other = [*history_of([Row(READ, INITIAL, NO_VALUE, 0, 1, OK)], key="b")]
    history = History(replace(op, index=index) for index, op in enumerate(one + other))
    assert Linearizability().check(Evidence(history=history)).validity is Validity.VALID


@pytest.mark.parametrize(
    "history", [History(), History([Op(index=0, time_ns=0, client=0, type=OpType.INVOKE, f="poll")])]
)
def test_a_history_without_answers_is_unknown(history: History) -> None:
    verdict = Linearizability().check(Evidence(history=history))
    assert verdict.validity is Validity.UNKNOWN
    assert "nothing to check" in verdict.reason


def test_a_register_model_refuses_operations_that_it_lacks() -> None:
    checker = Linearizability(operations=frozenset({"read", "write"}))
    verdict = check([Row(CAS, INITIAL, 1, 0, 1, OK)], checker)
    assert verdict.validity is Validity.UNKNOWN
    assert "the history has ['cas'], which this model lacks: use cas-register or kv" in verdict.reason


def test_a_malformed_swap_is_unknown_and_named() -> None:
    op = Op(index=0, time_ns=0, client=0, type=OpType.INVOKE, f="cas", key="x", value=3)
    verdict = Linearizability().check(Evidence(history=History([op])))
    assert (verdict.validity, verdict.reason) == (
        Validity.UNKNOWN,
        "op 0: a cas needs the value [expected, new], and this one has 3",
    )


def test_mismatches_decide_where_they_must() -> None:
    """Nothing but the mismatch contradicts: the value was 1 from before it until after it."""
    rows = [
        Row(WRITE, NO_VALUE, 1, 0, 1, OK),
        Row(MISMATCH, 1, NO_VALUE, 2, 3, OK),
        Row(READ, 1, NO_VALUE, 4, 5, OK),
    ]
    assert check(rows).validity is Validity.INVALID
    undecided_write = Row(WRITE, NO_VALUE, 2, 0, 9, OK)
    elsewhere = [rows[0], undecided_write, rows[1]]
    assert check(elsewhere).validity is Validity.VALID, "the other write explains it"


def test_every_bad_key_is_counted_and_ten_are_explained() -> None:
    ops: list[Op] = []
    for key in range(15):
        for op in history_of(stale_at_the_end([]), key=f"k{key}"):
            ops.append(replace(op, index=len(ops)))
    verdict = Linearizability().check(Evidence(history=History(ops)))
    assert verdict.stats["keys_invalid"] == 15
    assert len(verdict.anomalies) == 10


def test_histories_of_all_kinds_survive_the_way_through_operations() -> None:
    """The random rows, written down as operations and read back, are the same rows."""
    from seatrial.checkers.columns import columns_by_key

    rows = run_register(200, Mix(unknown=0.05, failed=0.05, mismatches=True), seed=9)
    back = columns_by_key(history_of(rows))["x"]
    assert len(back) == len(rows)
    assert back.kind.tolist().count(MISMATCH) == columns_of(rows).kind.tolist().count(MISMATCH) > 0


@pytest.mark.slow
def test_no_random_history_crashes_the_checker_and_each_violation_has_a_core() -> None:
    from _random_histories import spoil

    bad = 0
    for seed in range(600):
        mix = Mix(clients=6, values=None if seed % 2 else 4, unknown=0.1, failed=0.05, mismatches=seed % 3 == 0)
        rows = spoil(run_register(25, mix, seed), seed, 2)
        (verdict,) = run_checkers([Linearizability()], Evidence(history=history_of(rows)))
        assert verdict.validity is not Validity.UNKNOWN, verdict.reason
        for anomaly in verdict.anomalies:
            bad += 1
            assert anomaly.detail["core"]
            assert anomaly.ops
            assert anomaly.message
    assert bad > 150
