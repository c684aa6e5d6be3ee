"""What a leader does: send entries, commit, beat, recover what was lost (§5.3, §5.4.2).

Rule: only an entry of the leader's own term is committed by counting; the leader counts itself as far as its own disk
has come.  Entries are not sent when they are proposed but when the driver takes the next Ready, so that those that
came together go together.
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft import reconfiguring
from seatrial.raft.core import Core
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.leadership import Batch, Leadership
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
)
from seatrial.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from seatrial.raft.reading import begin_round, begin_round_if_due, round_answered
from seatrial.raft.transfer import abort_if_late, hand_over_if_ready

_NOTHING: list[Entry] = []


def flush(core: Core, leadership: Leadership) -> None:
    """Send whatever may be sent; the driver is about to take a Ready."""
    peers = leadership.due
    leadership.due = []
    if leadership.dirty:
        leadership.dirty = False
        peers = leadership.peers
        if begin_round_if_due(core, leadership):
            broadcast_heartbeat(core, leadership)
    last_index, commit_index = core.log.last_index, core.log.commit_index
    for progress in peers:
        if progress.state == REPLICATE:
            window = progress.window
            while progress.next_index <= last_index and not window.is_full():
                if not _send_append(core, leadership, progress):
                    break
            if progress.commit_sent < commit_index and not window.sent and progress.state == REPLICATE:
                _send_commit(core, progress)
        elif progress.state == PROBE and not progress.paused and progress.probes:
            _send_append(core, leadership, progress)
            if progress.probes > 0:
                progress.probes -= 1
    leadership.batch = None


def _send_append(core: Core, leadership: Leadership, progress: Progress) -> bool:
    """One AppendEntries from `next_index` on; False if the entries there are compacted and a snapshot was begun."""
    log, first, batch = core.log, progress.next_index, leadership.batch
    if batch is None or batch.first_index != first:
        prev_term = log.term(first - 1)
        if prev_term is None or (first < log.tail_first and first < log.first_index):
            _begin_snapshot(core, leadership, progress)
            return False
        batch = leadership.batch = Batch(first, prev_term, log.entries(first, core.config.max_message_bytes))
    progress.commit_sent = commit = log.commit_index
    progress.sent_us = core.now_us
    core.messages.append(
        AppendEntries(core.node_id, progress.node_id, core.term, first - 1, batch.prev_term, commit, batch.entries)
    )
    progress.sent(first - 1 + len(batch.entries), batch.size)
    return True


def _send_commit(core: Core, progress: Progress) -> None:
    """Nothing else is on its way to the peer that would bring the commit index."""
    progress.commit_sent = core.log.commit_index
    progress.sent_us = core.now_us
    _send_heartbeat(core, progress, 0)


def _send_empty(core: Core, progress: Progress) -> bool:
    """No entries: is refused if anything before `next_index` was lost, and acknowledged if all is there.

    False where the log no longer knows the term of the entry before `next_index`.
    """
    prev_index = progress.next_index - 1
    prev_term = core.log.term(prev_index)
    if prev_term is None:
        return False
    progress.commit_sent = commit = core.log.commit_index
    core.messages.append(
        AppendEntries(core.node_id, progress.node_id, core.term, prev_index, prev_term, commit, _NOTHING)
    )
    return True


def on_append_entries_response(core: Core, message: AppendEntriesResponse) -> None:
    leadership = core.leadership
    if leadership is None:
        return
    log, match_index = core.log, message.match_index
    progress = leadership.progress.get(message.sender)
    if progress is None or match_index > log.last_index:
        reached("an append response that concerns nobody was ignored")
        return
    progress.last_response_us = core.now_us
    if not message.success:
        _refused(core, leadership, progress, message)
        return
    if match_index < progress.proven_from:
        reached("an acknowledgement that may be of a former life was not counted")
        if progress.unproven(match_index):
            leadership.dirty = True
        return
    advanced = progress.acknowledged(match_index)
    if progress.state != REPLICATE and (progress.state == PROBE or progress.match_index + 1 >= log.first_index):
        progress.become_replicate()
        leadership.forget_snapshot_unless_needed()
    if advanced:
        if match_index > log.commit_index:
            maybe_commit(core, leadership)
            if core.leadership is not leadership:
                return  # committed its own removal, and stepped down
        if match_index >= log.commit_index:
            progress.caught_up = True
        if leadership.transfer_to == progress.node_id:
            hand_over_if_ready(core, leadership)
        if leadership.unsettled:
            reconfiguring.see_to(core, leadership)
            if core.leadership is not leadership:
                return
    elif match_index >= log.commit_index:
        progress.caught_up = True  # by a snapshot that left nothing to append: no further acknowledgement will come
    if progress.next_index <= log.last_index or progress.commit_sent < log.commit_index:
        leadership.due.append(progress)


def _refused(core: Core, leadership: Leadership, progress: Progress, message: AppendEntriesResponse) -> None:
    agreed = message.hint_index
    if message.hint_term > 0:
        # The follower skipped its entries of later terms; skip this log's too (§5.3, end).
        agreed = Index(core.log.last_not_after(agreed, message.hint_term, floor=progress.match_index))
        if agreed < message.hint_index:
            reached("a conflict was backed off by term")
    if progress.refused(message.match_index, agreed):
        leadership.dirty = True
    else:
        reached("a stale append response was ignored")


def maybe_commit(core: Core, leadership: Leadership) -> None:
    """Commit what a quorum has durable, if that ends in an entry of this term (§5.4.2, figure 8)."""
    index = leadership.quorum_match()
    if index > core.log.commit_index:
        if core.log.term(index) != core.term:
            reached("entries of an older term on a quorum waited for one of the leader's own")
            return
        core.log.commit_to(index)
        leadership.dirty = True
        if leadership.unsettled:
            reconfiguring.see_to(core, leadership)


def own_disk_advanced(core: Core, leadership: Leadership) -> None:
    """More of the leader's own log is durable."""
    durable_index = core.log.durable_index
    if durable_index > leadership.own.match_index:
        leadership.own.match_index = durable_index
        if durable_index > core.log.commit_index:
            maybe_commit(core, leadership)


