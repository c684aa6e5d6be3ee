"""Elections: terms, pre-votes and votes (§5.2, §5.4.1; PreVote: dissertation §9.6).

Rule: at most one vote in a term, durable before it leaves; a candidate counts its own vote only once it is durable.
RequestVote too waits for the save: a candidate that forgot its term and the end of its log could otherwise ask again
in the same term with a shorter log, and count answers that were given for the longer one.
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Heartbeat,
    InstallSnapshot,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from seatrial.raft.quorum import LOST, WON, vote_outcome
from seatrial.raft.roles import CANDIDATE, FOLLOWER, PRE_CANDIDATE


def admit(core: Core, message: Message) -> bool:
    """The rules for a message of another term; True if it is to be handled (in its term, if that is later)."""
    if message.term < core.term:
        return _admit_earlier(core, message)
    if isinstance(message, PreVote) or (isinstance(message, PreVoteResponse) and message.vote_granted):
        return True  # these name a term that nobody has entered yet
    if isinstance(message, RequestVote) and core.is_sticky() and not message.leadership_transfer:
        reached("a candidate of a later term was ignored out of loyalty to the leader")
        return False  # a node that lost touch, or was removed, must not depose a leader that works (§6)
    leads = isinstance(message, AppendEntries | Heartbeat | InstallSnapshot)
    core.become_follower(message.term, message.sender if leads else None)
    return True


def _admit_earlier(core: Core, message: Message) -> bool:
    """Mostly it is answered with the term that the sender lacks, and otherwise ignored.

    Answering an old leader matters with PreVote or CheckQuorum: a node whose term is ahead of its cluster's could not
    win, nor follow, if the leader did not learn of that term here, and step down.
    """
    if isinstance(message, PreVote):
        return True
    own, sender, term = core.node_id, message.sender, Term(core.term)
    if isinstance(message, RequestVote):
        core.messages.append(RequestVoteResponse(own, sender, term, vote_granted=False))
    elif isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):
        reached("an old leader was told of a later term")
        core.messages.append(AppendEntriesResponse(own, sender, term, False, Index(0), Index(0), Term(0)))
    elif isinstance(message, ReadIndexRequest):
        core.messages.append(ReadIndexResponse(own, sender, term, message.context, Index(0)))
    return False


def timed_out(core: Core) -> None:
    """Nothing was heard from a leader for a whole election timeout."""
    if core.may_campaign():
        campaign(core)
    else:
        core.wait_anew()


def campaign(core: Core) -> None:
    """Ask for votes; with PreVote, first whether that would make sense."""
    if not core.config.pre_vote:
        _request_votes(core, leadership_transfer=False)
        return
    core.become_pre_candidate()
    log = core.log
    term = Term(core.term + 1)
    for peer in _other_voters(core):
        core.messages.append(PreVote(core.node_id, peer, term, Index(log.last_index), Term(log.last_term)))
    _count_pre_vote(core, core.node_id, granted=True)


def _request_votes(core: Core, *, leadership_transfer: bool) -> None:
    core.become_candidate()
    log = core.log
    term, last_index, last_term = Term(core.term), Index(log.last_index), Term(log.last_term)
    for peer in _other_voters(core):
        core.messages_after_save.append(
            RequestVote(core.node_id, peer, term, last_index, last_term, leadership_transfer)
        )


def _other_voters(core: Core) -> list[NodeId]:
    voters = {*core.configuration.voters, *core.configuration.voters_outgoing}
    return sorted(voters - {core.node_id})


def own_vote_is_durable(core: Core) -> None:
    """The candidate's own vote in its term has reached the disk."""
    _count_vote(core, core.node_id, granted=True)


def _count_pre_vote(core: Core, voter: NodeId, *, granted: bool) -> None:
    core.votes.setdefault(voter, granted)
    outcome = vote_outcome(core.configuration, core.votes)
    if outcome == WON:
        _request_votes(core, leadership_transfer=False)
    elif outcome == LOST:
        reached("a pre-candidate was refused by a majority")
        core.become_follower(core.term, None)


def _count_vote(core: Core, voter: NodeId, *, granted: bool) -> None:
    core.votes.setdefault(voter, granted)
    outcome = vote_outcome(core.configuration, core.votes)
    if outcome == WON:
        core.become_leader()
    elif outcome == LOST:
        reached("a candidate lost an election")
        core.become_follower(core.term, None)


def _may_vote(core: Core, candidate: NodeId) -> bool:
    """One vote in a term, and none once a leader of the term is known; whether either is a member is no matter (§6).

    None, too, while it is joining: a node whose disk was replaced does not know for whom it voted, nor what it had
    acknowledged.  It gets its vote back when it holds all that its leader knew to be committed.
    """
    if core.is_joining:
        reached("a joining node was asked for its vote")
        return False
    if "forget-vote" in core.config.unsafe:
        return True
    return core.voted_for == candidate or (core.voted_for is None and core.leader is None)


def on_pre_vote(core: Core, message: PreVote) -> None:
    granted = (
        not core.is_joining
        and (message.term > core.term or (message.term == core.term and _may_vote(core, message.sender)))
        and not core.is_sticky()
        and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    term = message.term if granted else Term(core.term)
    core.messages.append(PreVoteResponse(core.node_id, message.sender, term, granted))


def on_pre_vote_response(core: Core, message: PreVoteResponse) -> None:
    # A grant names the term that was asked for; an older one belongs to an earlier attempt.
    if core.role == PRE_CANDIDATE and (not message.vote_granted or message.term == core.term + 1):
        _count_pre_vote(core, message.sender, granted=message.vote_granted)


def on_request_vote(core: Core, message: RequestVote) -> None:
    granted = (
        _may_vote(core, message.sender)
        and (message.leadership_transfer or not core.is_sticky())
        and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    if not granted:
        _note_refusal(core, message)
    else:
        core.voted_for = message.sender
        core.state_changed = True
        core.election_deadline_us = core.now_us + core.election_wait_us
    core.messages_after_save.append(
        RequestVoteResponse(core.node_id, message.sender, Term(core.term), vote_granted=granted)
    )


def _note_refusal(core: Core, message: RequestVote) -> None:
    if not core.log.is_up_to_date(message.last_log_index, message.last_log_term):
        reached("a candidate whose log is behind was refused a vote")
    elif core.voted_for not in (None, message.sender):
        reached("a second candidate of a term was refused a vote")


def on_request_vote_response(core: Core, message: RequestVoteResponse) -> None:
    if core.role == CANDIDATE:
        _count_vote(core, message.sender, granted=message.vote_granted)


def on_timeout_now(core: Core, message: TimeoutNow) -> None:
    """The leader hands over: campaign at once, without asking whether that makes sense (dissertation §3.10)."""
    if core.role in (FOLLOWER, PRE_CANDIDATE) and core.may_campaign():
        _request_votes(core, leadership_transfer=True)
    else:
        reached("an order to campaign was ignored")
