"""Verdicts: what a rule says is to become of a message.

Rule: plain classes with slots, because in the simulator every message may get one; the three without settings are
single objects.  Knows nothing of rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seatrial.raft.messages import Message

PASSED: Final = 0
DROPPED: Final = 1
DELAYED: Final = 2
HELD: Final = 3
REPLACED: Final = 4
COPIED: Final = 5


class Verdict:
    """One of PASS, DROP and HOLD below, or made by Delay, Replace or Copy.

    kind: one of the six numbers.  delay_us: of DELAYED.  messages: what goes on instead (REPLACED) or besides (COPIED);
    a message among them that the rule had held before is thereby released.  lost: messages that the rule had held and
    that shall never arrive.
    """

    __slots__ = ("delay_us", "kind", "lost", "messages")

    def __init__(
        self, kind: int, delay_us: int = 0, messages: Sequence[Message] = (), lost: Sequence[Message] = ()
    ) -> None:
        self.kind = kind
        self.delay_us = delay_us
        self.messages = messages
        self.lost = lost


PASS: Final = Verdict(PASSED)
DROP: Final = Verdict(DROPPED)
HOLD: Final = Verdict(HELD)  # until the rule names it in a later verdict, or somebody releases the filter


def Delay(delay_us: int) -> Verdict:  # noqa: N802 - reads as the verdict that it is
    """Let it go on so many microseconds later."""
    return Verdict(DELAYED, delay_us)


def Replace(messages: Sequence[Message], lost: Sequence[Message] = ()) -> Verdict:  # noqa: N802
    """Let these go on in its place, in this order; the message itself only if it is among them."""
    return Verdict(REPLACED, 0, messages, lost)


def Copy(messages: Sequence[Message]) -> Verdict:  # noqa: N802
    """Let it go on, and these behind it."""
    return Verdict(COPIED, 0, messages)
