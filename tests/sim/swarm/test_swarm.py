"""Cases drawn from seeds: they repeat, differ, reach every kind, and removing one draw moves no other."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from seatrial.env import Rng
from seatrial.sim.budget import malformed
from seatrial.sim.case import Case, Level
from seatrial.sim.faults import KINDS
from seatrial.sim.strikes import CUT_NODES_MIN, SCENES, Population, all_links, draw_fault
from seatrial.sim.swarm import SIZES, draw_case

LEVELS: tuple[Level, ...] = get_args(Level)
SECOND_US = 1_000_000


@pytest.mark.parametrize("level", LEVELS)
def test_a_seed_always_gives_the_same_case(level: Level) -> None:
    for seed in range(20):
        assert draw_case(seed, level) == draw_case(seed, level)
    assert len({draw_case(seed, level).to_toml() for seed in range(20)}) == 20


@pytest.mark.parametrize("level", LEVELS)
def test_a_case_survives_being_written_and_read(level: Level) -> None:
    for seed in range(50):
        case = draw_case(seed, level)
        assert Case.from_toml(case.to_toml()) == case


def test_arrays_of_a_case_file_stand_on_one_line() -> None:
    text = draw_case(1, "core", kinds={"cut"}).to_toml()
    links = [line for line in text.splitlines() if line.startswith("links")]
    assert links and all(line.endswith("]]") for line in links)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_kind_mode_and_size_is_drawn(level: Level) -> None:
    cases = [draw_case(seed, level) for seed in range(600)]
    drawn = Counter((fault.kind, fault.mode) for case in cases for fault in case.faults)
    for name, kind in KINDS.items():
        if level not in kind.levels:
            assert not any(of == name for of, _ in drawn), f"{name} does not exist at level {level}"
            continue
        for mode in kind.modes or ("",):
            assert name == "filter" or drawn[name, mode], f"{name} {mode} is never drawn"
    filters = {mode for of, mode in drawn if of == "filter"}
    assert len(filters) > len(SCENES) + 10 and filters >= set(SCENES)
    assert {case.nodes for case in cases} == set(SIZES[level])
    assert any(not case.faults for case in cases), "a quiet case is never drawn"


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_drawn_can_be_carried_out(level: Level) -> None:
    for seed in range(300):
        case = draw_case(seed, level)
        assert malformed(case) is None, seed
        assert all(0 <= fault.at_us < case.duration_us for fault in case.faults)
        assert [fault.at_us for fault in case.faults] == sorted(fault.at_us for fault in case.faults)


def test_a_longer_run_has_more_faults_and_the_same_settings() -> None:
    short, long = draw_case(3, "core", duration_us=2 * SECOND_US), draw_case(3, "core", duration_us=20 * SECOND_US)
    assert len(short.faults) < len(long.faults)
    assert (short.network, short.disk, short.raft, short.load) == (long.network, long.disk, long.raft, long.load)


def test_only_the_kinds_asked_for_are_drawn() -> None:
    kinds = {fault.kind for seed in range(20) for fault in draw_case(seed, "core", kinds={"cut", "pause"}).faults}
    assert kinds == {"cut", "pause"}


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no kind of fault 'flood'"):
        draw_case(1, "core", kinds={"flood"})


def test_the_number_of_nodes_can_be_fixed() -> None:
    for seed in range(50):
        case = draw_case(seed, "core", nodes=1)
        assert case.nodes == 1
        assert malformed(case) is None


def _cuts(mode: str, size: int) -> list[frozenset[tuple[int, int]]]:
    """Cuts of this shape of so many nodes, over a hundred seeds."""
    nodes = tuple(range(1, size + 1))
    population = Population(first=nodes, spares=(), fragile=(), may_leave=nodes)
    cuts = []
    for seed in range(1_000):
        fault = draw_fault(Rng(seed), "core", population, weights={"cut": 1}, duration_us=SECOND_US, lasting_us=50_000)
        if fault is not None and fault.mode == mode:
            cuts.append(frozenset(fault.links))
    assert len(cuts) > 50
    return cuts


def _both_ways(cut: frozenset[tuple[int, int]]) -> bool:
    return all((to, sender) in cut for sender, to in cut)


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 5, 6, 7, 9])
def test_cuts_have_the_shapes_they_are_named_after(size: int) -> None:
    nodes = range(1, size + 1)
    everything = frozenset(all_links(nodes))
    for mode in CUT_NODES_MIN:
        for cut in _cuts(mode, size):
            open_links = everything - cut
            assert cut and cut <= everything
            hears = {node: {sender for sender, to in open_links if to == node} for node in nodes}
            match mode:
                case "partition":
                    assert _both_ways(cut)
                    assert all(hears[one] - {other} == hears[other] - {one} for one, other in open_links)
                case "isolate":
                    alone = [node for node in nodes if not hears[node]]
                    assert len(alone) == 1 and len(cut) == 2 * (size - 1)
                case "one-way":
                    assert not any((to, sender) in cut for sender, to in cut)
                case "bridge":
                    assert _both_ways(cut)
                    assert any(len(hears[node]) == size - 1 for node in nodes)
                case "majorities-ring":
                    assert _both_ways(cut)
                    assert all(len(hears[node]) + 1 > size / 2 for node in nodes)
                    assert len({frozenset(hears[node] | {node}) for node in nodes}) == size
                case "link":
                    assert len(cut) <= 2 and len({frozenset(link) for link in cut}) == 1
