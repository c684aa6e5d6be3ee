"""Reads a run directory for the report: finished or not, whole or cut off in the middle of a line.

Rule: the directory is the whole input; a torn last line is what a killed run leaves and is dropped, any other
malformed line is refused with file and line.
Knows nothing of how anything is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from seatrial.history import FaultEvent, MalformedRecord, Op, OpType, StatusSample
from seatrial.report.summary import RunSummary, load_summary
from seatrial.rundir import RunDirectory

TAIL_BYTES = 12_000
TAIL_LINES = 80

Record = TypeVar("Record", Op, FaultEvent, StatusSample)


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation with its completion, if one was recorded."""

    invoked: Op
    completed: Op | None

    @property
    def outcome(self) -> OpType:
        """`info` also where no completion was recorded: nobody knows."""
        return self.completed.type if self.completed is not None else OpType.INFO

    @property
    def is_final(self) -> bool:
        """Part of the final reads, which ask a chosen node after the load has ended: no part of rates or latencies."""
        return self.invoked.node is not None or self.invoked.f == "final-read"

    @property
    def node(self) -> int | None:
        answered = self.completed.node if self.completed is not None else None
        return answered if answered is not None else self.invoked.node


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """One fault from its injection to its heal (None: still on, or never injected: `skipped`)."""

    began: FaultEvent
    healed: FaultEvent | None

    @property
    def skipped(self) -> bool:
        return self.began.type == "skip"


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of one of a node's log files."""

    node: int
    name: str
    text: str
    bytes_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecords:
    """Everything that a run directory holds, in memory."""

    run: RunDirectory
    summary: RunSummary
    operations: Sequence[Operation]
    faults: Sequence[FaultSpan]
    statuses: Sequence[StatusSample]
    tails: Sequence[Tail]
    end_ns: int  # the time of the last record, at least 1 ms

    @property
    def nodes(self) -> tuple[int, ...]:
        """Every node that any record names, in order."""
        seen = {sample.node for sample in self.statuses}
        seen.update(node for fault in self.faults for node in fault.began.targets)
        return tuple(sorted(seen))


def load_run(run: RunDirectory) -> RunRecords:
    """Read everything.  Raises FileNotFoundError where there is no run, MalformedRecord, MalformedVerdict."""
    if not any(path.exists() for path in (run.verdict, run.history, run.faults, run.status)):
        raise FileNotFoundError(
            f"{run.root} is no run directory: it has no verdict.json, history.jsonl or status.jsonl"
        )
    ops = read_records(run.history, Op)
    events = read_records(run.faults, FaultEvent)
    statuses = read_records(run.status, StatusSample)
    last = max((records[-1].time_ns for records in (ops, events, statuses) if records), default=0)
    return RunRecords(
        run=run,
        summary=load_summary(run.verdict),
        operations=pair_up(ops),
        faults=_spans(events),
        statuses=statuses,
        tails=_tails(run),
        end_ns=max(last, 1_000_000),
    )


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """A JSON Lines file, without a torn last line; nothing where there is no file.  Raises MalformedRecord."""
    if not path.exists():
        return []
    decoder = msgspec.json.Decoder(kind)
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # what follows the last newline
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                records.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise MalformedRecord(f"{path}:{number}: not a {kind.__name__} record: {error}") from error
    try:
        records.extend([decoder.decode(torn)] if torn.strip() else [])
    except msgspec.DecodeError:
        return records
    return records


def pair_up(ops: Sequence[Op]) -> list[Operation]:
    """Each invocation with its completion, in the order of invocation."""
    operations: list[Operation] = []
    waiting: dict[int, int] = {}
    for op in ops:
        if op.type is OpType.INVOKE:
            waiting[op.client] = len(operations)
            operations.append(Operation(op, None))
        elif (place := waiting.pop(op.client, None)) is not None:
            operations[place] = Operation(operations[place].invoked, op)
    return operations


def _spans(events: Sequence[FaultEvent]) -> list[FaultSpan]:
    heals = {event.id: event for event in events if event.type == "heal"}
    return [FaultSpan(e, heals.get(e.id) if e.type == "inject" else None) for e in events if e.type != "heal"]


def _tails(run: RunDirectory) -> list[Tail]:
    """The last lines of each node's log files."""
    nodes = sorted((p for p in run.node(0).parent.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))
    return [
        Tail(node=int(directory.name), name=path.name, text=_tail(path), bytes_total=path.stat().st_size)
        for directory in nodes
        for path in sorted(directory.glob("*.log"))
        if path.stat().st_size
    ]


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])
