"""The checkers of every step: for each promise a step that breaks it, beside one that keeps it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seatrial.raft.ids import Index, NodeId, Term
from seatrial.raft.membership import encode_configuration
from seatrial.raft.messages import (
    COMMAND,
    CONFIGURATION,
    AppendEntriesResponse,
    Configuration,
    Entry,
    HardState,
    InstallSnapshotResponse,
    RequestVote,
    RequestVoteResponse,
    Snapshot,
    SnapshotMeta,
)
from seatrial.raft.roles import CANDIDATE, FOLLOWER, LEADER
from seatrial.sim.case import Disk
from seatrial.sim.core.disk import RecordDisk
from seatrial.sim.core.ledger import Ledger, SafetyViolation, Watch
from seatrial.sim.world import World

VOTERS = Configuration([NodeId(1), NodeId(2), NodeId(3)])


class Log:
    """A log as the checkers see it: the terms of its entries from index 1 on."""

    def __init__(self, terms: list[int]) -> None:
        self.terms = terms
        self.commit_index = 0
        self.last_applied = 0
        self.first_index = 1

    @property
    def last_index(self) -> int:
        return len(self.terms)

    def term(self, index: int) -> int | None:
        if index == 0:
            return 0
        return self.terms[index - 1] if 0 < index <= len(self.terms) else None


class Core:
    """A node as the checkers see it."""

    def __init__(self, *terms: int, term: int = 1, role: int = FOLLOWER) -> None:
        self.log = Log(list(terms))
        self.term = term
        self.role = role
        self.voted_for: int | None = None
        self.leader = None
        self.configuration = VOTERS


class Bench:
    """A ledger over three nodes with disks, on which entries of the given terms are durable."""

    def __init__(self, *logs: list[int]) -> None:
        world = World(1)
        self.ledger = Ledger(world, VOTERS)
        self.watches: list[Watch] = []
        for node_id in (1, 2, 3):
            disk = RecordDisk(world, world.stream(f"disk {node_id}"), Disk())
            watch = Watch(node_id, disk)
            self.watches.append(watch)
            self.ledger.watches[node_id] = watch
        for watch, terms in zip(self.watches, logs, strict=False):
            watch.disk.durable.entries = [entry(index, term) for index, term in enumerate(terms, 1)]

    def step(self, node_id: int, core: Core) -> None:
        self.ledger.stepped(self.watches[node_id - 1], core)

    def commit(self, *terms: int, term: int = 1) -> Core:
        """Node 1 leads and has committed entries of these terms, durable on nodes 1 and 2."""
        for watch in self.watches[:2]:
            watch.disk.durable.entries = [entry(index, t) for index, t in enumerate(terms, 1)]
        core = Core(*terms, term=term, role=LEADER)
        core.log.commit_index = len(terms)
        self.step(1, core)
        return core


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(Term(term), Index(index), COMMAND, data)


def refused(name: str, action: Callable[[], object]) -> SafetyViolation:
    with pytest.raises(SafetyViolation) as caught:
        action()
    assert caught.value.violation.name == name
    return caught.value


def test_one_leader_a_term() -> None:
    bench = Bench()
    bench.step(1, Core(term=1, role=LEADER))
    bench.step(2, Core(term=2, role=LEADER))
    broken = refused("election-safety", lambda: bench.step(3, Core(term=2, role=LEADER)))
    assert "nodes 2 and 3 both lead term 2" in str(broken)


def test_terms_do_not_go_back() -> None:
    bench = Bench()
    bench.step(1, Core(term=2))
    bench.step(1, Core(term=3))
    refused("term-went-back", lambda: bench.step(1, Core(term=2)))


def test_a_vote_does_not_change_within_its_term() -> None:
    bench = Bench()
    core = Core(term=2)
    bench.step(1, core)
    core.voted_for = 2
    bench.step(1, core)
    core.voted_for = 3
    refused("vote-changed", lambda: bench.step(1, core))


def test_another_term_has_another_vote() -> None:
    bench = Bench()
    for term, voted_for in ((2, 2), (3, 3)):
        core = Core(term=term)
        core.voted_for = voted_for
        bench.step(1, core)


def test_a_leader_only_appends() -> None:
    bench = Bench()
    core = Core(1, 1, role=LEADER)
    bench.step(1, core)
    core.log.terms.append(1)
    bench.step(1, core)
    core.log.terms.pop()
    refused("leader-append-only", lambda: bench.step(1, core))


def test_a_follower_may_cut_its_uncommitted_suffix() -> None:
    bench = Bench()
    core = Core(1, 1)
    bench.step(1, core)
    core.log.terms.pop()
    bench.step(1, core)


def test_a_new_leader_holds_what_was_committed() -> None:
    bench = Bench()
    bench.commit(1, 1)
    bench.step(2, Core(1, 1, 2, term=2, role=LEADER))
    refused("leader-completeness", lambda: bench.step(3, Core(1, term=3, role=LEADER)))


def test_a_leader_of_an_earlier_term_need_not_hold_what_later_ones_committed() -> None:
    bench = Bench()
    bench.commit(1, 3, term=3)
    bench.step(3, Core(1, term=2, role=LEADER))


def test_what_is_committed_is_durable_on_a_quorum() -> None:
    bench = Bench([1, 1], [1, 1], [])
    core = Core(1, 1, role=LEADER)
    core.log.commit_index = 2
    bench.step(1, core)
    bench = Bench([1, 1], [1], [])
    refused("committed-on-quorum", lambda: bench.step(1, core))


def test_an_entry_of_another_term_does_not_count() -> None:
    bench = Bench([1, 2], [1, 1], [1])
    core = Core(1, 2, term=2, role=LEADER)
    core.log.commit_index = 2
    refused("committed-on-quorum", lambda: bench.step(1, core))


def test_during_joint_consensus_both_majorities_must_hold_it() -> None:
    joint = Configuration([NodeId(1), NodeId(2)], [NodeId(1), NodeId(3)])
    for logs, name in (([[1], [1], [1]], ""), ([[1], [1], []], "committed-on-quorum")):
        bench = Bench(*logs)
        core = Core(1, role=LEADER)
        core.configuration = joint
        core.log.commit_index = 1
        if name:
            refused(name, lambda bench=bench, core=core: bench.step(1, core))
        else:
            bench.step(1, core)


def test_a_learner_is_not_counted() -> None:
    bench = Bench([1], [], [1])
    core = Core(1, role=LEADER)
    core.configuration = Configuration([NodeId(1), NodeId(2)], (), [NodeId(3)])
    core.log.commit_index = 1
    refused("committed-on-quorum", lambda: bench.step(1, core))


def test_a_follower_commits_nothing_that_no_leader_has_committed() -> None:
    bench = Bench([1], [1], [1])
    core = Core(1)
    core.log.commit_index = 1
    refused("committed-on-quorum", lambda: bench.step(2, core))


def test_a_leader_that_steps_down_as_it_commits_has_committed() -> None:
    bench = Bench([1], [1], [])
    core = Core(1, role=LEADER)
    bench.step(1, core)
    core.role, core.log.commit_index = FOLLOWER, 1
    bench.step(1, core)
    assert bench.ledger.committed == 1


def test_what_was_committed_stays() -> None:
    bench = Bench()
    bench.commit(1, 1)
    agreeing, conflicting = Core(1, 1), Core(1, 2, term=2)
    agreeing.log.commit_index = conflicting.log.commit_index = 2
    bench.step(2, agreeing)
    refused("committed-immutable", lambda: bench.step(3, conflicting))


def test_a_committed_entry_is_not_rewritten() -> None:
    bench = Bench()
    core = bench.commit(1, 1)
    bench.ledger.saved(bench.watches[0], core, [entry(3, 1)])
    refused("committed-immutable", lambda: bench.ledger.saved(bench.watches[0], core, [entry(2, 1)]))


def test_commit_and_applied_do_not_go_back_and_keep_their_order() -> None:
    bench = Bench()
    core = bench.commit(1, 1)
    core.log.last_applied = 2
    bench.step(1, core)
    core.log.last_applied = 1
    refused("index-order", lambda: bench.step(1, core))
    core.log.last_applied, core.log.commit_index = 0, 1
    refused("commit-went-back", lambda: bench.step(1, core))
    ahead = Core(1, 1)
    ahead.log.last_applied = 1
    refused("index-order", lambda: bench.step(2, ahead))


def test_a_node_that_starts_again_may_know_less() -> None:
    bench = Bench()
    bench.commit(1, 1)
    bench.watches[0].forget_volatile()
    bench.step(1, Core(1, 1))


def test_equal_entries_stand_behind_equal_logs() -> None:
    bench = Bench()
    one, other = Core(1, 2), Core(2, 2)
    bench.ledger.saved(bench.watches[0], one, [entry(1, 1), entry(2, 2)])
    bench.ledger.saved(bench.watches[1], one, [entry(1, 1), entry(2, 2)])
    refused("log-matching", lambda: bench.ledger.saved(bench.watches[2], other, [entry(1, 2), entry(2, 2)]))


def test_one_index_and_term_is_one_entry() -> None:
    bench = Bench()
    bench.ledger.saved(bench.watches[0], Core(1), [entry(1, 1, b"a")])
    bench.ledger.saved(bench.watches[1], Core(1), [entry(1, 1, b"a")])
    refused("log-matching", lambda: bench.ledger.saved(bench.watches[2], Core(1), [entry(1, 1, b"b")]))


def test_all_machines_apply_the_same_entries() -> None:
    bench = Bench()
    bench.commit(1)
    bench.ledger.applied(bench.watches[0], entry(1, 1, b"a"), 7)
    bench.ledger.applied(bench.watches[1], entry(1, 1, b"a"), 7)
    refused("state-machine-safety", lambda: bench.ledger.applied(bench.watches[2], entry(1, 1, b"b"), 7))


def test_equal_entries_give_equal_states() -> None:
    bench = Bench()
    bench.commit(1)
    bench.ledger.applied(bench.watches[0], entry(1, 1), 7)
    refused("replicas-differ", lambda: bench.ledger.applied(bench.watches[1], entry(1, 1), 8))


def test_the_newest_applied_configuration_is_known() -> None:
    bench = Bench()
    bench.commit(1)
    changed = Configuration([NodeId(1), NodeId(2)])
    data = encode_configuration(changed)
    bench.ledger.applied(bench.watches[0], Entry(Term(1), Index(1), CONFIGURATION, data), 7)
    assert (bench.ledger.configuration, bench.ledger.configuration_index) == (changed, 1)


def snapshot(index: int, data: bytes = b"state") -> Snapshot:
    return Snapshot(SnapshotMeta(Index(index), Term(1), VOTERS), data)


def test_snapshots_at_one_index_are_equal() -> None:
    bench = Bench()
    bench.commit(1, 1)
    other = Core(1, 1)
    other.log.commit_index = 2
    bench.step(2, other)
    bench.ledger.snapshot_made(bench.watches[0], snapshot(2))
    bench.ledger.snapshot_made(bench.watches[1], snapshot(2))
    refused("replicas-differ", lambda: bench.ledger.snapshot_made(bench.watches[1], snapshot(2, b"other")))


def test_a_snapshot_holds_only_what_is_committed() -> None:
    bench = Bench()
    bench.commit(1, 1)
    bench.ledger.snapshot_made(bench.watches[0], snapshot(2))
    refused("index-order", lambda: bench.ledger.snapshot_made(bench.watches[0], snapshot(3)))
    refused("index-order", lambda: bench.ledger.restored(bench.watches[2], 3, 7))


def test_a_restored_state_is_the_state_at_its_index() -> None:
    bench = Bench()
    bench.commit(1)
    bench.ledger.applied(bench.watches[0], entry(1, 1), 7)
    bench.ledger.restored(bench.watches[1], 1, 7)
    refused("replicas-differ", lambda: bench.ledger.restored(bench.watches[2], 1, 8))


def test_an_acknowledged_entry_is_durable() -> None:
    bench = Bench([1, 1])
    watch = bench.watches[0]
    watch.disk.durable.hard_state = HardState(Term(1), None, Index(0))

    def acknowledge(index: int, term: int = 1) -> None:
        message = AppendEntriesResponse(NodeId(1), NodeId(2), Term(term), True, Index(index), Index(0), Term(0))
        bench.ledger.promised(watch, message)

    acknowledge(2)
    refused("promise-not-durable", lambda: acknowledge(3))
    refused("promise-not-durable", lambda: acknowledge(2, term=2))


def test_what_was_acknowledged_may_be_replaced_by_a_later_term_in_the_same_sync() -> None:
    bench = Bench([1])
    watch = bench.watches[0]
    message = AppendEntriesResponse(NodeId(1), NodeId(2), Term(1), True, Index(3), Index(0), Term(0))
    for term, broken in ((1, True), (2, False)):
        watch.disk.durable.hard_state = HardState(Term(term), None, Index(0))
        if broken:
            refused("promise-not-durable", lambda: bench.ledger.promised(watch, message))
        else:
            bench.ledger.promised(watch, message)


def test_a_snapshot_is_durable_before_it_is_acknowledged() -> None:
    bench = Bench([])
    bench.commit(1, 1)
    bench.ledger.snapshot_made(bench.watches[0], snapshot(2))
    watch = bench.watches[2]
    watch.disk.durable.hard_state = HardState(Term(1), None, Index(0))

    def has_to(offset: int) -> None:
        bench.ledger.promised(watch, InstallSnapshotResponse(NodeId(3), NodeId(1), Term(1), Index(2), offset))

    has_to(len(b"state") - 1)  # the last byte is missing: that promises nothing
    refused("promise-not-durable", lambda: has_to(len(b"state")))
    watch.disk.durable.install(snapshot(2))
    has_to(len(b"state"))


def test_a_snapshot_is_acknowledged_also_by_who_has_its_entries() -> None:
    bench = Bench()
    bench.commit(1, 1)
    bench.ledger.snapshot_made(bench.watches[0], snapshot(2))
    watch = bench.watches[1]
    watch.disk.durable.hard_state = HardState(Term(1), None, Index(0))
    response = InstallSnapshotResponse(NodeId(2), NodeId(1), Term(1), Index(2), len(b"state"))
    bench.ledger.promised(watch, response)
    watch.disk.durable.entries.pop()
    refused("promise-not-durable", lambda: bench.ledger.promised(watch, response))


def vote(term: int, candidate: int, *, granted: bool = True) -> RequestVoteResponse:
    return RequestVoteResponse(NodeId(1), NodeId(candidate), Term(term), granted)


def test_a_vote_is_durable_before_it_is_given() -> None:
    bench = Bench()
    watch = bench.watches[0]
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(3), Index(0))
    bench.ledger.promised(watch, vote(2, 3))
    bench.ledger.promised(watch, vote(3, 2, granted=False))
    refused("promise-not-durable", lambda: bench.ledger.promised(watch, vote(3, 3)))


def test_a_candidate_asks_for_votes_only_when_its_own_is_durable() -> None:
    bench = Bench()
    watch = bench.watches[0]
    message = RequestVote(NodeId(1), NodeId(2), Term(2), Index(0), Term(0), False)
    refused("promise-not-durable", lambda: bench.ledger.promised(watch, message))
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(1), Index(0))
    bench.ledger.promised(watch, message)


def test_one_vote_a_term_also_across_a_crash() -> None:
    bench = Bench()
    watch = bench.watches[0]
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(3), Index(0))
    bench.ledger.promised(watch, vote(2, 3))
    watch.forget_volatile()
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(2), Index(0))
    refused("double-vote", lambda: bench.ledger.promised(watch, vote(2, 2)))


def test_a_wiped_node_has_given_no_vote() -> None:
    bench = Bench()
    watch = bench.watches[0]
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(3), Index(0))
    bench.ledger.promised(watch, vote(2, 3))
    watch.wiped()
    watch.disk.durable.hard_state = HardState(Term(2), NodeId(2), Index(0))
    bench.ledger.promised(watch, vote(2, 2))


def test_candidates_and_followers_are_no_leaders() -> None:
    bench = Bench()
    bench.step(1, Core(term=2, role=CANDIDATE))
    bench.step(2, Core(term=2, role=CANDIDATE))
    bench.step(3, Core(term=2))
    assert bench.ledger.leaders == {}
