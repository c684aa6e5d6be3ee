"""Every order of events that Hypothesis and chance can think of, with the safety properties checked after each.

The events: messages delivered in any order, late, twice or never; time at any node; saves that finish late or are
lost in a crash; partitions; proposals, reads, transfers, snapshots; nodes added, promoted, demoted, removed, several
at once, and wiped between removal and return.  The properties are those of figure 3, and that a read which is answered
is linearizable.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from raft_network import Host, Network

from seatrial.raft import (
    ADD_LEARNER,
    ADD_VOTER,
    REMOVE,
    ConfigurationChange,
    NotLeader,
    ProposalDropped,
    ProposalRefused,
    RaftNode,
)
from seatrial.raft.ids import EntryId, NodeId, Term
from seatrial.raft.membership import members
from seatrial.raft.messages import Entry, Message


class CheckedNetwork(Network):
    """A network whose saves finish only when told, and that remembers what the properties need."""

    def __init__(self, nodes: int, seed: int, spares: int = 0, **settings: Any) -> None:
        self.committed_in: dict[int, Term] = {}  # index -> the earliest term in which someone applied it
        super().__init__(nodes, seed=seed, spares=spares, **settings)
        self.before: dict[NodeId, tuple[RaftNode, Term, int]] = {}
        self.leader_logs: dict[Term, list[EntryId]] = {}
        self.read_floors: dict[int, int] = {}  # context -> what was committed when the read began
        self.contexts = 0
        self.repeatable: list[Message] = []
        for host in self.hosts.values():
            host.auto_sync = False

    # -- events ------------------------------------------------------------------------------------------------------

    def deliver_nth(self, number: int) -> None:
        if self.under_way:
            message = self.under_way.pop(number % len(self.under_way))
            self.repeatable = [*self.repeatable[-20:], message]
            self.deliver_one(message)

    def repeat_nth(self, number: int) -> None:
        if self.repeatable:
            self.deliver_one(self.repeatable[number % len(self.repeatable)])

    def lose_nth(self, number: int) -> None:
        if self.under_way:
            self.under_way.pop(number % len(self.under_way))

    def let_time_pass(self, host: Host, us: int) -> None:
        self.now_us += us
        if host.up:
            host.node.tick(self.now_us)
            host.pump()

    def tick_next(self) -> None:
        """Go on to the next deadline of all."""
        up = [host for host in self.hosts.values() if host.up]
        if up:
            host = min(up, key=lambda h: h.node.next_deadline())
            self.let_time_pass(host, max(0, host.node.next_deadline() - self.now_us))

    def save_one(self, host: Host) -> None:
        if host.up and host.saving:
            host.finish_one_save()
            host.pump()

    def propose_at(self, host: Host, size: int) -> None:
        if host.up:
            try:
                host.node.propose(b"x" * size, self.now_us)
            except (NotLeader, ProposalDropped):
                return
            host.pump()

    def forward_at(self, host: Host) -> None:
        if host.up:
            try:
                host.node.forward(b"forwarded", self.now_us)
            except (NotLeader, ProposalDropped):
                return
            host.pump()

    def read_at(self, host: Host) -> None:
        if host.up:
            self.contexts += 1
            try:
                host.node.read_index(self.contexts, self.now_us)
            except NotLeader:
                return
            self.read_floors[self.contexts] = max(self.committed, default=0)
            host.pump()

    def crash_or_restart(self, host: Host) -> None:
        if host.up:
            host.crash()
        else:
            host.start()

    def cut_off(self, host: Host) -> None:
        if self.cut:
            self.heal()
        else:
            self.isolate(host.node.node_id)

    def snapshot_at(self, host: Host, keep: int) -> None:
        if host.up and not host.saving and host.applied_index > host.node.status().snapshot_index:
            host.make_snapshot(keep=min(keep, host.applied_index + 1 - host.node.status().first_index))

    def transfer_at(self, host: Host, to: Host) -> None:
        if host.up:
            try:
                host.node.transfer_leadership(to.node.node_id, self.now_us)
            except (NotLeader, ValueError):
                return
            host.pump()

    def change_at(self, host: Host, changes: Sequence[tuple[int, int]], explicit_leave: bool) -> None:
        if host.up:
            wanted = [(operation, self._nth(number).node.node_id) for operation, number in changes]
            try:
                host.node.propose_configuration(ConfigurationChange(wanted, explicit_leave), self.now_us)
            except ProposalRefused:
                return
            host.pump()

    def leave_at(self, host: Host) -> None:
        if host.up:
            try:
                host.node.leave_joint(self.now_us)
            except ProposalRefused:
                return
            host.pump()

    def wipe_if_removed(self, host: Host) -> None:
        """As an operator does: only after the removal was seen to be committed, and not while another is joint."""
        leading = [other for other in self.hosts.values() if other.up and other.node.is_leader]
        if not leading:
            return
        leader = max(leading, key=lambda other: other.node.term).node
        configuration = leader.configuration
        settled = leader.commit_index >= leader.configuration_index and not configuration.voters_outgoing
        current = leader.status().commit_index in self.committed
        if settled and current and host.node.node_id not in members(configuration):
            host.wipe()
            host.start()

    def _nth(self, number: int) -> Host:
        return self.hosts[NodeId(1 + number % len(self.hosts))]

    def campaign_at(self, host: Host) -> None:
        if host.up:
            host.node.campaign(self.now_us)
            host.pump()

    def unreachable_at(self, host: Host, peer: Host) -> None:
        if host.up:
            host.node.report_unreachable(peer.node.node_id)
            host.pump()

    # -- properties --------------------------------------------------------------------------------------------------

    def check_applied(self, host: Host, entry: Entry) -> None:
        super().check_applied(host, entry)
        self.committed_in.setdefault(entry.index, host.node.term)

    def check_all(self) -> None:
        for host in self.hosts.values():
            if host.up:
                self._check_monotonic(host)
                self._check_reads(host)
                if host.node.is_leader:
                    self._check_leader(host)
        self.check_logs()

    def _check_monotonic(self, host: Host) -> None:
        status = host.node.status()
        life, term, commit_index = self.before.get(host.node.node_id, (host.node, Term(0), 0))
        if life is host.node:
            assert status.term >= term, "a term went back"
            assert status.commit_index >= commit_index, "a commit index went back"
        self.before[host.node.node_id] = (host.node, status.term, status.commit_index)
        assert status.last_applied <= status.commit_index <= status.last_index
        assert status.durable_index <= status.last_index

    def _check_reads(self, host: Host) -> None:
        for state in host.reads:
            floor = self.read_floors.pop(state.context)  # a read that is answered twice fails here
            assert state.index == 0 or state.index >= floor, f"stale read: {state}, but {floor} was committed"
        host.reads = []

    def _check_leader(self, host: Host) -> None:
        term, log = host.node.term, host.log()
        held = {entry_id.index: entry_id.term for entry_id in log}
        first = host.node.status().first_index
        for index, entry in self.committed.items():
            if index >= first and self.committed_in[index] <= term:
                assert held.get(entry.index) == entry.term, f"leader completeness: {entry} is not in {log}"
        before = self.leader_logs.get(term, [])
        kept = [entry_id for entry_id in before if entry_id.index >= first]
        assert log[: len(kept)] == kept, f"leader append-only: {before} became {log}"
        self.leader_logs[term] = log


SETTINGS = st.fixed_dictionaries(
    {
        "pre_vote": st.booleans(),
        "check_quorum": st.just(True),
        "lease_reads": st.booleans(),
        "max_message_bytes": st.sampled_from([20, 100, 1 << 20]),
        "max_inflight_messages": st.sampled_from([1, 2, 256]),
        "max_uncommitted_bytes": st.sampled_from([50, 1 << 20]),
        "snapshot_chunk_bytes": st.sampled_from([64, 1 << 20]),
    }
)
NUMBERS = st.integers(0, 30)
WHO = st.integers(0, 4)
OPERATIONS = st.sampled_from([ADD_VOTER, ADD_VOTER, ADD_LEARNER, REMOVE])


class AnyOrder(RuleBasedStateMachine):
    """Hypothesis chooses the events, and shrinks what fails."""

    @initialize(nodes=st.sampled_from([3, 3, 2, 5]), seed=st.integers(0, 1000), chosen=SETTINGS)
    def begin(self, nodes: int, seed: int, chosen: dict[str, Any]) -> None:
        self.network = CheckedNetwork(nodes, seed, spares=1, **chosen)

    def host(self, number: int) -> Host:
        return self.network.hosts[NodeId(1 + number % len(self.network.hosts))]

    @rule(who=WHO)
    def elect(self, who: int) -> None:
        """A shortcut to where it becomes interesting: enough undisturbed steps for an election."""
        self.network.now_us += 300_000
        self.network.campaign_at(self.host(who))
        for _ in range(4 * len(self.network.hosts)):
            self.network.deliver_nth(0)
            for host in self.network.hosts.values():
                self.network.save_one(host)

    @rule(count=NUMBERS)
    def settle(self, count: int) -> None:
        for _ in range(count):
            self.network.deliver_nth(0)
            for host in self.network.hosts.values():
                self.network.save_one(host)

    @rule(number=NUMBERS)
    def deliver(self, number: int) -> None:
        self.network.deliver_nth(number)

    @rule(number=NUMBERS)
    def repeat(self, number: int) -> None:
        self.network.repeat_nth(number)

    @rule(number=NUMBERS)
    def lose(self, number: int) -> None:
        self.network.lose_nth(number)

    @rule()
    def tick(self) -> None:
        self.network.tick_next()

    @rule(who=WHO, us=st.integers(0, 400_000))
    def let_time_pass(self, who: int, us: int) -> None:
        self.network.let_time_pass(self.host(who), us)

    @rule(who=WHO)
    def save(self, who: int) -> None:
        self.network.save_one(self.host(who))

    @rule(who=WHO, size=st.sampled_from([0, 1, 30]))
    def propose(self, who: int, size: int) -> None:
        self.network.propose_at(self.host(who), size)

    @rule(who=WHO)
    def forward(self, who: int) -> None:
        self.network.forward_at(self.host(who))

    @rule(who=WHO)
    def read(self, who: int) -> None:
        self.network.read_at(self.host(who))

    @rule(who=WHO)
    def crash_or_restart(self, who: int) -> None:
        self.network.crash_or_restart(self.host(who))

    @rule(who=WHO)
    def cut_off_or_heal(self, who: int) -> None:
        self.network.cut_off(self.host(who))

    @rule(who=WHO, keep=st.integers(0, 3))
    def snapshot(self, who: int, keep: int) -> None:
        self.network.snapshot_at(self.host(who), keep)

    @rule(who=WHO, to=WHO)
    def transfer(self, who: int, to: int) -> None:
        self.network.transfer_at(self.host(who), self.host(to))

    @rule(who=WHO, changes=st.lists(st.tuples(OPERATIONS, WHO), min_size=1, max_size=3), explicit=st.booleans())
    def change(self, who: int, changes: list[tuple[int, int]], explicit: bool) -> None:
        self.network.change_at(self.host(who), changes, explicit)

    @rule(who=WHO)
    def leave(self, who: int) -> None:
        self.network.leave_at(self.host(who))

    @rule(who=WHO, peer=WHO)
    def unreachable(self, who: int, peer: int) -> None:
        self.network.unreachable_at(self.host(who), self.host(peer))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "network"):
            self.network.check_all()


AnyOrder.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_any_order_of_events_is_safe = pytest.mark.slow(AnyOrder.TestCase)


def walk(seed: int, steps: int) -> CheckedNetwork:
    """A long random walk, with settings and probabilities of its own (swarm testing)."""
    rng = random.Random(seed)
    spares = rng.choice([0, 1, 2, 3])
    network = CheckedNetwork(
        rng.choice([1, 2, 3, 3, 3, 4, 5]),
        seed,
        spares,
        pre_vote=rng.random() < 0.7,
        lease_reads=rng.random() < 0.5,
        max_message_bytes=rng.choice([20, 200, 1 << 20]),
        max_inflight_messages=rng.choice([1, 3, 256]),
        max_uncommitted_bytes=rng.choice([100, 1 << 20]),
        snapshot_chunk_bytes=rng.choice([100, 1 << 20]),
    )
    hosts = list(network.hosts.values())

    def who() -> Host:
        return rng.choice(hosts)

    def number() -> int:
        return 0 if rng.random() < in_order else rng.randrange(1000)

    def leader() -> Host:
        return max(hosts, key=lambda host: (host.up and host.node.is_leader, host.node.term))

    def changes() -> list[tuple[int, int]]:
        operations = rng.choices([ADD_VOTER, ADD_LEARNER, REMOVE], weights=[4, 2, 2], k=rng.choice([1, 1, 1, 2, 3]))
        return [(operation, rng.randrange(len(hosts))) for operation in operations]

    in_order = rng.choice([0.3, 0.9, 1.0])
    pace = rng.choice([1, 1, 3, 6])  # how much gets done between two things that go wrong
    events: list[tuple[float, Callable[[], None]]] = [
        (40.0 * pace, lambda: network.deliver_nth(number())),
        (25.0 * pace, lambda: network.save_one(who())),
        (4.0, network.tick_next),
        (4.0, lambda: network.propose_at(who(), rng.choice([0, 1, 30]))),
        (1.0, lambda: network.forward_at(who())),
        (2.0, lambda: network.read_at(who())),
        (rng.choice([0, 1, 4]), lambda: network.lose_nth(number())),
        (rng.choice([0, 1, 4]), lambda: network.repeat_nth(rng.randrange(1000))),
        (rng.choice([0, 0.5, 2]), lambda: network.let_time_pass(who(), rng.randrange(200_000))),
        (rng.choice([0, 0.1, 0.5]), lambda: network.crash_or_restart(who())),
        (rng.choice([0, 0.1, 0.3]), lambda: network.cut_off(who())),
        (rng.choice([0, 0.3, 1]), lambda: network.snapshot_at(who(), rng.randrange(4))),
        (rng.choice([0, 0.2]), lambda: network.transfer_at(who(), who())),
        (rng.choice([0, 0.2]), lambda: network.campaign_at(who())),
        (rng.choice([0, 0.3]), lambda: network.unreachable_at(who(), who())),
        (rng.choice([0, 1, 3]) if spares else 0, lambda: network.change_at(leader(), changes(), rng.random() < 0.2)),
        (0.5 if spares else 0, lambda: network.leave_at(leader())),
        (rng.choice([0, 0.5]) if spares else 0, lambda: network.wipe_if_removed(who())),
    ]
    chosen = rng.choices([event for _, event in events], weights=[weight for weight, _ in events], k=steps)
    for count, event in enumerate(chosen):
        event()
        if count % 7 == 0:
            network.check_all()
    return network


def heal(network: CheckedNetwork) -> None:
    """The liveness phase: everyone back, nothing lost any more."""
    network.heal()
    for host in network.hosts.values():
        host.auto_sync = True
        if not host.up:
            host.start()
        host.sync()
        network.snapshot_at(host, 0)  # whoever is behind must get by without the entries
    network.advance(5_000_000)
    if network.leader().node.configuration.voters_outgoing:
        network.leave_at(network.leader())  # it was entered with explicit leave
        network.advance(2_000_000)
    network.propose(b"after the storm")
    network.advance(1_000_000)
    network.check_all()


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_a_random_walk_is_safe_and_ends_well_once_the_storm_is_over(block: int) -> None:
    for seed in range(block * 5, block * 5 + 5):
        network = walk(seed, 1500)
        heal(network)
        taking_part = members(network.leader().node.committed_configuration)
        assert not network.leader().node.configuration.voters_outgoing, f"seed {seed}: joint consensus was not left"
        machines = [network[node_id].applied for node_id in taking_part]
        assert all(machine == machines[0] for machine in machines), f"seed {seed}: machines differ"
        assert machines[0][-1].data == b"after the storm", f"seed {seed}: no progress after healing"
