"""Somebody else's Raft, as small as it can be: one entry a message, no snapshots, no pre-vote, reads through the log.

It stands for any core with messages and state of its own; `ToyAdapter` is all that it takes to put it in.
With `answers_early` it has a real bug: votes and acknowledgements leave before they are saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seatrial.raft.config import RaftConfig
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.messages import COMMAND, NOOP, Configuration, Entry, HardState
from seatrial.raft.reads import ReadState
from seatrial.raft.ready import Ready, SoftState
from seatrial.raft.roles import CANDIDATE, FOLLOWER, LEADER, Role
from seatrial.sim.core.disk import RecordDisk


class ToyMessage:
    """kind: "vote", "voted", "append" or "appended"; what the numbers mean depends on it."""

    def __init__(self, kind: str, sender: int, to: int, term: int, *numbers: int, entry: Entry | None = None) -> None:
        self.kind, self.sender, self.to, self.term, self.numbers, self.entry = kind, sender, to, term, numbers, entry


class ToyRaft:
    """The algorithm, with a list for a log; index 0 stands for the position before the first entry."""

    def __init__(self, me: int, peers: list[int], timeout_us: int, random: Callable[[], float]) -> None:
        self.me, self.peers, self.timeout_us, self.random = me, peers, timeout_us, random
        self.term, self.voted_for, self.role, self.leader = 0, 0, FOLLOWER, 0
        self.log: list[Entry] = [Entry(Term(0), Index(0), NOOP, b"")]
        self.committed = self.applied = self.durable = self.unsaved = 0
        self.votes: set[int] = set()
        self.match: dict[int, int] = {}
        self.next: dict[int, int] = {}
        self.outbox: list[ToyMessage] = []
        self.deadline_us = 0

    def wait(self, now_us: int) -> None:
        pause = self.timeout_us // 6 if self.role == LEADER else int(self.timeout_us * (1 + self.random()))
        self.deadline_us = now_us + pause

    def follow(self, term: int, leader: int) -> None:
        if term > self.term:
            self.term, self.voted_for = term, 0
        self.role, self.leader = FOLLOWER, leader

    def tick(self, now_us: int) -> None:
        if now_us < self.deadline_us:
            return
        if self.role == LEADER:
            for peer in self.peers:
                self.append_to(peer)
        else:
            self.campaign()
        self.wait(now_us)

    def campaign(self) -> None:
        self.role, self.leader, self.term, self.voted_for = CANDIDATE, 0, self.term + 1, self.me
        self.votes = {self.me}
        last = self.log[-1]
        self.outbox += [ToyMessage("vote", self.me, p, self.term, last.term, last.index) for p in self.peers]
        self.count_votes()

    def count_votes(self) -> None:
        if self.role == CANDIDATE and 2 * len(self.votes) > len(self.peers) + 1:
            self.role, self.leader = LEADER, self.me
            self.match = dict.fromkeys(self.peers, 0)
            self.next = dict.fromkeys(self.peers, len(self.log))
            self.propose(NOOP, b"")

    def propose(self, kind: int, data: bytes) -> None:
        self.log.append(Entry(Term(self.term), Index(len(self.log)), kind, data))
        for peer in self.peers:
            self.append_to(peer)

    def append_to(self, peer: int) -> None:
        previous = self.log[self.next[peer] - 1]
        entry = self.log[self.next[peer]] if self.next[peer] < len(self.log) else None
        self.outbox.append(
            ToyMessage("append", self.me, peer, self.term, previous.term, previous.index, self.committed, entry=entry)
        )

    def step(self, message: ToyMessage, now_us: int) -> None:
        if message.term > self.term:
            self.follow(message.term, 0)
        if message.term == self.term:
            getattr(self, f"on_{message.kind}")(message, now_us)

    def on_vote(self, message: ToyMessage, now_us: int) -> None:
        last = (self.log[-1].term, self.log[-1].index)
        granted = self.voted_for in (0, message.sender) and message.numbers >= last
        if granted:
            self.voted_for = message.sender
            self.wait(now_us)
        self.outbox.append(ToyMessage("voted", self.me, message.sender, self.term, int(granted)))

    def on_voted(self, message: ToyMessage, now_us: int) -> None:
        if message.numbers[0]:
            self.votes.add(message.sender)
            self.count_votes()

    def on_append(self, message: ToyMessage, now_us: int) -> None:
        self.follow(message.term, message.sender)
        self.wait(now_us)
        previous_term, previous_index, committed = message.numbers
        matches = previous_index < len(self.log) and self.log[previous_index].term == previous_term
        match = previous_index if matches else 0
        if matches and message.entry is not None:
            index = match = message.entry.index
            if index >= len(self.log) or self.log[index].term != message.entry.term:
                del self.log[index:]
                self.log.append(message.entry)
                self.unsaved, self.durable = min(self.unsaved, index - 1), min(self.durable, index - 1)
        self.committed = max(self.committed, min(committed, match))
        self.outbox.append(ToyMessage("appended", self.me, message.sender, self.term, int(matches), match))

    def on_appended(self, message: ToyMessage, now_us: int) -> None:
        if self.role != LEADER:
            return
        matches, match = message.numbers
        peer = message.sender
        if matches:
            self.match[peer] = max(self.match[peer], match)
            self.next[peer] = self.match[peer] + 1
            self.commit()
        else:
            self.next[peer] = max(1, self.next[peer] - 1)
        if self.next[peer] < len(self.log):
            self.append_to(peer)

    def commit(self) -> None:
        reached = sorted([*self.match.values(), self.durable])[(len(self.peers)) // 2]
        if reached > self.committed and self.log[reached].term == self.term:
            self.committed = reached


class ToyLog:
    """What the checkers look at of the log (`LogView`)."""

    first_index = 1

    def __init__(self, raft: ToyRaft) -> None:
        self.raft = raft

    @property
    def commit_index(self) -> int:
        return self.raft.committed

    @property
    def last_applied(self) -> int:
        return self.raft.applied

    @property
    def last_index(self) -> int:
        return len(self.raft.log) - 1

    def term(self, index: int) -> int | None:
        return self.raft.log[index].term if index < len(self.raft.log) else None


class ToyAdapter:
    """What the simulator asks for, said with ToyRaft; the checkers look at it as well (`CoreView`)."""

    def __init__(
        self,
        config: RaftConfig,
        disk: RecordDisk,
        configuration: Configuration,
        random: Callable[[], float],
        now_us: int,
        answers_early: bool,
    ) -> None:
        self.answers_early = answers_early
        peers = [node for node in configuration.voters if node != config.node_id]
        self.raft = raft = ToyRaft(config.node_id, list(peers), config.election_timeout_us, random)
        self.configuration = self.committed_configuration = configuration
        raft.term, raft.voted_for = disk.hard_state.term, disk.hard_state.voted_for or 0
        if disk.last_index:
            raft.log += disk.entries(Index(1), disk.last_index, 1 << 30)
        raft.durable = raft.unsaved = len(raft.log) - 1
        raft.wait(now_us)
        self.saved = (raft.term, raft.voted_for)
        self.told: tuple[int, int, int] | None = None
        self.taken: list[tuple[Ready, int]] = []
        self.log = ToyLog(raft)
        self.asked: list[tuple[int, int, int]] = []  # (context, index, term) of reads, each behind an entry of its own

    # -- what is driven ----------------------------------------------------------------------------------------------

    def step(self, message: ToyMessage, now_us: int) -> None:
        self.raft.step(message, now_us)

    def tick(self, now_us: int) -> None:
        self.raft.tick(now_us)

    def next_deadline(self) -> int:
        return self.raft.deadline_us

    def take_ready(self) -> Ready | None:
        raft = self.raft
        state, told = (raft.term, raft.voted_for), (raft.role, raft.term, raft.leader)
        entries = raft.log[raft.unsaved + 1 :]
        last = min(raft.committed, raft.durable)
        committed = raft.log[raft.applied + 1 : last + 1]
        applied = max(raft.applied, last)
        reads = [self.answer(asked) for asked in self.asked if asked[1] <= applied or asked[2] != raft.term]
        self.asked = [asked for asked in self.asked if asked[1] > applied and asked[2] == raft.term]
        if not (entries or committed or raft.outbox or reads or state != self.saved or told != self.told):
            return None
        hard_state = None
        if state != self.saved or entries:
            hard_state = HardState(Term(raft.term), NodeId(raft.voted_for) or None, Index(raft.committed))
        soft_state = None
        if told != self.told:
            soft_state = SoftState(Role(raft.role), Term(raft.term), NodeId(raft.leader) or None)
        at_once: list[Any] = raft.outbox if self.answers_early else []
        after_save: list[Any] = [] if self.answers_early else raft.outbox
        ready = Ready(hard_state, entries, None, at_once, after_save, committed, reads, soft_state)
        raft.unsaved, raft.applied, raft.outbox = len(raft.log) - 1, applied, []
        self.saved, self.told = state, told
        self.taken.append((ready, entries[-1].term if entries else 0))
        return ready

    def answer(self, asked: tuple[int, int, int]) -> ReadState:
        context, index, term = asked
        return ReadState(context, Index(index if term == self.raft.term else 0))

    def advance(self, ready: Ready, now_us: int) -> None:
        taken, term = self.taken.pop(0)
        assert taken is ready
        raft = self.raft
        if ready.entries and len(raft.log) > ready.entries[-1].index and raft.log[ready.entries[-1].index].term == term:
            raft.durable = max(raft.durable, ready.entries[-1].index)
        if raft.role == LEADER:
            raft.commit()

    def forward(self, data: bytes, now_us: int) -> None:
        self.propose(data, now_us)

    def propose(self, data: bytes, now_us: int) -> None:
        if self.raft.role != LEADER:
            raise NotLeader(self.leader)
        self.raft.propose(COMMAND, data)

    def read_index(self, context: int, now_us: int) -> None:
        """A read is an entry that does nothing: it may be served when that is applied."""
        if self.raft.role != LEADER:
            raise NotLeader(self.leader)
        self.raft.propose(NOOP, b"")
        self.asked.append((context, len(self.raft.log) - 1, self.raft.term))

    def campaign(self, now_us: int) -> None:
        self.raft.campaign()

    def transfer_leadership(self, to: NodeId, now_us: int) -> None:
        raise ProposalDropped("it cannot hand over")

    def propose_configuration(self, change: object, now_us: int) -> None:
        raise ProposalDropped("its members are fixed")

    leave_joint = propose_configuration

    # -- what the checkers look at -----------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        return Role(self.raft.role)

    @property
    def is_leader(self) -> bool:
        return self.raft.role == LEADER

    @property
    def leader(self) -> NodeId | None:
        return NodeId(self.raft.leader) or None

    @property
    def voted_for(self) -> NodeId | None:
        return NodeId(self.raft.voted_for) or None

    @property
    def term(self) -> int:
        return self.raft.term
