"""The checkers of every step: what Raft promises of terms, votes, logs and commits, kept as one book for all nodes.

    election safety · vote once a term · leader append-only · log matching · leader completeness · state-machine safety
    committed on a quorum of durable logs · committed immutable · monotonic term, commit and applied
    snapshot ≤ applied ≤ committed ≤ last · what is promised in a message is durable · replicas equal at equal index

Rule: after each step only the node that moved is looked at, and only at what moved.  Looking changes nothing.
Sources: Raft figure 3, §5.2 to §5.4, §7; dissertation §4.1 (the configuration in effect is the latest in the log).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

from seatrial.raft.membership import decode_configuration
from seatrial.raft.messages import (
    CONFIGURATION,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshotResponse,
    Message,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
)
from seatrial.raft.roles import LEADER
from seatrial.sim.case import Violation
from seatrial.sim.core.disk import RecordDisk
from seatrial.sim.world import World

PROMISES: Final = frozenset({AppendEntriesResponse, InstallSnapshotResponse, RequestVoteResponse, RequestVote})
_INDEX_BITS: Final = 40  # (term, index) as one number


class SafetyViolation(Exception):
    """A promise of Raft was broken; ends the run."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(f"{violation.name}: {violation.message}")
        self.violation = violation


class Watch:
    """What was last seen of one node.  votes: by term, for as long as its disk lives."""

    __slots__ = (
        "applied",
        "commit",
        "disk",
        "last",
        "node_id",
        "role",
        "saved_index",
        "saved_term",
        "settled",
        "term",
        "voted_for",
        "votes",
    )

    def __init__(self, node_id: int, disk: RecordDisk) -> None:
        self.node_id = node_id
        self.disk = disk
        self.votes: dict[int, int] = {}
        self.forget_volatile()

    def forget_volatile(self) -> None:
        """It starts (again): only what is durable must hold."""
        self.term = 0
        self.role = 0
        self.voted_for: int | None = None
        self.commit = 0
        self.settled = 0  # the commit index when its last step was over
        self.applied = 0
        self.last = 0
        self.saved_index = 0  # of the entry saved last, and its term
        self.saved_term = 0

    def wiped(self) -> None:
        """Its disk is gone, by a fault that makes it a new node."""
        self.votes = {}


