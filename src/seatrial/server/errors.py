"""What can become of a request that this node could not simply carry out.

Rule: every error says whether the operation surely did not happen (`definite`).  The two fates of a proposal are
those of `kafka.backend`, so that nothing has to be translated on the way to a Kafka client.
Knows nothing of how an error is told.
"""

from __future__ import annotations

from seatrial.kafka.backend import OutcomeUnknown, ProposalLost

__all__ = ["DeadlinePassed", "NoLeader", "OutcomeUnknown", "ProposalLost", "Refused", "Removed", "StartError"]


class NoLeader(Exception):
    """No leader is known or reachable, and nothing was done; trying again is safe."""

    definite = True


class Refused(Exception):
    """This node will not do it, and nothing was done; the message says who would."""

    definite = True


class DeadlinePassed(Exception):
    """Time ran out; `definite` when nothing had been sent to anybody by then."""

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.definite = definite


class Removed(Exception):
    """This node is no member of its cluster (any more); the message says what to do."""


class StartError(Exception):
    """The node cannot start, or go on, here; `status` is the process's exit status, one for each kind of reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BadFilter(ValueError):
    """The message filter that was asked for cannot be; the message says what to write instead."""


class NoSuchFilter(LookupError):
    """No message filter with this id is attached; it may be gone with a restart of the node."""

    def __init__(self, number: int, attached: list[int]) -> None:
        super().__init__(f"no filter {number} is attached to this node; attached: {attached or 'none'}")
