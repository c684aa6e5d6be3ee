"""What a test that failed, or is to be kept, leaves behind: a run directory with its report, and the lines printed.

Rule: whatever cannot be had is named in its place; failing to tell of a failure hides no failure.
Knows nothing of pytest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.checkers.base import Anomaly, Validity, Verdict, merge
from seatrial.history import FaultEvent, Json, Op, OpType, StatusSample
from seatrial.report.html import render
from seatrial.rundir import RecordWriter, RunDirectory

if TYPE_CHECKING:
    from seatrial.plugin.settings import Wanted
    from seatrial.plugin.stages import Stage
    from seatrial.scenario import ScenarioCluster

LOG_LINES = 12
LOG_LINES_KEPT = 10_000


def leave_behind(
    directory: Path, *, stage: Stage | None, wanted: Wanted, seed: int, nodeid: str, failure: str
) -> tuple[str, Path | None]:
    """Write the run directory; what to print, for people, and the page of the report where there is one."""
    replay = wanted.replay(nodeid, seed)
    lines = [f"seed {seed}, {wanted.environment}, system {wanted.system}", f"replay with: {replay}"]
    if stage is None:  # the cluster did not start: what its nodes wrote is all there is
        if directory.exists():
            lines.append(f"run directory: {directory}")
        return "\n".join(lines), None
    cluster = stage.cluster
    page: Path | None = None
    if (trouble := stage.look()) is not None:
        lines.append(trouble)
    try:
        run = RunDirectory(directory)
        _write(run, cluster, _verdict(cluster, wanted, seed=seed, replay=replay, failure=failure))
        page = render(run)
        lines += [f"run directory: {run.root}", f"report: {page}"]
    except Exception as error:  # the failure is told all the same
        lines.append(f"the run directory {directory} could not be written: {type(error).__name__}: {error}")
    return "\n".join([*lines, *_nodes(cluster)]), page


def _nodes(cluster: ScenarioCluster) -> list[str]:
    """Each node's last status, and the end of its log."""
    lines: list[str] = []
    for node, state in sorted(cluster.last_state().items()):
        lines.append(f"node {node}: {state}")
        lines += [f"  | {line}" for line in cluster.log_tail(node, LOG_LINES).splitlines()]
    return lines


def _write(run: RunDirectory, cluster: ScenarioCluster, verdict: dict[str, Json]) -> None:
    run.root.mkdir(parents=True, exist_ok=True)
    records = cluster.records
    _write_records(run.history, records.history)
    _write_records(run.faults, records.faults)
    _write_records(run.status, records.statuses)
    if cluster.env == "sim":  # real processes have written their own
        for node in cluster.nodes:
            logs = run.node(node)
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "stderr.log").write_text(cluster.log_tail(node, LOG_LINES_KEPT), encoding="utf-8")
    run.verdict.write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")


def _write_records(path: Path, records: Iterable[Op | FaultEvent | StatusSample]) -> None:
    writer = RecordWriter(path)
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()


def _verdict(cluster: ScenarioCluster, wanted: Wanted, *, seed: int, replay: str, failure: str) -> dict[str, Json]:
    """The JSON object of verdict.json (`report.summary`): the test itself is one of the checkers."""
    verdicts = [_verdict_of_test(failure), *cluster.records.verdicts]
    ended = Counter(op.type.value for op in cluster.records.history if op.type is not OpType.INVOKE)
    injected = Counter(event.fault for event in cluster.records.faults if event.type == "inject")
    bit = Counter(event.fault for event in cluster.records.faults if event.type == "heal" and event.bit)
    return {
        "validity": merge(verdicts).name,
        "seed": seed,
        "replay": replay,
        "system": wanted.system + (f" {wanted.version}" if wanted.version else ""),
        "nodes": wanted.nodes,
        "environment": wanted.environment,
        "stats": {"operations": sum(ended.values()), **{kind: ended[kind] for kind in ("ok", "fail", "info")}},
        "faults": {"injected": dict(injected), "bit": dict(bit)},
        "checkers": [asdict(verdict) | {"validity": verdict.validity.name} for verdict in verdicts],
    }


def _verdict_of_test(failure: str) -> Verdict:
    if not failure:
        return Verdict(checker="test", validity=Validity.VALID)
    said = [line[2:].strip() for line in failure.splitlines() if line.startswith("E ")] or failure.strip().splitlines()
    anomaly = Anomaly(name="test-failed", message=said[0], detail={"failure": failure})
    return Verdict(checker="test", validity=Validity.INVALID, anomalies=(anomaly,))