class Ledger:
    """The book: who led which term, and what is committed.  Index 0 of the lists is the position before the first."""

    __slots__ = (
        "_by_id",
        "_world",
        "chains",
        "commit_terms",
        "configuration",
        "configuration_index",
        "entries",
        "leaders",
        "snapshots",
        "terms",
        "watches",
    )

    def __init__(self, world: World, configuration: Configuration) -> None:
        self._world = world
        self.configuration = configuration  # the newest that was applied anywhere
        self.configuration_index = 0
        self.watches: dict[int, Watch] = {}
        self.leaders: dict[int, int] = {}  # term -> node
        self.terms: list[int] = [0]  # of the committed entries
        self.commit_terms: list[int] = [0]  # in which leader's term each was committed
        self.entries: list[Entry | None] = [None]  # as first applied
        self.chains: list[int] = [0]  # the machine's checksum after applying each
        self.snapshots: dict[int, tuple[int, int]] = {}  # index -> checksum and size of the machine's state
        self._by_id: dict[int, tuple[Entry, int | None]] = {}  # every entry that was ever saved, and the term before it

    @property
    def committed(self) -> int:
        """The highest index that was ever committed anywhere."""
        return len(self.terms) - 1

    def broken(self, name: str, message: str, **detail: Any) -> SafetyViolation:
        return SafetyViolation(
            Violation(
                name=name, message=message, at_us=self._world.now_us, detail={**detail, "leaders": len(self.leaders)}
            )
        )

    # -- after every step --------------------------------------------------------------------------------------------

    def stepped(self, watch: Watch, core: Any) -> None:
        """The node was called and its effects were carried out."""
        log = core.log
        commit = log.commit_index
        if commit != watch.commit:
            self.commit_seen(watch, core, commit, log.term(commit))
        if core.term != watch.term or core.role != watch.role or core.voted_for != watch.voted_for:
            self.role_moved(watch, core)
        self.log_moved(watch, log.last_index, commit, log.last_applied)

    def log_moved(self, watch: Watch, last: int, commit: int, applied: int) -> None:
        """As `stepped`, of a node whose commit index was seen, and whose term, role and vote are those of the watch."""
        if not watch.applied <= applied <= commit <= last:
            raise self.broken(
                "index-order",
                f"node {watch.node_id}: applied {applied} (before: {watch.applied}), committed {commit}, last {last}",
            )
        if last < watch.last and watch.role == LEADER:
            raise self.broken(
                "leader-append-only", f"node {watch.node_id} leads term {watch.term} and cut its log to {last}"
            )
        watch.applied = applied
        watch.last = last
        watch.settled = commit

    def role_moved(self, watch: Watch, core: Any) -> None:
        """Its term, role or vote is another."""
        term = core.term
        node_id = watch.node_id
        if term < watch.term:
            raise self.broken("term-went-back", f"node {node_id} went from term {watch.term} to {term}")
        if term == watch.term and watch.voted_for is not None and core.voted_for != watch.voted_for:
            raise self.broken(
                "vote-changed", f"node {node_id}, term {term}: its vote went from {watch.voted_for} to {core.voted_for}"
            )
        became_leader = core.role == LEADER and (watch.role != LEADER or watch.term != term)
        watch.term = term
        watch.role = core.role
        watch.voted_for = core.voted_for
        if became_leader:
            watch.last = 0
            self._elected(node_id, core)

    def _elected(self, node_id: int, core: Any) -> None:
        term = core.term
        before = self.leaders.setdefault(term, node_id)
        if before != node_id:
            raise self.broken("election-safety", f"nodes {before} and {node_id} both lead term {term}")
        self.check_complete(node_id, core, "leader-completeness", term)

    def check_complete(self, node_id: int, core: Any, name: str, term: int) -> None:
        """Does its log hold everything that was committed in terms before `term`?"""
        log = core.log
        first = log.first_index
        index = len(self.terms) - 1
        while index >= first:
            if self.commit_terms[index] < term and log.term(index) != self.terms[index]:
                raise self.broken(
                    name,
                    f"node {node_id} leads term {term} without entry {self.terms[index]}/{index}, "
                    f"which was committed in term {self.commit_terms[index]}; it has {log.term(index)}/{index}",
                )
            index -= 1

    def commit_seen(self, watch: Watch, core: Any, commit: int, term: int | None) -> None:
        """A node's commit index has moved, to `commit`, where its log has `term`; entered before it is applied."""
        node_id = watch.node_id
        if commit < watch.commit:
            raise self.broken("commit-went-back", f"node {node_id} went from {watch.commit} to {commit}")
        known = len(self.terms) - 1
        if commit <= known:
            if term is not None and term != self.terms[commit]:
                raise self.broken(
                    "committed-immutable",
                    f"node {node_id} commits {term}/{commit}, but {self.terms[commit]}/{commit} was committed before",
                )
        else:
            self._newly_committed(watch, core, known, commit, term)
        watch.commit = commit

    def _newly_committed(self, watch: Watch, core: Any, known: int, commit: int, term: int | None) -> None:
        node_id = watch.node_id
        log = core.log
        configuration = core.configuration
        # A leader that removes itself commits that and steps down in one step.
        leads = core.role == LEADER or (watch.role == LEADER and watch.term == core.term)
        if not leads or not self._is_on_quorum(configuration, commit, term):
            raise self.broken(
                "committed-on-quorum",
                f"node {node_id} commits {term}/{commit} in term {core.term}, which is not durable on a quorum of "
                f"{configuration}: {self._holders(commit)}",
            )
        for index in range(known + 1, commit + 1):
            self.terms.append((term if index == commit else log.term(index)) or 0)
            self.commit_terms.append(core.term)
            self.entries.append(None)
            self.chains.append(-1)

    def _is_on_quorum(self, configuration: Configuration, index: int, term: int | None) -> bool:
        return self._is_on_majority(configuration.voters, index, term) and (
            not configuration.voters_outgoing or self._is_on_majority(configuration.voters_outgoing, index, term)
        )

    def _is_on_majority(self, voters: Sequence[int], index: int, term: int | None) -> bool:
        missing = len(voters) // 2 + 1
        watches = self.watches
        for node_id in voters:
            watch = watches.get(node_id)
            if watch is None:
                continue
            durable = watch.disk.durable
            at = index - durable.first
            if not (0 <= at < len(durable.entries) and durable.entries[at].term == term):
                snapshot = durable.snapshot
                if snapshot is None or snapshot.meta.last_included_index < index:
                    continue
            missing -= 1
            if not missing:
                return True
        return False

    def _holders(self, index: int) -> str:
        return ", ".join(f"node {n} has {w.disk.durable.term(index)}/{index}" for n, w in self.watches.items())

    # -- what is saved and sent --------------------------------------------------------------------------------------

    def saved(self, watch: Watch, core: Any, entries: list[Entry]) -> None:
        """A node hands these entries to its disk."""
        first = entries[0].index
        if first <= watch.settled:
            raise self.broken(
                "committed-immutable",
                f"node {watch.node_id} rewrites entry {first}, and had committed to {watch.settled}",
            )
        before = watch.saved_term if first == watch.saved_index + 1 else core.log.term(first - 1)
        by_id = self._by_id
        for entry in entries:
            number = entry.term << _INDEX_BITS | entry.index
            known = by_id.get(number)
            if known is None:
                by_id[number] = (entry, before)
            elif known[0] is not entry or known[1] != before:
                self._check_same(watch, entry, before, known)
            before = entry.term
        watch.saved_index = entry.index
        watch.saved_term = entry.term

    def _check_same(self, watch: Watch, entry: Entry, before: int | None, known: tuple[Entry, int | None]) -> None:
        """Equal (index, term): equal entries, behind entries of equal terms; a compacted one's term is not known."""
        if known[0] != entry or (before is not None and known[1] is not None and known[1] != before):
            raise self.broken(
                "log-matching",
                f"node {watch.node_id} saves {entry} after an entry of term {before}; elsewhere {known[0]} "
                f"stands after an entry of term {known[1]}",
            )

    def promised(self, watch: Watch, message: Message) -> None:
        """A node sends a message that promises something: it must be durable now."""
        if isinstance(message, AppendEntriesResponse):
            if message.success:
                self.acknowledged(watch, message.match_index, message.term)
        elif isinstance(message, InstallSnapshotResponse):
            index = message.last_included_index
            known = self.snapshots.get(index)
            if known is not None and message.next_offset >= known[1]:  # it says that it has all of it
                self.acknowledged(watch, index, message.term)
        elif isinstance(message, RequestVoteResponse):
            if message.vote_granted:
                self._check_vote(watch, message.term, message.to)
        elif isinstance(message, RequestVote):
            self._check_vote(watch, message.term, watch.node_id)

    def acknowledged(self, watch: Watch, index: int, term: int) -> None:
        """In this term it says that it has everything up to the index.

        Once a later term is durable here, its leader may have replaced that in the very sync that made it durable.
        """
        durable = watch.disk.durable
        last = durable.first + len(durable.entries) - 1
        if (index <= last and term <= durable.hard_state.term) or term < durable.hard_state.term:
            return
        if durable.snapshot is not None:
            last = max(last, durable.snapshot.meta.last_included_index)
        if index > last or term > durable.hard_state.term:
            raise self.broken(
                "promise-not-durable",
                f"node {watch.node_id} acknowledges everything up to {index} in term {term}; durable are "
                f"entry {last} and term {durable.hard_state.term}",
            )

    def _check_vote(self, watch: Watch, term: int, candidate: int) -> None:
        before = watch.votes.setdefault(term, candidate)
        if before != candidate:
            raise self.broken(
                "double-vote", f"node {watch.node_id} voted for {before} and for {candidate} in term {term}"
            )
        durable = watch.disk.durable.hard_state
        if (durable.term, durable.voted_for) != (term, candidate) and durable.term <= term:
            raise self.broken(
                "promise-not-durable",
                f"node {watch.node_id} votes for {candidate} in term {term}; durable is {durable}",
            )

    # -- what is applied ---------------------------------------------------------------------------------------------

    def applied(self, watch: Watch, entry: Entry, chain: int) -> None:
        """A machine has applied the entry, and its checksum is `chain` now."""
        index = entry.index
        known = self.entries[index]
        if known is None:
            if entry.term != self.terms[index]:
                raise self.broken(
                    "state-machine-safety", f"node {watch.node_id} applied {entry}, not {self.terms[index]}"
                )
            self.entries[index] = entry
            self.chains[index] = chain
            if entry.kind == CONFIGURATION:
                self.configuration = decode_configuration(entry.data)
                self.configuration_index = index
            return
        if known is not entry and known != entry:
            raise self.broken(
                "state-machine-safety", f"node {watch.node_id} applied {entry}, another node {known} at the same index"
            )
        if self.chains[index] != chain:
            raise self.broken("replicas-differ", f"node {watch.node_id} has another state after entry {index}")

    def restored(self, watch: Watch, index: int, chain: int) -> None:
        """A machine was restored from a snapshot."""
        if index > self.committed:
            raise self.broken(
                "index-order", f"node {watch.node_id}: its snapshot is at {index}, which nobody committed"
            )
        if self.chains[index] not in (-1, chain):
            raise self.broken(
                "replicas-differ", f"node {watch.node_id} has another state after the snapshot at {index}"
            )

    def snapshot_made(self, watch: Watch, snapshot: Snapshot) -> None:
        index = snapshot.meta.last_included_index
        if index > watch.commit:
            raise self.broken("index-order", f"node {watch.node_id}: snapshot at {index}, committed is {watch.commit}")
        state = (crc32(snapshot.data), len(snapshot.data))
        if self.snapshots.setdefault(index, state) != state:
            raise self.broken("replicas-differ", f"node {watch.node_id} made another snapshot at {index} than before")
