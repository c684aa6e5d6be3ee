"""Members that come and go, as a machine of rules: what may be asked next depends on who is a member now.

Rules are for where a plan cannot be written down beforehand; each argument is relative (a time from now, the place of
a node among those that qualify), so that shrinking keeps the sense of what follows.  Every step of every node is
checked by the cluster itself; the end heals everything, and the cluster must recover.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seatrial.raft.config import RaftConfig
from seatrial.raft.errors import ProposalRefused
from seatrial.raft.ids import Index, NodeId
from seatrial.raft.membership import ADD_LEARNER, ADD_VOTER, REMOVE, ConfigurationChange
from seatrial.raft.messages import Configuration
from seatrial.sim.case import Case
from seatrial.sim.core import CoreCluster, SafetyViolation
from seatrial.sim.core.adapter import MakeCore, make_raft_node
from seatrial.sim.core.recovery import compare_replicas, connected_core, recover

MILLISECOND_US = 1_000
NODES, SPARES = 3, 2
places = st.integers(0, 9)


class Members(RuleBasedStateMachine):
    """Three members and two spares."""

    make_core: MakeCore = staticmethod(make_raft_node)

    @initialize(seed=st.integers(0, 1_000))
    def begin(self, seed: int) -> None:
        case = Case(level="core", seed=seed, nodes=NODES, spares=SPARES)
        self.cluster = CoreCluster(case, make_core=type(self).make_core)
        self.cluster.run_until_leader()

    # what there is to choose from

    def configuration(self) -> Configuration:
        leader = self.cluster.leader()
        return Configuration(()) if leader is None else leader.node.configuration

    def ask(self, operation: int, node_id: int) -> None:
        leader = self.cluster.leader()
        assert leader is not None
        change = ConfigurationChange([(operation, NodeId(node_id))], False)
        try:
            leader.call(lambda node, now_us: node.propose_configuration(change, now_us))
        except ProposalRefused as refused:
            assert str(refused), "a refusal says why"
        self.wait_a_little()

    def has_leader(self) -> bool:
        leader = self.cluster.leader()
        return leader is not None and not leader.paused

    def wait_a_little(self) -> None:
        """Long enough for a message, or an answer, or a save to be under way."""
        self.cluster.run_for(10 * MILLISECOND_US)

    def up(self) -> list[int]:
        return [node_id for node_id, host in self.cluster.hosts.items() if host.up]

    def down(self) -> list[int]:
        return [node_id for node_id, host in self.cluster.hosts.items() if not host.up]

    # rules

    @rule(for_ms=st.integers(1, 1_000))
    def wait(self, for_ms: int) -> None:
        self.cluster.run_for(for_ms * MILLISECOND_US)

    @precondition(lambda self: self.has_leader())
    @rule()
    def propose(self) -> None:
        try:
            self.cluster.propose()
        except ProposalRefused as refused:
            assert str(refused)
        self.wait_a_little()

    @precondition(lambda self: self.has_leader())
    @rule(place=places)
    def add_learner(self, place: int) -> None:
        known = self.configuration()
        strangers = [node_id for node_id in self.cluster.hosts if node_id not in (*known.voters, *known.learners)]
        if strangers:
            self.ask(ADD_LEARNER, strangers[place % len(strangers)])

    @precondition(lambda self: self.has_leader() and self.configuration().learners)
    @rule(place=places)
    def promote(self, place: int) -> None:
        learners = self.configuration().learners
        self.ask(ADD_VOTER, learners[place % len(learners)])

    @precondition(lambda self: self.has_leader())
    @rule(place=places)
    def remove(self, place: int) -> None:
        known = self.configuration()
        members = (*known.voters, *known.learners)
        self.ask(REMOVE, members[place % len(members)])

    @precondition(lambda self: self.up())
    @rule(place=places, power=st.booleans())
    def crash(self, place: int, power: bool) -> None:
        running = self.up()
        self.cluster.hosts[running[place % len(running)]].crash("lost" if power else "kept")

    @precondition(lambda self: self.down())
    @rule(place=places)
    def restart(self, place: int) -> None:
        stopped = self.down()
        self.cluster.hosts[stopped[place % len(stopped)]].start()

    @rule(one=places, other=places, both=st.booleans())
    def cut(self, one: int, other: int, both: bool) -> None:
        ids = sorted(self.cluster.hosts)
        pair = (ids[one % len(ids)], ids[other % len(ids)])
        if pair[0] != pair[1]:
            self.cluster.cut(*((pair, pair[::-1]) if both else (pair,)))

    @precondition(lambda self: any(link.effects for link in self.cluster.network.links.values()))
    @rule()
    def heal(self) -> None:
        self.cluster.heal()

    @invariant()
    def every_node_keeps_its_promises(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.check()

    def teardown(self) -> None:
        if not hasattr(self, "cluster") or sys.exception() is not None:
            return  # what was broken is not asked to recover
        cluster = self.cluster
        cluster.heal()
        for node_id in self.down():
            cluster.hosts[node_id].start()
        assert connected_core(cluster)
        recover(cluster, list(cluster.hosts))
        compare_replicas(cluster)


@pytest.mark.slow
def test_members_may_come_and_go_in_any_order() -> None:
    run_state_machine_as_test(
        Members,
        settings=settings(
            max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


class DiskWithoutConfigurations:
    """What a node reads at its start, but for the changes of members in its log."""

    def __init__(self, disk: Any) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def configuration_indexes(self) -> list[Index]:
        return []


def make_forgetful_core(config: RaftConfig, disk: Any, **keywords: Any) -> tuple[Any, Any]:
    """A node that knows after a restart only the members of its snapshot, or the first ones."""
    return make_raft_node(config, DiskWithoutConfigurations(disk), **keywords)  # type: ignore[arg-type]


class ForgetfulMembers(Members):
    make_core = staticmethod(make_forgetful_core)


@pytest.mark.slow
def test_the_rules_catch_a_core_that_forgets_changes_of_members() -> None:
    with pytest.raises(SafetyViolation):
        run_state_machine_as_test(
            seed(3)(ForgetfulMembers),  # finds it in a second; of six that were tried, the slowest took 18
            settings=settings(
                max_examples=1_000,
                stateful_step_count=50,
                deadline=None,
                database=None,
                derandomize=False,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
