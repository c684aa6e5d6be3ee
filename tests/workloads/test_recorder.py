"""What the recorder promises: order, one operation a client, every event counted and passed on."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.history import Op, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.recorder import Recorder


def test_events_are_in_order_with_the_requests_key_on_both(clock: Any) -> None:
    sink: list[Op] = []
    record = Recorder(clock, sink.append)
    first, second = record.new_client(), record.new_client()
    record.invoke(first, Request(f="write", key="x", value=1))
    record.invoke(second, Request(f="read", key="x", node=3))
    record.complete(second, Completion(type=OpType.OK, value=None))
    record.complete(first, Completion(type=OpType.INFO, error="time is up", node=2))
    assert sink == list(record.history)
    assert [op.index for op in sink] == [0, 1, 2, 3]
    assert [op.time_ns for op in sink] == sorted({op.time_ns for op in sink})
    assert [(op.type.value, op.key, op.node) for op in sink] == [
        ("invoke", "x", None),
        ("invoke", "x", 3),
        ("ok", "x", 3),
        ("info", "x", 2),
    ]


def test_events_are_counted_by_operation_and_outcome(clock: Any) -> None:
    record = Recorder(clock)
    for outcome in (OpType.OK, OpType.OK, OpType.FAIL):
        client = record.new_client()
        record.invoke(client, Request(f="write", key="x", value=1))
        record.complete(client, Completion(type=outcome))
    assert record.counts["write", OpType.OK] == 2
    assert record.total(OpType.FAIL) == 1
    assert record.total(OpType.INVOKE) == 3


def test_a_client_has_one_operation_at_a_time(clock: Any) -> None:
    record = Recorder(clock)
    client = record.new_client()
    record.invoke(client, Request(f="read", key="x"))
    with pytest.raises(AssertionError, match="already has an operation open"):
        record.invoke(client, Request(f="read", key="y"))


def test_time_begins_where_the_caller_says(clock: Any) -> None:
    begin_us = clock.us
    clock.us += 5_000
    assert Recorder(clock, begin_us=begin_us).now_ns() == 5_001_000
