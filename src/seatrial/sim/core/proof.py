"""The evidence that one fault did anything.  Rule: it starts without, and is set by what was counted."""

from __future__ import annotations

from typing import Final

FOR_EVER_US: Final = 1 << 50  # a fault without a duration ends with the phase of faults


class Proof:
    """Of one fault: its kind, and whether it bit."""

    __slots__ = ("bit", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bit = False
