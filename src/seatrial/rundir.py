"""Names and formats of one run's directory; the only place that knows them.

trial.toml       the complete trial: replaying it needs nothing else
history.jsonl    one line an operation event (history.Op)
faults.jsonl     one line a fault event, with its evidence (history.FaultEvent)
status.jsonl     each node's role, term and indexes over time (history.StatusSample)
verdict.json     the merged verdict and each checker's
report.html      one self-contained page
nodes/N/         data directory, stdout.log and stderr.log of node N
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from seatrial.history import FaultEvent, History, Op, StatusSample, load_records, to_json


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside one run's directory."""

    root: Path

    @property
    def trial(self) -> Path:
        return self.root / "trial.toml"

    @property
    def history(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def faults(self) -> Path:
        return self.root / "faults.jsonl"

    @property
    def status(self) -> Path:
        return self.root / "status.jsonl"

    @property
    def verdict(self) -> Path:
        return self.root / "verdict.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def node(self, node: int) -> Path:
        return self.root / "nodes" / str(node)

    def load_history(self) -> History:
        return History.load(self.history)

    def load_faults(self) -> list[FaultEvent]:
        return load_records(self.faults, FaultEvent) if self.faults.exists() else []

    def load_statuses(self) -> list[StatusSample]:
        return load_records(self.status, StatusSample) if self.status.exists() else []


class RecordWriter:
    """Appends records to a JSON Lines file, each line whole at once, so that a killed run leaves a readable file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)

    def write(self, record: Op | FaultEvent | StatusSample) -> None:
        self._file.write(to_json(record) + "\n")

    def close(self) -> None:
        self._file.close()
