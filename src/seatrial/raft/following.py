"""What a node does for its leader: append, commit, keep calm, install snapshots (§5.3, §7).

Rule: an acknowledgement leaves only after what it acknowledges is durable; refusals and heartbeat answers, which
promise nothing of the log, leave at once.
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Snapshot,
)
from seatrial.raft.roles import CANDIDATE, FOLLOWER, LEADER, PRE_CANDIDATE
from seatrial.raft.snapshots import IncomingSnapshot


def _accept_leader(core: Core, leader: NodeId) -> bool:
    """A node that speaks as the leader of this term is the leader of this term (§5.2)."""
    if core.role == FOLLOWER and core.leader == leader:
        core.heard_from_leader()
        return True
    if core.role == LEADER:
        # Only votes given twice make this happen, which the planted bug does; go on, so that testers can see it.
        assert core.config.unsafe, f"nodes {leader} and {core.node_id} both lead term {core.term}"
        return False
    if core.role == CANDIDATE:
        reached("a candidate heard from the leader of its term")
    elif core.role == PRE_CANDIDATE:
        reached("a pre-candidate heard from a leader")
    core.become_follower(core.term, leader)
    core.heard_from_leader()
    return True


def on_append_entries(core: Core, message: AppendEntries) -> None:
    if core.leader == message.sender and core.role == FOLLOWER:
        now_us = core.now_us  # as Core.heard_from_leader, without the call
        core.election_deadline_us = now_us + core.election_wait_us
        core.sticky_until_us = now_us + core.election_timeout_us
    elif not _accept_leader(core, message.sender):
        return
    log = core.log
    matched = log.try_append(message.prev_log_index, message.prev_log_term, message.entries)
    if matched is None:
        _refuse(core, message)
        return
    if log.replaced_term:
        if log.replaced_term == core.led_term:
            reached("a leader truncated its own uncommitted suffix")
        else:
            reached("a follower truncated a suffix that conflicted")
        log.replaced_term = 0
    if log.configuration_changed:
        core.adopt_configuration()
    leader_commit = message.leader_commit
    if leader_commit > log.commit_index:
        log.commit_to(leader_commit if leader_commit < matched else matched)
    if core.is_joining and core.configuration.voters and matched >= message.leader_commit:
        core.is_joining = False
    core.messages_after_save.append(
        AppendEntriesResponse(core.node_id, message.sender, message.term, True, matched, 0, 0)
    )


def _refuse(core: Core, message: AppendEntries) -> None:
    """With the last position at which the logs may agree, so that the leader skips whole terms (§5.3, end)."""
    log = core.log
    last = min(message.prev_log_index, log.last_index)
    hint = log.last_not_after(last, message.prev_log_term, floor=log.commit_index)
    core.messages.append(
        AppendEntriesResponse(
            core.node_id,
            message.sender,
            message.term,
            False,
            message.prev_log_index,
            hint,
            log.term(hint) or 0,
        )
    )


def on_heartbeat(core: Core, message: Heartbeat) -> None:
    if core.leader == message.sender and core.role == FOLLOWER:
        now_us = core.now_us  # as in on_append_entries
        core.election_deadline_us = now_us + core.election_wait_us
        core.sticky_until_us = now_us + core.election_timeout_us
    elif not _accept_leader(core, message.sender):
        return
    # The leader sends no commit index beyond what this node acknowledged in this term.
    log, leader_commit = core.log, message.leader_commit
    if leader_commit > log.commit_index:
        log.commit_to(leader_commit if leader_commit < log.last_index else log.last_index)
    if message.read_round:
        core.messages.append(HeartbeatResponse(core.node_id, message.sender, message.term, message.read_round))


def on_install_snapshot(core: Core, message: InstallSnapshot) -> None:
    if not _accept_leader(core, message.sender):
        return
    if message.meta.last_included_index <= core.log.commit_index:
        core.incoming_snapshot = None
        reached("a snapshot came too late to be of use")
        _answer_chunk(core, message, message.total_size)  # stale: all that it replaces is here, and committed
        return
    incoming = core.incoming_snapshot
    if incoming is None or not incoming.belongs(message):
        if incoming is not None:
            reached("a snapshot under way gave way to another")
        incoming = core.incoming_snapshot = IncomingSnapshot(message)
    incoming.add(message)
    snapshot = incoming.complete()
    if snapshot is not None:
        core.incoming_snapshot = None
        _install(core, snapshot)
    _answer_chunk(core, message, incoming.next_offset)


def _install(core: Core, snapshot: Snapshot) -> None:
    meta = snapshot.meta
    if core.configuration.voters_outgoing or meta.configuration.voters_outgoing:
        reached("a snapshot arrived during joint consensus")
    if core.log.term(meta.last_included_index) == meta.last_included_term:
        reached("an installed snapshot kept the log's suffix")
        core.log.commit_to(meta.last_included_index)  # the log holds it all: keep the entries that follow (§7)
        return
    core.log.restore(snapshot)
    core.adopt_configuration()


def _answer_chunk(core: Core, message: InstallSnapshot, next_offset: int) -> None:
    core.messages_after_save.append(
        InstallSnapshotResponse(
            core.node_id, message.sender, message.term, message.meta.last_included_index, next_offset
        )
    )
