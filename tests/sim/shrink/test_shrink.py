"""Shrinking, over stand-ins for the simulator: functions that say of a case whether, how and when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.sim.budget import malformed, over_budget
from seatrial.sim.case import Case, Fault, Network, Raft, Violation
from seatrial.sim.console import describe_shrinking
from seatrial.sim.shrink import NotFailing, Progress, shrink, shrink_list
from seatrial.sim.swarm import draw_case

SECOND_US = 1_000_000


def violation(name: str = "lost-write", at_us: int = SECOND_US) -> Violation:
    return Violation(name=name, message="", at_us=at_us)


def when(holds: Callable[[Case], bool], at_us: int = SECOND_US) -> Callable[[Case], Violation | None]:
    return lambda case: violation(at_us=at_us) if holds(case) else None


def kinds(case: Case) -> list[str]:
    return [fault.kind for fault in case.faults]


def crowded(seed: int = 5) -> Case:
    """A case with many faults, of which one is a crash and one, later, a pause."""
    case = draw_case(seed, "core", nodes=5, kinds={"cut", "crash", "pause", "clock-drift", "slow-sync"})
    assert len(case.faults) > 10 and {"crash", "pause"} <= set(kinds(case))
    return case


def test_faults_that_do_not_matter_are_removed_and_the_rest_keep_their_order() -> None:
    case = crowded()
    needed = [fault.kind for fault in case.faults if fault.kind in ("crash", "pause")][:2]

    def has_both(candidate: Case) -> bool:
        order = [kind for kind in kinds(candidate) if kind in ("crash", "pause")]
        return order[:2] == needed

    smaller, found = shrink(case, when(has_both, at_us=20 * SECOND_US))
    assert kinds(smaller) == needed
    assert found.name == "lost-write"


def test_a_failure_that_needs_no_fault_is_left_with_the_plainest_case() -> None:
    smaller, _ = shrink(crowded(), when(lambda case: True, at_us=0))
    assert smaller == Case(
        level="core",
        seed=0,
        nodes=1,
        duration_us=smaller.duration_us,
        network=Network(tail=0.0),
        load=msgspec.structs.replace(smaller.load, operations_max=0),
    )
    assert smaller.duration_us <= 2_000
    assert smaller.load.operations_max == 0


def test_a_case_that_fails_in_another_way_is_not_taken() -> None:
    def find(case: Case) -> Violation | None:
        return violation("lost-write") if "crash" in kinds(case) else violation("stale-read")

    smaller, found = shrink(crowded(), find)
    assert kinds(smaller) == ["crash"]
    assert found.name == "lost-write"


def test_what_comes_after_the_violation_is_cut_off() -> None:
    case = crowded()
    seen: list[Case] = []

    def find(candidate: Case) -> Violation | None:
        seen.append(candidate)
        return violation(at_us=2 * SECOND_US)

    shrink(case, find)
    assert seen[1].duration_us == 2 * SECOND_US + 1_000
    assert all(fault.at_us <= 2 * SECOND_US for fault in seen[1].faults)


def test_settings_that_matter_stay_and_the_others_become_plain() -> None:
    case = msgspec.structs.replace(
        crowded(),
        network=Network(delay_us=(300, 400), loss=0.2, duplicate=0.1),
        raft=Raft(snapshot_entries=7, pre_vote=False),
    )
    smaller, _ = shrink(case, when(lambda case: case.network.loss > 0.1 and not case.raft.pre_vote))
    assert smaller.network == Network(loss=0.2, tail=0.0)
    assert smaller.raft == Raft(pre_vote=False)


def test_nodes_that_do_not_matter_are_removed_and_faults_follow_the_new_ids() -> None:
    """The crash of node 5 of five becomes the crash of the last of three."""
    crash = Fault(at_us=0, kind="crash", mode="kill", duration_us=SECOND_US, nodes=(5,))
    cut = Fault(at_us=0, kind="cut", mode="link", duration_us=SECOND_US, links=((1, 5), (4, 5)))
    case = Case(level="core", seed=0, nodes=5, faults=(crash, cut))

    def fails(case: Case) -> bool:
        crashed = {node for fault in case.faults if fault.kind == "crash" for node in fault.nodes}
        links = {link for fault in case.faults for link in fault.links}
        return case.nodes >= 3 and any((other, node) in links for node in crashed for other in range(1, node))

    smaller, _ = shrink(case, when(fails))
    assert smaller.nodes == 3
    assert len(smaller.faults) == 2
    assert len(smaller.faults[1].links) == 1
    assert malformed(smaller) is None


def test_faults_become_shorter_and_hit_less() -> None:
    wide = Fault(
        at_us=0, kind="cut", mode="partition", duration_us=4 * SECOND_US, links=((1, 2), (2, 1), (1, 3), (3, 1))
    )
    case = Case(level="core", seed=0, faults=(wide,))
    smaller, _ = shrink(
        case, when(lambda case: any((3, 1) in fault.links and fault.duration_us >= 300_000 for fault in case.faults))
    )
    (fault,) = smaller.faults
    assert (3, 1) in fault.links and len(fault.links) == 1
    assert 300_000 <= fault.duration_us <= 700_000


def test_gaps_are_closed_keeping_what_must_be_apart() -> None:
    first = Fault(at_us=3 * SECOND_US, kind="pause", duration_us=1_000, nodes=(1,))
    second = Fault(at_us=8 * SECOND_US, kind="pause", duration_us=1_000, nodes=(2,))
    case = Case(level="core", seed=0, faults=(first, second))

    def fails(case: Case) -> bool:
        return len(case.faults) == 2 and case.faults[1].at_us - case.faults[0].at_us >= SECOND_US

    smaller, _ = shrink(case, when(fails, at_us=9 * SECOND_US))
    assert smaller.faults[0].at_us < 10_000
    assert smaller.faults[1].at_us - smaller.faults[0].at_us < 1_500_000


def test_two_cuts_of_one_link_become_one_that_lasts() -> None:
    one = Fault(at_us=0, kind="cut", mode="link", duration_us=SECOND_US, links=((1, 2),))
    other = Fault(at_us=SECOND_US, kind="cut", mode="link", duration_us=SECOND_US, links=((1, 2),))
    case = Case(level="core", seed=0, faults=(one, other))

    def fails(case: Case) -> bool:
        return sum(fault.duration_us for fault in case.faults if fault.kind == "cut") >= 2 * SECOND_US

    smaller, _ = shrink(case, when(fails, at_us=3 * SECOND_US))
    assert [fault.duration_us for fault in smaller.faults] == [2 * SECOND_US]


def test_another_seed_is_tried_where_it_needs_fewer_faults() -> None:
    def fails(case: Case) -> bool:
        return kinds(case).count("pause") >= (1 if case.seed == 3 else 3)

    pauses = [Fault(at_us=at * 100_000, kind="pause", duration_us=1_000, nodes=(at,)) for at in (1, 2, 3)]
    smaller, _ = shrink(Case(level="core", seed=900, faults=tuple(pauses)), when(fails))
    assert smaller.seed == 3
    assert len(smaller.faults) == 1


def test_no_case_leaves_the_budget_or_loses_its_form() -> None:
    """Making timeouts plain before disks would blame the nodes for a slow disk that nobody promised to survive."""
    for seed in range(30):
        case = draw_case(seed, "core")
        seen: list[Case] = []

        def find(candidate: Case, seen: list[Case] = seen) -> Violation | None:
            seen.append(candidate)
            return violation() if len(candidate.faults) % 2 == len(seen) % 2 or len(seen) == 1 else None

        shrink(case, find)
        assert all(malformed(candidate) is None and over_budget(candidate) is None for candidate in seen), seed


def test_a_case_over_the_budget_may_be_shrunk_as_it_is() -> None:
    wipes = tuple(Fault(at_us=0, kind="wipe", duration_us=SECOND_US, nodes=(node,)) for node in (1, 2, 3))
    smaller, _ = shrink(Case(level="core", seed=0, faults=wipes), when(lambda case: len(case.faults) >= 2))
    assert len(smaller.faults) == 2


def test_no_case_is_run_twice() -> None:
    seen: list[Case] = []

    def find(case: Case) -> Violation | None:
        seen.append(case)
        return violation() if len(case.faults) >= 4 else None

    shrink(crowded(), find)
    assert len(seen) == len(set(seen))


def test_shrinking_ends_in_time_with_the_best_so_far() -> None:
    class Ticking:
        """A clock on which each run of a case takes a second."""

        now = 0

        def now_us(self) -> int:
            return self.now * SECOND_US

        def wall_ms(self) -> int:
            return 0

    clock = Ticking()

    def find(case: Case) -> Violation | None:
        clock.now += 1
        return violation() if "crash" in kinds(case) else None

    told: list[Progress] = []
    smaller, _ = shrink(crowded(), find, seconds=10, clock=clock, told=told.append)
    assert clock.now <= 12
    assert told[-1].is_late
    assert "the time was over: it may go further" in describe_shrinking(told[-1], crowded())
    assert "crash" in kinds(smaller)
    assert len(smaller.faults) < len(crowded().faults)


def test_several_candidates_at_a_time_come_to_the_same_case() -> None:
    batches: list[int] = []

    def find(case: Case) -> Violation | None:
        return violation() if {"crash", "pause"} <= set(kinds(case)) else None

    def find_each(cases: Sequence[Case]) -> list[Violation | None]:
        batches.append(len(cases))
        return [find(case) for case in cases]

    one_by_one = shrink(crowded(), find)
    assert shrink(crowded(), find, find_each=find_each, jobs=3) == one_by_one
    assert max(batches) == 3


def test_progress_tells_what_is_tried_and_the_smallest_so_far() -> None:
    told: list[Progress] = []
    smaller, _ = shrink(crowded(), when(lambda case: "crash" in kinds(case)), told=told.append)
    assert {progress.doing for progress in told} >= {"remove faults", "close gaps"}
    assert told[-1].case == smaller
    assert not told[-1].is_late
    assert describe_shrinking(told[-1], crowded()).endswith(f"in {told[-1].runs} runs")
    assert [progress.runs for progress in told] == sorted(progress.runs for progress in told)


def test_a_case_that_does_not_fail_is_refused() -> None:
    with pytest.raises(NotFailing, match="nothing to shrink"):
        shrink(crowded(), when(lambda case: False))


@given(items=st.lists(st.integers(0, 9), max_size=30), needed=st.sets(st.integers(0, 9), max_size=3))
def test_a_shrunk_list_has_nothing_left_to_leave_out(items: list[int], needed: set[int]) -> None:
    def fails(kept: list[int]) -> bool:
        return needed & set(items) <= set(kept)

    kept = shrink_list(items, fails)
    assert sorted(kept) == sorted(needed & set(items))
    positions = iter(items)
    assert all(item in positions for item in kept), "the order was lost"
