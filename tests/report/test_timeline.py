"""What is drawn of roles, terms, faults and operations, without looking at HTML."""

from __future__ import annotations

from seatrial.history import FaultEvent, Op, OpType, StatusSample
from seatrial.report.charts import BINS_MAX, bin_width_ns, draw_latency, draw_throughput, group_of, nice_ceiling, sum_up
from seatrial.report.loading import FaultSpan, Operation
from seatrial.report.summary import AnomalySummary
from seatrial.report.timeline import (
    NAME_CHARACTERS_MAX,
    axis_ticks,
    fault_rows,
    group_names,
    leader_changes,
    levels,
    node_lanes,
    short_name,
)
from seatrial.report.windows import OperationsByEvent, describe, window_of

S = 1_000_000_000


def sample(at_s: float, node: int, role: str | None, term: int | None = 1, group: str = "kv") -> StatusSample:
    return StatusSample(time_ns=int(at_s * S), node=node, group=group, role=role, term=term)


def operation(
    index: int, f: str = "write", begin_s: float = 0.0, end_s: float | None = 0.001, *, outcome: OpType = OpType.OK,
    value: object = 1, answer: object = None, node: int | None = None, key: str = "kv.1",
) -> Operation:  # fmt: skip
    invoked = Op(
        index=index, time_ns=int(begin_s * S), client=index, type=OpType.INVOKE, f=f, key=key, value=value, node=node
    )
    if end_s is None:
        return Operation(invoked, None)
    completed = Op(
        index=index + 1, time_ns=int(end_s * S), client=index, type=outcome, f=f, key=key, value=answer, node=node
    )
    return Operation(invoked, completed)


