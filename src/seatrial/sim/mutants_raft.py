"""Planted bugs in the Raft core: elections, replication, commitment.

Rule: each is a mistake that was made by somebody, or that the paper warns of.  Data alone (see `mutation.Mutant`).
"""

from __future__ import annotations

from typing import Final

from seatrial.sim.mutation import Mutant

_ELECTION: Final = "seatrial.raft.election"
_FOLLOWING: Final = "seatrial.raft.following"
_LOG: Final = "seatrial.raft.log"
_NODE: Final = "seatrial.raft.node"
_QUORUM: Final = "seatrial.raft.quorum"
_REPLICATION: Final = "seatrial.raft.replication"

ELECTION_MUTANTS: Final = (
    Mutant(
        name="vote-without-log-check",
        summary="A vote is given to a candidate whose log is behind the voter's.",
        source="Raft §5.4.1",
        module=_ELECTION,
        before="""\
        and (message.leadership_transfer or not core.is_sticky())
        and core.log.is_up_to_date(message.last_log_index, message.last_log_term)
""",
        after="""\
        and (message.leadership_transfer or not core.is_sticky())
""",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="log-check-by-length",
        summary="Of two logs the longer one counts as more up-to-date, whatever the terms of its entries.",
        source="Raft §5.4.1; Zab and Viewstamped Replication differ here",
        module=_LOG,
        before="return last_log_term > own or (last_log_term == own and last_log_index >= self.last_index)",
        after="return last_log_index >= self.last_index",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="vote-before-save",
        summary="A vote leaves before it is on the disk.",
        source="Raft figure 2, persistent state; hashicorp/raft persists its vote for this reason",
        module=_ELECTION,
        before="""\
    core.messages_after_save.append(
        RequestVoteResponse(""",
        after="""\
    core.messages.append(
        RequestVoteResponse(""",
        level="core",
    ),
    Mutant(
        name="vote-twice",
        summary="A node votes for every candidate of its term until it hears from a leader.",
        source="Raft §5.2, figure 2: votedFor is null or the candidate",
        module=_ELECTION,
        before="return core.voted_for == candidate or (core.voted_for is None and core.leader is None)",
        after="return core.leader is None",
        level="core",
    ),
    Mutant(
        name="term-not-saved",
        summary="A new term is not saved when the vote stays the same.",
        source="Raft figure 2, persistent state",
        module=_NODE,
        before="unchanged = core.term == saved.term and core.voted_for == saved.voted_for",
        after="unchanged = core.voted_for == saved.voted_for",
        level="core",
    ),
    Mutant(
        name="vote-not-saved",
        summary="A vote is not saved when the term stays the same.",
        source="Raft figure 2, persistent state",
        module=_NODE,
        before="unchanged = core.term == saved.term and core.voted_for == saved.voted_for",
        after="unchanged = core.term == saved.term",
        level="core",
    ),
    Mutant(
        name="candidate-counts-unsaved-vote",
        summary="A candidate asks for votes before its own vote and term are on the disk.",
        source="Raft figure 2; see the rule of `raft.election`",
        module=_ELECTION,
        before="core.messages_after_save.append(\n            RequestVote(",
        after="core.messages.append(\n            RequestVote(",
        level="core",
    ),
    Mutant(
        name="half-is-a-majority",
        summary="Of an even number of voters, half of the votes win an election.",
        source="Raft §5.2, and §6: every change of one member passes through an even number",
        module=_QUORUM,
        before="return voters // 2 + 1",
        after="return (voters + 1) // 2",
        level="core",
    ),
    Mutant(
        name="old-terms-answered",
        summary="A message of an earlier term is handled as if it were of this one.",
        source="Raft §5.1, figure 2 rules for all servers",
        module=_ELECTION,
        before="message.context, Index(0)))\n    return False",
        after="message.context, Index(0)))\n    return True",
        level="core",
    ),
    Mutant(
        name="no-answer-to-old-leader",
        summary="A leader of an earlier term is not told of the later one, by a node that may neither follow nor win.",
        source="etcd-io/raft: PreVote and CheckQuorum, the stuck node (`handleAppendEntries` of a lower term)",
        module=_ELECTION,
        before="elif isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):",
        after="elif isinstance(message, InstallSnapshot):",
        level="core",
        cases="lost-campaigns",
    ),
    Mutant(
        name="election-timeout-not-random",
        summary="All nodes wait equally long for a leader.",
        source="Raft §5.2, split votes",
        module="seatrial.raft.core",
        before="self.election_wait_us = timeout + int(self._random() * timeout)",
        after="self.election_wait_us = timeout",
        level="core",
    ),
)

