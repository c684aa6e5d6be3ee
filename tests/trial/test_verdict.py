"""The run's own assumptions are part of its verdict."""

from __future__ import annotations

from pathlib import Path

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.history import FaultEvent, History, Op, OpType
from seatrial.rundir import RunDirectory
from seatrial.trial.model import Trial
from seatrial.trial.verdict import check_assumptions, document, fault_counts

TRIAL = Trial(faults=("kill:leader", "pause"), workloads=("kv",), seed=5)


def history(*kinds: OpType) -> History:
    return History(Op(index=i, time_ns=i, client=0, type=kind, f="write") for i, kind in enumerate(kinds))


def fault(kind: str, number: int, *, bit: bool) -> list[FaultEvent]:
    return [
        FaultEvent(time_ns=1, type="inject", id=number, fault=kind, description=kind),
        FaultEvent(time_ns=2, type="heal", id=number, fault=kind, description=kind, bit=bit),
    ]


def test_a_run_whose_faults_bit_and_whose_writes_were_acknowledged_holds() -> None:
    faults = [*fault("kill", 0, bit=True), *fault("pause", 1, bit=True)]
    evidence = Evidence(history=history(OpType.INVOKE, OpType.OK), faults=faults)
    assert check_assumptions(TRIAL, evidence, ()).validity is Validity.VALID


def test_a_fault_that_never_bit_makes_the_run_unknown() -> None:
    faults = [*fault("kill", 0, bit=True), *fault("pause", 1, bit=False)]
    evidence = Evidence(history=history(OpType.INVOKE, OpType.OK), faults=faults)
    verdict = check_assumptions(TRIAL, evidence, ())
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.reason == "no pause left evidence that it bit"


def test_a_fault_that_was_never_injected_makes_the_run_unknown() -> None:
    evidence = Evidence(history=history(OpType.INVOKE, OpType.OK), faults=fault("kill", 0, bit=True))
    assert check_assumptions(TRIAL, evidence, ()).reason == "no pause was injected"


def test_a_run_without_an_acknowledgement_is_unknown() -> None:
    evidence = Evidence(history=history(OpType.INVOKE, OpType.INFO))
    verdict = check_assumptions(Trial(), evidence, ())
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.reason == "no operation was acknowledged"


def test_what_could_not_be_finished_makes_the_run_unknown() -> None:
    evidence = Evidence(history=history(OpType.INVOKE, OpType.OK))
    assert check_assumptions(Trial(), evidence, ("no consensus",)).validity is Validity.UNKNOWN


def test_faults_are_counted_by_kind() -> None:
    events = [*fault("kill", 0, bit=True), *fault("kill", 1, bit=False)]
    assert fault_counts(events) == ({"kill": 2}, {"kill": 1})


def test_the_document_takes_the_worst_verdict_and_says_how_to_replay(tmp_path: Path) -> None:
    evidence = Evidence(history=history(OpType.INVOKE, OpType.OK))
    verdicts = [
        Verdict(checker="a", validity=Validity.VALID),
        Verdict(checker="b", validity=Validity.INVALID, anomalies=(Anomaly(name="lost-write", message="gone"),)),
        Verdict(checker="c", validity=Validity.UNKNOWN, reason="too large"),
    ]
    run = RunDirectory(tmp_path)
    whole = document(trial=TRIAL, run=run, verdicts=verdicts, evidence=evidence, started="2026-01-01")
    assert whole["validity"] == "INVALID"
    assert whole["replay"] == TRIAL.command()
    assert [c["validity"] for c in whole["checkers"]] == ["VALID", "INVALID", "UNKNOWN"]
    assert whole["stats"]["ok"] == 1
