"""What a replicated state machine is: a pure function of the committed entries.

Rule: `apply` depends on the state and the entry alone (no clock, no randomness, no node id), so that every replica
that applied the same prefix is equal byte for byte.  Knows nothing of Raft beyond Entry, and of no I/O.
"""

from __future__ import annotations

from typing import Any, Protocol

from seatrial.raft.messages import Entry


class StateMachine(Protocol):
    """One group's state."""

    def apply(self, entry: Entry) -> Any:
        """Apply one committed COMMAND (NOOP and CONFIGURATION entries come too, and change nothing a client sees).

        Returns the result for whoever proposed it.  A command that is refused is a result, not an exception.
        """

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""

    def restore(self, data: bytes) -> None:
        """Replace the state by a snapshot's."""
