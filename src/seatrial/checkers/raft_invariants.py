"""The checker of Raft's own promises, over what the nodes said of themselves while the run went on.

Election safety (Raft §5.2): one leader a term.  Terms never fall, not even across a restart (§5.1: durable before
used). Within one run of a process, commit index and applied index never fall (§5.3); across a restart they may,
because neither is durable.  Applied <= committed <= last (figure 2).  A leader's log only grows in its term (leader
append-only, §5.3), and holds all that was committed in earlier terms (leader completeness, §5.4).

Rule: only samples that are what one node held at one instant can show two leaders, or an index beyond another; where a
system reads its leader, term and indexes one after the other (etcd does), `atomic=False` leaves those promises out, and
only what must never go back is checked.  A node that was wiped begins anew.
Knows nothing of operations and of clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.history import FaultEvent, StatusSample

_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class RaftInvariants:
    """Raft's invariants over the status trace, for every group.

    `atomic`: whether each status was what its node held at one instant.
    """

    atomic: bool = True

    @property
    def name(self) -> str:
        return "raft-invariants"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        samples = sorted(
            (sample for sample in evidence.statuses if sample.role is not None), key=lambda sample: sample.time_ns
        )
        counts: Counter[str] = Counter()
        shown = []
        for anomaly in _all_anomalies(samples, evidence, atomic=self.atomic):
            counts[anomaly.name] += 1
            if counts[anomaly.name] <= _SHOWN_MAX:
                shown.append(anomaly)
        stats = {
            "samples": len(samples),
            "groups": len({sample.group for sample in samples}),
            "terms": len({(sample.group, sample.term) for sample in samples}),
            "anomalies": dict(counts),
        }
        if shown:
            return verdict(validity=Validity.INVALID, anomalies=tuple(shown), stats=stats)
        if not samples:
            return verdict(validity=Validity.UNKNOWN, reason="nothing to check: no node reported its status")
        return verdict(validity=Validity.VALID, stats=stats)


def _all_anomalies(samples: Sequence[StatusSample], evidence: Evidence, *, atomic: bool) -> Iterator[Anomaly]:
    yield from _went_back(evidence.statuses, evidence.faults)
    if not atomic:
        return
    yield from _two_leaders(samples)
    for sample in samples:
        yield from _wrong_order_within(sample)
    yield from _leader_lacks_committed(samples)


def _anomaly(name: str, message: str, sample: StatusSample) -> Anomaly:
    return Anomaly(
        name=name,
        message=message,
        key=sample.group,
        node=sample.node,
        time_ns=sample.time_ns,
        detail={"group": sample.group, "term": sample.term},
    )


def _two_leaders(samples: Iterable[StatusSample]) -> Iterator[Anomaly]:
    leaders: dict[tuple[str, int], int] = {}
    told: set[tuple[str, int]] = set()
    for sample in samples:
        if sample.role != "leader" or sample.term is None:
            continue
        place = (sample.group, sample.term)
        first = leaders.setdefault(place, sample.node)
        if first != sample.node and place not in told:
            told.add(place)
            yield _anomaly(
                "two-leaders-in-one-term",
                f"nodes {first} and {sample.node} both led group {sample.group} in term {sample.term}",
                sample,
            )


def _wrong_order_within(sample: StatusSample) -> Iterator[Anomaly]:
    applied, committed, last = sample.last_applied, sample.commit_index, sample.last_index
    where = f"node {sample.node} of group {sample.group}"
    if applied is not None and committed is not None and applied > committed:
        yield _anomaly(
            "applied-beyond-commit", f"{where} had applied up to {applied} with only {committed} committed", sample
        )
    if committed is not None and last is not None and committed > last:
        yield _anomaly("commit-beyond-log", f"{where} had {committed} committed in a log that ends at {last}", sample)


@dataclass(slots=True)
class _Node:
    """What one node last said of one group."""

    incarnation: int | None = None
    before: StatusSample | None = None
    highest: dict[str, int] = field(default_factory=dict)


def _went_back(samples: Sequence[StatusSample], faults: Iterable[FaultEvent]) -> Iterator[Anomaly]:
    nodes: dict[tuple[int, str], _Node] = {}
    events: list[StatusSample | FaultEvent] = [*samples, *(fault for fault in faults if fault.type != "skip")]
    for event in sorted(events, key=lambda event: event.time_ns):
        if isinstance(event, FaultEvent):
            for (number, _), node in nodes.items():
                if number in event.targets:
                    _touched(node, event)
            continue
        node = nodes.setdefault((event.node, event.group), _Node())
        if event.role is None:
            # Nobody answered.  Without a count of starts this may have been another process's birth.
            if node.incarnation is None:
                _forget_volatile(node)
            continue
        if event.incarnation != node.incarnation:
            _forget_volatile(node)
            node.incarnation = event.incarnation
        yield from _compared(node, event)


def _touched(node: _Node, fault: FaultEvent) -> None:
    if "wipe" in fault.fault:
        node.highest.clear()
        node.before = None
    elif node.incarnation is None:
        _forget_volatile(node)


def _forget_volatile(node: _Node) -> None:
    """A process that starts knows its term and its log, and learns the rest anew."""
    node.highest.pop("commit_index", None)
    node.highest.pop("last_applied", None)
    node.before = None


def _compared(node: _Node, sample: StatusSample) -> Iterator[Anomaly]:
    for what, words in (("term", "term"), ("commit_index", "commit index"), ("last_applied", "applied index")):
        now = getattr(sample, what)
        if now is None:
            continue
        highest = node.highest.get(what)
        if highest is not None and now < highest:
            yield _anomaly(
                f"{words.replace(' ', '-')}-went-back",
                f"the {words} of node {sample.node} in group {sample.group} fell from {highest} to {now}",
                sample,
            )
        node.highest[what] = now
    before = node.before
    if (
        before is not None
        and before.role == sample.role == "leader"
        and before.term == sample.term
        and before.last_index is not None
        and sample.last_index is not None
        and sample.last_index < before.last_index
    ):
        yield _anomaly(
            "leader-log-shrank",
            f"node {sample.node} led group {sample.group} in term {sample.term}, and its log shrank from "
            f"{before.last_index} to {sample.last_index}",
            sample,
        )
    node.before = sample


def _leader_lacks_committed(samples: Sequence[StatusSample]) -> Iterator[Anomaly]:
    """A commit index seen in a term was committed in that term or an earlier one, so later leaders hold it."""
    committed: dict[str, dict[int, StatusSample]] = {}
    for sample in samples:
        if sample.term is not None and sample.commit_index is not None:
            furthest = committed.setdefault(sample.group, {})
            known = furthest.get(sample.term)
            if known is None or (known.commit_index or 0) < sample.commit_index:
                furthest[sample.term] = sample
    # From term to term, the furthest commit of any term so far.
    for furthest in committed.values():
        best: StatusSample | None = None
        for term in sorted(furthest):
            if best is None or (best.commit_index or 0) < (furthest[term].commit_index or 0):
                best = furthest[term]
            furthest[term] = best
    for sample in samples:
        if sample.role != "leader" or sample.term is None or sample.last_index is None:
            continue
        earlier = max((term for term in committed.get(sample.group, {}) if term < sample.term), default=None)
        if earlier is None:
            continue
        witness = committed[sample.group][earlier]
        if sample.last_index < (witness.commit_index or 0):
            yield _anomaly(
                "leader-lacks-committed",
                f"node {sample.node} led group {sample.group} in term {sample.term} with a log that ends at "
                f"{sample.last_index}, though node {witness.node} knew {witness.commit_index} as committed in term "
                f"{witness.term}",
                sample,
            )
