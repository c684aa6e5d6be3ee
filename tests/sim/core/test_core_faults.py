"""Every kind of fault of the core level: it is carried out, leaves evidence, and a correct cluster lives through it."""

from __future__ import annotations

import pytest

from seatrial.raft.messages import AppendEntries
from seatrial.sim.case import Case, Fault, Load, Raft
from seatrial.sim.core import CoreCluster, run_case
from seatrial.sim.faults import CRASH_POINTS, KINDS, MEMBERSHIP_CHANGES
from seatrial.transport.filters import drop

SECOND = 1_000_000
ALL_LINKS = tuple((a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b)
VALUES = {
    "delay": 20_000,
    "loss": 0.3,
    "duplicate": 0.3,
    "reorder": 20_000,
    "bandwidth": 50_000,
    "crash-at": 200_000,
    "slow-sync": 20_000,
    "clock-drift": -50_000,
    "clock-jump": 3_600 * SECOND,
}


def fault(kind: str, *, mode: str = "", nodes: tuple[int, ...] = (1, 2), duration_us: int = SECOND) -> Fault:
    on_links = KINDS[kind].scope == "links"
    return Fault(
        at_us=SECOND,
        kind=kind,
        duration_us=duration_us if KINDS[kind].lasting else 0,
        nodes=() if on_links else nodes,
        links=ALL_LINKS if on_links else (),
        value=VALUES.get(kind, 0),
        mode=mode,
    )


def survived(case: Case) -> dict[str, tuple[int, int]]:
    outcome = run_case(case)
    assert outcome.violations == ()
    assert outcome.operations["ok"] > 20
    return outcome.bit


def case_with(*faults: Fault, spares: int = 0, seed: int = 4, raft: Raft | None = None) -> Case:
    return Case(level="core", seed=seed, spares=spares, duration_us=3 * SECOND, faults=faults, raft=raft or Raft())


SIMPLE = sorted(
    kind
    for kind, described in KINDS.items()
    if "core" in described.levels and kind not in ("crash", "crash-at", "io-error", "membership", "filter", "wipe")
)


@pytest.mark.parametrize("kind", SIMPLE)
def test_a_fault_leaves_evidence_and_is_survived(kind: str) -> None:
    nodes = (1, 2, 3) if kind == "campaign" else (2, 1)
    assert survived(case_with(fault(kind, nodes=nodes)))[kind] == (1, 1)


@pytest.mark.parametrize("mode", ["kill", "power"])
def test_a_crash_is_survived(mode: str) -> None:
    assert survived(case_with(fault("crash", mode=mode, nodes=(1, 2, 3))))["crash"] == (1, 1)


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_every_crash_point_is_met(point: str) -> None:
    raft = Raft(snapshot_entries=20, keep_entries=5)
    assert survived(case_with(fault("crash-at", mode=point), raft=raft))["crash-at"] == (1, 1)


@pytest.mark.parametrize("mode", ["write", "sync"])
def test_a_failing_disk_ends_its_node(mode: str) -> None:
    assert survived(case_with(fault("io-error", mode=mode)))["io-error"] == (1, 1)


def test_a_failing_read_ends_a_leader_that_helps_a_node_catch_up() -> None:
    lag = Fault(at_us=SECOND // 2, kind="pause", duration_us=SECOND, nodes=(3,))
    behind = Fault(at_us=SECOND // 2, kind="cut", duration_us=SECOND, links=((1, 3), (2, 3)))
    assert survived(case_with(lag, behind, fault("io-error", mode="read", nodes=(1, 2))))["io-error"] == (1, 1)


@pytest.mark.parametrize("change", MEMBERSHIP_CHANGES)
def test_every_change_of_members_is_carried_out(change: str) -> None:
    nodes = {"replace": (1, 4), "remove": (1,), "promote": (4,)}.get(change, (4,))
    faults = [fault("membership", mode=change, nodes=nodes)]
    if change == "promote":
        faults.insert(0, fault("membership", mode="add-learner", nodes=(4,)))
    assert survived(case_with(*faults, spares=1))["membership"] == (len(faults), len(faults))


def test_a_wiped_node_comes_back_as_a_member() -> None:
    lines: list[str] = []
    outcome = run_case(case_with(fault("wipe", nodes=(2,))), trace=lines.append)
    assert outcome.violations == ()
    assert outcome.bit["wipe"] == (1, 1)
    members = [line.split("members ")[1].split(";")[0] for line in lines if "members (" in line]
    assert "(1 3) learners (2)" in members
    assert members[-1] == "(1 2 3)"


@pytest.mark.parametrize(
    ("rule", "value"), [("drop-appends", 3), ("hold-append-answers", 0), ("erase-commit", 0), ("replay-messages", 0.2)]
)
def test_a_filter_of_the_table_leaves_evidence(rule: str, value: float) -> None:
    filtered = Fault(at_us=SECOND, kind="filter", duration_us=SECOND // 2, links=ALL_LINKS, value=value, mode=rule)
    assert survived(case_with(filtered))["filter"] == (1, 1)


def test_a_fault_that_hits_nothing_leaves_no_evidence() -> None:
    quiet = Case(level="core", seed=1, nodes=1, duration_us=2 * SECOND, faults=(fault("cut"),))
    assert run_case(quiet).bit["cut"] == (1, 0)


def test_a_filter_is_one_line_of_a_test() -> None:
    cluster = CoreCluster(Case(level="core", seed=1))
    leader = cluster.run_until_leader()
    follower = next(host for host in cluster.hosts.values() if host is not leader)
    blocked = cluster.filter(drop(AppendEntries, to=follower.node_id))
    entry = cluster.propose()
    cluster.run_for(SECOND)
    assert leader.machine.applied_index >= entry.index
    assert follower.machine.applied_index < entry.index
    blocked.remove()
    cluster.run_until(lambda: follower.machine.applied_index >= entry.index)


def test_an_unknown_kind_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="knows no fault 'bit-rot'"):
        run_case(case_with(fault("bit-rot")))


def test_a_case_of_another_level_is_refused() -> None:
    with pytest.raises(ValueError, match="level 'full'"):
        run_case(Case(level="full", seed=1))


def test_a_commit_that_its_leader_did_not_outlive_is_a_commit() -> None:
    """A false alarm, found by a swarm: the leader sent its commit index, and crashed before it was looked at."""
    crashes = tuple(
        Fault(at_us=at_us, kind="crash-at", mode="after-save", nodes=(1, 2, 3), value=1_000, duration_us=SECOND // 20)
        for at_us in range(SECOND, 2 * SECOND, SECOND // 20)
    )
    load = Load(clients=20, rate=5_000, reads=0)
    case = Case(level="core", seed=1, duration_us=2 * SECOND, faults=crashes, load=load)
    assert run_case(case).violations == ()
