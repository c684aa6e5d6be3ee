"""A look at a node from outside, for people, metrics and checkers.

Rule: what is returned is a copy that does not change; looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from seatrial.raft.core import Core
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import Configuration
from seatrial.raft.progress import SNAPSHOT, STATE_NAMES, Progress
from seatrial.raft.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProgress:
    """A leader's view of one peer."""

    state: str  # probe, replicate or snapshot
    match_index: Index
    next_index: Index
    inflight_messages: int
    inflight_bytes: int
    last_response_us: int
    is_learner: bool
    caught_up: bool  # it acknowledged all that was committed, so that it may become a voter
    snapshot_offset: int | None  # bytes of the snapshot that it is known to have; None unless one is being sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One node of one group."""

    node_id: NodeId
    role: Role
    term: Term
    voted_for: NodeId | None
    leader: NodeId | None
    commit_index: Index
    last_applied: Index  # up to where committed entries were handed out
    durable_index: Index
    first_index: Index
    last_index: Index
    snapshot_index: Index  # 0: there is no snapshot
    transfer_to: NodeId | None
    uncommitted_bytes: int
    pending_reads: int
    configuration: Configuration  # in effect: the latest in the log
    configuration_index: Index  # of the entry that brought it, or of the snapshot; 0: as at the start
    peers: Mapping[NodeId, PeerProgress] = field(default_factory=dict)  # of a leader, in the order of node ids


class Follower(NamedTuple):
    """What a leader knows of a peer that hosts of a thousand groups ask for again and again."""

    node_id: NodeId
    match_index: int
    last_response_us: int
    caught_up: bool


def followers_of(core: Core) -> list[Follower]:
    leadership = core.leadership
    if leadership is None:
        return []
    return [
        Follower(peer.node_id, peer.match_index, peer.last_response_us, peer.caught_up)
        for peer in leadership.peers
        if not peer.is_leaving()
    ]


def is_occupied(core: Core) -> bool:
    leadership = core.leadership
    if len(core.forwarded_reads) or core.configuration.voters_outgoing:
        return True
    return leadership is not None and (leadership.transfer_to is not None or len(leadership.reads) > 0)


def status_of(core: Core) -> Status:
    log, leadership = core.log, core.leadership
    meta = log.snapshot_meta
    learners = core.configuration.learners
    peers = [] if leadership is None else [peer for peer in leadership.peers if not peer.is_leaving()]
    return Status(
        node_id=core.node_id,
        role=Role(core.role),
        term=Term(core.term),
        voted_for=core.voted_for,
        leader=core.leader,
        commit_index=Index(log.commit_index),
        last_applied=Index(log.last_applied),
        durable_index=Index(log.durable_index),
        first_index=Index(log.first_index),
        last_index=Index(log.last_index),
        snapshot_index=Index(0) if meta is None else meta.last_included_index,
        transfer_to=None if leadership is None else leadership.transfer_to,
        uncommitted_bytes=0 if leadership is None else leadership.uncommitted_bytes,
        pending_reads=len(core.forwarded_reads) + (0 if leadership is None else len(leadership.reads)),
        configuration=core.configuration,
        configuration_index=Index(log.configurations.latest_index),
        peers={peer.node_id: _peer(peer, peer.node_id in learners) for peer in peers},
    )


def _peer(progress: Progress, is_learner: bool) -> PeerProgress:
    return PeerProgress(
        state=STATE_NAMES[progress.state],
        match_index=Index(progress.match_index),
        next_index=Index(progress.next_index),
        inflight_messages=len(progress.window),
        inflight_bytes=progress.window.bytes,
        last_response_us=progress.last_response_us,
        is_learner=is_learner,
        caught_up=progress.caught_up,
        snapshot_offset=progress.snapshot_offset if progress.state == SNAPSHOT else None,
    )
