"""Cases a little simpler than a given one, most promising first.  PURE.

Rule: each case that is made differs, and is simpler in one respect, so that repeating comes to an end.
Knows nothing of which of them fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec

from seatrial.sim.case import Case, Disk, Fault, Load, Network, Raft

CALM: Final = Network(tail=0.0)
OPERATIONS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
KAFKA: Final = ("kafka_rate", "topics", "partitions")
DURATION_MIN_US: Final = 1_000
replace = msgspec.structs.replace


def plainer_settings(case: Case) -> Iterator[Case]:
    """Without drift, damage and special settings, and with less to do."""
    whole = replace(case, drift_ppm=0, wall_offset_us=0, network=CALM, disk=Disk(), raft=Raft())
    candidates = [whole, replace(case, drift_ppm=0), replace(case, wall_offset_us=0), replace(case, spares=0)]
    for name, plain in (("network", CALM), ("disk", Disk()), ("raft", Raft())):
        candidates.append(replace(case, **{name: plain}))
        candidates += [replace(case, **{name: one}) for one in _one_field_plain(getattr(case, name), plain)]
    candidates += [replace(case, load=load) for load in _less_to_do(case)]
    return (candidate for candidate in candidates if candidate != case)


def _one_field_plain(settings: Any, plain: Any) -> Iterator[Any]:
    for name in settings.__struct_fields__:
        if getattr(settings, name) != getattr(plain, name):
            yield replace(settings, **{name: getattr(plain, name)})


def _less_to_do(case: Case) -> Iterator[Load]:
    load = case.load
    for most in OPERATIONS:
        if most < load.operations_max:
            yield replace(load, operations_max=most)
    if load.operations_max == 0:  # nothing is done: how it would have been done is noise
        yield replace(Load(), operations_max=0)
    for name in ("payload_bytes", "large_bytes", "members") if case.level == "full" else ("payload_bytes", *KAFKA):
        yield replace(load, **{name: getattr(Load(), name)})
    for name in ("clients", "keys") if case.level == "core" else ("clients", "keys", "topics", "partitions"):
        if getattr(load, name) > 1:
            yield replace(load, **{name: 1})
    if load.deletes:
        kept = Load()
        yield replace(
            load, retention_bytes=kept.retention_bytes, retention_ms=kept.retention_ms, deletions=kept.deletions
        )
    if load.reads:
        yield replace(load, reads=0.0)
    if load.kafka_rate and case.level == "full":
        yield replace(load, kafka_rate=0.0)
    for name in ("rate",) if case.level == "core" else ("rate", "kafka_rate"):
        if getattr(load, name) >= 2:
            yield replace(load, **{name: float(round(getattr(load, name) / 2))})


def fewer_nodes(case: Case) -> Iterator[Case]:
    """Without two nodes, or without one."""
    for leaving in range(case.nodes - 1, 0, -1):
        yield _without_nodes(case, (leaving, leaving + 1))
    for leaving in range(case.nodes, 0, -1):
        if case.nodes > 1:
            yield _without_nodes(case, (leaving,))


def _without_nodes(case: Case, leaving: tuple[int, ...]) -> Case:
    """The case without these first members: the ids close up, and faults lose what they hit there."""
    left = [node for node in range(1, case.nodes + case.spares + 1) if node not in leaving]
    new = {old: place for place, old in enumerate(left, 1)}
    faults = []
    for fault in case.faults:
        nodes = tuple(new[node] for node in fault.nodes if node in new)
        links = tuple((new[one], new[other]) for one, other in fault.links if one in new and other in new)
        whole = len(nodes) == len(fault.nodes) or fault.kind != "membership"  # who leaves and who comes: both or none
        if (nodes or links) and whole:
            faults.append(replace(fault, nodes=nodes, links=links))
    return replace(case, nodes=case.nodes - len(leaving), faults=tuple(faults))


def merged_faults(case: Case) -> Iterator[Case]:
    """With two faults of the same sort as one that lasts from the beginning of the first to the end of the second."""
    for first in range(len(case.faults)):
        for second in range(first + 1, len(case.faults)):
            one, other = case.faults[first], case.faults[second]
            alike = replace(one, at_us=other.at_us, duration_us=other.duration_us) == other
            if alike and one.duration_us and other.duration_us:
                end_us = max(one.at_us + one.duration_us, other.at_us + other.duration_us)
                faults = list(case.faults)
                faults[first] = replace(one, duration_us=end_us - one.at_us)
                del faults[second]
                yield replace(case, faults=tuple(faults))


def _with_fault(case: Case, number: int, fault: Fault) -> Case:
    return replace(case, faults=(*case.faults[:number], fault, *case.faults[number + 1 :]))


def plainer_fault(case: Case, number: int) -> Iterator[Case]:
    """With this fault shorter, on fewer nodes, or on one link."""
    fault = case.faults[number]
    if fault.duration_us >= 2 * DURATION_MIN_US:
        for part in (8, 2):
            shorter_us = max(DURATION_MIN_US, fault.duration_us // part)
            yield _with_fault(case, number, replace(fault, duration_us=shorter_us))
    if len(fault.nodes) > 1 and fault.kind != "membership":
        for node in fault.nodes:
            yield _with_fault(case, number, replace(fault, nodes=(node,)))
    if len(fault.links) > 1:
        for link in fault.links:
            yield _with_fault(case, number, replace(fault, links=(link,)))


def fewer_links(case: Case, number: int) -> Iterator[Case]:
    """With this fault on half of its links, or on one link or one node less."""
    fault = case.faults[number]
    half = len(fault.links) // 2
    if half > 1:
        yield _with_fault(case, number, replace(fault, links=fault.links[half:]))
        yield _with_fault(case, number, replace(fault, links=fault.links[:half]))
    if len(fault.links) > 1:
        for place in range(len(fault.links)):
            links = fault.links[:place] + fault.links[place + 1 :]
            yield _with_fault(case, number, replace(fault, links=links))
    if len(fault.nodes) > 1 and fault.kind != "membership":
        for place in range(len(fault.nodes)):
            nodes = fault.nodes[:place] + fault.nodes[place + 1 :]
            yield _with_fault(case, number, replace(fault, nodes=nodes))


def without_gap(case: Case, number: int) -> Iterator[Case]:
    """With this fault and all later ones earlier, and the end of the case with them, apart as they are."""
    before_us = case.faults[number - 1].at_us if number else 0
    gap_us = case.faults[number].at_us - before_us
    for keep in (0.0, 0.25, 0.5, 0.75):
        earlier_us = gap_us - int(gap_us * keep)
        if earlier_us < DURATION_MIN_US or earlier_us >= case.duration_us:
            continue
        moved = tuple(replace(fault, at_us=fault.at_us - earlier_us) for fault in case.faults[number:])
        yield replace(case, duration_us=case.duration_us - earlier_us, faults=case.faults[:number] + moved)


def rounded_times(case: Case) -> Iterator[Case]:
    """With all times of few significant digits, the fewest first; the order of the faults stays."""
    for digits in (1, 2, 3):
        faults = tuple(
            replace(fault, at_us=_rounded(fault.at_us, digits), duration_us=_up(fault.duration_us, digits))
            for fault in case.faults
        )
        if all(one.at_us <= other.at_us for one, other in pairwise(faults)):
            rounded = replace(case, duration_us=_up(case.duration_us, digits), faults=faults)
            if rounded != case:
                yield rounded


def _grain(time_us: int, digits: int) -> int:
    return int(10 ** max(0, len(str(time_us)) - digits))


def _rounded(time_us: int, digits: int) -> int:
    grain = _grain(time_us, digits)
    return (time_us + grain // 2) // grain * grain


def _up(time_us: int, digits: int) -> int:
    grain = _grain(time_us, digits)
    return -(-time_us // grain) * grain
