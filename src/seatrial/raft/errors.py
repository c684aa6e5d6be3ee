"""Why a node refuses what it was asked.

Rule: each of these means that nothing was appended, so a client may record a definite failure and try again.
Knows nothing of clients or of protocols.
"""

from __future__ import annotations

from typing import ClassVar

from seatrial.raft.ids import NodeId


class ProposalRefused(Exception):
    """Nothing was appended and nothing was sent."""

    definite: ClassVar[bool] = True


class NotLeader(ProposalRefused):
    """This node cannot do it; ask `leader`, or try later where that is None."""

    def __init__(self, leader: NodeId | None) -> None:
        super().__init__("no leader is known" if leader is None else f"node {leader} leads")
        self.leader = leader


class ProposalDropped(ProposalRefused):
    """This node leads but does not take it now: too much is uncommitted, or it hands its leadership over."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigurationRefused(ProposalRefused):
    """The change of members is not begun, and why; the message says what to do.

    code: for programs, one of "pending" (another change is under way), "no-own-commit" (the leader is too new),
    "unknown-node", "already" (it is what it would become), "no-voter" (none would be left), "not-a-learner" and
    "not-caught-up" (of a voter to be), "not-joint", "repeated", "empty".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
