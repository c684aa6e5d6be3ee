"""What each node was, over time, and which faults were on: the lanes of the timeline.

Rule: a node's role is drawn only as far as a sample says it; where samples are missing the lane is empty, and where
the node did not answer it says so.
Knows nothing of HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seatrial.history import FaultEvent, Json, StatusSample
from seatrial.report.loading import FaultSpan

GROUPS_MAX = 8
NAME_CHARACTERS_MAX = 32
DOWN = "down"
SAMPLE_GAP_NS_MAX = 3_000_000_000  # a status is recorded when it changes and at least every 2 s
_TICK_STEPS_NS = tuple(step * 10**power for power in range(6, 13) for step in (1, 2, 5))
FAMILY = {
    "partition": "network", "isolate": "network", "cut": "network", "oneway": "network", "one-way": "network",
    "latency": "network", "bandwidth": "network", "timeout": "network", "reset": "network", "flapping": "network",
    "bridge": "network", "kill": "process", "terminate": "process", "restart": "process", "pause": "pause",
}  # fmt: skip


@dataclass(slots=True)
class Segment:
    """A span in which a node had one role in one group."""

    begin_ns: int
    end_ns: int
    role: str
    term: int | None
    leader: int | None


@dataclass(frozen=True, slots=True)
class Lane:
    """One node's roles in one Raft group, and the moments at which its term rose."""

    group: str
    segments: tuple[Segment, ...]
    terms: tuple[tuple[int, int], ...]  # (time_ns, term)


@dataclass(frozen=True, slots=True)
class NodeLanes:
    """A node's lanes, one a group."""

    node: int
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """A fault as the page shows it."""

    id: int
    kind: str
    family: str  # "network", "process", "pause", "other": its colour
    description: str
    targets: tuple[int, ...]
    begin_ns: int
    end_ns: int
    healed: bool
    skipped: bool
    outcome: str  # "bit", "did not bite", "not known", "skipped"
    reason: str
    evidence: tuple[tuple[str, str], ...]


def group_names(statuses: Sequence[StatusSample]) -> tuple[str, ...]:
    """Every group that some node answered for: metadata and kv first, the others in natural order."""
    found = {sample.group for sample in statuses if sample.role is not None}
    first = {"metadata": 0, "kv": 1}
    return tuple(sorted(found, key=lambda g: (first.get(g, 2), [_natural(part) for part in re.split(r"(\d+)", g)])))


def _natural(part: str) -> tuple[int, int, str]:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


def short_name(name: str) -> str:
    """The name, or as much of its two ends as a lane has room for: topics often differ in their ends alone."""
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    behind = NAME_CHARACTERS_MAX // 2
    return f"{name[: NAME_CHARACTERS_MAX - behind - 1]}…{name[-behind:]}"


def node_lanes(statuses: Sequence[StatusSample], nodes: Sequence[int], end_ns: int) -> list[NodeLanes]:
    """Each node's lanes in the first GROUPS_MAX groups."""
    groups = group_names(statuses)[:GROUPS_MAX]
    samples: dict[tuple[int, str], list[StatusSample]] = {(n, g): [] for n in nodes for g in groups}
    for sample in statuses:
        if sample.role is not None:
            if (sample.node, sample.group) in samples:
                samples[sample.node, sample.group].append(sample)
        else:
            # A node that does not answer does not answer for any group.
            for group in groups:
                if (sample.node, group) in samples:
                    samples[sample.node, group].append(sample)
    return [NodeLanes(node, tuple(_lane(group, samples[node, group], end_ns) for group in groups)) for node in nodes]


def _lane(group: str, samples: Sequence[StatusSample], end_ns: int) -> Lane:
    segments: list[Segment] = []
    terms: list[tuple[int, int]] = []
    highest = 0
    for place, sample in enumerate(samples):
        following = samples[place + 1].time_ns if place + 1 < len(samples) else end_ns
        until = min(following, sample.time_ns + SAMPLE_GAP_NS_MAX, end_ns)
        role = sample.role or DOWN
        last = segments[-1] if segments else None
        if last is not None and last.role == role and last.end_ns == sample.time_ns and last.term == sample.term:
            last.end_ns = until
            last.leader = sample.leader if sample.leader is not None else last.leader
        else:
            segments.append(Segment(sample.time_ns, until, role, sample.term, sample.leader))
        if sample.term is not None and sample.term > highest:
            terms.append((sample.time_ns, sample.term))
            highest = sample.term
    return Lane(group, tuple(segments), tuple(terms))


def leader_changes(statuses: Sequence[StatusSample]) -> int:
    """How often a group was seen under a leader of a higher term than before."""
    seen: dict[str, int] = {}
    changes = 0
    for sample in statuses:
        if sample.role == "leader" and sample.term is not None and sample.term > seen.get(sample.group, 0):
            changes += sample.group in seen
            seen[sample.group] = sample.term
    return changes


def fault_rows(faults: Sequence[FaultSpan], end_ns: int) -> list[FaultRow]:
    """Every fault, also those that were skipped, in the order in which they began."""
    return [_fault_row(span, end_ns) for span in faults]


def _fault_row(span: FaultSpan, end_ns: int) -> FaultRow:
    began, healed = span.began, span.healed
    evidence = (healed.evidence if healed is not None and healed.evidence else began.evidence) or {}
    return FaultRow(
        id=began.id,
        kind=began.fault,
        family=FAMILY.get(began.fault.split("-")[0], FAMILY.get(began.fault, "other")),
        description=began.description.removeprefix(f"{began.fault} "),
        targets=began.targets,
        begin_ns=min(began.time_ns, end_ns),
        end_ns=min(healed.time_ns, end_ns) if healed is not None else (began.time_ns if span.skipped else end_ns),
        healed=healed is not None,
        skipped=span.skipped,
        outcome="skipped" if span.skipped else _outcome(healed),
        reason=(healed.reason if healed is not None and healed.reason else began.reason) or "",
        evidence=tuple((name, _plain(value)) for name, value in evidence.items()),
    )


def levels(faults: Sequence[FaultRow]) -> list[list[FaultRow]]:
    """The faults on as few rows as keep those that overlap apart."""
    rows: list[list[FaultRow]] = []
    for fault in sorted(faults, key=lambda f: f.begin_ns):
        free = next((row for row in rows if row[-1].end_ns <= fault.begin_ns), None)
        if free is None:
            rows.append([fault])
        else:
            free.append(fault)
    return rows


def axis_ticks(end_ns: int) -> list[int]:
    """About eight round moments from 0 on, in nanoseconds."""
    step = next((s for s in _TICK_STEPS_NS if end_ns / s <= 9), end_ns)
    return list(range(0, end_ns + 1, step))


def _outcome(healed: FaultEvent | None) -> str:
    if healed is None or healed.bit is None:
        return "not known"
    return "bit" if healed.bit else "did not bite"


def _plain(value: Json) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 100_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)
