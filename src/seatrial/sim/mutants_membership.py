"""Planted bugs in changes of who takes part: joint consensus, learners, removal, transfer of leadership.

Rule: each is a mistake that was made by somebody, or that the paper warns of.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_CORE: Final = "seatrial.raft.core"
_LEADERSHIP: Final = "seatrial.raft.leadership"
_LOG: Final = "seatrial.raft.log"
_QUORUM: Final = "seatrial.raft.quorum"
_RECONFIGURING: Final = "seatrial.raft.reconfiguring"

MEMBERSHIP_MUTANTS: Final = (
    Mutant(
        name="learner-counted",
        summary="A learner counts towards the majority that commits.",
        source="dissertation §4.2.1: non-voting members",
        module=_LEADERSHIP,
        before="self.voters = [self._of(node_id) for node_id in configuration.voters]",
        after="self.voters = [self._of(node_id) for node_id in (*configuration.voters, *configuration.learners)]",
        level="core",
    ),
    Mutant(
        name="joint-commits-with-one-half",
        summary="During joint consensus an entry is committed by the incoming majority alone.",
        source="Raft §6: agreement requires separate majorities of both",
        module=_QUORUM,
        before="return also if also < reached else reached",
        after="return reached",
        level="core",
    ),
    Mutant(
        name="joint-elects-with-one-half",
        summary="During joint consensus a leader is elected by the incoming majority alone.",
        source="Raft §6: elections require separate majorities of both",
        module=_QUORUM,
        before="return WON if incoming == outgoing == WON else PENDING",
        after="return incoming",
        level="core",
        cases="split-changes",
    ),
    Mutant(
        name="configuration-used-when-committed",
        summary="A configuration is not used from its entry's append on, but once the entry is committed.",
        source="Raft §6: a server always uses the latest configuration in its log, committed or not",
        module=_CORE,
        before="""\
        self.log.configuration_changed = False
        self.configuration = self.log.configurations.latest
""",
        after="""\
        self.log.configuration_changed = False
        self.configuration = self.log.configurations.at(self.log.commit_index)
""",
        level="core",
    ),
    Mutant(
        name="configuration-not-rolled-back",
        summary="A configuration stays in effect after its entry was replaced by another leader's.",
        source="dissertation §4.1: fall back to the previous configuration",
        module=_LOG,
        before="""\
            reached("a configuration was rolled back by truncation")
            self.configuration_changed = True
""",
        after="""\
            reached("a configuration was rolled back by truncation")
""",
        level="core",
        cases="split-changes",
    ),
    Mutant(
        name="configuration-lost-at-restart",
        summary="A restarted node knows the configuration of its snapshot, and not the entries that changed it.",
        source="etcd-io/raft: ConfState comes from the snapshot, later changes from the log",
        module=_LOG,
        before="            if index > snapshot_index:\n",
        after="            if index > last:\n",
        level="core",
    ),
    Mutant(
        name="configuration-of-snapshot-ignored",
        summary="A node that installs a snapshot keeps the configuration that it had.",
        source="Raft §7: the snapshot includes the latest configuration as of its last index",
        module=_LOG,
        before="self.configurations.restart_at(meta.last_included_index, meta.configuration)",
        after="self.configurations.restart_at(meta.last_included_index, self.configurations.latest)",
        level="core",
        cases="split-changes",
    ),
    Mutant(
        name="change-before-own-commit",
        summary="A leader changes the members before it has committed an entry of its own term.",
        source="the single-server change bug (Ongaro on raft-dev, 2015)",
        module=_RECONFIGURING,
        before="if commit_index < leadership.first_index:\n        reached(",
        after="if commit_index < 0:\n        reached(",
        level="core",
        cases="single-change",
    ),
    Mutant(
        name="change-while-pending",
        summary="A leader begins a change of members before the last one is committed.",
        source="dissertation §4.1: one change at a time",
        module=_RECONFIGURING,
        before="if index > commit_index:\n        reached(",
        after="if index > core.log.last_index:\n        reached(",
        level="core",
        cases="split-changes",
    ),
    Mutant(
        name="joint-never-left",
        summary="A new leader does not leave the joint consensus that its predecessor entered.",
        source="Raft §6: any leader, also a new one, completes the change once the joint entry is committed",
        module=_RECONFIGURING,
        before="if configuration.auto_leave and leadership.transfer_to is None:",
        after=(
            "if configuration.auto_leave and leadership.transfer_to is None "
            "and log.configurations.latest_index >= leadership.first_index:"
        ),
        level="core",
        cases="split-changes",
    ),
    Mutant(
        name="change-without-joint-consensus",
        summary="Any change of members, of however many voters, is entered directly.",
        source="Raft §6, figure 10: two disjoint majorities",
        module="seatrial.raft.membership",
        before="if len(voters ^ old) <= 1 and not change.explicit_leave:",
        after="if not change.explicit_leave:",
        level="core",
        cases="split-changes",
    ),
)
