"""What nodes say to each other, and what is in the log: plain classes with slots, because they are the hot path.

Rule: every message names its sender, its receiver and a term; nothing here has behaviour.  The constructors of what
is made for every entry take plain numbers: calling `Term` or `Index` costs a third of what making the object does.
Names and meanings are those of the Raft paper (figure 2, §7, §9.6 of the dissertation for PreVote, §6.4 for
ReadIndex, §3.10 for TimeoutNow).  Knows nothing of how messages are encoded or sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from seatrial.raft.ids import Index, NodeId, Term

COMMAND: Final = 0  # an entry for the state machine
NOOP: Final = 1  # a new leader's first entry (§5.4.2, §8)
CONFIGURATION: Final = 2  # an entry that holds who takes part from it on (`membership.encode_configuration`)


class Entry:
    """One entry of the log.  `data` is opaque to Raft and never changed after it was proposed."""

    __slots__ = ("data", "index", "kind", "term")

    def __init__(self, term: int, index: int, kind: int, data: bytes) -> None:
        self.term: Term = term  # type: ignore[assignment]
        self.index: Index = index  # type: ignore[assignment]
        self.kind = kind
        self.data = data

    def __repr__(self) -> str:
        return f"Entry({self.term}, {self.index}, {self.kind}, {len(self.data)} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (
            (self.term, self.index, self.kind, self.data) == (other.term, other.index, other.kind, other.data)
        )

    def __hash__(self) -> int:
        return hash((self.term, self.index))


class HardState:
    """What must be durable before a message that depends on it leaves (figure 2, "persistent state")."""

    __slots__ = ("commit_index", "term", "voted_for")

    def __init__(self, term: int, voted_for: NodeId | None, commit_index: int) -> None:
        self.term: Term = term  # type: ignore[assignment]
        self.voted_for = voted_for
        self.commit_index: Index = commit_index  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"HardState(term={self.term}, voted_for={self.voted_for}, commit_index={self.commit_index})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HardState) and (
            (self.term, self.voted_for, self.commit_index) == (other.term, other.voted_for, other.commit_index)
        )

    def __hash__(self) -> int:
        return hash((self.term, self.voted_for, self.commit_index))


class Configuration:
    """Who takes part.  `voters_outgoing` is not empty only during joint consensus (§6).

    learners_next: outgoing voters that become learners when joint consensus is left.  auto_leave: the leader leaves it
    by itself once it is committed.  Without voters it is unknown: of a new node that no leader has told yet.
    """

    __slots__ = ("auto_leave", "learners", "learners_next", "voters", "voters_outgoing")

    def __init__(
        self,
        voters: Sequence[NodeId],
        voters_outgoing: Sequence[NodeId] = (),
        learners: Sequence[NodeId] = (),
        learners_next: Sequence[NodeId] = (),
        auto_leave: bool = False,
    ) -> None:
        self.voters = tuple(sorted(voters))
        self.voters_outgoing = tuple(sorted(voters_outgoing))
        self.learners = tuple(sorted(learners))
        self.learners_next = tuple(sorted(learners_next))
        self.auto_leave = auto_leave

    def _all(self) -> tuple[object, ...]:
        return (self.voters, self.voters_outgoing, self.learners, self.learners_next, self.auto_leave)

    def __repr__(self) -> str:
        joint = f", {self.learners_next}, auto_leave={self.auto_leave}" if self.voters_outgoing else ""
        return f"Configuration({self.voters}, {self.voters_outgoing}, {self.learners}{joint})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())


class SnapshotMeta:
    """What a snapshot replaces: everything up to and including `last_included_index` (§7)."""

    __slots__ = ("configuration", "last_included_index", "last_included_term")

    def __init__(self, last_included_index: Index, last_included_term: Term, configuration: Configuration) -> None:
        self.last_included_index = last_included_index
        self.last_included_term = last_included_term
        self.configuration = configuration

    def __repr__(self) -> str:
        return f"SnapshotMeta({self.last_included_index}, {self.last_included_term}, {self.configuration})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SnapshotMeta) and (
            (self.last_included_index, self.last_included_term, self.configuration)
            == (other.last_included_index, other.last_included_term, other.configuration)
        )

    def __hash__(self) -> int:
        return hash((self.last_included_index, self.last_included_term))


class Snapshot:
    """A whole snapshot: its meta and the state machine's bytes."""

    __slots__ = ("data", "meta")

    def __init__(self, meta: SnapshotMeta, data: bytes) -> None:
        self.meta = meta
        self.data = data


class PreVote:
    """Would you vote for me in `term`?  Changes nobody's term (dissertation §9.6)."""

    __slots__ = ("last_log_index", "last_log_term", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, last_log_index: Index, last_log_term: Term) -> None:
        self.sender = sender
        self.to = to
        self.term = term  # the term the sender would campaign in: its own + 1
        self.last_log_index = last_log_index
        self.last_log_term = last_log_term


class PreVoteResponse:
    """`term` is the asked-for term when granted, the responder's own when not."""

    __slots__ = ("sender", "term", "to", "vote_granted")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, vote_granted: bool) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.vote_granted = vote_granted