REPLICATION_MUTANTS: Final = (
    Mutant(
        name="commit-older-terms",
        summary="A leader commits an entry of an earlier term because a majority stores it.",
        source="Raft §5.4.2, figure 8",
        module=_REPLICATION,
        before="if core.log.term(index) != core.term:",
        after="if core.log.term(index) > core.term:",
        level="core",
        cases="figure-8",
    ),
    Mutant(
        name="append-acked-before-save",
        summary="A follower acknowledges entries before they are on its disk.",
        source="Raft figure 2, persistent state; Kafka's acks=all, which does not wait for the disk",
        module=_FOLLOWING,
        before="core.messages_after_save.append(\n        AppendEntriesResponse(",
        after="core.messages.append(\n        AppendEntriesResponse(",
        level="core",
    ),
    Mutant(
        name="leader-counts-unsaved-entries",
        summary="A leader counts entries as its own that are not yet on its disk.",
        source="dissertation §10.2.1: the leader may write in parallel, but not count itself before",
        module=_REPLICATION,
        before="    durable_index = core.log.durable_index\n",
        after="    durable_index = core.log.last_index\n",
        level="core",
    ),
    Mutant(
        name="truncation-of-matching-suffix",
        summary="An AppendEntries cuts off everything behind its previous entry, also what matches.",
        source='Raft figure 2, AppendEntries step 3: only where they conflict; "Students\' Guide to Raft"',
        module=_LOG,
        before="if self.term(index) != entry.term:",
        after="if index <= last:",
        level="core",
    ),
    Mutant(
        name="commit-from-unverified-append",
        summary="A follower takes the commit index of an append that it refuses.",
        source="Raft figure 2, AppendEntries: reply false first; step 5 comes after the consistency check",
        module=_FOLLOWING,
        before="""\
    if matched is None:
        _refuse(core, message)
""",
        after="""\
    if matched is None:
        log.commit_to(min(message.leader_commit, log.last_index))
        _refuse(core, message)
""",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="follower-commits-what-it-holds",
        summary="A follower takes every entry that it gets for committed, and serves it to readers.",
        source="Raft §5.3; Kafka KIP-101 and KIP-392: fetch beyond the high watermark",
        module=_FOLLOWING,
        before="log.commit_to(leader_commit if leader_commit < matched else matched)",
        after="log.commit_to(matched)",
        level="core",
    ),
    Mutant(
        name="heartbeat-commits-beyond-match",
        summary="A heartbeat carries the leader's commit index to followers that may hold other entries there.",
        source="etcd-io/raft `sendHeartbeat`: min(match, committed)",
        module=_REPLICATION,
        before="known = match_index if match_index < commit_index else commit_index",
        after="known = commit_index",
        level="core",
    ),
    Mutant(
        name="match-from-next-index",
        summary="A leader takes any acknowledgement for all that it has sent.",
        source='"Students\' Guide to Raft": matchIndex is not nextIndex - 1',
        module=_REPLICATION,
        before="advanced = progress.acknowledged(match_index)",
        after="advanced = progress.acknowledged(progress.next_index - 1)",
        level="core",
    ),
    Mutant(
        name="append-without-consistency-check",
        summary="Entries are appended behind any previous entry, whatever its term.",
        source="Raft §5.3, AppendEntries step 2",
        module=_LOG,
        before="elif self.term(prev_index) != prev_term:",
        after="elif self.term(prev_index) is None:",
        level="core",
        cases="rival-leaders",
    ),
    Mutant(
        name="half-commits",
        summary="Of an even number of voters, half of them commit an entry.",
        source="Raft §5.3; even memberships and joint consensus",
        module=_QUORUM,
        before="return values[(len(values) - 1) // 2]",
        after="return values[len(values) // 2]",
        level="core",
    ),
    Mutant(
        name="applied-before-committed",
        summary="An entry is applied as soon as it is durable here.",
        source="Raft §5.3: only committed entries are applied",
        module=_LOG,
        before="last = self.commit_index if self.commit_index < self.durable_index else self.durable_index",
        after="last = self.durable_index",
        level="core",
    ),
    Mutant(
        name="replacements-not-saved",
        summary="Entries that replace others of the same index are not saved, because those were.",
        source="etcd-io/raft `unstable.truncateAndAppend` moves its offset back for them",
        module=_LOG,
        before="            self.unsaved_first = index\n\n    def _forget_saves_from",
        after="            self.unsaved_first = self.last_index + 1\n\n    def _forget_saves_from",
        level="core",
    ),
    Mutant(
        name="commit-index-trusted-at-start",
        summary="A restarted node believes a saved commit index that is ahead of the entries it kept.",
        source="Raft figure 2: commitIndex is volatile",
        module=_LOG,
        before="self.commit_index = min(max(stable.hard_state.commit_index, snapshot_index), last)",
        after="self.commit_index = max(stable.hard_state.commit_index, snapshot_index)",
        level="core",
    ),
)
