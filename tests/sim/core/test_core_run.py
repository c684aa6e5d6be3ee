"""Runs of the core level: the same case gives the same digest anywhere, and correct code is VALID on many seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from seatrial.sim.case import Case, Fault, Load
from seatrial.sim.core import CoreCluster, NotReached, run_case
from seatrial.sim.swarm import draw_case

SECOND = 1_000_000
DIGEST_OF = """
from seatrial.sim.core import run_case
from seatrial.sim.swarm import draw_case
print([run_case(draw_case(seed, "core")).digest for seed in (1, 2)])
"""


def test_fresh_processes_with_other_environments_give_the_same_digests() -> None:
    printed = set()
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "SOMETHING_ELSE": hash_seed * 100}
        ran = subprocess.run(
            [sys.executable, "-c", DIGEST_OF], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        printed.add(ran.stdout)
    printed.add(f"{[run_case(draw_case(seed, 'core')).digest for seed in (1, 2)]}\n")
    assert len(printed) == 1


def test_printing_a_trace_changes_nothing() -> None:
    case = draw_case(7, "core")
    lines: list[str] = []
    assert run_case(case, trace=lines.append) == run_case(case)
    assert any("<-" in line for line in lines)
    assert any("fault" in line for line in lines)


def test_another_seed_is_another_run() -> None:
    case = Case(level="core", seed=1, duration_us=SECOND)
    other = Case(level="core", seed=2, duration_us=SECOND)
    assert run_case(case).digest != run_case(other).digest


def test_a_violation_and_its_digest_come_again() -> None:
    late = Case(level="core", seed=1, duration_us=SECOND, faults=(Fault(at_us=0, kind="campaign", nodes=(1,)),))
    assert run_case(late, events_max=500) == run_case(late, events_max=500)
    assert run_case(late, events_max=500).violations[0].name == "event-storm"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 150, 50))
def test_correct_code_is_valid_on_every_seed(first: int) -> None:
    for seed in range(first, first + 50):
        assert run_case(draw_case(seed, "core", duration_us=SECOND)).violations == (), f"seed {seed}"


def test_an_idle_cluster_has_one_timer_a_node() -> None:
    """A leader's beats, an answer to each second or third, and the timers' own events: one armed twice doubles them."""
    cluster = CoreCluster(Case(level="core", seed=1, nodes=5))
    cluster.run_until_leader()
    before = cluster.world.events
    cluster.run_for(10 * SECOND)
    beats = 10 * SECOND // 50_000
    fewest, most = (4 * beats + 4 * beats // every for every in (3, 2))
    events = cluster.world.events - before
    assert fewest + beats <= events <= most + beats + 5 * 4 * 10


def test_a_cluster_recovers_after_everything_and_shows_every_write() -> None:
    outcome = run_case(Case(level="core", seed=5, nodes=5, duration_us=2 * SECOND, load=Load(rate=200)))
    assert outcome.violations == ()
    assert outcome.operations["ok"] > 300
    assert outcome.virtual_us > 2 * SECOND


def test_operations_end_when_the_load_has_had_its_number() -> None:
    outcome = run_case(Case(level="core", seed=5, duration_us=2 * SECOND, load=Load(rate=500, operations_max=30)))
    probes = (2 + 3 + 3) * 5 + 3  # reads of every key at a core of two, at all, and at all again; a write each time
    assert sum(outcome.operations.values()) == 30 + probes


def test_what_is_waited_for_in_vain_says_how_things_stand() -> None:
    cluster = CoreCluster(Case(level="core", seed=1))
    cluster.cut(*cluster.network.links)
    with pytest.raises(NotReached, match=r"not within 2 s: 1 pre_candidate|1 follower"):
        cluster.run_until_leader(within_us=2 * SECOND)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 7])
def test_clusters_of_every_size_run(nodes: int) -> None:
    assert run_case(Case(level="core", seed=1, nodes=nodes, duration_us=SECOND)).violations == ()
