"""Planted bugs in the Raft core: snapshots, reads, and what keeps replication going.

Rule: each is a mistake that was made by somebody, or that the paper warns of.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_ELECTION: Final = "seatrial.raft.election"
_FOLLOWING: Final = "seatrial.raft.following"
_PROGRESS: Final = "seatrial.raft.progress"
_READING: Final = "seatrial.raft.reading"
_REPLICATION: Final = "seatrial.raft.replication"

SNAPSHOT_MUTANTS: Final = (
    Mutant(
        name="snapshot-chunk-twice",
        summary="A chunk of a snapshot that comes twice is put in twice.",
        source="Raft §7, InstallSnapshot step 3: at the given offset",
        module="seatrial.raft.snapshots",
        before="if chunk.offset == len(self._data):",
        after="if chunk.offset <= len(self._data):",
        level="core",
        cases="many-chunks",
    ),
    Mutant(
        name="snapshot-chunks-mixed",
        summary="Chunks of two snapshots, of two leaders, are put together.",
        source="Raft §7",
        module=_FOLLOWING,
        before="if incoming is None or not incoming.belongs(message):",
        after="if incoming is None:",
        level="core",
        cases="many-chunks",
    ),
    Mutant(
        name="stale-snapshot-installed",
        summary="A snapshot that is behind what is committed here is installed all the same.",
        source="etcd-io/raft `restore`: ignore a snapshot at or below the commit index",
        module=_FOLLOWING,
        before="if message.meta.last_included_index <= core.log.commit_index:",
        after="if message.meta.last_included_index <= 0:",
        level="core",
        cases="many-chunks",
    ),
    Mutant(
        name="snapshot-acked-before-save",
        summary="A follower says that it has a snapshot before the snapshot is on its disk.",
        source="Raft §7 and figure 2, persistent state: the leader forgets what the follower claims to have",
        module=_FOLLOWING,
        before="core.messages_after_save.append(\n        InstallSnapshotResponse(",
        after="core.messages.append(\n        InstallSnapshotResponse(",
        level="core",
    ),
)

READ_MUTANTS: Final = (
    Mutant(
        name="read-index-without-quorum",
        summary="A leader answers reads without asking whether it still leads.",
        source="dissertation §6.4; etcd and Consul stale reads (Jepsen 2014)",
        module=_READING,
        before="reached = leadership.quorum_round()",
        after="reached = leadership.round",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="read-before-own-commit",
        summary="A new leader answers reads before it has committed an entry of its own term.",
        source="dissertation §6.4, step 1; Raft §8",
        module=_READING,
        before="return core.log.commit_index >= leadership.first_index",
        after="return True",
        level="core",
    ),
    Mutant(
        name="read-by-earlier-round",
        summary="A read is confirmed by answers to heartbeats that were sent before it came.",
        source="dissertation §6.4, step 3",
        module="seatrial.raft.reads",
        before="self._confirming[0].round <= number:",
        after="self._confirming[0].round <= number + 1:",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="deposed-leader-answers-reads",
        summary="A leader that steps down answers the reads that it could not confirm.",
        source="dissertation §6.4",
        module="seatrial.raft.core",
        before="self.answer_read(read.requester, read.context, 0)",
        after="self.answer_read(read.requester, read.context, read.index)",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="read-before-applied",
        summary="A follower answers a read from what it has applied, and not from what its leader had committed.",
        source="dissertation §6.4, step 4",
        module=_READING,
        before="ReadState(message.context, message.index)",
        after="ReadState(message.context, Index(min(message.index, core.log.last_applied)))",
        level="core",
    ),
    Mutant(
        name="lease-ignores-drift",
        summary="A leader trusts its lease as long as followers keep their promise by their own clocks.",
        source="dissertation §6.4.1: bounded clock drift",
        module="seatrial.raft.config",
        before="return self.election_timeout_us * (1_000_000 - self.lease_drift_ppm) // 1_000_000",
        after="return self.election_timeout_us",
        level="core",
        cases="leases",
    ),
    Mutant(
        name="lease-survives-transfer",
        summary="A leader reads by its lease after it has told another node to campaign at once.",
        source="dissertation §6.4.1; TiKV suspects its lease once it has sent MsgTimeoutNow",
        module="seatrial.raft.transfer",
        before="leadership.lease.give_up()\n        ",
        after="",
        level="core",
        cases="leases",
    ),
    Mutant(
        name="lease-promise-forgotten",
        summary="A restarted node helps to elect another leader while the lease it granted still runs.",
        source="dissertation §6.4.1: the promise must outlive the process that gave it",
        module="seatrial.raft.core",
        before="self.sticky_until_us += config.election_timeout_us",
        after="self.sticky_until_us += 0",
        level="core",
        cases="leases",
    ),
)

PROGRESS_MUTANTS: Final = (
    Mutant(
        name="conflict-never-backs-off",
        summary="A leader whose append was refused sends the same one again.",
        source="Raft §5.3: decrement nextIndex and retry",
        module=_PROGRESS,
        before="prev_log_index <= self.match_index or prev_log_index >= self.next_index:",
        after="prev_log_index <= self.next_index:",
        level="core",
    ),
    Mutant(
        name="window-never-freed",
        summary="What was acknowledged still counts as in flight, until nothing more may be sent.",
        source="etcd-io/raft `Inflights.FreeLE`",
        module=_PROGRESS,
        before="while sent and sent[0][0] <= match_index:",
        after="while sent and sent[0][0] < match_index - len(sent):",
        level="core",
    ),
    Mutant(
        name="probe-never-resumed",
        summary="A probe that was lost is never sent again.",
        source="etcd-io/raft: an answered heartbeat frees the probe (`MsgHeartbeatResp`)",
        module=_REPLICATION,
        before="""\
        progress.paused = False
        leadership.dirty = True
    elif progress.responded:""",
        after="""\
        leadership.dirty = True
    elif progress.responded:""",
        level="core",
    ),
    Mutant(
        name="lost-chunk-not-sent-again",
        summary="A chunk of a snapshot that was lost is never sent again.",
        source="etcd-io/raft `ReportSnapshot`: without it the follower stays in the snapshot state",
        module=_REPLICATION,
        before="elif progress.state == SNAPSHOT:\n        _send_chunk(core, progress)",
        after="elif progress.state == SNAPSHOT:\n        progress.responded = False",
        level="core",
        cases="many-chunks",
    ),
    Mutant(
        name="lost-append-not-noticed",
        summary="A leader never asks whether what it sent has arrived.",
        source="Raft §5.3: the leader retries indefinitely",
        module=_REPLICATION,
        before="elif len(progress.window) and not _send_empty(core, progress):",
        after="elif len(progress.window) and not progress.responded and progress.paused:",
        level="core",
    ),
    Mutant(
        name="transfer-skips-log-check",
        summary="A candidate that was handed the leadership is elected whatever its log.",
        source="dissertation §3.10: only the election timeout is skipped, not the rules of voting",
        module=_ELECTION,
        before="""\
        and (message.leadership_transfer or not core.is_sticky())
        and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
""",
        after="""\
        and (message.leadership_transfer or not core.is_sticky())
        and (message.leadership_transfer or core.log.is_up_to_date(message.last_log_index, message.last_log_term))
""",
        level="core",
        cases="late-hand-over",
    ),
)
