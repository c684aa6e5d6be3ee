"""What a leader does about who takes part: begin a change, leave joint consensus, part with who was removed (§6).

Rule: at most one change is under way, and none is begun before an entry of the leader's own term is committed.  Without
that last condition two leaders could each change one member of the same configuration, and the two results would have
majorities without a common node (the bug of single-server changes that Ongaro announced on raft-dev in 2015).
A node becomes a voter only after it caught up as a learner (§6, first paragraph on new servers).
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.errors import ConfigurationRefused, NotLeader, ProposalDropped
from seatrial.raft.ids import EntryId, Index, NodeId, Term
from seatrial.raft.leadership import Leadership
from seatrial.raft.membership import ConfigurationChange, encode_configuration, enter, leave
from seatrial.raft.messages import CONFIGURATION, Configuration, Entry, TimeoutNow
from seatrial.raft.progress import REPLICATE, Progress
from seatrial.raft.quorum import is_voter


def propose(core: Core, change: ConfigurationChange) -> EntryId:
    """Raises NotLeader, ProposalDropped, ConfigurationRefused."""
    leadership = _leadership(core)
    _refuse_if_pending(core, leadership)
    configuration = enter(core.configuration, change)
    added = set(configuration.voters) - set(core.configuration.voters)
    for node_id in sorted(added):
        _refuse_unless_caught_up(core, leadership, node_id)
    return _append(core, leadership, configuration)


def leave_joint(core: Core) -> EntryId:
    """Raises NotLeader, ProposalDropped, ConfigurationRefused."""
    leadership = _leadership(core)
    configuration = leave(core.configuration)
    _refuse_if_pending(core, leadership)
    return _append(core, leadership, configuration)


def _leadership(core: Core) -> Leadership:
    leadership = core.leadership
    if leadership is None:
        raise NotLeader(core.leader)
    if leadership.transfer_to is not None:
        raise ProposalDropped(f"leadership is being handed over to node {leadership.transfer_to}")
    return leadership


def _refuse_if_pending(core: Core, leadership: Leadership) -> None:
    commit_index, index = core.log.commit_index, core.log.configurations.latest_index
    if index > commit_index:
        reached("a change of members was refused because another was pending")
        raise ConfigurationRefused(
            "pending", f"the change at entry {index} is not yet committed (to {commit_index}): try again when it is"
        )
    if commit_index < leadership.first_index:
        reached("a new leader refused a change of members before its first commit")
        raise ConfigurationRefused(
            "no-own-commit",
            f"nothing of term {core.term} is committed yet, so a change by an earlier leader may still come to light: "
            f"try again when entry {leadership.first_index} is committed",
        )


def _refuse_unless_caught_up(core: Core, leadership: Leadership, node_id: NodeId) -> None:
    if node_id not in core.configuration.learners:
        raise ConfigurationRefused(
            "not-a-learner", f"node {node_id} is no learner: add it as a learner, and promote it once it has caught up"
        )
    if node_id == core.node_id:
        return  # a leader that is being demoted, and is to stay after all: it has everything
    progress = leadership.progress[node_id]
    silent_us = core.now_us - progress.last_response_us
    heard_of = silent_us <= core.config.election_timeout_us
    if not (progress.caught_up and progress.state == REPLICATE and heard_of):
        reached("a learner was refused its promotion because it had not caught up")
        raise ConfigurationRefused(
            "not-caught-up",
            f"learner {node_id} has entries up to {progress.match_index} of {core.log.commit_index} committed, and was "
            f"heard of {silent_us / 1000:.0f} ms ago: try again when it has caught up",
        )


def _append(core: Core, leadership: Leadership, configuration: Configuration) -> EntryId:
    """In effect for this leader from now on; committed, like any entry, by whoever the configuration says."""
    data = encode_configuration(configuration)
    entry_id = EntryId(Term(core.term), Index(core.log.last_index + 1))
    core.log.append(Entry(entry_id.term, entry_id.index, CONFIGURATION, data))
    core.adopt_configuration()
    leadership.uncommitted_bytes += len(data)
    leadership.reconfigure(configuration, index=entry_id.index, now_us=core.now_us)
    if leadership.transfer_to is not None and not is_voter(configuration, leadership.transfer_to):
        leadership.transfer_to = None
    return entry_id


def see_to(core: Core, leadership: Leadership) -> None:
    """Do what the committed configuration wants of its leader; called while there may be something of that kind.

    May end the leadership.
    """
    log = core.log
    if core.leadership is not leadership:
        return
    if log.configurations.latest_index > log.commit_index or log.commit_index < leadership.first_index:
        return
    some_do_not_know = leadership.dismiss(core.now_us)
    configuration = core.configuration
    if configuration.voters_outgoing:
        if configuration.auto_leave and leadership.transfer_to is None:
            if log.configurations.latest_index < leadership.first_index:
                reached("a new leader left the joint consensus of its predecessor")
            _append(core, leadership, leave(configuration))
    elif is_voter(configuration, core.node_id):
        leadership.unsettled = some_do_not_know
    else:
        _resign(core, leadership)


def _resign(core: Core, leadership: Leadership) -> None:
    """This leader is no voter any more, and its removal is committed: hand over and step down (dissertation §4.2.2).

    It takes nothing new and waits, an election timeout at most, until all it took is committed and a voter has it all.
    """
    heir = _heir(leadership)
    if leadership.resign_deadline_us == 0:
        reached("a leader removed itself")
        leadership.resign_deadline_us = core.now_us + core.config.election_timeout_us
    last_index = core.log.last_index
    leadership.transfer_to = heir.node_id
    leadership.transfer_deadline_us = leadership.resign_deadline_us
    if core.log.commit_index == last_index and heir.match_index == last_index:
        core.messages.append(TimeoutNow(core.node_id, heir.node_id, Term(core.term)))
        core.become_follower(core.term, None)
    elif core.now_us >= leadership.resign_deadline_us:
        reached("a removed leader stepped down without an heir")
        core.become_follower(core.term, None)


def _heir(leadership: Leadership) -> Progress:
    """The voter that has most of the log; of equals, the one with the lowest id."""
    best = leadership.voters[0]
    for progress in leadership.voters:
        if progress.match_index > best.match_index:
            best = progress
    return best
