"""A part of a history keeps the whole's indexes, and keeps invocations and completions together."""

from __future__ import annotations

import pytest

from seatrial.history import History, Op, OpType


def two_workloads() -> History:
    invoke, ok = OpType.INVOKE, OpType.OK
    return History(
        [
            Op(index=0, time_ns=0, client=0, type=invoke, f="write", key="kv.1", value=1),
            Op(index=1, time_ns=1, client=1, type=invoke, f="append", key="log/0", value=9),
            Op(index=2, time_ns=2, client=1, type=ok, f="append", value=[0, 9]),
            Op(index=3, time_ns=3, client=0, type=ok, f="write", value=1),
            Op(index=4, time_ns=4, client=0, type=invoke, f="write", key="other.1", value=2),
            Op(index=5, time_ns=5, client=0, type=ok, f="write", key="other.1", value=2),
        ]
    )


def test_selection_keeps_original_indexes_and_whole_operations() -> None:
    part = two_workloads().select(lambda op: (op.key or "").startswith("kv."))
    assert [op.index for op in part] == [0, 3]
    assert [(a.index, b and b.index) for a, b in part.pairs()] == [(0, 3)]


def test_selection_is_indexed_by_op_index() -> None:
    part = two_workloads().select(lambda op: op.key == "log/0")
    assert part[2].value == [0, 9]
    assert part[-1].index == 2
    with pytest.raises(IndexError, match="no event 3"):
        part[3]
