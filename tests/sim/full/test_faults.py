"""Every kind of fault of the full level bites, and the server survives it: no promise is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seatrial.sim.case import Case, Fault, Load
from seatrial.sim.faults import KINDS
from seatrial.sim.full import run_case
from seatrial.sim.full.nemesis import CARRIERS

MakeCase = Callable[..., Case]
MakeFault = Callable[..., Fault]
ALL_LINKS = tuple((a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b)
TO_AND_FROM_1 = tuple(link for link in ALL_LINKS if 1 in link)


def network(fault: MakeFault) -> list[Fault]:
    return [
        fault("cut", 1.0, links=TO_AND_FROM_1, mode="isolate"),
        fault("clog", 1.5, links=ALL_LINKS),
        fault("swizzle-clog", 2.0, nodes=(2, 1, 3)),
        fault("delay", 2.5, links=ALL_LINKS, value=30_000),
        fault("loss", 2.9, links=ALL_LINKS, value=0.3),
        fault("bandwidth", 3.3, links=ALL_LINKS, value=20_000),
        fault("split", 3.6, 0.3, links=ALL_LINKS, value=40),
        fault("half-open", 3.9, links=ALL_LINKS),
        fault("reset", 4.2, links=ALL_LINKS),
    ]


def processes_and_clocks(fault: MakeFault) -> list[Fault]:
    return [
        fault("crash", 1.0, nodes=(1,), mode="kill"),
        fault("crash", 1.5, nodes=(2,), mode="power"),
        fault("pause", 2.0, nodes=(3,)),
        fault("clock-drift", 2.2, nodes=(1, 2), value=50_000),
        fault("clock-jump", 2.4, nodes=(1, 2, 3), value=-3_600_000_000),
    ]


def named_points(fault: MakeFault) -> list[Fault]:
    points = ("before-save", "after-save", "before-send", "after-apply", "during-snapshot")
    crashes = [
        fault("crash-at", 1.0 + 0.6 * place, 0.6, nodes=(place % 3 + 1,), mode=point, value=200_000)
        for place, point in enumerate(points)
    ]
    return [*crashes, fault("snapshot", 3.6, nodes=(2,))]


def failing_disks(fault: MakeFault) -> list[Fault]:
    return [
        fault("slow-sync", 0.8, nodes=(1, 2, 3), value=20_000),
        fault("stall-sync", 1.2, nodes=(2,)),
        fault("io-error", 1.6, nodes=(1,), mode="write"),
        fault("io-error", 2.2, nodes=(2,), mode="sync"),
        fault("disk-full", 2.8, nodes=(3,)),
    ]


def operations(fault: MakeFault) -> list[Fault]:
    return [
        fault("transfer", 1.2, nodes=(1,)),
        fault("transfer", 1.5, nodes=(2,)),
        fault("snapshot", 1.8, nodes=(1, 2, 3)),
        fault("filter", 2.0, 0.4, links=ALL_LINKS, mode="drop-appends", value=2),
    ]


def members(fault: MakeFault) -> list[Fault]:
    return [
        fault("membership", 1.0, 1.0, nodes=(4,), mode="add-learner"),
        fault("membership", 2.0, 1.0, nodes=(4,), mode="promote"),
        fault("membership", 3.0, 1.0, nodes=(1,), mode="remove"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "seconds", "spares"),
    [
        (network, 4.5, 0),
        (processes_and_clocks, 3.5, 0),
        (named_points, 4.5, 0),
        (failing_disks, 4, 0),
        (operations, 3, 0),
        (members, 4.5, 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_faults_bite_and_break_no_promise(
    plan: Callable[[MakeFault], list[Fault]], seconds: float, spares: int, make_case: MakeCase, make_fault: MakeFault
) -> None:
    faults = plan(make_fault)
    outcome = run_case(make_case(*faults, seconds=seconds, spares=spares))
    assert [(violation.name, violation.message) for violation in outcome.violations] == []
    planned = {kind: sum(fault.kind == kind for fault in faults) for kind in {fault.kind for fault in faults}}
    assert outcome.bit == {kind: (count, count) for kind, count in planned.items()}
    assert outcome.operations["ok"] > 10 * seconds


DAMAGE: dict[str, dict[str, Any]] = {
    "bit-rot": {"value": 0.5},
    "lost-write": {},
    "misdirected-write": {"value": 0.5},
    "truncate-file": {"value": 0.5},
    "roll-back-file": {},
    "wipe": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_one_node_of_three_breaks_no_promise(kind: str, make_case: MakeCase, make_fault: MakeFault) -> None:
    faults = [
        make_fault(kind, 1.4, 0.2, nodes=(2,), **DAMAGE[kind]),
        make_fault("crash", 2.0, 0.2, nodes=(2,), mode="power"),
    ]
    outcome = run_case(make_case(*faults, seconds=2.6))
    assert [(violation.name, violation.message) for violation in outcome.violations] == []
    assert outcome.bit[kind] == (1, 1)


def test_every_kind_of_this_level_is_tried_here(make_fault: MakeFault) -> None:
    plans = (network, processes_and_clocks, named_points, failing_disks, operations, members)
    tried = {fault.kind for plan in plans for fault in plan(make_fault)} | set(DAMAGE)
    assert tried == {name for name, kind in KINDS.items() if "full" in kind.levels} == set(CARRIERS)


@pytest.mark.slow
def test_damage_beyond_the_budget_is_told(make_case: MakeCase, make_fault: MakeFault) -> None:
    """Two of three nodes lose their disks: no protocol survives that, and the run must say so."""
    faults = [make_fault("wipe", 1.2, 0.2, nodes=(1, 2))]
    outcome = run_case(make_case(*faults, seconds=1.6, load=Load(rate=10.0, kafka_rate=5.0)))
    assert "liveness" in [violation.name for violation in outcome.violations]


@pytest.mark.slow
def test_a_message_filter_is_attached_to_nodes_that_start_while_it_lasts(
    make_case: MakeCase, make_fault: MakeFault
) -> None:
    down = make_fault("crash", 0.5, 0.5, nodes=(1, 2, 3), mode="kill")
    filtered = make_fault("filter", 0.7, 1.3, links=ALL_LINKS, mode="delay-messages", value=2_000)
    over_before_they_start = make_fault("filter", 0.7, 0.2, links=ALL_LINKS, mode="delay-messages", value=2_000)
    outcome = run_case(make_case(down, filtered, over_before_they_start))
    assert outcome.violations == ()
    assert outcome.bit["filter"] == (2, 1)
