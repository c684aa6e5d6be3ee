"""Consumer groups' promises: each that is broken is named, beside the history that keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.checkers.base import Evidence, Validity, Verdict
from seatrial.checkers.group_offsets import GroupOffsets
from seatrial.history import History, Op, OpType

OK, FAIL, INFO = OpType.OK, OpType.FAIL, OpType.INFO


class Story:
    """Operations one after the other, a second each."""

    def __init__(self) -> None:
        self.history = History()

    def _event(self, kind: OpType, f: str, client: int, value: Any, key: str) -> None:
        index = len(self.history)
        self.history.append(Op(index=index, time_ns=index * 10**9, client=client, type=kind, f=f, key=key, value=value))

    def begin(self, f: str, client: int = 0, value: Any = None, key: str = "groups/all") -> None:
        self._event(OpType.INVOKE, f, client, value, key)

    def end(self, f: str, value: Any = None, kind: OpType = OK, client: int = 0, key: str = "groups/all") -> None:
        self._event(kind, f, client, value, key)

    def did(self, f: str, value: Any = None, kind: OpType = OK, client: int = 0, key: str = "groups/all") -> Story:
        self.begin(f, client, None, key)
        self.end(f, value, kind, client, key)
        return self

    def append(self, offset: int, value: int) -> Story:
        return self.did("append", [offset, value], key="groups/0")

    def drain(self, start: int, *records: tuple[int, int]) -> Story:
        return self.did("drain", {"start": {"0": start}, "records": {"0": [list(record) for record in records]}})

    def verdict(self) -> Verdict:
        return GroupOffsets().check(Evidence(history=self.history))


def names(verdict: Verdict) -> list[str]:
    return [anomaly.name for anomaly in verdict.anomalies]


def test_a_group_that_got_everything_and_went_on_is_valid() -> None:
    story = Story().append(0, 10).append(1, 11).append(2, 12)
    story.did("consume", {"0": [[0, 10], [1, 11]]}).did("offset-commit", {"0": 2}).did("offset-fetch", {"0": 2})
    story.did("consume", {"0": [[1, 11]]}, client=1)  # again, after a rebalance: allowed
    verdict = story.drain(2, (2, 12)).verdict()
    assert verdict.validity is Validity.VALID
    assert verdict.stats == {"commits": 1, "records given": 4, "of them again": 1}


def test_a_record_that_the_group_never_got_is_named() -> None:
    story = Story().append(0, 10).append(1, 11)
    verdict = story.did("consume", {"0": [[0, 10]]}).did("offset-commit", {"0": 2}).drain(2).verdict()
    assert verdict.validity is Validity.INVALID
    assert names(verdict) == ["never-delivered"]
    assert "value 11" in verdict.anomalies[0].message


@pytest.mark.parametrize("kind", [FAIL, INFO])
def test_only_acknowledged_records_are_owed_and_only_what_was_returned_was_given(kind: OpType) -> None:
    story = Story().did("append", [0, 10], kind, key="groups/0", client=7)
    assert story.drain(0).verdict().validity is Validity.VALID
    story = Story().append(0, 10).did("consume", {"0": [[0, 10]]}, kind, client=7)
    assert names(story.drain(1).verdict()) == ["never-delivered"]


def test_another_record_in_the_place_of_an_acknowledged_one_is_named() -> None:
    verdict = Story().append(0, 10).drain(0, (0, 99)).verdict()
    assert names(verdict) == ["wrong-record"]


@pytest.mark.parametrize(
    ("first", "then", "is_broken"),
    [("offset-commit", "offset-fetch", True), ("offset-fetch", "offset-fetch", True), ("offset-fetch", "drain", True)],
)
def test_a_committed_offset_that_went_back_is_named(first: str, then: str, is_broken: bool) -> None:
    for later in (5, 4, -1):
        story = Story().did(first, {"0": 5})
        story = story.drain(later) if then == "drain" else story.did(then, {"0": later}).drain(5)
        assert ("committed-offset-went-back" in names(story.verdict())) == (later < 5)


@pytest.mark.parametrize("kind", [FAIL, INFO])
def test_a_commit_that_was_not_acknowledged_promises_nothing(kind: OpType) -> None:
    story = Story().did("offset-commit", {"0": 5}, kind, client=7).did("offset-fetch", {"0": 1})
    assert story.drain(1).verdict().validity is Validity.VALID


@pytest.mark.parametrize(("late", "seen", "is_broken"), [({"0": 2}, 2, True), ({"0": 9}, 4, True), ({}, 4, False)])
def test_a_late_commit_of_a_member_that_had_left_counts_where_it_was_accepted(
    late: dict[str, int], seen: int, is_broken: bool
) -> None:
    story = Story().did("offset-commit", {"0": 4}, client=2).did("late-commit", late, client=1)
    story.did("offset-fetch", {"0": seen}).drain(seen)
    assert names(story.verdict())[:1] == (["committed-offset-went-back"] if is_broken else [])


def test_a_view_that_overlaps_a_commit_may_come_before_it() -> None:
    story = Story()
    story.begin("offset-fetch", client=1)
    story.did("offset-commit", {"0": 5})
    story.end("offset-fetch", {"0": 1}, client=1)
    assert story.drain(5).verdict().validity is Validity.VALID


def test_without_a_drain_nothing_is_known_of_the_rest_but_what_went_back_is() -> None:
    story = Story().append(0, 10)
    verdict = story.verdict()
    assert verdict.validity is Validity.UNKNOWN and "left" in verdict.reason
    verdict = story.did("offset-commit", {"0": 5}).did("offset-fetch", {"0": 4}).verdict()
    assert names(verdict) == ["committed-offset-went-back"]


def test_the_number_of_anomalies_that_are_told_is_bounded() -> None:
    story = Story()
    for offset in range(50):
        story.append(offset, offset)
    assert len(story.drain(50).verdict().anomalies) == 20
