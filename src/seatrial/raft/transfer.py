"""Handing leadership over (dissertation §3.10).

Rule: while a transfer is under way the leader takes no proposals; the target is caught up first; after an election
timeout the transfer is given up.  A TimeoutNow that was sent may arrive at any later time, and its receiver is elected
in spite of every promise: so the leader reads by lease no more.
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.ids import NodeId, Term
from seatrial.raft.leadership import Leadership
from seatrial.raft.messages import TimeoutNow
from seatrial.raft.quorum import is_voter


def begin(core: Core, leadership: Leadership, to: NodeId) -> None:
    """Raises ValueError where `to` cannot lead."""
    if not is_voter(core.configuration, to):
        raise ValueError(f"leadership cannot go to node {to}: the voters are {core.configuration.voters}")
    if to == core.node_id:
        leadership.transfer_to = None  # stay: also ends a transfer that is under way
        return
    if leadership.transfer_to == to:
        return
    leadership.transfer_to = to
    leadership.transfer_deadline_us = core.now_us + core.config.election_timeout_us
    hand_over_if_ready(core, leadership)


def hand_over_if_ready(core: Core, leadership: Leadership) -> None:
    """Tell the target to campaign, again if need be, once it has the whole log."""
    to = leadership.transfer_to
    if to is not None and leadership.progress[to].match_index == core.log.last_index:
        leadership.lease.give_up()
        core.messages.append(TimeoutNow(core.node_id, to, Term(core.term)))


def abort_if_late(core: Core, leadership: Leadership) -> None:
    if leadership.transfer_to is not None and core.now_us >= leadership.transfer_deadline_us:
        reached("a transfer timed out")
        leadership.transfer_to = None