def test_samples_of_one_role_and_term_are_one_segment_and_a_higher_term_is_marked() -> None:
    statuses = [sample(0, 1, "follower"), sample(1, 1, "follower"), sample(2, 1, "leader", 2), sample(3, 1, None, None)]
    (lanes,) = node_lanes(statuses, [1], 4 * S)
    roles = [(s.role, s.begin_ns // S, s.end_ns // S) for s in lanes.lanes[0].segments]
    assert roles == [("follower", 0, 2), ("leader", 2, 3), ("down", 3, 4)]
    assert lanes.lanes[0].terms == ((0, 1), (2 * S, 2))


def test_a_role_is_not_drawn_past_the_time_in_which_it_would_have_been_sampled_again() -> None:
    (lanes,) = node_lanes([sample(0, 1, "leader")], [1], 60 * S)
    assert lanes.lanes[0].segments[0].end_ns == 3 * S


def test_a_node_that_does_not_answer_is_down_in_every_group() -> None:
    statuses = [sample(0, 1, "leader", group="kv"), sample(0, 1, "follower", group="log/0"), sample(1, 1, None, None)]
    (lanes,) = node_lanes(statuses, [1], 2 * S)
    assert [lane.segments[-1].role for lane in lanes.lanes] == ["down", "down"]


def test_groups_are_in_natural_order_behind_metadata_and_kv() -> None:
    statuses = [sample(0, 1, "leader", group=g) for g in ("log/10", "log/2", "kv", "metadata", "a/0")]
    assert group_names(statuses) == ("metadata", "kv", "a/0", "log/2", "log/10")


def test_a_long_name_keeps_both_of_its_ends_and_a_short_one_all_of_it() -> None:
    assert short_name("__consumer_offsets/11") == "__consumer_offsets/11"
    first, second = (short_name(f"payments.transactions-eu-central-1.{v}/0") for v in ("v2", "v3"))
    assert first == "payments.transa…u-central-1.v2/0"
    assert len(first) == len(second) == NAME_CHARACTERS_MAX
    assert first != second


def test_operations_are_summed_up_by_topic_also_where_its_name_has_dots() -> None:
    assert [group_of(key) for key in ("log/3", "kv.17", "payments.v3/0", "register", None)] == [
        "log",
        "kv",
        "payments.v3",
        "",
        "",
    ]


def test_a_leader_of_a_higher_term_is_a_change_and_the_first_one_is_not() -> None:
    statuses = [
        sample(0, 1, "leader", 1),
        sample(1, 1, "leader", 1),
        sample(2, 2, "leader", 3),
        sample(3, 1, "leader", 1),
    ]
    assert leader_changes(statuses) == 1


def fault(number: int, begin_s: float, end_s: float | None, *, bit: bool | None = True) -> FaultSpan:
    began = FaultEvent(
        time_ns=int(begin_s * S), type="inject", id=number, fault="kill", description="kill node 1", targets=(1,)
    )
    if end_s is None:
        return FaultSpan(began, None)
    healed = FaultEvent(
        time_ns=int(end_s * S), type="heal", id=number, fault="kill", description="kill node 1", bit=bit,
        evidence={"exit_status": -9},
    )  # fmt: skip
    return FaultSpan(began, healed)


def test_a_fault_says_whether_it_bit() -> None:
    rows = fault_rows([fault(1, 0, 1), fault(2, 1, 2, bit=False), fault(3, 2, 3, bit=None), fault(4, 3, None)], 9 * S)
    assert [row.outcome for row in rows] == ["bit", "did not bite", "not known", "not known"]
    assert rows[0].evidence == (("exit_status", "-9"),)
    assert rows[0].description == "node 1"
    assert (rows[3].healed, rows[3].end_ns) == (False, 9 * S)


def test_faults_that_overlap_are_on_rows_of_their_own() -> None:
    rows = levels(fault_rows([fault(1, 0, 5), fault(2, 1, 2), fault(3, 3, 4), fault(4, 6, 7)], 9 * S))
    assert [[row.id for row in level] for level in rows] == [[1, 4], [2, 3]]


def test_every_operation_is_in_one_bin_of_the_time_at_which_it_ended() -> None:
    operations = [operation(2 * n, begin_s=n * 0.01, end_s=n * 0.01 + 0.005) for n in range(1000)]
    bins = sum_up(operations, 10 * S)
    assert bins.count <= BINS_MAX + 1
    assert sum(bins.all.ok) == bins.outcomes[OpType.OK] == 1000
    assert sum(bins.strips["kv write"].ok) == 1000
    assert {round(v, 3) for v in bins.p50_ms if v is not None} == {5.0}


def test_an_operation_without_completion_is_unknown() -> None:
    bins = sum_up([operation(0, end_s=None)], S)
    assert bins.outcomes[OpType.INFO] == 1


def test_final_reads_have_their_own_strip_and_no_part_in_the_rate() -> None:
    bins = sum_up([operation(0, "read", node=3), operation(2, "final-read", key="log/0")], S)
    assert sum(bins.all.ok) == 0
    assert set(bins.strips) == {"kv final read", "log final read"}


def test_the_number_of_bins_is_bounded_whatever_the_runs_length() -> None:
    for seconds in (0.001, 1, 30, 3600, 10**7):
        assert seconds * S / bin_width_ns(int(seconds * S)) <= BINS_MAX


def test_charts_scale_to_round_numbers_and_break_lines_where_nothing_was_acknowledged() -> None:
    assert [nice_ceiling(v) for v in (0, 0.9, 1, 1.1, 230, 1000)] == [1, 1, 1, 2, 500, 1000]
    bins = sum_up([operation(0, begin_s=0.1, end_s=0.11), operation(2, begin_s=0.9, end_s=0.92)], S)
    latency = draw_latency(bins, S, 100.0)
    assert all(path.count("M") == 2 for _, path in latency.paths)
    throughput = draw_throughput(bins.all, bins, S, 100.0)
    assert dict(throughput.paths)["ok"].count("M") == 2
    assert dict(throughput.paths)["fail"] == ""


def test_the_axis_has_a_handful_of_round_moments() -> None:
    assert [tick // S for tick in axis_ticks(30 * S)] == [0, 5, 10, 15, 20, 25, 30]
    assert all(2 <= len(axis_ticks(int(end * S))) <= 10 for end in (0.01, 0.7, 3, 61, 86_400))


def test_a_window_draws_order_to_scale_and_leaves_unknown_ends_open() -> None:
    operations = OperationsByEvent(
        [
            operation(0, "write", 0.0, 0.1, value=1),
            operation(2, "write", 0.2, 0.3, value=2, outcome=OpType.INFO),
            operation(4, "read", 9.0, 9.1, value=None, answer=1, node=2),
        ]
    )
    window = window_of(AnomalySummary(name="x", ops=(1, 2, 5, 999)), operations, fault_rows([fault(1, 3, 4)], 10 * S))
    assert window is not None
    first, unknown, read = window.bars
    assert [bar.index for bar in window.bars] == [0, 2, 4]
    assert first.left == 0 and first.left + first.width <= unknown.left < read.left
    assert unknown.open_ended and unknown.left + unknown.width == 100
    assert (read.what, read.node) == ("read → 1", 2)
    assert [row.id for row in window.faults] == [1]


def test_an_anomaly_whose_operations_are_not_in_the_history_has_no_window() -> None:
    assert window_of(AnomalySummary(name="x", ops=(7,)), OperationsByEvent([]), []) is None


def test_operations_are_described_in_a_few_words() -> None:
    assert describe(operation(0, "cas", value=[1, 2])) == "cas 1 → 2"
    assert describe(operation(0, "append", value=9, answer=[4, 9])) == "append 9 → offset 4"
    assert describe(operation(0, "read", value=None, answer=None)) == "read → nothing"
    assert describe(operation(0, "read", value=None, outcome=OpType.FAIL)) == "read"
    assert describe(operation(0, "final-read", value=None, answer=[[n, n] for n in range(1204)])) == (
        "final-read → 1,204 records"
    )
    assert len(describe(operation(0, "write", value="x" * 500))) <= 60
