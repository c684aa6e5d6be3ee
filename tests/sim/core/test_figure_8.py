"""Raft's figure 8, as a directed scenario: random search does not get there (0 in 4,000 seeds of a prototype)."""

from __future__ import annotations

import pytest

from seatrial.raft.messages import AppendEntries, Message
from seatrial.raft.quorum import majority_size
from seatrial.sim.case import Case, Raft
from seatrial.sim.core import CoreCluster, SafetyViolation
from seatrial.sim.core.host import Host
from seatrial.transport.filters import PASS, Replace, Verdict, drop, on

SECOND = 1_000_000
# One entry a message, and nobody campaigns by itself.
RAFT = Raft(pre_vote=False, check_quorum=False, election_timeout_us=100 * SECOND, max_message_bytes=1)


def elect(cluster: CoreCluster, host: Host) -> None:
    """Campaign until it leads: its first terms may be taken."""
    while not host.node.is_leader:
        host.call(lambda node, now_us: node.campaign(now_us))
        cluster.run_for(SECOND // 20)


def strip_own_entries(message: Message, now_us: int) -> Verdict:
    """Old entries travel without the leader's own first one, which would make their commit right."""
    if isinstance(message, AppendEntries) and any(entry.term == message.term for entry in message.entries):
        stripped = AppendEntries(
            message.sender,
            message.to,
            message.term,
            message.prev_log_index,
            message.prev_log_term,
            message.leader_commit,
            [],
        )
        return Replace([stripped])
    return PASS


def to_figure_8_c(cluster: CoreCluster) -> tuple[int, int]:
    """An old leader, elected again, has brought its old entry to a majority: (index, term) of the entry."""
    one, _, _, _, five = cluster.hosts.values()
    elect(cluster, one)
    cluster.run_for(SECOND)
    # (a) Node 1 leads, and brings an entry to node 2 alone.
    cut = cluster.cut((1, 3), (1, 4), (1, 5))
    old = cluster.propose(at=1)
    cluster.run_for(SECOND // 5)
    # (b) Node 1 crashes; node 5 is elected by 3 and 4, has an entry at that index that nobody gets, and crashes.
    one.crash("kept")
    cluster.remove(cut)
    alone = cluster.filter(drop(AppendEntries, from_=5))
    elect(cluster, five)
    cluster.run_for(SECOND // 5)
    five.crash("kept")
    alone.remove()
    # (c) Node 1 leads again, and the old entry reaches a majority.
    cluster.filter(on(strip_own_entries, AppendEntries))
    one.start()
    elect(cluster, one)
    cluster.run_for(SECOND)
    return old.index, old.term


def test_an_old_entry_on_a_majority_is_not_committed_by_counting_and_may_be_overwritten() -> None:
    cluster = CoreCluster(Case(level="core", seed=1, nodes=5, raft=RAFT))
    index, term = to_figure_8_c(cluster)
    one, _, _, _, five = cluster.hosts.values()
    holders = [host for host in cluster.hosts.values() if host.disk.durable.term(index) == term]
    assert len(holders) >= majority_size(5)
    assert five.disk.durable.term(index) == term + 1, "node 5 holds another entry there, of a later term"
    assert cluster.ledger.committed < index, "and the old one is not committed by being on a majority"
    one.crash("kept")
    cluster.filters.clear()
    # (d) Node 5 comes back, is elected, for its last term is later, and overwrites the old entry everywhere.
    five.start()
    elect(cluster, five)
    cluster.run_until(lambda: cluster.ledger.committed > index)
    assert cluster.ledger.terms[index] == term + 1
    one.start()
    cluster.run_until(lambda: one.disk.durable.term(index) == term + 1)
    cluster.check()


def test_a_leader_that_counts_old_entries_is_found_in_the_scenario() -> None:
    """The bug of figure 8, planted from outside: node 1 is made to take the old entry as committed."""
    cluster = CoreCluster(Case(level="core", seed=1, nodes=5, raft=RAFT))
    index, _ = to_figure_8_c(cluster)
    one, _, _, _, five = cluster.hosts.values()
    one.core.log.commit_to(index)
    cluster.check()
    assert cluster.ledger.committed == index
    one.crash("kept")
    five.start()
    with pytest.raises(SafetyViolation, match="leader-completeness"):
        elect(cluster, five)
