"""Hunting: every seed is run, sums add up, failures are replayed elsewhere, and a process that dies is named."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from seatrial.sim.case import Outcome, Violation
from seatrial.sim.hunt import Draw, Report, hunt, outcomes, run_quietly, run_with_trace
from seatrial.sim.pool import in_batches
from seatrial.sim.sources import SourcesChanged
from seatrial.sim.swarm import draw_case

SHORT = Draw(level="core", duration_us=500_000, nodes=3)


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(number)


def square_or_raise(number: int) -> int:
    if number == 13:
        raise ZeroDivisionError("13")
    return square(number)


def test_every_item_gets_its_result_once_from_several_processes() -> None:
    assert sorted(in_batches(range(50), square, 3)) == [(number, number * number) for number in range(50)]


def test_a_dead_process_costs_one_item_and_names_it() -> None:
    results = dict(in_batches(range(30), square_or_die, 2))
    assert results.pop(13) == "the process that ran it died without a word"
    assert results == {number: number * number for number in range(30) if number != 13}


def test_what_a_function_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError, match="13"):
        list(in_batches(range(30), square_or_raise, 2))


def test_processes_end_when_the_caller_turns_away() -> None:
    results: Iterator[tuple[int, int | str]] = in_batches(range(10_000), own_process, 2)
    seen = {result for _, result in (next(results) for _ in range(20))}
    results.close()  # type: ignore[attr-defined]
    for process in seen:
        assert not Path(f"/proc/{process}").exists()


def own_process(_: int) -> int:
    return os.getpid()


@pytest.mark.slow
def test_a_hunt_adds_up_what_its_cases_came_to() -> None:
    told: list[int] = []
    report = hunt(range(20, 26), SHORT, jobs=2, told=lambda report: told.append(report.done))
    single = [run_quietly(SHORT.case(seed)) for seed in range(20, 26)]
    assert report.failing == []
    assert (report.done, report.seeds, report.first_seed) == (6, 6, 20)
    assert report.events == sum(outcome.events for outcome in single)
    assert report.virtual_us == sum(outcome.virtual_us for outcome in single)
    assert report.operations["ok"] == sum(outcome.operations.get("ok", 0) for outcome in single)
    assert told[:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_trace_and_the_process_make_no_difference_to_a_digest() -> None:
    cases = [SHORT.case(seed) for seed in range(6)]
    here = {case: run_quietly(case).digest for case in cases}
    elsewhere = {case: outcome.digest for case, outcome in outcomes(cases, "core", run_with_trace, 2)}
    assert elsewhere == here


@pytest.mark.slow
def test_one_seed_in_a_hundred_is_run_twice_although_it_passes() -> None:
    assert hunt(range(98, 102), SHORT).replayed == 1


def test_a_report_counts_faults_marks_and_operations_of_all_cases() -> None:
    report = Report(level="core", first_seed=0, seeds=2)
    outcome = Outcome(
        violations=(), digest="d", events=5, virtual_us=7, operations={"ok": 2}, bit={"cut": (3, 1)}, marks={"m": 4}
    )
    report.add(outcome)
    report.add(outcome)
    assert (report.events, report.virtual_us) == (10, 14)
    assert (report.operations, report.bit, report.marks) == ({"ok": 4}, {"cut": (6, 2)}, {"m": 8})
    assert Report(level="core", first_seed=0, seeds=0).marks == {}, "sums of one report must not leak into another"


def test_a_replay_command_holds_everything_that_decides_the_case() -> None:
    assert Draw(level="full").command(7) == "seatrial sim --seed 7"
    narrow = Draw(level="core", duration_us=2_500_000, nodes=5)
    assert narrow.command(7, "--trace") == "seatrial sim --seed 7 --level core --duration 2.5s --nodes 5 --trace"
    assert narrow.case(7) == draw_case(7, "core", duration_us=2_500_000, nodes=5)


def test_two_runs_that_differ_are_a_failure_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level that is not deterministic: it puts its process id into the digest, and every process runs one case."""
    monkeypatch.setattr("seatrial.sim.core.run_case", undecided)
    report = hunt(range(100, 101), SHORT)
    (failing,) = report.failing
    assert failing.violation.name == "not-deterministic"
    assert failing.replay == "seatrial sim --seed 100 --level core --duration 0.5s --nodes 3"


def test_runs_that_differ_after_an_edit_prove_nothing_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seatrial.sim.core.run_case", undecided)
    monkeypatch.setattr("seatrial.sim.hunt.fingerprint", map(str, range(9)).__next__)
    with pytest.raises(SourcesChanged, match="edited while"):
        hunt(range(100, 101), SHORT)


def undecided(case: object, *, trace: object = None) -> Outcome:
    digest = f"{os.getpid()}"
    return Outcome(violations=(), digest=digest, events=0, virtual_us=0, operations={}, bit={}, marks={})


def test_a_seed_that_fails_is_replayed_and_reported_with_its_first_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seatrial.sim.core.run_case", broken)
    report = hunt(range(10), SHORT, jobs=2)
    assert [failing.seed for failing in report.failing] == [3, 7]
    assert {failing.violation.name for failing in report.failing} == {"lost-write"}
    assert report.replayed == 3, "the two, and seed 0"


def broken(case: object, *, trace: object = None) -> Outcome:
    seed: int = case.seed  # type: ignore[attr-defined]
    violations = (Violation(name="lost-write", message="", at_us=1),) if seed in (3, 7) else ()
    return Outcome(violations=violations, digest=str(seed), events=0, virtual_us=0, operations={}, bit={}, marks={})
