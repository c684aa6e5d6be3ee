"""Structured logs: one JSON object a line, the event's name first.

Rule: event names are stable (`EVENTS` in docs/); what varies is a field.  A hand-made writer and not structlog:
importing structlog costs 70 ms of CPU at every start (it pulls in rich), which is half of a node's start.
Knows nothing of where the lines go.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from seatrial.env import Clock

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Logger:
    """Writes events at or above `level` through `write`, one line each, with wall time in milliseconds."""

    __slots__ = ("_bound", "_clock", "_least", "_write")

    def __init__(self, write: Callable[[str], object], clock: Clock, level: str, **bound: Any) -> None:
        self._write = write
        self._clock = clock
        self._least = LEVELS[level]
        self._bound = bound

    def log(self, level: str, event: str, **fields: Any) -> None:
        if LEVELS[level] < self._least:
            return
        line = {"event": event, "level": level, "wall_ms": self._clock.wall_ms(), **self._bound, **fields}
        self._write(json.dumps(line, default=str) + "\n")

    def debug(self, event: str, **fields: Any) -> None:
        self.log("debug", event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        self.log("info", event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        self.log("warning", event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        self.log("error", event, **fields)
