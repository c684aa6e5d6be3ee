"""The verdict of a run as data: what verdict.json holds and what `--json` prints.

Rule: the merged verdict is the worst of the checkers' and of the harness's own assumptions: a run in which nothing
was acknowledged, or whose faults never bit, proves nothing and is UNKNOWN.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from seatrial.checkers.base import Evidence, Validity, Verdict, merge
from seatrial.history import FaultEvent, Json, OpType
from seatrial.rundir import RunDirectory
from seatrial.trial.model import Trial

EXIT_STATUS: Mapping[Validity, int] = {Validity.VALID: 0, Validity.INVALID: 1, Validity.UNKNOWN: 2}
COULD_NOT_RUN = EXIT_STATUS[Validity.UNKNOWN]
ASSUMPTIONS = "assumptions"


def check_assumptions(trial: Trial, evidence: Evidence, unfinished: Sequence[str]) -> Verdict:
    """UNKNOWN where the run itself proves nothing (etcd's robustness tests: validate the assumptions first)."""
    problems = list(unfinished)
    acknowledged = sum(op.type is OpType.OK for op in evidence.history)
    if acknowledged == 0:
        problems.append("no operation was acknowledged")
    injected, bit = fault_counts(evidence.faults)
    for kind in (word.partition(":")[0] for word in trial.faults):
        if not injected.get(kind):
            problems.append(f"no {kind} was injected")
        elif not bit.get(kind):
            problems.append(f"no {kind} left evidence that it bit")
    return Verdict(
        checker=ASSUMPTIONS,
        validity=Validity.UNKNOWN if problems else Validity.VALID,
        reason="; ".join(problems),
        stats={"acknowledged": acknowledged, "unfinished": len(unfinished)},
    )


def fault_counts(events: Iterable[FaultEvent]) -> tuple[dict[str, int], dict[str, int]]:
    """(injected, bit) by kind of fault."""
    injected: Counter[str] = Counter()
    bit: Counter[str] = Counter()
    for event in events:
        injected[event.fault] += event.type == "inject"
        bit[event.fault] += event.type == "heal" and event.bit is True
    return dict(injected), dict(bit)


def stats_of(evidence: Evidence) -> dict[str, Json]:
    """How many operations ended how, and acknowledged writes by kind of operation."""
    ended = Counter(op.type.value for op in evidence.history if op.type is not OpType.INVOKE)
    acknowledged = Counter(op.f for op in evidence.history if op.type is OpType.OK)
    return {
        "operations": sum(ended.values()),
        **{kind.value: ended[kind.value] for kind in (OpType.OK, OpType.FAIL, OpType.INFO)},
        "acknowledged": dict(sorted(acknowledged.items())),
        "faults_s": round(evidence.duration_ns / 1e9, 3),
    }


def document(
    *,
    trial: Trial,
    run: RunDirectory,
    verdicts: Sequence[Verdict],
    evidence: Evidence,
    started: str,
) -> dict[str, Json]:
    """The JSON object of verdict.json."""
    injected, bit = fault_counts(evidence.faults)
    return {
        "validity": merge(verdicts).name,
        "seed": trial.seed,
        "replay": trial.command(),
        "system": trial.system + (f" {trial.version}" if trial.version else ""),
        "nodes": trial.nodes,
        "environment": trial.environment,
        "started": started,
        "duration_s": trial.duration_s,
        "workloads": list(trial.workloads),
        "stats": stats_of(evidence),
        "faults": {"injected": injected, "bit": bit},
        "assumptions": [v.reason for v in verdicts if v.checker == ASSUMPTIONS and v.reason],
        "checkers": [asdict(v) | {"validity": v.validity.name} for v in verdicts],
        "run_directory": str(run.root),
        "report": str(run.report),
    }


def write(run: RunDirectory, verdict: Mapping[str, Json]) -> None:
    run.verdict.write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
