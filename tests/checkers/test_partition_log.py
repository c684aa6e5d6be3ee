"""The log checker beyond its smallest anomalies: correct logs pass, damaged ones do not, and bad input is named."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from seatrial.checkers.base import Evidence, Validity, Verdict
from seatrial.checkers.partition_log import PartitionLog
from seatrial.history import History, Op, OpType

KEY = "topic/0"


class Recorder:
    """Writes a history down as it happens."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def add(self, client: int, kind: str, f: str, value: Any = None, **more: Any) -> None:
        index = len(self.ops)
        more = {"key": KEY, **more}
        self.ops.append(Op(index=index, time_ns=index, client=client, type=OpType(kind), f=f, value=value, **more))

    def both(self, client: int, f: str, asked: Any, kind: str = "ok", answer: Any = None, **more: Any) -> None:
        self.add(client, "invoke", f, asked, **more)
        self.add(client, kind, f, answer, **more)

    def check(self) -> Verdict:
        return PartitionLog().check(Evidence(history=History(self.ops)))


def correct_log(seed: int, steps: int = 60) -> Recorder:
    """Producers, consumers and final reads of a log that is right: gaps and unknown outcomes included."""
    chance, recorder = random.Random(seed), Recorder()
    log: list[list[int]] = []
    positions: dict[int, int] = {}
    offset = 0
    for value in range(steps):
        client = chance.randrange(3)
        outcome = chance.choices(["ok", "info", "fail"], [8, 1, 1])[0]
        stored = outcome == "ok" or (outcome == "info" and chance.random() < 0.5)
        if stored:
            offset += 1 + (chance.random() < 0.2)
            log.append([offset, value])
        recorder.both(100 + value if outcome == "info" else client, "append", value, outcome, [offset, value])
        consumer = 10 + chance.randrange(2)
        if chance.random() < 0.2:
            recorder.both(consumer, "assign", None, key=chance.choice([KEY, None]))
            positions[consumer] = chance.randint(0, len(log))
        begin = positions.get(consumer, 0)
        count = chance.randrange(4)
        recorder.both(consumer, "poll", None, answer=log[begin : begin + count])
        positions[consumer] = min(len(log), begin + count)
    for node in (1, 2, 3):
        recorder.both(20 + node, "final-read", None, answer=list(log), node=node)
    return recorder


def test_correct_logs_are_valid() -> None:
    for seed in range(40):
        verdict = correct_log(seed).check()
        assert verdict.validity is Validity.VALID, f"seed {seed}: {verdict}"


def test_a_record_dropped_from_any_final_read_is_lost() -> None:
    for seed in range(40):
        recorder = correct_log(seed)
        chance = random.Random(seed)
        acknowledged = {op.value[1] for op in recorder.ops if op.f == "append" and op.type is OpType.OK}
        final = chance.choice([op for op in recorder.ops if op.f == "final-read" and op.type is OpType.OK])
        gone = chance.choice([pair for pair in final.value if pair[1] in acknowledged])
        final.value.remove(gone)
        verdict = recorder.check()
        lost = [anomaly for anomaly in verdict.anomalies if anomaly.name == "lost-write"]
        assert [anomaly.node for anomaly in lost] == [final.node], f"seed {seed}: {verdict}"


def test_an_append_that_was_acknowledged_after_the_final_read_began_may_be_missing_from_it() -> None:
    recorder = Recorder()
    recorder.both(0, "append", 1, answer=[0, 1])
    recorder.add(9, "invoke", "final-read", node=1)
    recorder.both(0, "append", 2, answer=[1, 2])
    recorder.add(9, "ok", "final-read", [[0, 1]], node=1)
    recorder.both(9, "final-read", None, answer=[[0, 1], [1, 2]], node=1)
    assert recorder.check().validity is Validity.VALID


def test_an_acknowledgement_without_an_offset_is_still_a_promise() -> None:
    recorder = Recorder()
    recorder.both(0, "append", 1, answer=[None, 1])
    recorder.both(1, "append", 2, answer=[-1, 2])
    recorder.both(9, "final-read", None, answer=[[0, 1]], node=4)
    (anomaly,) = recorder.check().anomalies
    assert (anomaly.name, anomaly.node) == ("lost-write", 4)
    assert anomaly.message == f"2 was acknowledged of {KEY}, and is missing from the final read of node 4"


def test_partitions_do_not_mix() -> None:
    recorder = Recorder()
    for value, key in ((1, "topic/0"), (2, "topic/1")):
        recorder.both(0, "append", value, answer=[0, value], key=key)
        recorder.both(1, "poll", None, answer=[[0, value]], key=key)
    assert recorder.check().validity is Validity.VALID
    assert recorder.check().stats["partitions"] == 2


