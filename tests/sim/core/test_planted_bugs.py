"""Bugs planted around a correct core: each is INVALID, by its name, and the untouched core VALID on the same case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import AppendEntries, AppendEntriesResponse, HardState, Message
from seatrial.raft.node import RaftNode
from seatrial.raft.reads import ReadState
from seatrial.raft.ready import Ready
from seatrial.sim.case import Case, Disk, Fault, Load, Raft
from seatrial.sim.core import CoreCluster, SafetyViolation, run_case
from seatrial.sim.core.recovery import compare_replicas, find_acknowledged
from seatrial.transport.filters import PASS, Replace, Verdict, on

SECOND = 1_000_000


class Around:
    """A core with something changed: whatever it does not define is the real node's."""

    def __init__(self, node: RaftNode) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    def take_ready(self) -> Ready | None:
        return self.ready() if self.has_ready() else None


def making(wrap: Callable[[RaftNode], Any], **settings: Any) -> Callable[..., tuple[Any, Any]]:
    def make_core(config: RaftConfig, disk: Any, **arguments: Any) -> tuple[Any, Any]:
        node = RaftNode(replace(config, **settings), disk, **arguments)
        return wrap(node), node._core

    return make_core


def replaced(ready: Ready, **changed: Any) -> Ready:
    for name, value in changed.items():
        setattr(ready, name, value)
    return ready


class AcknowledgesEarly(Around):
    """Sends what waits for the disk at once."""

    def ready(self) -> Ready:
        ready = self.node.ready()
        return replaced(ready, messages=[*ready.messages, *ready.messages_after_save], messages_after_save=[])


class ForgetsToSaveItsTerm(Around):
    """Never saves term and vote."""

    def ready(self) -> Ready:
        ready = self.node.ready()
        return replaced(ready, hard_state=HardState(Term(0), None, Index(0)) if ready.hard_state else None)


class ReadsWithoutAsking(Around):
    """Answers every read from what it has applied."""

    def __init__(self, node: RaftNode) -> None:
        super().__init__(node)
        self.reads: list[ReadState] = []

    def read_index(self, context: int, now_us: int) -> None:
        self.reads.append(ReadState(context, Index(self.node.last_applied or 1)))

    def has_ready(self) -> bool:
        return bool(self.reads) or self.node.has_ready()

    def ready(self) -> Ready:
        ready = self.node.ready()
        reads, self.reads = self.reads, []
        return replaced(ready, reads=[*ready.reads, *reads])


class SkipsAnEntry(Around):
    """Swallows one committed entry."""

    def ready(self) -> Ready:
        ready = self.node.ready()
        kept = [entry for entry in ready.committed if entry.index != 20]
        return replaced(ready, committed=kept)


class NeverCampaigns(Around):
    """Time passes, and nothing comes of it."""

    def tick(self, now_us: int) -> None:
        pass

    def next_deadline(self) -> int:
        return 1 << 60


class Chatters(Around):
    """Answers every message with two."""

    def step(self, message: Message, now_us: int) -> None:
        self.node.step(message, now_us)
        echo = AppendEntriesResponse(message.to, message.sender, Term(0), False, Index(0), Index(0), Term(0))
        self.node._core.messages += [echo, echo]


POWER_CUT = Fault(at_us=SECOND, kind="crash", duration_us=100_000, nodes=(1, 2, 3), mode="power")
CASE = Case(
    level="core",
    seed=3,
    duration_us=2 * SECOND,
    disk=Disk(sync_us=(2_000, 5_000), unsynced="lost"),
    faults=(POWER_CUT,),
)


@pytest.mark.parametrize(
    ("bug", "name"),
    [
        (AcknowledgesEarly, "promise-not-durable"),
        (ForgetsToSaveItsTerm, "promise-not-durable"),
        (SkipsAnEntry, "crash"),
        (NeverCampaigns, "liveness"),
    ],
)
def test_a_planted_bug_is_found_by_its_name_and_the_untouched_core_is_valid(bug: type[Around], name: str) -> None:
    assert [violation.name for violation in run_case(CASE, make_core=making(bug)).violations] == [name]
    assert run_case(CASE, make_core=making(Around)).violations == ()


def test_reads_that_nobody_confirmed_are_found() -> None:
    isolated = tuple(
        Fault(at_us=number * SECOND, kind="cut", duration_us=SECOND // 2, links=links_of(number))
        for number in (1, 2, 3)
    )
    case = Case(level="core", seed=3, duration_us=4 * SECOND, load=Load(keys=1, rate=200), faults=isolated)
    found = run_case(case, make_core=making(ReadsWithoutAsking)).violations
    assert [violation.name for violation in found] == ["nonlinearizable"]
    assert run_case(case).violations == ()


def links_of(node_id: int) -> tuple[tuple[int, int], ...]:
    return tuple((a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b and node_id in (a, b))


def test_votes_that_are_given_twice_are_found() -> None:
    forgetful = making(Around, unsafe=frozenset({"forget-vote"}))
    raft = Raft(pre_vote=False, check_quorum=False)
    cut = Fault(at_us=0, kind="delay", duration_us=2 * SECOND, links=links_of(1), value=100_000)
    names: set[str] = set()
    for seed in range(50):
        case = Case(level="core", seed=seed, duration_us=2 * SECOND, raft=raft, faults=(cut,))
        names |= {violation.name for violation in run_case(case, make_core=forgetful).violations}
        if names:
            break
    assert names & {"vote-changed", "double-vote", "election-safety"}


def test_a_message_storm_ends_the_run_and_is_named() -> None:
    outcome = run_case(CASE, make_core=making(Chatters), events_max=10_000)
    assert [violation.name for violation in outcome.violations] == ["event-storm"]


def test_a_lie_about_a_followers_log_is_found_as_a_commit_without_a_quorum() -> None:
    """An acknowledgement of entries that the follower does not have, made up by the network."""

    def rule(message: Message, now_us: int) -> Verdict:
        if isinstance(message, AppendEntries) and message.entries:
            last = message.entries[-1].index
            lie = AppendEntriesResponse(message.to, message.sender, message.term, True, Index(last), Index(0), Term(0))
            return Replace([lie])
        return PASS

    cluster = CoreCluster(Case(level="core", seed=1))
    cluster.run_until_leader()
    cluster.filter(on(rule))
    cluster.propose()
    with pytest.raises(SafetyViolation, match="committed-on-quorum"):
        cluster.run_for(SECOND)


def test_a_lost_acknowledged_write_is_found() -> None:
    cluster = CoreCluster(Case(level="core", seed=1, load=Load(rate=50)))
    cluster.add_clients()
    cluster.run_for(SECOND)
    find_acknowledged(cluster)
    index, key, value = cluster.recorder.acknowledged[-1]
    cluster.recorder.acknowledged[-1] = (index, key, value + 1)
    with pytest.raises(SafetyViolation, match="lost-write"):
        find_acknowledged(cluster)


def test_a_replica_that_differs_is_found_in_the_end() -> None:
    cluster = CoreCluster(Case(level="core", seed=1))
    cluster.run_until_leader()
    cluster.propose()
    cluster.run_for(SECOND)
    compare_replicas(cluster)
    cluster.hosts[1].machine._registers[0] = (99, 1)
    with pytest.raises(SafetyViolation, match="replicas-differ"):
        compare_replicas(cluster)
