"""Records survive the way to disk and back, and a bad file is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.history import FaultEvent, History, MalformedRecord, Op, OpType, StatusSample, load_records, to_json
from seatrial.rundir import RecordWriter, RunDirectory

VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
OPS = st.builds(
    Op,
    index=st.just(0),
    time_ns=st.integers(0, 10**15),
    client=st.integers(0, 1000),
    type=st.sampled_from(OpType),
    f=st.sampled_from(["read", "write", "append"]),
    key=st.none() | st.text(max_size=8),
    value=VALUES,
    error=st.none() | st.text(max_size=8),
    node=st.none() | st.integers(1, 9),
)


@given(op=OPS)
def test_an_operation_survives_the_way_to_disk_and_back(op: Op, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    path.write_text(to_json(op) + "\n", encoding="utf-8")
    assert list(History.load(path)) == [op]


def test_all_records_of_a_run_directory_survive(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    fault = FaultEvent(
        time_ns=5, type="heal", id=1, fault="kill", description="kill node 2", targets=(2,), bit=True,
        evidence={"pid": 17}, majority=(1, 3),
    )  # fmt: skip
    status = StatusSample(time_ns=6, node=2, group="kv", role="leader", term=3, digest="ab")
    for path, record in ((run.faults, fault), (run.status, status)):
        writer = RecordWriter(path)
        writer.write(record)
        writer.close()
    assert run.load_faults() == [fault]
    assert run.load_statuses() == [status]


def test_pairs_join_each_invocation_with_its_own_completion() -> None:
    def op(index: int, client: int, kind: OpType) -> Op:
        return Op(index=index, time_ns=index, client=client, type=kind, f="read")

    history = History(
        [
            op(0, 1, OpType.INVOKE),
            op(1, 2, OpType.INVOKE),
            op(2, 2, OpType.OK),
            op(3, 1, OpType.FAIL),
            op(4, 2, OpType.INVOKE),
        ]
    )
    joined = [(i.index, None if c is None else c.index) for i, c in history.pairs()]
    assert joined == [(0, 3), (1, 2), (4, None)]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"index":0}', '{"index":7,"time_ns":0,"client":0,"type":"ok","f":"read"}', '{"type":"maybe"}']
)
def test_a_malformed_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(MalformedRecord, match=r"history\.jsonl:1"):
        load_records(path, Op)
