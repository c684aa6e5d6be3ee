"""The event log: who connected, who was cut off, which toxic came and went.

Rule: bounded.  The oldest events are forgotten first, and a reader sees that by a gap in `sequence`.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

from seatrial.env import Clock

EVENTS_MAX = 65_536


class EventLog:
    """Events in the order they happened; each is a flat JSON object.

    `monotonic_us` is the machine's monotonic clock, comparable between processes of one machine; `wall_ms` is
    for people.
    """

    def __init__(self, clock: Clock, *, events_max: int = EVENTS_MAX) -> None:
        self._clock = clock
        self._events: deque[dict[str, Any]] = deque(maxlen=events_max)
        self._sequence = 0

    def add(self, event: str, **fields: Any) -> None:
        self._sequence += 1
        self._events.append(
            {
                "sequence": self._sequence,
                "monotonic_us": self._clock.now_us(),
                "wall_ms": self._clock.wall_ms(),
                "event": event,
                **fields,
            }
        )

    def since(self, sequence: int, limit: int | None = None) -> list[dict[str, Any]]:
        """Events after `sequence`, oldest first, at most `limit`."""
        oldest = self._sequence - len(self._events)
        return list(islice(self._events, max(0, sequence - oldest), None))[:limit]
