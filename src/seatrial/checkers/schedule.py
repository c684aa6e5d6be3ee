"""The order of calls and returns, laid out so that a search's position in it fits in a few machine words.

A linearization only ever works on operations that are open at once.  Numbering the returns, and giving each open
operation one of as many slots as are ever open together, a position is (returns passed, bit mask of the slots that
are done): as wide as there are clients, not as long as the history.

Rule: an operation is open at a return exactly when it was invoked before it and returns at it or later.
Knows nothing of what the operations mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


class Schedule:
    """Slots for the operations that certainly took effect, which are numbered here in the order of their returns."""

    __slots__ = ("bit", "entering", "full", "previous")

    def __init__(self, starts: Sequence[int], ends: Sequence[int]) -> None:
        """Starts and ends of the operations, in the order of their ends."""
        count = len(ends)
        self.entering: list[Sequence[int]] = [()] * count  # by return: operations that are open from it on
        self.bit = [0] * count  # by operation: its slot
        self.previous = [-1] * count  # by operation: who had its slot before, or -1
        calls = sorted(range(count), key=starts.__getitem__)
        free: list[int] = []
        slots = called = 0
        last: dict[int, int] = {}
        for returning in range(count):
            new = []
            while called < count and starts[calls[called]] <= ends[returning]:
                operation = calls[called]
                called += 1
                if free:
                    bit = free.pop()
                else:
                    bit = 1 << slots
                    slots += 1
                self.bit[operation] = bit
                self.previous[operation] = last.get(bit, -1)
                last[bit] = operation
                new.append(operation)
            if new:
                self.entering[returning] = new
            free.append(self.bit[returning])
        self.full = (1 << slots) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a search gives up.  Each configuration that it remembers takes some 300 bytes, so this bounds memory too."""

    configurations: int
    deadline: float  # on `clock`
    clock: Callable[[], float]
    stall: int | None = None  # configurations without getting past one more return

    def exceeded(self, explored: int, since_progress: int) -> str | None:
        """Why to give up, or None."""
        if explored > self.configurations:
            return f"more than {self.configurations:,} configurations"
        if self.stall is not None and since_progress > self.stall:
            return f"{self.stall:,} configurations without progress"
        # Reading the clock at each configuration would cost as much as the configuration.
        if explored % 256 == 1 and self.clock() > self.deadline:
            return "out of time"
        return None