# -- heartbeats --------------------------------------------------------------------------------------------------------


def beat(core: Core, leadership: Leadership) -> None:
    """The heartbeat is due: step down if a quorum is out of touch, else tell everyone that the leader is alive."""
    config = core.config
    # At multiples of the interval, for then those of all groups that a node leads leave together.
    leadership.heartbeat_deadline_us = core.now_us + config.heartbeat_us - core.now_us % config.heartbeat_us
    silent_us = core.now_us - leadership.quorum_contact_us(core.now_us)
    if config.check_quorum and silent_us > config.election_timeout_us:
        reached("a leader without contact to a quorum stepped down")
        core.become_follower(core.term, None)
        return
    abort_if_late(core, leadership)
    if leadership.unsettled:
        reconfiguring.see_to(core, leadership)
        if core.leadership is not leadership:
            return
    begin_round(core, leadership)
    if leadership.lease.is_on or len(leadership.reads) or leadership.transfer_to is not None:
        broadcast_heartbeat(core, leadership)
    else:
        _beat_where_needed(core, leadership)


def _beat_where_needed(core: Core, leadership: Leadership) -> None:
    """Nothing waits for this very round: a beat is for idle times (§5.2), an answer for when there was none lately."""
    config, now_us = core.config, core.now_us
    enough_us = config.election_timeout_us // 2 - config.heartbeat_us  # the next beat may be late to ask, or get lost
    just_now_us = now_us - config.heartbeat_us // 2
    for progress in leadership.peers:
        waits = len(progress.window) > 0
        if (
            progress.state != REPLICATE
            or now_us - progress.last_response_us >= enough_us
            or (waits and not progress.responded)
        ):
            _send_heartbeat(core, progress, leadership.round)
            continue
        if waits:
            progress.responded = False  # by the next beat it should have answered something
        if progress.sent_us <= just_now_us:
            _send_heartbeat(core, progress, 0)


def broadcast_heartbeat(core: Core, leadership: Leadership) -> None:
    """Ask everyone for an answer to the present round."""
    for progress in leadership.peers:
        _send_heartbeat(core, progress, leadership.round)


