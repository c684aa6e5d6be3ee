"""How a history becomes columns: what constrains a verdict is kept, with its outcome; the rest is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.checkers.columns import (
    CAS,
    FAIL,
    INFO,
    INITIAL,
    MISMATCH,
    NEVER,
    NO_VALUE,
    OK,
    READ,
    WRITE,
    MalformedHistory,
    Row,
    columns_by_key,
)
from seatrial.history import Op, OpType


def ops(*events: tuple[int, str, str, Any], error: str | None = None) -> list[Op]:
    """(client, type, f, value) as operations on key x."""
    return [
        Op(
            index=index,
            time_ns=index,
            client=client,
            type=OpType(kind),
            f=f,
            key="x",
            value=value,
            error=error if kind == "fail" else None,
        )
        for index, (client, kind, f, value) in enumerate(events)
    ]


def rows_of(history: list[Op]) -> list[Row]:
    return columns_by_key(history)["x"].rows()


def test_a_write_and_a_read_of_it_share_the_value() -> None:
    history = ops((0, "invoke", "write", 7), (0, "ok", "write", 7), (1, "invoke", "read", None), (1, "ok", "read", 7))
    assert rows_of(history) == [Row(WRITE, NO_VALUE, 1, 0, 1, OK), Row(READ, 1, NO_VALUE, 2, 3, OK)]


@pytest.mark.parametrize("outcome", ["fail", "info"])
def test_a_read_without_an_answer_is_dropped(outcome: str) -> None:
    assert rows_of(ops((0, "invoke", "read", None), (0, outcome, "read", 7))) == []


def test_a_write_without_a_completion_may_still_happen() -> None:
    assert rows_of(ops((0, "invoke", "write", 7))) == [Row(WRITE, NO_VALUE, 1, 0, NEVER, INFO)]


def test_a_client_that_goes_on_without_a_completion_leaves_the_outcome_unknown() -> None:
    history = ops((0, "invoke", "write", 7), (0, "invoke", "write", 8), (0, "ok", "write", 8))
    assert rows_of(history) == [Row(WRITE, NO_VALUE, 1, 0, NEVER, INFO), Row(WRITE, NO_VALUE, 2, 1, 2, OK)]


def test_a_mismatch_is_an_observation_and_other_failures_are_not() -> None:
    events = ((0, "invoke", "cas", [1, 2]), (0, "fail", "cas", [1, 2]))
    assert rows_of(ops(*events, error="mismatch")) == [Row(MISMATCH, 1, NO_VALUE, 0, 1, OK)]
    assert rows_of(ops(*events, error="not-leader")) == [Row(CAS, 1, 2, 0, 1, FAIL)]


def test_a_swap_for_the_same_value_is_a_read() -> None:
    assert rows_of(ops((0, "invoke", "cas", [1, 1]), (0, "ok", "cas", [1, 1]))) == [Row(READ, 1, NO_VALUE, 0, 1, OK)]
    assert rows_of(ops((0, "invoke", "cas", [1, 1]), (0, "info", "cas", [1, 1]))) == []


def test_a_delete_writes_the_initial_value() -> None:
    history = ops((0, "invoke", "delete", None), (0, "ok", "delete", None))
    assert rows_of(history) == [Row(WRITE, NO_VALUE, INITIAL, 0, 1, OK)]


def test_values_are_told_apart_as_json_tells_them() -> None:
    values: list[Any] = [1, True, "1", 1.5, [1], {"a": 1}]
    events = [event for v in values for event in ((0, "invoke", "write", v), (0, "ok", "write", v))]
    assert [row.new for row in rows_of(ops(*events))] == [1, 2, 3, 4, 5, 6]


def test_the_initial_value_may_differ_by_key() -> None:
    history = ops((0, "invoke", "read", None), (0, "ok", "read", 5))
    assert columns_by_key(history, initial={"x": 5})["x"].rows()[0].old == INITIAL
    assert columns_by_key(history, initial=5)["x"].rows()[0].old == INITIAL
    assert columns_by_key(history, initial={"y": 5})["x"].rows()[0].old != INITIAL


def test_operations_of_other_workloads_are_passed_over() -> None:
    assert columns_by_key(ops((0, "invoke", "append", 1), (0, "ok", "append", [0, 1]))) == {}


def test_a_swap_without_a_pair_is_refused_with_its_place() -> None:
    with pytest.raises(MalformedHistory, match=r"op 0: a cas needs the value \[expected, new\]"):
        columns_by_key(ops((0, "invoke", "cas", 5), (0, "ok", "cas", 5)))
