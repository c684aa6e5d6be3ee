"""Linearizable reads at leader and follower; the bookkeeping is in `reads` (dissertation §6.4)."""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.leadership import Leadership
from seatrial.raft.messages import ReadIndexRequest, ReadIndexResponse
from seatrial.raft.reads import Read, ReadState


def request(core: Core, leadership: Leadership, requester: NodeId, context: int) -> None:
    """A read at the leader, of its own or of a follower."""
    if leadership.lease.holds(core.now_us) and _knows_its_commit_index(core, leadership):
        reached("a lease read was answered")
        core.answer_read(requester, context, core.log.commit_index)
        return
    if not _knows_its_commit_index(core, leadership):
        reached("a read waited for a new leader's first commit")
    leadership.reads.add(Read(requester, context))
    leadership.dirty = True


def _knows_its_commit_index(core: Core, leadership: Leadership) -> bool:
    """A new leader's commit index may lag behind what its predecessor committed, until it commits an own entry."""
    return core.log.commit_index >= leadership.first_index


def begin_round_if_due(core: Core, leadership: Leadership) -> bool:
    """Open the next heartbeat round if a read waits for one that can be; the caller broadcasts it then."""
    if not leadership.reads.has_waiting() or not _knows_its_commit_index(core, leadership):
        return False
    begin_round(core, leadership)
    return True


def begin_round(core: Core, leadership: Leadership) -> None:
    """Every heartbeat sent from now on is of a new round."""
    leadership.round += 1
    leadership.own.acked_round = leadership.round
    leadership.lease.round_sent(leadership.round, core.now_us)
    if _knows_its_commit_index(core, leadership):
        leadership.reads.begin_round(leadership.round, core.log.commit_index)
    round_answered(core, leadership)


def round_answered(core: Core, leadership: Leadership) -> None:
    """More of the peers answered a round: confirm what waits for a quorum of them, where anything does."""
    if not (leadership.lease.is_on or len(leadership.reads)):
        return
    reached = leadership.quorum_round()
    leadership.lease.confirmed(reached)
    for read in leadership.reads.confirmed(reached):
        core.answer_read(read.requester, read.context, read.index)


def forward(core: Core, leader: NodeId, context: int) -> None:
    """A read at a follower: ask the leader, and give up after an election timeout."""
    core.forwarded_reads.add(context, core.now_us + core.config.election_timeout_us)
    core.messages.append(ReadIndexRequest(core.node_id, leader, Term(core.term), context))


def on_read_index_request(core: Core, message: ReadIndexRequest) -> None:
    if core.leadership is None:
        reached("a read was forwarded to a node that does not lead")
        core.answer_read(message.sender, message.context, 0)
    else:
        request(core, core.leadership, message.sender, message.context)


def on_read_index_response(core: Core, message: ReadIndexResponse) -> None:
    if core.forwarded_reads.answered(message.context):
        core.read_states.append(ReadState(message.context, message.index))


def expire_forwarded(core: Core) -> None:
    for context in core.forwarded_reads.expired(core.now_us):
        reached("a forwarded read expired")
        core.read_states.append(ReadState(context, Index(0)))