class RequestVote:
    """Figure 2.  `leadership_transfer` tells voters to ignore leader stickiness (dissertation §4.2.3)."""

    __slots__ = ("last_log_index", "last_log_term", "leadership_transfer", "sender", "term", "to")

    def __init__(
        self,
        sender: NodeId,
        to: NodeId,
        term: Term,
        last_log_index: Index,
        last_log_term: Term,
        leadership_transfer: bool,
    ) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.last_log_index = last_log_index
        self.last_log_term = last_log_term
        self.leadership_transfer = leadership_transfer


class RequestVoteResponse:
    __slots__ = ("sender", "term", "to", "vote_granted")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, vote_granted: bool) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.vote_granted = vote_granted


class AppendEntries:
    """Figure 2; never empty of meaning: with no entries it probes or moves the commit index."""

    __slots__ = ("entries", "leader_commit", "prev_log_index", "prev_log_term", "sender", "term", "to")

    def __init__(
        self,
        sender: NodeId,
        to: NodeId,
        term: int,
        prev_log_index: int,
        prev_log_term: int,
        leader_commit: int,
        entries: Sequence[Entry],
    ) -> None:
        self.sender = sender
        self.to = to
        self.term: Term = term  # type: ignore[assignment]
        self.prev_log_index: Index = prev_log_index  # type: ignore[assignment]
        self.prev_log_term: Term = prev_log_term  # type: ignore[assignment]
        self.leader_commit: Index = leader_commit  # type: ignore[assignment]
        self.entries = entries


class AppendEntriesResponse:
    """On success `match_index` is durable and equal to the leader's log up to there.

    On refusal `match_index` is the refused `prev_log_index`, and (`hint_index`, `hint_term`) the last position at
    which the follower's log could still agree (fast back-off, §5.3 end).
    """

    __slots__ = ("hint_index", "hint_term", "match_index", "sender", "success", "term", "to")

    def __init__(
        self,
        sender: NodeId,
        to: NodeId,
        term: int,
        success: bool,
        match_index: int,
        hint_index: int,
        hint_term: int,
    ) -> None:
        self.sender = sender
        self.to = to
        self.term: Term = term  # type: ignore[assignment]
        self.success = success
        self.match_index: Index = match_index  # type: ignore[assignment]
        self.hint_index: Index = hint_index  # type: ignore[assignment]
        self.hint_term: Term = hint_term  # type: ignore[assignment]


class Heartbeat:
    """Keeps followers from campaigning and carries a read round.  `leader_commit` ≤ the receiver's match index.

    Round 0 is not to be answered: it only brings the commit index.
    """

    __slots__ = ("leader_commit", "read_round", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: int, leader_commit: int, read_round: int) -> None:
        self.sender = sender
        self.to = to
        self.term: Term = term  # type: ignore[assignment]
        self.leader_commit: Index = leader_commit  # type: ignore[assignment]
        self.read_round = read_round


class HeartbeatResponse:
    __slots__ = ("read_round", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: int, read_round: int) -> None:
        self.sender = sender
        self.to = to
        self.term: Term = term  # type: ignore[assignment]
        self.read_round = read_round


class InstallSnapshot:
    """One chunk of a snapshot (§7): `data` begins at byte `offset` of `total_size`."""

    __slots__ = ("data", "meta", "offset", "sender", "term", "to", "total_size")

    def __init__(
        self,
        sender: NodeId,
        to: NodeId,
        term: Term,
        meta: SnapshotMeta,
        offset: int,
        total_size: int,
        data: bytes,
    ) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.meta = meta
        self.offset = offset
        self.total_size = total_size
        self.data = data


class InstallSnapshotResponse:
    """`next_offset` is the first byte still missing; equal to the total size when the snapshot is installed."""

    __slots__ = ("last_included_index", "next_offset", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, last_included_index: Index, next_offset: int) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.last_included_index = last_included_index
        self.next_offset = next_offset


class TimeoutNow:
    """Campaign at once: the leader hands over (dissertation §3.10)."""

    __slots__ = ("sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term) -> None:
        self.sender = sender
        self.to = to
        self.term = term


class ReadIndexRequest:
    """A follower asks its leader for a read index (dissertation §6.4); `context` names the read at the follower."""

    __slots__ = ("context", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, context: int) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.context = context


class ReadIndexResponse:
    """`index` 0: refused (no longer leader, or not yet sure of its commit index)."""

    __slots__ = ("context", "index", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, context: int, index: Index) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.context = context
        self.index = index


class ForwardProposal:
    """A follower passes commands on to its leader; may be lost or refused without an answer."""

    __slots__ = ("data", "sender", "term", "to")

    def __init__(self, sender: NodeId, to: NodeId, term: Term, data: bytes) -> None:
        self.sender = sender
        self.to = to
        self.term = term
        self.data = data


Message: TypeAlias = (
    PreVote
    | PreVoteResponse
    | RequestVote
    | RequestVoteResponse
    | AppendEntries
    | AppendEntriesResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | InstallSnapshotResponse
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexResponse
    | ForwardProposal
)
