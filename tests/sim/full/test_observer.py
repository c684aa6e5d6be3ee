"""The observer tells each broken promise the moment it is broken, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.machines.partition_log import PartitionLog, encode_append, encode_trim
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.messages import (
    COMMAND,
    AppendEntriesResponse,
    Configuration,
    Entry,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestVoteResponse,
    SnapshotMeta,
)
from seatrial.server.errors import StartError
from seatrial.server.replica import ReplicaOptions
from seatrial.sim.case import Case, Load
from seatrial.sim.full.observer import Observer
from seatrial.sim.world import World

GROUP = GroupId(16)


class FakeRaft:
    """As much of a Raft node as the observer looks at."""

    def __init__(self) -> None:
        self.is_leader = False
        self.term = Term(1)
        self.terms: dict[int, int] = {}

    def entry_term(self, index: int) -> int | None:
        return self.terms.get(index)


class FakeMachine:
    digest = ""

    def __init__(self) -> None:
        self.applied: list[Entry] = []

    def apply(self, entry: Entry) -> int:
        self.applied.append(entry)
        return len(self.applied)

    def snapshot(self) -> bytes:
        return b""

    def restore(self, data: bytes) -> None: ...


class FakeStorage:
    snapshot_meta = None

    def __init__(self, hard_state: Any) -> None:
        self.hard_state = hard_state
        self.last_index = Index(hard_state.last_index)


class FakeHardState:
    """And what of the log is on the disk with it."""

    def __init__(self, term: int = 0, voted_for: int | None = None, last_index: int = 0) -> None:
        self.term, self.voted_for, self.last_index = term, voted_for, last_index


class FakeReplica:
    def __init__(self, machine: FakeMachine, hard_state: Any) -> None:
        self.group, self.name, self.last_applied = GROUP, "t/0", Index(0)
        self.node, self.machine, self.storage = FakeRaft(), machine, FakeStorage(hard_state)


class FakeQuiet:
    groups_min = idle_beats = 0


class FakeMultiRaft:
    """Opens fake replicas; what the observer wraps is called through it, as the server calls it."""

    def __init__(self, hard_state: Any) -> None:
        self._raft = RaftConfig(node_id=NodeId(1))
        self._quiet = FakeQuiet()
        self.hard_state = hard_state
        self.options: ReplicaOptions | None = None
        self.sent: list[Any] = []

    def open(self, group: GroupId, name: str, machine: Any, voters: Any, options: ReplicaOptions) -> FakeReplica:
        self.options = options
        return FakeReplica(machine, self.hard_state)

    def role_changed(self, replica: Any) -> None: ...

    def remove_group(self, group: GroupId, *, done: Any = None) -> None: ...

    def send(self, group: GroupId, messages: Any) -> None:
        self.sent.extend(messages)


class FakeRetaining:
    free_bytes = 0


class FakeNode:
    def __init__(self, hard_state: Any = None) -> None:
        self.multiraft = FakeMultiRaft(hard_state or FakeHardState())
        self.retaining = FakeRetaining()


class Bench:
    def __init__(self, case: Case | None = None) -> None:
        self.observer = Observer(World(1), case or Case(level="full", seed=1))

    def life(self, node_id: int, hard_state: Any = None) -> tuple[Any, Any]:
        node = FakeNode(hard_state)
        self.observer.attach(node_id, node, lambda point: False)  # type: ignore[arg-type]
        replica: Any = node.multiraft.open(GROUP, "t/0", FakeMachine(), [], ReplicaOptions())
        return node.multiraft, replica

    def names(self) -> list[str]:
        return list(self.observer.violations)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def entry(index: int, term: int = 1, data: bytes = b"x") -> Entry:
    return Entry(Term(term), Index(index), 0, data)


def test_replicas_that_apply_the_same_are_fine(bench: Bench) -> None:
    for node_id in (1, 2):
        _, replica = bench.life(node_id)
        assert [replica.machine.apply(entry(index)) for index in (1, 2, 3)] == [1, 2, 3]
    assert bench.names() == []


@pytest.mark.parametrize("other", [entry(1, term=2), entry(1, data=b"y")])
def test_another_entry_at_the_same_index_is_told(bench: Bench, other: Entry) -> None:
    bench.life(1)[1].machine.apply(entry(1))
    bench.life(2)[1].machine.apply(other)
    assert bench.names() == ["state-machine-safety"]


def test_a_gap_is_told_and_a_restored_snapshot_is_none(bench: Bench) -> None:
    _, replica = bench.life(1)
    replica.machine.apply(entry(1))
    replica.machine.restore(b"")
    replica.machine.apply(entry(7))
    assert bench.names() == []
    replica.machine.apply(entry(9))
    assert bench.names() == ["applied-in-order"]


class Forgetful(PartitionLog):
    """As if it had been restored without the start of its log."""

    @property
    def log_start_offset(self) -> int:
        return 0


@pytest.mark.parametrize(("restored", "broken"), [(PartitionLog(), []), (Forgetful(), ["log-start-went-back"])])
def test_a_log_that_starts_earlier_than_for_another_replica_is_told(restored: PartitionLog, broken: list[str]) -> None:
    bench = Bench(Case(level="full", seed=1, load=Load(deletions=1.0)))
    commands = [encode_append(b"batch", record_count=9), encode_trim(4), encode_append(b"more", record_count=1)]
    for node_id, machine in ((1, PartitionLog()), (2, restored)):
        multiraft, _ = bench.life(node_id)
        replica = multiraft.open(GROUP, "t/0", machine, [], ReplicaOptions())
        for index, command in enumerate(commands, 1):
            replica.machine.apply(Entry(Term(1), Index(index), COMMAND, command))
    assert bench.names() == broken


def test_two_leaders_of_one_term_are_told_and_one_in_each_is_fine(bench: Bench) -> None:
    for node_id, term in ((1, 1), (2, 2)):
        multiraft, replica = bench.life(node_id)
        replica.node.is_leader, replica.node.term = True, Term(term)
        multiraft.role_changed(replica)
    assert bench.names() == []
    multiraft, replica = bench.life(3)
    replica.node.is_leader, replica.node.term = True, Term(2)
    multiraft.role_changed(replica)
    assert bench.names() == ["election-safety"]


@pytest.mark.parametrize(
    ("held", "broken"), [({1: 1}, []), ({}, ["leader-completeness"]), ({1: 2}, ["leader-completeness"])]
)
def test_a_leader_without_what_was_committed_is_told(bench: Bench, held: dict[int, int], broken: list[str]) -> None:
    bench.life(1)[1].machine.apply(entry(1))
    multiraft, replica = bench.life(2)
    replica.node.is_leader, replica.node.term, replica.node.terms = True, Term(3), held
    multiraft.role_changed(replica)
    assert bench.names() == broken


@pytest.mark.parametrize(
    ("known", "broken"),
    [(FakeHardState(5, 2), []), (FakeHardState(6, None), []), (FakeHardState(5, None), ["promise-not-durable"])],
)
def test_a_vote_that_left_and_is_forgotten_is_told(bench: Bench, known: FakeHardState, broken: list[str]) -> None:
    multiraft, _ = bench.life(1)
    vote = RequestVoteResponse(NodeId(1), NodeId(2), Term(5), True)
    multiraft.send(GROUP, [vote])
    bench.life(1, known)
    assert bench.names() == broken


ACKNOWLEDGED = AppendEntriesResponse(NodeId(1), NodeId(2), 5, True, 7, 0, 0)
REFUSED = AppendEntriesResponse(NodeId(1), NodeId(2), 5, False, 7, 0, 0)


@pytest.mark.parametrize(
    ("response", "known", "broken"),
    [
        (ACKNOWLEDGED, FakeHardState(5, last_index=7), []),
        (ACKNOWLEDGED, FakeHardState(6, last_index=6), []),  # a later leader may have cut it off
        (ACKNOWLEDGED, FakeHardState(5, last_index=6), ["promise-not-durable"]),
        (ACKNOWLEDGED, FakeHardState(4, last_index=7), ["promise-not-durable"]),
        (REFUSED, FakeHardState(5, last_index=6), []),
    ],
)
def test_entries_that_were_acknowledged_and_are_gone_are_told(
    bench: Bench, response: AppendEntriesResponse, known: FakeHardState, broken: list[str]
) -> None:
    multiraft, _ = bench.life(1)
    multiraft.send(GROUP, [response])
    bench.life(1, known)
    assert bench.names() == broken


@pytest.mark.parametrize(
    ("offset", "last_index", "broken"), [(100, 7, []), (99, 0, []), (100, 6, ["promise-not-durable"])]
)
def test_a_snapshot_that_was_acknowledged_and_is_gone_is_told(
    bench: Bench, offset: int, last_index: int, broken: list[str]
) -> None:
    leader, _ = bench.life(2)
    multiraft, _ = bench.life(1)
    meta = SnapshotMeta(Index(7), Term(4), Configuration([NodeId(1), NodeId(2)]))
    leader.send(GROUP, [InstallSnapshot(NodeId(2), NodeId(1), Term(5), meta, 60, 100, b"x" * 40)])
    multiraft.send(GROUP, [InstallSnapshotResponse(NodeId(1), NodeId(2), Term(5), Index(7), offset)])
    bench.life(1, FakeHardState(5, last_index=last_index))
    assert bench.names() == broken


def test_a_replica_that_was_given_up_has_promised_nothing(bench: Bench) -> None:
    multiraft, _ = bench.life(1)
    multiraft.send(GROUP, [ACKNOWLEDGED])
    multiraft.remove_group(GROUP)
    bench.life(1, FakeHardState())
    assert bench.names() == []


def test_a_refused_disk_is_told_unless_it_was_damaged(bench: Bench) -> None:
    bench.observer.damaged.add(1)
    bench.observer.exited(1, StartError(13, "damaged"))
    bench.observer.exited(2, StartError(14, "full"))
    assert bench.names() == []
    bench.observer.exited(2, StartError(13, "damaged"))
    assert bench.names() == ["damage"]


def test_a_case_s_settings_reach_the_groups(bench: Bench) -> None:
    multiraft, _ = bench.life(1)
    raft = Case(level="full", seed=1).raft
    assert multiraft.options.snapshot_entries == raft.snapshot_entries
    assert multiraft._raft.max_inflight_messages == raft.max_inflight_messages