def test_many_anomalies_of_one_kind_are_counted_and_five_are_shown() -> None:
    recorder = Recorder()
    for value in range(20):
        recorder.both(0, "append", value, answer=[value, value])
    recorder.both(9, "final-read", None, answer=[], node=1)
    verdict = recorder.check()
    assert verdict.stats["anomalies"] == {"lost-write": 20}
    assert len(verdict.anomalies) == 5


def test_a_log_that_acknowledged_nothing_is_unknown() -> None:
    recorder = Recorder()
    recorder.both(0, "append", 1, "info")
    recorder.both(1, "poll", None, answer=[])
    verdict = recorder.check()
    assert (verdict.validity, verdict.reason) == (
        Validity.UNKNOWN,
        "nothing to check: no append was acknowledged",
    )


@pytest.mark.parametrize(
    ("f", "asked", "answer", "reason"),
    [
        ("append", [1], [0, 1], "op 0: an append needs a number or text as its value, not [1]"),
        ("append", 1, 7, "op 1: an acknowledged append needs [offset, value], not 7"),
        ("poll", None, [[0]], "op 1: a read's answer is a list of [offset, value]"),
        ("poll", None, [["0", 1]], "op 1: a read's answer is a list of [offset, value]"),
    ],
)
def test_malformed_operations_are_unknown_and_named(f: str, asked: Any, answer: Any, reason: str) -> None:
    recorder = Recorder()
    recorder.both(0, f, asked, answer=answer)
    verdict = recorder.check()
    assert (verdict.validity, verdict.reason) == (Validity.UNKNOWN, reason)


def test_a_value_sent_twice_cannot_be_judged() -> None:
    recorder = Recorder()
    recorder.both(0, "append", 1, answer=[0, 1])
    recorder.both(0, "append", 1, answer=[1, 1])
    verdict = recorder.check()
    assert verdict.validity is Validity.UNKNOWN
    assert verdict.reason.startswith("op 2: 1 was sent to topic/0 before: give each append its own value")


# ---- records that were deleted ----------------------------------------------------------------------------------


def trimmed_log(*, kept_from: int, told: int, asked: int | None) -> Recorder:
    """Ten records; a consumer reads the first two, a client asks for deletion, and what is left is read to its end."""
    recorder = Recorder()
    log = [[offset, 100 + offset] for offset in range(10)]
    for offset, value in log:
        recorder.both(1, "append", value, answer=[offset, value])
    recorder.both(2, "poll", None, answer=log[:2])
    if asked is not None:
        recorder.both(3, "delete-records", asked, answer=told)
    recorder.both(2, "poll", None, answer=log[kept_from:])
    recorder.both(4, "final-read", None, answer=log[kept_from:], node=1)
    recorder.both(5, "log-start", None, answer=told)
    return recorder


def test_what_was_deleted_is_neither_missing_nor_skipped_nor_unseen() -> None:
    assert trimmed_log(kept_from=6, told=6, asked=6).check().validity is Validity.VALID
    assert trimmed_log(kept_from=4, told=6, asked=6).check().validity is Validity.VALID, "read before it was deleted"
    assert trimmed_log(kept_from=10, told=10, asked=10).check().validity is Validity.VALID


def test_what_was_not_deleted_must_be_there_although_more_was_asked_for() -> None:
    verdict = trimmed_log(kept_from=7, told=6, asked=9).check()
    assert {anomaly.name for anomaly in verdict.anomalies} == {"lost-write", "poll-skip"}
    assert "106 was acknowledged at offset 6" in verdict.anomalies[0].message


@pytest.mark.parametrize("asked", [None, 5])
def test_a_log_starts_where_somebody_asked_for_it_unless_it_has_a_retention_of_its_own(asked: int | None) -> None:
    recorder = trimmed_log(kept_from=6, told=6, asked=asked)
    (anomaly,) = recorder.check().anomalies
    assert anomaly.name == "deleted-unasked"
    assert f"nobody had asked for more than the records before {asked or 0}" in anomaly.message
    evidence = Evidence(history=History(recorder.ops))
    assert PartitionLog(asked_only=False).check(evidence).validity is Validity.VALID


def test_a_deletion_whose_outcome_is_unknown_was_asked_for() -> None:
    recorder = trimmed_log(kept_from=6, told=6, asked=None)
    recorder.ops.insert(0, Op(index=0, time_ns=0, client=9, type=OpType.INVOKE, f="delete-records", key=KEY, value=6))
    recorder.ops = [replace(op, index=index) for index, op in enumerate(recorder.ops)]
    assert recorder.check().validity is Validity.VALID


def test_where_a_log_starts_is_a_number() -> None:
    recorder = trimmed_log(kept_from=6, told=6, asked=6)
    recorder.both(5, "log-start", None, answer="six")
    verdict = recorder.check()
    assert verdict.validity is Validity.UNKNOWN
    assert "the value of log-start is an offset, not 'six'" in verdict.reason
