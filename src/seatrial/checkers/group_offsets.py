"""Consumer groups: every acknowledged record reaches the group, and a committed offset never goes back.

Needs: appends (ok [offset, value]), what members consumed (ok {partition: [[offset, value], …]}), their commits
(ok {partition: next offset}; late-commit: of one that had left, with nothing where it was refused), what was committed
as others saw it (offset-fetch), and one drain at the end, from the committed offsets to the ends of the partitions.
Rule: members commit only what they were given and still hold, so a record behind the committed offset that nobody was
given is lost to the group, by whoever's fault.  Records may be given twice: that is what a group promises.
Knows nothing of clients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.history import History, Json, Op, OpType

ANOMALIES_MAX: Final = 20  # of each kind; more would say the same


class _Seen(NamedTuple):
    """A committed offset, as an operation that lasted from `begun_ns` to `ended_ns` set or saw it."""

    begun_ns: int
    ended_ns: int
    offset: int
    op: int


class GroupOffsets:
    """A `Checker`."""

    name = "group-offsets"

    def check(self, evidence: Evidence) -> Verdict:
        history = evidence.history
        drains = [done for op, done in _done(history) if op.f == "drain"]
        commits, views = _offsets(history)
        given = _given(history)
        anomalies = [*_gone_back(commits, views)]
        if drains:
            anomalies += _never_given(history, given)
        stats: dict[str, Json] = {
            "commits": sum(map(len, commits.values())),
            "records given": sum(len(times) for times in given.values()),
            "of them again": sum(len(times) - 1 for times in given.values()),
        }
        if anomalies:
            return Verdict(checker=self.name, validity=Validity.INVALID, anomalies=tuple(anomalies), stats=stats)
        if not drains:
            reason = "nobody read at last what the group had left: a record that is missing may be there"
            return Verdict(checker=self.name, validity=Validity.UNKNOWN, reason=reason, stats=stats)
        return Verdict(checker=self.name, validity=Validity.VALID, stats=stats)


def _done(history: History) -> Iterator[tuple[Op, Op]]:
    """(invocation, completion) of what ended well."""
    for begun, over in history.pairs():
        if over is not None and over.type is OpType.OK:
            yield begun, over


def _given(history: History) -> Mapping[tuple[str, int], list[tuple[int, Json]]]:
    """(partition, offset) -> (operation, value) of each time that the record was given to somebody."""
    found: dict[tuple[str, int], list[tuple[int, Json]]] = {}
    for begun, over in _done(history):
        if begun.f not in ("consume", "drain"):
            continue
        for partition, records in (over.value["records"] if begun.f == "drain" else over.value).items():
            for offset, value in records:
                found.setdefault((partition, offset), []).append((over.index, value))
    return found


def _never_given(history: History, given: Mapping[tuple[str, int], Sequence[tuple[int, Json]]]) -> Iterator[Anomaly]:
    lost = wrong = 0
    for begun, over in _done(history):
        if begun.f != "append":
            continue
        assert begun.key is not None
        partition = begun.key.rpartition("/")[2]
        offset, value = over.value
        times = given.get((partition, offset), ())
        if not times and (lost := lost + 1) <= ANOMALIES_MAX:
            message = f"value {value} was acknowledged at offset {offset} of {begun.key}, and the group never got it"
            yield Anomaly(name="never-delivered", message=message, ops=(begun.index, over.index), key=begun.key)
        others = [(index, other) for index, other in times if other != value]
        if others and (wrong := wrong + 1) <= ANOMALIES_MAX:
            index, other = others[0]
            message = f"offset {offset} of {begun.key} was acknowledged for {value}, and the group got {other}"
            yield Anomaly(name="wrong-record", message=message, ops=(over.index, index), key=begun.key)


def _offsets(history: History) -> tuple[dict[str, list[_Seen]], dict[str, list[_Seen]]]:
    """Of each partition: acknowledged commits, and what was seen as committed."""
    commits: dict[str, list[_Seen]] = {}
    views: dict[str, list[_Seen]] = {}
    for begun, over in _done(history):
        if begun.f not in ("offset-commit", "late-commit", "offset-fetch", "drain"):
            continue
        for partition, offset in (over.value["start"] if begun.f == "drain" else over.value).items():
            into = commits if begun.f in ("offset-commit", "late-commit") else views
            into.setdefault(partition, []).append(_Seen(begun.time_ns, over.time_ns, offset, over.index))
    return commits, views


def _gone_back(commits: Mapping[str, list[_Seen]], views: Mapping[str, list[_Seen]]) -> Iterator[Anomaly]:
    """What was seen is at least everything that was acknowledged, or seen, before anybody looked."""
    for partition in sorted(views):
        known = sorted([*commits.get(partition, ()), *views[partition]], key=lambda seen: seen.ended_ns)
        highest: _Seen | None = None
        position = found = 0
        for view in sorted(views[partition], key=lambda seen: seen.begun_ns):
            while position < len(known) and known[position].ended_ns < view.begun_ns:
                if highest is None or known[position].offset > highest.offset:
                    highest = known[position]
                position += 1
            if highest is not None and view.offset < highest.offset and (found := found + 1) <= ANOMALIES_MAX:
                message = (
                    f"partition {partition}: the committed offset was {highest.offset}, and later it was {view.offset}"
                )
                ops = (highest.op, view.op)
                yield Anomaly(name="committed-offset-went-back", message=message, ops=ops, time_ns=view.begun_ns)
