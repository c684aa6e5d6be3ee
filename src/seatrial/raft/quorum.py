"""Majorities, plain and joint.

Rule: during joint consensus (§6) whatever needs a quorum needs one of the incoming and one of the outgoing voters;
learners never count.  Knows nothing of what is being counted: log indexes, read rounds, times of contact or votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Configuration

PENDING: Final = 0
WON: Final = 1
LOST: Final = 2


def majority_size(voters: int) -> int:
    """The smallest number of `voters` of which any two sets overlap."""
    return voters // 2 + 1


def majority_reached(values: list[int]) -> int:
    """The highest number that a majority of `values` is at or above; sorts `values`, which is not empty."""
    values.sort()
    return values[(len(values) - 1) // 2]


def joint_reached(incoming: list[int], outgoing: list[int]) -> int:
    """The highest number that both majorities are at or above; outside joint consensus `outgoing` is empty.

    With no incoming voters nothing is ever reached: 0.
    """
    if not incoming:
        return 0
    reached = majority_reached(incoming)
    if outgoing:
        also = majority_reached(outgoing)
        return also if also < reached else reached
    return reached


def vote_outcome(configuration: Configuration, votes: Mapping[NodeId, bool]) -> int:
    """WON, LOST or PENDING; `votes` may hold answers of nodes that are no voters, which do not count."""
    incoming = _majority_outcome(configuration.voters, votes)
    if not configuration.voters_outgoing:
        return incoming
    outgoing = _majority_outcome(configuration.voters_outgoing, votes)
    if LOST in (incoming, outgoing):
        return LOST
    return WON if incoming == outgoing == WON else PENDING


def _majority_outcome(voters: Sequence[NodeId], votes: Mapping[NodeId, bool]) -> int:
    granted = 0
    unknown = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is None:
            unknown += 1
        elif vote:
            granted += 1
    needed = majority_size(len(voters))
    if granted >= needed:
        return WON
    return PENDING if granted + unknown >= needed else LOST


def is_voter(configuration: Configuration, node_id: NodeId) -> bool:
    return node_id in configuration.voters or node_id in configuration.voters_outgoing