def _send_heartbeat(core: Core, progress: Progress, round_: int) -> None:
    """round_: to answer; 0: no answer is needed."""
    # Beyond its match index a peer may still hold entries that conflict with the leader's.
    commit_index, match_index = core.log.commit_index, progress.match_index
    known = match_index if match_index < commit_index else commit_index
    core.messages.append(Heartbeat(core.node_id, progress.node_id, core.term, known, round_))


def on_heartbeat_response(core: Core, message: HeartbeatResponse) -> None:
    leadership = core.leadership
    if leadership is None:
        return
    progress = leadership.progress.get(message.sender)
    if progress is None:
        return
    progress.last_response_us = core.now_us
    if message.read_round > progress.acked_round:
        progress.acked_round = message.read_round
        round_answered(core, leadership)
    _recover_lost(core, leadership, progress)
    if leadership.transfer_to == progress.node_id:
        hand_over_if_ready(core, leadership)


def _recover_lost(core: Core, leadership: Leadership, progress: Progress) -> None:
    """The peer answers heartbeats; if nothing else was answered since the last beat, it or its answer was lost."""
    if progress.state == PROBE:
        progress.paused = False
        leadership.dirty = True
    elif progress.responded:
        progress.responded = False
    elif progress.state == SNAPSHOT:
        _send_chunk(core, progress)
    elif len(progress.window) and not _send_empty(core, progress):
        reached("what a follower had lost was compacted meanwhile")
        progress.become_probe()
        leadership.dirty = True


def report_unreachable(core: Core, peer: NodeId) -> None:
    """What was sent to the peer lately is probably lost: find out where it stands before sending more."""
    if core.leadership is None:
        return
    progress = core.leadership.progress.get(peer)
    if progress is not None and progress.state == REPLICATE:
        progress.become_probe()
        progress.paused = True  # until it answers a heartbeat


def hold(core: Core, peer: NodeId, probes: int) -> None:
    """Probe the peer so many times and then no more, until this is called again; -1: as often as it answers."""
    if core.leadership is None:
        return
    progress = core.leadership.progress.get(peer)
    if progress is not None and progress.probes != probes:
        progress.probes = probes
        core.leadership.dirty = True


# -- snapshots ---------------------------------------------------------------------------------------------------------


def _begin_snapshot(core: Core, leadership: Leadership, progress: Progress) -> None:
    newest = core.log.snapshot_meta
    snapshot = leadership.snapshot
    if snapshot is None or snapshot.meta != newest:
        snapshot = core.log.read_snapshot()
    if snapshot is None or snapshot.meta.last_included_index < progress.next_index - 1:
        if progress.state == REPLICATE:
            progress.become_probe()
        reached("no snapshot that helps a follower was there yet")
        progress.paused = True  # none that would help is there yet: try again at the peer's next heartbeat answer
        return
    reached("a follower was too far behind for the log")
    leadership.snapshot = snapshot
    progress.become_snapshot(snapshot)
    _send_chunk(core, progress)


def _send_chunk(core: Core, progress: Progress) -> None:
    snapshot = progress.snapshot
    assert snapshot is not None
    offset = progress.snapshot_offset
    core.messages.append(
        InstallSnapshot(
            core.node_id,
            progress.node_id,
            Term(core.term),
            snapshot.meta,
            offset,
            len(snapshot.data),
            snapshot.data[offset : offset + core.config.snapshot_chunk_bytes],
        )
    )


def on_install_snapshot_response(core: Core, message: InstallSnapshotResponse) -> None:
    leadership = core.leadership
    if leadership is None:
        return
    progress = leadership.progress.get(message.sender)
    if progress is None:
        return
    progress.last_response_us = core.now_us
    snapshot = progress.snapshot
    if snapshot is None or snapshot.meta.last_included_index != message.last_included_index:
        return
    if message.next_offset >= len(snapshot.data):
        if message.last_included_index >= progress.proven_from:
            progress.acknowledged(message.last_included_index)
        progress.become_probe()
        progress.unproven(message.last_included_index)
        leadership.forget_snapshot_unless_needed()
        maybe_commit(core, leadership)
        leadership.dirty = True
    elif message.next_offset != progress.snapshot_offset:
        progress.responded = True
        progress.snapshot_offset = message.next_offset
        _send_chunk(core, progress)
