"""Renders a run directory as one self-contained HTML page: no network, no other file, finished run or not.

Rule: what is shown comes from the run directory alone; the page's size depends on bins and anomalies, not on the
number of operations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2

from seatrial.history import Json, OpType
from seatrial.report.charts import (
    WAITS_FOR_DATA,
    Bins,
    draw_latency,
    draw_strip,
    draw_throughput,
    percentile,
    sum_up,
)
from seatrial.report.loading import Operation, RunRecords, load_run
from seatrial.report.summary import AnomalySummary, CheckerSummary, RunSummary, one_sentence, ordered_checkers
from seatrial.report.timeline import (
    FaultRow,
    NodeLanes,
    axis_ticks,
    fault_rows,
    group_names,
    leader_changes,
    levels,
    node_lanes,
    short_name,
)
from seatrial.report.windows import OperationsByEvent, Window, window_of
from seatrial.rundir import RunDirectory

CHART_HEIGHT = 150.0
STRIP_HEIGHT = 26.0
WINDOWS_MAX = 40  # anomalies beyond are listed without a drawing
LISTED_MAX = 2000


def render(run: RunDirectory) -> Path:
    """Write report.html and return its path.  Raises FileNotFoundError, MalformedRecord, MalformedVerdict."""
    page = render_page(load_run(run))
    run.report.write_text(page, encoding="utf-8")
    return run.report


def render_page(records: RunRecords) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seatrial.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"seconds": seconds, "duration": duration, "plain": plain, "thousands": thousands}
    environment.filters["short_name"] = short_name
    environment.globals["columns_of"] = columns_of
    return environment.get_template("page.html.j2").render(_context(records))


def _context(records: RunRecords) -> dict[str, Any]:
    summary, end_ns = records.summary, records.end_ns
    bins = sum_up(records.operations, end_ns)
    faults = fault_rows(records.faults, end_ns)
    nodes = node_lanes(records.statuses, records.nodes, end_ns)
    acknowledged = sum(operation.outcome is OpType.OK for operation in records.operations)
    return {
        "summary": summary,
        "validity": summary.validity,
        "sentence": one_sentence(summary, acknowledged=acknowledged),
        "figures": _figures(records, bins, faults),
        "end_ns": end_ns,
        "faults": faults,
        "fault_levels": levels([fault for fault in faults if not fault.skipped]),
        "ticks": axis_ticks(end_ns),
        "fault_kinds": _fault_kinds(summary, faults),
        "nodes": nodes,
        "name_characters": max((len(short_name(lane.group)) for node in nodes for lane in node.lanes), default=0),
        "groups": group_names(records.statuses),
        "throughput": draw_throughput(bins.all, bins, end_ns, CHART_HEIGHT),
        "latency": draw_latency(bins, end_ns, CHART_HEIGHT),
        "strips": [(name, draw_strip(c, bins, end_ns, STRIP_HEIGHT), c) for name, c in bins.strips.items()],
        "chart_height": CHART_HEIGHT,
        "strip_height": STRIP_HEIGHT,
        "anomalies": _anomalies(records, faults),
        "listed_max": LISTED_MAX,
        "checkers": ordered_checkers(summary),
        "tails": records.tails,
        "files": _files(records.run),
        "data": _hover_data(records, bins, faults, nodes),
        "css": _static("report.css"),
        "js": _static("report.js"),
    }


def _figures(records: RunRecords, bins: Bins, faults: Sequence[FaultRow]) -> list[tuple[str, str, str]]:
    """Tiles of (what, figure, small print)."""
    latencies = sorted(
        (o.completed.time_ns - o.invoked.time_ns) / 1e6
        for o in records.operations
        if o.completed is not None and _is_acknowledgement(o)
    )
    p50, p99 = percentile(latencies, 0.5), percentile(latencies, 0.99)
    injected = [fault for fault in faults if not fault.skipped]
    gap_ns, gap_at_ns = longest_gap(records.operations)
    outcomes = bins.outcomes
    finals = [operation for operation in records.operations if operation.is_final]
    groups = len(group_names(records.statuses))
    tiles = [
        ("Acknowledged under load", thousands(outcomes[OpType.OK]), f"of {thousands(sum(outcomes.values()))} tried"),
        ("Refused", thousands(outcomes[OpType.FAIL]), "surely did not happen"),
        ("Unknown", thousands(outcomes[OpType.INFO]), "may have happened"),
        ("Latency, median", milliseconds(p50), f"99th percentile {milliseconds(p99)}"),
        ("Longest pause", duration(gap_ns), f"without an acknowledgement, at {seconds(gap_at_ns)}"),
        ("Faults that bit", f"{sum(f.outcome == 'bit' for f in injected)}", f"of {len(injected)} injected"),
        (
            "Leader changes",
            thousands(leader_changes(records.statuses)),
            f"in {groups} Raft group{'' if groups == 1 else 's'}",
        ),
    ]
    if finals:
        answered = sum(operation.outcome is OpType.OK for operation in finals)
        tiles.append(("Final reads", thousands(answered), "answered, each by the node it asked"))
    return tiles


def longest_gap(operations: Sequence[Operation]) -> tuple[int, int]:
    """(length, begin) in nanoseconds of the longest time without an acknowledged operation between two."""
    times = sorted(o.completed.time_ns for o in operations if o.completed is not None and _is_acknowledgement(o))
    return max(((b - a, a) for a, b in pairwise(times)), default=(0, 0))


def _is_acknowledgement(operation: Operation) -> bool:
    return (
        operation.outcome is OpType.OK
        and operation.invoked.f not in {*WAITS_FOR_DATA, "assign"}
        and not operation.is_final
    )


def _fault_kinds(summary: RunSummary, faults: Sequence[FaultRow]) -> list[dict[str, Any]]:
    """By kind: injected, bit, skipped; from the records, or from the verdict where they are gone."""
    kinds: dict[str, dict[str, Any]] = {}
    for fault in faults:
        row = kinds.setdefault(fault.kind, {"kind": fault.kind, "family": fault.family, "injected": 0, "bit": 0})
        row["injected"] += not fault.skipped
        row["bit"] += fault.outcome == "bit"
    for kind, injected in summary.faults.injected.items():
        bit = summary.faults.bit.get(kind, 0)
        kinds.setdefault(kind, {"kind": kind, "family": "other", "injected": injected, "bit": bit})
    return list(kinds.values())


def _anomalies(
    records: RunRecords, faults: Sequence[FaultRow]
) -> list[tuple[CheckerSummary, AnomalySummary, Window | None]]:
    found = records.summary.anomalies
    if not found:
        return []
    operations = OperationsByEvent(records.operations)
    return [
        (checker, anomaly, window_of(anomaly, operations, faults) if number < WINDOWS_MAX else None)
        for number, (checker, anomaly) in enumerate(found[:LISTED_MAX])
    ]


def _files(run: RunDirectory) -> list[tuple[str, int]]:
    """The run's files beside the page, by relative name, with their sizes in bytes."""
    known = (run.trial, run.verdict, run.history, run.faults, run.status)
    logs = sorted(run.node(0).parent.glob("*/*.log"))
    return [(str(p.relative_to(run.root)), p.stat().st_size) for p in (*known, *logs) if p.exists()]


