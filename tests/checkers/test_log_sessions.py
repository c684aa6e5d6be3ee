"""What readers are told of a log's end: each promise broken in the smallest history, beside one that keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.checkers.base import Evidence, Validity, Verdict
from seatrial.checkers.log_sessions import LogSessions
from seatrial.history import History, Op, OpType

Step = tuple[int, str, str, Any]  # client, "invoke" and so on, f, value


def judged(*steps: Step, keys: dict[int, str] | None = None) -> Verdict:
    """Of operations on one partition; keys: of those steps that are on another."""
    history = History()
    for index, (client, kind, f, value) in enumerate(steps):
        key = (keys or {}).get(index, "t/0")
        history.append(
            Op(index=index, time_ns=index, client=client, type=OpType(kind), f=f, key=key, value=value, node=client)
        )
    return LogSessions().check(Evidence(history=history))


def appended(client: int, offset: int) -> tuple[Step, Step]:
    return (client, "invoke", "append", 7), (client, "ok", "append", [offset, 7])


def told(client: int, end: int) -> tuple[Step, Step]:
    return (client, "invoke", "tail", None), (client, "ok", "tail", end)


def test_an_end_behind_everything_that_was_acknowledged_is_valid() -> None:
    verdict = judged(*appended(0, 4), *told(0, 5), *told(1, 5), *told(1, 9))
    assert verdict.validity is Validity.VALID
    assert verdict.stats["tails"] == 3


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ((*told(0, 5), *told(0, 4)), "monotonic-tail"),
        ((*appended(0, 4), *told(0, 4)), "read-your-writes"),
        ((*appended(0, 4), *told(1, 4)), "stale-tail"),
    ],
)
def test_an_end_that_breaks_a_promise_names_it_and_the_operations(steps: tuple[Step, ...], name: str) -> None:
    verdict = judged(*steps)
    assert verdict.validity is Validity.INVALID
    (anomaly,) = verdict.anomalies
    assert anomaly.name == name
    assert anomaly.ops == (1, 2, 3)
    assert "t/0 ends at 4" in anomaly.message


def test_what_was_acknowledged_while_the_end_was_asked_for_may_be_missing_from_it() -> None:
    verdict = judged((0, "invoke", "tail", None), *appended(1, 4), (0, "ok", "tail", 4))
    assert verdict.validity is Validity.VALID


def test_an_append_whose_outcome_is_unknown_promises_nothing() -> None:
    verdict = judged((1, "invoke", "append", 7), (1, "info", "append", None), *told(0, 0))
    assert verdict.validity is Validity.VALID


def test_partitions_have_ends_of_their_own() -> None:
    verdict = judged(
        *appended(0, 4), *told(0, 0), *told(0, 9), *told(0, 3), keys={2: "t/1", 3: "t/1", 6: "t/1", 7: "t/1"}
    )
    assert verdict.validity is Validity.VALID


def test_a_tail_that_failed_told_nothing() -> None:
    verdict = judged(*told(0, 5), (0, "invoke", "tail", None), (0, "fail", "tail", None), *told(0, 5))
    assert verdict.validity is Validity.VALID


@pytest.mark.parametrize(
    ("steps", "reason"),
    [(appended(0, 4), "nothing to check"), (told(0, "five"), "the answer to a tail is an offset")],  # type: ignore[arg-type]
)
def test_what_cannot_be_judged_is_unknown_and_says_why(steps: tuple[Step, ...], reason: str) -> None:
    verdict = judged(*steps)
    assert verdict.validity is Validity.UNKNOWN
    assert reason in verdict.reason
