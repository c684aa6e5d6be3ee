"""Another Raft core in the simulator, through a small adapter: it lives, and its bug is found."""

from __future__ import annotations

from typing import Any

from toy_raft import ToyAdapter

from seatrial.raft.config import RaftConfig
from seatrial.sim.case import Case, Disk, Fault, Load, Network, Raft
from seatrial.sim.core import ConsensusCore, run_case
from seatrial.sim.core.disk import RecordDisk

SECOND = 1_000_000
CUTS = tuple(
    Fault(at_us=number * SECOND, kind="crash", mode="power", nodes=(1, 2, 3), duration_us=50_000)
    for number in (1, 2, 3)
)


def making(*, answers_early: bool) -> Any:
    def make_core(config: RaftConfig, disk: RecordDisk, **start: Any) -> tuple[ConsensusCore, ToyAdapter]:
        adapter = ToyAdapter(config, disk, answers_early=answers_early, **start)
        return adapter, adapter

    return make_core


def case(seed: int) -> Case:
    return Case(
        level="core",
        seed=seed,
        duration_us=4 * SECOND,
        network=Network(loss=0.02),
        disk=Disk(sync_us=(5_000, 20_000), unsynced="lost"),
        raft=Raft(snapshot_entries=1 << 30),  # it has no snapshots
        load=Load(rate=50),
        faults=CUTS,
    )


def test_another_core_lives_through_power_cuts_and_serves() -> None:
    for seed in range(3):
        outcome = run_case(case(seed), make_core=making(answers_early=False))
        assert outcome.violations == ()
        assert outcome.operations["ok"] > 50


def test_the_bug_of_another_core_is_found_and_found_again() -> None:
    outcome = run_case(case(1), make_core=making(answers_early=True))
    assert [violation.name for violation in outcome.violations] == ["committed-on-quorum"]
    assert run_case(case(1), make_core=making(answers_early=True)) == outcome
