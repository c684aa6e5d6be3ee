"""The checker of replicas' states: the same applied index means the same state, and in the end all are at the same
index.

State machine safety (Raft §5.4.3) is judged over the whole trace: wherever two samples of a group have the same
`last_applied`, their digests must be equal.  Convergence is judged on each node's last sample.

Rule: different states are INVALID; a replica that has not caught up by the end is UNKNOWN and named, because no
finite run shows that it never would.
Knows nothing of what a digest is made of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from seatrial.checkers.base import Anomaly, Evidence, Validity, Verdict
from seatrial.history import StatusSample

_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class ReplicaEquality:
    """Equal digests at equal applied indexes, and the same index everywhere at the end."""

    @property
    def name(self) -> str:
        return "replica-equality"

    def check(self, evidence: Evidence) -> Verdict:
        verdict = partial(Verdict, checker=self.name)
        if not evidence.statuses:
            return verdict(validity=Validity.UNKNOWN, reason="nothing to check: no node reported its status")
        anomalies, compared = _divergences(evidence.statuses)
        behind = _behind_at_the_end(evidence)
        stats = {"compared": compared, "divergences": len(anomalies), "behind": len(behind)}
        if anomalies:
            return verdict(validity=Validity.INVALID, anomalies=tuple(anomalies[:_SHOWN_MAX]), stats=stats)
        if behind:
            reason = "; ".join(anomaly.message for anomaly in behind[:_SHOWN_MAX])
            return verdict(validity=Validity.UNKNOWN, anomalies=tuple(behind[:_SHOWN_MAX]), reason=reason, stats=stats)
        if not compared:
            reason = "no two nodes ever gave a digest at the same applied index"
            return verdict(validity=Validity.UNKNOWN, reason=reason, stats=stats)
        return verdict(validity=Validity.VALID, stats=stats)


def _divergences(samples: Iterable[StatusSample]) -> tuple[list[Anomaly], int]:
    """One anomaly for each two nodes of a group, at the first index where they differ; and how many digests agreed."""
    digests: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    agreed = 0
    first: dict[tuple[str, int, int], tuple[int, StatusSample]] = {}
    for sample in samples:
        if sample.digest is None or sample.last_applied is None:
            continue
        known = digests[sample.group, sample.last_applied]
        for node, digest in known.items():
            if digest == sample.digest:
                agreed += node != sample.node
                continue
            pair = (sample.group, min(node, sample.node), max(node, sample.node))
            if pair not in first or sample.last_applied < first[pair][0]:
                first[pair] = (sample.last_applied, sample)
        known.setdefault(sample.node, sample.digest)
    return [_divergence(*pair, index, sample) for pair, (index, sample) in sorted(first.items(), key=_place)], agreed


def _place(item: tuple[tuple[str, int, int], tuple[int, StatusSample]]) -> tuple[str, int, int]:
    return item[0]


def _divergence(group: str, one: int, other: int, index: int, sample: StatusSample) -> Anomaly:
    who = f"nodes {one} and {other} had" if one != other else f"node {one} had, at two times,"
    return Anomaly(
        name="replica-divergence",
        message=f"{who} different states of group {group} after applying the same {index} entries",
        key=group,
        node=sample.node,
        time_ns=sample.time_ns,
        detail={"group": group, "last_applied": index, "nodes": [one, other]},
    )


def _behind_at_the_end(evidence: Evidence) -> list[Anomaly]:
    last: dict[str, dict[int, StatusSample]] = defaultdict(dict)
    for sample in sorted(evidence.statuses, key=lambda sample: sample.time_ns):
        last[sample.group][sample.node] = sample
    found = []
    for group, by_node in sorted(last.items()):
        applied = [s.last_applied for s in by_node.values() if s.role is not None and s.last_applied is not None]
        furthest = max(applied, default=None)
        for node in sorted({*by_node, *evidence.nodes}) if furthest is not None else ():
            latest = by_node.get(node)
            if latest is None or latest.role is None or latest.last_applied not in (None, furthest):
                found.append(_laggard(group, node, latest, furthest))
    return found


def _laggard(group: str, node: int, sample: StatusSample | None, furthest: int | None) -> Anomaly:
    if sample is None:
        what = "never reported its status"
    elif sample.role is None:
        what = f"did not answer at the end ({sample.error or 'no reason given'})"
    else:
        what = f"had applied {sample.last_applied} entries at the end where another node had applied {furthest}"
    return Anomaly(
        name="replica-behind",
        message=f"node {node} of group {group} {what}",
        key=group,
        node=node,
        time_ns=None if sample is None else sample.time_ns,
    )
