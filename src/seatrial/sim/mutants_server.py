"""Planted bugs above the Raft core: state machines, Kafka's promises, the replica's wiring and the node.

Rule: each is a mistake that was made by somebody, or that the literature warns of.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_KEY_VALUE: Final = "seatrial.machines.kv"
_PARTITION_LOG: Final = "seatrial.machines.partition_log"
_PRODUCERS: Final = "seatrial.machines.producers"
_REPLICA: Final = "seatrial.server.replica"

MACHINE_MUTANTS: Final = (
    Mutant(
        name="compare-and-set-ignores-version",
        summary="A write that expects a version is applied whatever the version is.",
        source="the atomicity of compare-and-set; Jepsen's register workload",
        module=_KEY_VALUE,
        before="if command.expected_version not in (ANY_VERSION, version):",
        after="if command.expected_version not in (ANY_VERSION, version) and current is None:",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="retry-applied-twice",
        summary="A command that was applied before is applied again when its client repeats it.",
        source="dissertation §6.3: client sessions",
        module=_KEY_VALUE,
        before="known = self._sessions.find(command.session)",
        after="known = None",
        level="full",
        cases="kills",
    ),
    Mutant(
        name="sessions-not-in-snapshot",
        summary="The sessions are left out of a snapshot.",
        source="dissertation §6.3: the session table is part of the state",
        module=_KEY_VALUE,
        before="parts.append(self._sessions.pack())",
        after="parts.append(SessionTable().pack())",
        level="full",
        cases="kills",
    ),
    Mutant(
        name="no-op-takes-an-offset",
        summary="An entry without records takes an offset, and shifts all that follow.",
        source="KIP-101 and Redpanda's offset translator: Raft's own entries are not records",
        module=_PARTITION_LOG,
        before="        if entry.kind != COMMAND:\n            return None\n",
        after="        if entry.kind != COMMAND:\n            self._next_offset += 1\n            return None\n",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="refused-batch-shown",
        summary="A batch that was refused as a duplicate is shown to readers, and shifts all that follow.",
        source="KIP-98: a duplicate is acknowledged, and is not in the log twice",
        module=_PARTITION_LOG,
        before="if entry.kind != COMMAND or entry.index in self._refused:",
        after="if entry.kind != COMMAND:",
        level="full",
        cases="kills",
    ),
    Mutant(
        name="duplicate-accepted",
        summary="A batch that its producer repeats, as after a change of leader, is appended again.",
        source="KIP-98: idempotent producers; Jepsen on Redpanda 21.10 found duplicates",
        module=_PRODUCERS,
        before="return AppendError.NONE, batch.base_offset",
        after="return AppendError.NONE, -1",
        level="full",
        cases="kills",
    ),
    Mutant(
        name="producers-not-in-snapshot",
        summary="The table of idempotent producers is left out of a snapshot.",
        source="KIP-98: producer snapshot files",
        module=_PARTITION_LOG,
        before="for c in columns), self._producers.pack()))",
        after="for c in columns), ProducerTable().pack()))",
        level="full",
        cases="hand-overs",
    ),
)

KAFKA_MUTANTS: Final = (
    Mutant(
        name="fetch-skips-a-batch",
        summary="A fetch leaves out a batch whose last record is the one that was asked for.",
        source="an off-by-one between the last offset and the next; Kafka's ends are exclusive",
        module="seatrial.server.partition",
        before="if base_offset + count <= offset:",
        after="if base_offset + count <= offset + 1:",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="base-offset-not-patched",
        summary="A fetched batch carries the offset that its producer wrote into it.",
        source="Kafka protocol: the broker assigns base offsets",
        module="seatrial.kafka.records",
        before="return HEAD.pack(base_offset, batch_length, leader_epoch), batch[HEAD.size :]",
        after="return bytes(batch[: HEAD.size]), batch[HEAD.size :]",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="retention-deletes-all",
        summary="Where a partition holds too much, all its records are deleted, and not only what is too much.",
        source="Kafka's retention.bytes is how much stays; a limit that was taken for a trigger",
        module=_PARTITION_LOG,
        before="        kept = points.at(drop)\n",
        after="        kept = None if drop else points.at(0)\n",
        level="full",
        cases="deletions",
    ),
    Mutant(
        name="log-start-not-restored",
        summary="A replica that starts from a snapshot forgets where its log begins.",
        source="Kafka keeps log start offsets in a checkpoint of their own: a log's segments alone do not tell",
        module=_PARTITION_LOG,
        before="self._next_offset, self._log_start_offset, self._known_to = next_offset, start, known_to",
        after="self._next_offset, self._log_start_offset, self._known_to = next_offset, 0, known_to",
        level="full",
        cases="deletions",
    ),
)

SERVER_MUTANTS: Final = (
    Mutant(
        name="promises-before-save",
        summary="Votes and acknowledgements of a Ready leave together with its other messages.",
        source="etcd-io/raft: messages must be sent after the entries are saved",
        module=_REPLICA,
        before="            self.host.send(self.group, ready.messages)\n",
        after="            self.host.send(self.group, ready.messages + ready.messages_after_save)\n",
        level="full",
        cases="power-cuts",
    ),
    Mutant(
        name="another-entry-answers",
        summary="A waiting client is answered by whatever entry is applied at its index.",
        source="etcd-io/etcd and MIT 6.824: a proposal is known by its term and index, or by its id",
        module="seatrial.server.proposals",
        before="            if waiter.term < entry.term:",
        after="            if waiter.term < 0:",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="unknown-told-as-failed",
        summary="A client is told that its write surely did not happen, when that is not known.",
        source="Jepsen: a timeout is not a failure",
        module="seatrial.server.proposals",
        before='fail(waiter.future, OutcomeUnknown(f"lost the lead',
        after='fail(waiter.future, ProposalLost(f"lost the lead',
        level="full",
        cases="deaf-leaders",
    ),
    Mutant(
        name="snapshot-loses-last-entry",
        summary="A snapshot claims one entry more than the state in it has applied.",
        source="Raft §7: last included index",
        module=_REPLICA,
        before="meta = SnapshotMeta(self.last_applied, self.applied_term, ",
        after="meta = SnapshotMeta(Index(self.last_applied + 1), self.applied_term, ",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="compaction-of-unapplied",
        summary="A snapshot claims all that is committed, and the log behind it goes, applied or not.",
        source="Raft §7: a snapshot covers committed entries that were applied",
        module=_REPLICA,
        before="meta = SnapshotMeta(self.last_applied, self.applied_term, ",
        after="meta = SnapshotMeta(self.node.last_index, self.applied_term, ",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="snapshot-not-restored",
        summary="A follower that was sent a snapshot keeps its old state.",
        source="Raft §7, InstallSnapshot step 8",
        module=_REPLICA,
        before="    def _install(self, snapshot: Snapshot) -> None:\n        self.machine.restore(snapshot.data)\n",
        after="    def _install(self, snapshot: Snapshot) -> None:\n",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="leader-reads-its-own-state",
        summary="A leader answers reads from its state without asking whether it still leads.",
        source="dissertation §6.4; Jepsen on etcd and Consul (2014)",
        module="seatrial.server.key_value",
        before='if consistency == "stale" or self._unsafe_stale_reads:',
        after='if consistency == "stale" or self._replica.node.is_leader:',
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="passed-on-write-taken-twice",
        summary="A copy of a write that another node passed on is carried out again, after later writes.",
        source="found by our own replayed messages; Jepsen: retries of writes that are not idempotent",
        module="seatrial.server.proposals",
        before="self._taken[name] = None",
        after="self._taken.pop(name, None)",
        level="full",
        cases="replays",
    ),
    Mutant(
        name="request-ids-repeat",
        summary="Two requests have the same id, so that one is answered with the other's result.",
        source="correlation ids that are drawn twice",
        module="seatrial.server.broker",
        before="return self._rng.bytes(16)",
        after="return bytes(16)",
        level="full",
        cases="hand-overs",
    ),
    Mutant(
        name="quiet-for-ever",
        summary="A follower rests on its leader's host however long ago that was heard.",
        source="our own quiet groups; CockroachDB's quiescence wakes ranges when node liveness lapses",
        module="seatrial.server.quiet",
        before="if heard is None or now_us - heard.at_us >= self._fresh_us:",
        after="if heard is None:",
        level="full",
        cases="quiet-groups",
    ),
    Mutant(
        name="quiet-with-laggards",
        summary="A group falls quiet although a follower has not got all of its log.",
        source="our own quiet groups; CockroachDB quiesces a range only when all followers are caught up",
        module="seatrial.server.quiet",
        before="if any(follower.match_index != last_index for",
        after="if any(follower.match_index > last_index for",
        level="full",
        cases="quiet-groups",
    ),
    Mutant(
        name="end-of-a-body-taken-for-a-head",
        summary="The last piece of a request's body is bounded as the next head, and hung up on when it is long.",
        source="our own listener, found by real processes: whether a piece is of the body was asked after it was read",
        module="seatrial.server.http_connections",
        before=(
            "        of_body = before is not None and before.more_body\n"
            "        is_read = self._is_in_body\n"
            "        self._inner.data_received(data)\n"
        ),
        after=(
            "        self._inner.data_received(data)\n"
            "        of_body = before is not None and before.more_body\n"
            "        is_read = self._is_in_body\n"
        ),
        level="full",
        cases="large-values",
    ),
    Mutant(
        name="value-bounded-as-a-key",
        summary="A value is refused when it is longer than a key may be.",
        source="a bound that is mistaken for another: what is right in itself is refused as wrong",
        module="seatrial.server.admin",
        before="if len(value) > VALUE_BYTES_MAX:",
        after="if len(value) > KEY_BYTES_MAX:",
        level="full",
        cases="large-values",
    ),
    Mutant(
        name="batch-counted-in-bits",
        summary="A record batch is refused when it has more bits than max.message.bytes has bytes.",
        source="Kafka's max.message.bytes; units that are mixed up",
        module="seatrial.kafka.records",
        before="    if size > max_message_bytes:",
        after="    if size * 8 > max_message_bytes:",
        level="full",
        cases="large-values",
    ),
    Mutant(
        name="unknown-groups-deleted",
        summary="A node that starts deletes the groups that its own, old metadata does not name.",
        source="our own rule (`server.broker`): a group's files go only once this node is up to date",
        module="seatrial.server.broker",
        before="        config = self.config\n        commands = (",
        after="        config = self.config\n        self._remove_deleted_groups()\n        commands = (",
        level="full",
        cases="power-cuts",
    ),
)
