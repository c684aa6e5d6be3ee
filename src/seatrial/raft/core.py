"""The state of one node that every part of the algorithm works on, and the changes of role.

Rule: a term never goes back; a vote is forgotten only with its term; `messages_after_save` holds whatever promises
something that must first be durable.  The other modules hold the algorithm's parts as functions of a Core: `election`,
`replication` (leader), `following` (follower), `snapshots`, `transfer`, `reading`.
"""

from __future__ import annotations

from collections.abc import Callable

from seatrial.marks import reached
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.leadership import Leadership
from seatrial.raft.log import RaftLog, StableLog
from seatrial.raft.messages import NOOP, Configuration, Entry, Message, ReadIndexResponse
from seatrial.raft.quorum import is_voter
from seatrial.raft.reads import ForwardedReads, ReadState
from seatrial.raft.roles import CANDIDATE, FOLLOWER, LEADER, LEGAL, PRE_CANDIDATE
from seatrial.raft.snapshots import IncomingSnapshot


class Core:
    """One node's state: durable (term, voted_for, log), volatile, and the effects that wait for the next Ready."""

    __slots__ = (
        "_random",
        "config",
        "configuration",
        "configuration_changed",
        "election_deadline_us",
        "election_timeout_us",
        "election_wait_us",
        "forwarded_reads",
        "incoming_snapshot",
        "is_joining",
        "leader",
        "leadership",
        "led_term",
        "log",
        "messages",
        "messages_after_save",
        "node_id",
        "now_us",
        "read_states",
        "role",
        "state_changed",
        "sticky_until_us",
        "term",
        "voted_for",
        "votes",
    )

    def __init__(
        self,
        config: RaftConfig,
        stable: StableLog,
        configuration: Configuration,
        random: Callable[[], float],
        now_us: int,
    ) -> None:
        self.config = config
        self.node_id = config.node_id
        self.log = RaftLog(stable, configuration)
        self.configuration = self.log.configurations.latest  # in effect: the last in the log, committed or not (§6)
        self.configuration_changed = False  # since the last Ready
        # It starts without knowing who takes part: perhaps it was a member before, and its disk was replaced.
        self.is_joining = not self.configuration.voters
        self.term: int = stable.hard_state.term
        self.voted_for = stable.hard_state.voted_for
        self.role: int = FOLLOWER
        self.leader: NodeId | None = None
        self.now_us = now_us  # when the node was last called
        self.state_changed = False  # term, vote, role or leader, since the last Ready
        self._random = random
        self.election_timeout_us = config.election_timeout_us
        self.election_wait_us = 0
        self.election_deadline_us = 0
        # Until then it helps to elect nobody, for it may have heard from a leader.  A node that restarts may have
        # promised so just before, and leases rely on it.
        self.sticky_until_us = now_us
        if config.lease_reads and self.term > 0:
            self.sticky_until_us += config.election_timeout_us
        self.votes: dict[NodeId, bool] = {}  # of a pre-candidate or candidate
        self.leadership: Leadership | None = None  # of a leader
        self.led_term = 0  # the last term in which it led, in this life
        self.incoming_snapshot: IncomingSnapshot | None = None  # of a follower
        self.forwarded_reads = ForwardedReads()  # of a follower
        self.messages: list[Message] = []
        self.messages_after_save: list[Message] = []
        self.read_states: list[ReadState] = []  # confirmed or refused; wait until they are applied
        self.wait_anew()

    # -- timers ----------------------------------------------------------------------------------------------------

    def wait_anew(self) -> None:
        """Draw a new election timeout, in [x, 2x), and wait for all of it (§5.2)."""
        timeout = self.election_timeout_us
        self.election_wait_us = timeout + int(self._random() * timeout)
        self.election_deadline_us = self.now_us + self.election_wait_us

    def heard_from_leader(self) -> None:
        self.election_deadline_us = self.now_us + self.election_wait_us
        self.sticky_until_us = self.now_us + self.election_timeout_us

    def is_sticky(self) -> bool:
        """Does it refuse to help a candidate, because a leader is or was alive just now (dissertation §4.2.3)?"""
        return self.config.check_quorum and (self.role == LEADER or self.now_us < self.sticky_until_us)

    # -- configuration ---------------------------------------------------------------------------------------------

    def adopt_configuration(self) -> None:
        """The log's latest configuration is another one: it is in effect from now on."""
        self.log.configuration_changed = False
        self.configuration = self.log.configurations.latest
        self.configuration_changed = self.state_changed = True

    def may_campaign(self) -> bool:
        """A voter may; so may a node whose removal or demotion is not yet committed, for without its vote or its log
        nobody else might win (dissertation §4.2.2)."""
        configurations = self.log.configurations
        if self.is_joining:
            return False
        if is_voter(configurations.latest, self.node_id):
            return True
        previous = configurations.previous
        if previous is None or configurations.latest_index <= self.log.commit_index:
            return False
        if not is_voter(previous, self.node_id):
            return False
        reached("a node campaigned although it was being removed or demoted")
        return True

    # -- roles -----------------------------------------------------------------------------------------------------

    def _change_role(self, role: int) -> None:
        assert role in LEGAL[self.role], f"role {self.role} cannot become {role}"
        self.role = role
        self.state_changed = True
        self.votes = {}

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        """Step down, enter a later term, or learn who leads; any mixture of them."""
        assert term >= self.term, f"term {term} is before {self.term}"
        if term > self.term:
            self.term = term
            self.voted_for = None
        if term > self.term or leader != self.leader:
            self._abandon_forwarded_reads()
        self.state_changed = True
        self.incoming_snapshot = None
        if self.leadership is not None:
            self._end_leadership(self.leadership)
        if self.role != FOLLOWER:
            self._change_role(FOLLOWER)
            self.wait_anew()
        self.leader = leader

    def become_pre_candidate(self) -> None:
        self._change_role(PRE_CANDIDATE)
        self._no_leader()
        self.wait_anew()

    def become_candidate(self) -> None:
        self._change_role(CANDIDATE)
        self._no_leader()
        self.term += 1
        self.voted_for = self.node_id
        self.wait_anew()

    def become_leader(self) -> None:
        """Won: open the leadership with an entry of the own term, without which nothing can be committed (§8)."""
        self._change_role(LEADER)
        self.leader = self.node_id
        index = self.log.last_index + 1
        leadership = Leadership(self.config, index, self.now_us)
        leadership.reconfigure(self.configuration, index=self.log.configurations.latest_index, now_us=self.now_us)
        leadership.own.match_index = self.log.durable_index
        self.leadership = leadership
        self.led_term = self.term
        self.log.append(Entry(Term(self.term), Index(index), NOOP, b""))

    def _no_leader(self) -> None:
        self.leader = None
        self.incoming_snapshot = None
        self._abandon_forwarded_reads()

    def _end_leadership(self, leadership: Leadership) -> None:
        self.leadership = None
        for read in leadership.reads.abandon():
            reached("a read was refused because the leadership ended")
            self.answer_read(read.requester, read.context, 0)

    # -- reads -----------------------------------------------------------------------------------------------------

    def answer_read(self, requester: NodeId, context: int, index: int) -> None:
        """Index 0 refuses."""
        if requester == self.node_id:
            self.read_states.append(ReadState(context, Index(index)))
        else:
            self.messages.append(ReadIndexResponse(self.node_id, requester, Term(self.term), context, Index(index)))

    def _abandon_forwarded_reads(self) -> None:
        for context in self.forwarded_reads.abandon():
            reached("a forwarded read was refused because the leader changed")
            self.read_states.append(ReadState(context, Index(0)))