def _hover_data(records: RunRecords, bins: Bins, faults: Sequence[FaultRow], nodes: Sequence[NodeLanes]) -> str:
    """What the page's script needs under the pointer, as JSON that is safe inside a script element."""
    data: Mapping[str, Json] = {
        "end": records.end_ns,
        "bin": bins.width_ns,
        "ok": bins.all.ok,
        "info": bins.all.info,
        "fail": bins.all.fail,
        "p50": [None if v is None else round(v, 2) for v in bins.p50_ms],
        "p99": [None if v is None else round(v, 2) for v in bins.p99_ms],
        "faults": [[f.begin_ns, f.end_ns, f.kind, f.description] for f in faults if not f.skipped],
        "nodes": [
            {
                "node": entry.node,
                "groups": [
                    [lane.group, [[s.begin_ns, s.end_ns, s.role, s.term] for s in lane.segments]]
                    for lane in entry.lanes
                ],
            }
            for entry in nodes
        ],
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _static(name: str) -> str:
    return files("seatrial.report").joinpath("static", name).read_text(encoding="utf-8")


def seconds(time_ns: float) -> str:
    """A moment of the run: "12.345 s"."""
    return f"{time_ns / 1e9:.3f} s"


def duration(span_ns: float) -> str:
    """A length of time in the unit that suits it."""
    if span_ns >= 1e9:
        return f"{span_ns / 1e9:.2f} s"
    return f"{span_ns / 1e6:.0f} ms" if span_ns >= 1e7 else f"{span_ns / 1e6:.1f} ms"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else duration(value * 1e6)


def thousands(value: float) -> str:
    return f"{value:,}"


def plain(value: Json) -> str:
    """A statistic's value as text; of a list or a mapping its parts."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value) or "none"
    return str(value)


def columns_of(value: Json) -> list[str]:
    """The column names of a list of objects, in the order of first use; none for any other value."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return []
    return list(dict.fromkeys(name for row in value for name in row))
