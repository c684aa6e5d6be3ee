"""One Raft node: what a driver calls.

    node.step(message, now_us) | tick | propose | forward | read_index | transfer_leadership | campaign
    while (ready := node.take_ready()) is not None:
        # do what it says, in the order that `seatrial.raft.ready` gives
        …
        node.advance(ready, now_us)

Rule: nothing here blocks, sends, saves or looks at a clock; `now_us` never goes back, and its zero means nothing.
An exception that no docstring here names (out of `stable`, a failed assertion) leaves the node of no use: what it was
about to hand out may be lost, a vote among it.  The driver must not call it again.
This module keeps the contract with the driver; the algorithm is in `election`, `replication` and `following`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from seatrial.raft import election, following, proposing, reading, reconfiguring, replication, transfer
from seatrial.raft.config import RaftConfig
from seatrial.raft.core import Core
from seatrial.raft.errors import NotLeader
from seatrial.raft.ids import EntryId, Index, NodeId, Term
from seatrial.raft.inspection import Follower, Status, followers_of, is_occupied, status_of
from seatrial.raft.log import StableLog
from seatrial.raft.membership import ConfigurationChange
from seatrial.raft.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    ForwardProposal,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from seatrial.raft.reads import ReadState
from seatrial.raft.ready import Ready, SoftState
from seatrial.raft.roles import CANDIDATE, LEADER, Role

# Nobody changes a Ready's lists.
_NO_ENTRIES: Final[list[Entry]] = []
_NO_MESSAGES: Final[list[Message]] = []
_NO_READS: Final[list[ReadState]] = []


class RaftNode:
    """A member of one Raft group.

    stable: what survived of an earlier life; the driver restores the machine from its snapshot and hands the node's
        `ready.committed` on from there.
    configuration: the members when the group began, the same on each of them; without voters on a node that is to be
        added later.  A snapshot in `stable` knows better, and so does an entry that changed them.
    random: floats in [0, 1), for election timeouts.
    """

    __slots__ = ("_core", "_saved", "_taken", "_told", "_told_configuration")

    def __init__(
        self,
        config: RaftConfig,
        stable: StableLog,
        *,
        configuration: Configuration,
        random: Callable[[], float],
        now_us: int,
    ) -> None:
        self._core = Core(config, stable, configuration, random, now_us)
        self._saved = stable.hard_state  # handed out to be saved, or found saved
        self._told = self._soft_state()  # handed out as `role_changed`
        self._told_configuration = self._core.configuration
        self._taken: deque[Ready] = deque()  # handed out, of those that wait, and not yet advanced

    # -- what happens to it ------------------------------------------------------------------------------------------

    def step(self, message: Message, now_us: int) -> None:
        """A message came in.  One for or from the wrong node is ignored."""
        core = self._core
        core.now_us = now_us
        if message.to != core.node_id or message.sender == core.node_id:
            return
        if message.term == core.term or election.admit(core, message):
            _HANDLERS[type(message)](core, message)

    def tick(self, now_us: int) -> None:
        """Time passed: call at or after `next_deadline()`, or at any fixed interval."""
        core = self._core
        core.now_us = now_us
        leadership = core.leadership
        if leadership is not None:
            if now_us >= leadership.heartbeat_deadline_us:
                replication.beat(core, leadership)
        elif now_us >= core.election_deadline_us:
            election.timed_out(core)
        if len(core.forwarded_reads):
            reading.expire_forwarded(core)

    def next_deadline(self) -> int:
        """When `tick` will next have something to do, in µs; changes with every call of anything else."""
        core = self._core
        leadership = core.leadership
        deadline = core.election_deadline_us if leadership is None else leadership.heartbeat_deadline_us
        expiry = core.forwarded_reads.next_expiry()
        return deadline if expiry is None or deadline < expiry else expiry

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def propose(self, data: bytes, now_us: int) -> EntryId:
        """Append a command; it is committed when an entry with this very id comes in `ready.committed`.

        Raises NotLeader, and ProposalDropped during a transfer or while too much is uncommitted.
        """
        core = self._core
        core.now_us = now_us
        return proposing.propose(core, data)

    def forward(self, data: bytes, now_us: int) -> None:
        """Propose here or at the leader; may be lost without a word.  Raises NotLeader(None), and as `propose`."""
        core = self._core
        core.now_us = now_us
        proposing.forward(core, data)

    def read_index(self, context: int, now_us: int) -> None:
        """Ask for a linearizable read: `ready.reads` answers with `context`, which the caller must not have in use.

        Works on a leader and on a follower, which asks its leader.  Raises NotLeader(None) where none is known.
        """
        core = self._core
        core.now_us = now_us
        if core.leadership is not None:
            reading.request(core, core.leadership, core.node_id, context)
        elif core.leader is None:
            raise NotLeader(None)
        else:
            reading.forward(core, core.leader, context)

    def transfer_leadership(self, to: NodeId, now_us: int) -> None:
        """Hand leadership over to a voter; given up after an election timeout.

        Raises NotLeader, and ValueError where `to` is no voter.
        """
        core = self._core
        core.now_us = now_us
        if core.leadership is None:
            raise NotLeader(core.leader)
        transfer.begin(core, core.leadership, to)

    def propose_configuration(self, change: ConfigurationChange, now_us: int) -> EntryId:
        """Change who takes part; the result is in effect here at once, and done when its entry is committed.

        Of joint consensus this is the entry that begins it; a further one leaves it.  Add nodes as learners first, and
        make them voters once they have caught up.  Raises NotLeader, ProposalDropped during a transfer, and
        ConfigurationRefused, of which nothing was appended.
        """
        core = self._core
        core.now_us = now_us
        return reconfiguring.propose(core, change)

    def leave_joint(self, now_us: int) -> EntryId:
        """Leave joint consensus that was entered with `explicit_leave`.  Raises as `propose_configuration`."""
        core = self._core
        core.now_us = now_us
        return reconfiguring.leave_joint(core)

    def campaign(self, now_us: int) -> None:
        """Stand for election now.

        Ignored on a leader, a learner, who was removed, or where a lease may rely on this node.
        """
        core = self._core
        core.now_us = now_us
        if core.role == LEADER or not core.may_campaign():
            return
        if not (core.config.lease_reads and core.is_sticky()):
            election.campaign(core)

    def report_unreachable(self, peer: NodeId) -> None:
        """The transport lost its connection: what was sent last probably did not arrive."""
        replication.report_unreachable(self._core, peer)

    def hold(self, peer: NodeId, probes: int) -> None:
        """The peer takes no entries now, for want of room: once it has refused some, send it so many messages more
        and then none, until this is called again.  -1: it takes them, as everybody at first."""
        replication.hold(self._core, peer, probes)

    # -- the contract with the driver --------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """May be true although `ready` then has nothing; never the other way round."""
        core, log = self._core, self._core.log
        if core.messages or core.messages_after_save or core.state_changed or log.unsaved or log.has_committed():
            return True
        if core.leadership is not None and (core.leadership.dirty or core.leadership.due):
            return True
        return bool(core.read_states) and bool(self._answerable(core.read_states))

    def take_ready(self) -> Ready | None:
        """`ready` if there is anything to do, else None: `has_ready` and `ready` in one.

        Right after one, and without any other call between, there is another only where more was committed than
        `max_message_bytes` lets into one.
        """
        core = self._core
        leadership = core.leadership
        if leadership is not None and (leadership.dirty or leadership.due):
            replication.flush(core, leadership)
        log, messages, after_save = core.log, core.messages, core.messages_after_save
        applied = log.last_applied
        applies = log.commit_index > applied and log.durable_index > applied and log.installing is None
        changed, unsaved = core.state_changed, log.unsaved
        if after_save or unsaved or changed:
            entries, snapshot = log.begin_save() if unsaved else (_NO_ENTRIES, None)
            hard_state = self._unsaved_hard_state(unsaved) if unsaved or changed else None
            ready = Ready(hard_state, entries, snapshot, messages, after_save, _NO_ENTRIES, _NO_READS, None, None)
            if after_save or entries or hard_state is not None or snapshot is not None:
                self._taken.append(ready)
            core.messages_after_save = []
            if changed:
                self._tell_changes(ready)
        elif messages or applies or (core.read_states and self._answerable(core.read_states)):
            ready = Ready(None, _NO_ENTRIES, None, messages, _NO_MESSAGES, _NO_ENTRIES, _NO_READS, None, None)
        else:
            return None
        core.messages = []
        if applies:
            ready.committed = log.take_committed(core.config.max_message_bytes)
            if leadership is not None:
                proposing.handed_out(leadership, ready.committed)
        if core.read_states:
            ready.reads = self._take_answerable()
        return ready

    def ready(self) -> Ready:
        """What to do now.  Each effect is handed out once; earlier Readys may still be on their way to the disk."""
        ready = self.take_ready()
        if ready is None:
            return Ready(None, _NO_ENTRIES, None, _NO_MESSAGES, _NO_MESSAGES, _NO_ENTRIES, _NO_READS, None, None)
        return ready

    def _tell_changes(self, ready: Ready) -> None:
        """Who leads and who takes part now."""
        core = self._core
        ready.role_changed = self._untold_soft_state()
        core.state_changed = False
        if core.configuration_changed:
            ready.configuration_changed = self._untold_configuration()

    def advance(self, ready: Ready, now_us: int) -> None:
        """`ready` and all earlier ones are durable.  Call once for each, in order."""
        core = self._core
        core.now_us = now_us
        taken = self._taken
        if not taken or taken[0] is not ready:
            assert not ready.waits, "Readys are advanced once each, in the order they were taken"
            return
        taken.popleft()
        if ready.entries or ready.snapshot is not None:
            core.log.finish_save()
            if core.leadership is not None:
                replication.own_disk_advanced(core, core.leadership)
        if core.role == CANDIDATE and ready.hard_state is not None and ready.hard_state.term == core.term:
            election.own_vote_is_durable(core)

    def _unsaved_hard_state(self, something_is_saved: bool) -> HardState | None:
        """Term and vote must be durable; the commit index (volatile in figure 2) goes along with what is saved."""
        core, saved, commit_index = self._core, self._saved, self._core.log.commit_index
        unchanged = core.term == saved.term and core.voted_for == saved.voted_for
        if unchanged and (not something_is_saved or commit_index == saved.commit_index):
            return None
        state = self._saved = HardState(core.term, core.voted_for, commit_index)
        return state

    def _answerable(self, states: list[ReadState]) -> list[ReadState]:
        applied = self._core.log.last_applied
        return [state for state in states if state.index <= applied]

    def _take_answerable(self) -> list[ReadState]:
        """Reads are answered from a state that has applied their index."""
        states = self._core.read_states
        answerable = self._answerable(states)
        applied = self._core.log.last_applied
        self._core.read_states = [state for state in states if state.index > applied]
        return answerable

    def _soft_state(self) -> SoftState:
        core = self._core
        return SoftState(Role(core.role), Term(core.term), core.leader)

    def _untold_soft_state(self) -> SoftState | None:
        state = self._soft_state()
        if state == self._told:
            return None
        self._told = state
        return state

    def _untold_configuration(self) -> Configuration | None:
        core = self._core
        core.configuration_changed = False
        if core.configuration == self._told_configuration:
            return None
        self._told_configuration = core.configuration
        return core.configuration

    # -- looking at it -----------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> NodeId:
        return self._core.node_id

    @property
    def config(self) -> RaftConfig:
        return self._core.config

    @property
    def role(self) -> Role:
        return Role(self._core.role)

    @property
    def is_leader(self) -> bool:
        return self._core.role == LEADER

    @property
    def term(self) -> Term:
        return Term(self._core.term)

    @property
    def leader(self) -> NodeId | None:
        return self._core.leader

    @property
    def commit_index(self) -> Index:
        return Index(self._core.log.commit_index)

    @property
    def last_applied(self) -> Index:
        """Up to where `committed` was handed out."""
        return Index(self._core.log.last_applied)

    @property
    def durable_index(self) -> Index:
        return Index(self._core.log.durable_index)

    @property
    def last_index(self) -> Index:
        return Index(self._core.log.last_index)

    @property
    def configuration(self) -> Configuration:
        """In effect: the latest in the log, committed or not.  Without voters it is not known yet."""
        return self._core.configuration

    @property
    def configuration_index(self) -> Index:
        """Of the entry that brought `configuration`, or of the snapshot that did; 0: the one at the start."""
        return Index(self._core.log.configurations.latest_index)

    @property
    def committed_configuration(self) -> Configuration:
        return self.configuration_at(self.commit_index)

    @property
    def is_installing(self) -> bool:
        """A leader's snapshot is on its way to the disk: what the machine has applied so far is of no use any more."""
        return self._core.log.installing is not None

    def configuration_at(self, index: Index) -> Configuration:
        """What a snapshot up to `index` must carry.  Raises ValueError for an index before the newest snapshot's, as
        that of the machine's state is while `is_installing`."""
        return self._core.log.configurations.at(index)

    def entry_term(self, index: Index) -> Term | None:
        """Of an entry in the log, durable or not, or of the snapshot's last; None where it is not known."""
        term = self._core.log.term(index)
        return None if term is None else Term(term)

    def status(self) -> Status:
        return status_of(self._core)

    def followers(self) -> list[Follower]:
        """On a leader, of each peer what `status` says of its log and its last answer, for a tenth of the cost."""
        return followers_of(self._core)

    @property
    def is_occupied(self) -> bool:
        """Reads, a leadership transfer or a change of members are under way."""
        return is_occupied(self._core)


_HANDLERS: Final[Mapping[type, Callable[[Core, Any], None]]] = {
    PreVote: election.on_pre_vote,
    PreVoteResponse: election.on_pre_vote_response,
    RequestVote: election.on_request_vote,
    RequestVoteResponse: election.on_request_vote_response,
    TimeoutNow: election.on_timeout_now,
    AppendEntries: following.on_append_entries,
    Heartbeat: following.on_heartbeat,
    InstallSnapshot: following.on_install_snapshot,
    AppendEntriesResponse: replication.on_append_entries_response,
    HeartbeatResponse: replication.on_heartbeat_response,
    InstallSnapshotResponse: replication.on_install_snapshot_response,
    ReadIndexRequest: reading.on_read_index_request,
    ReadIndexResponse: reading.on_read_index_response,
    ForwardProposal: proposing.on_forward_proposal,
}
