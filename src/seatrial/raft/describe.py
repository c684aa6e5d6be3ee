"""Messages, Readys and nodes as one line of text each, for logs, traces and the golden files of the tests.

Rule: equal things give equal lines, and a line names everything that matters to the algorithm; (term, index) is
written term/index.  Knows nothing of where the lines go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from seatrial.raft.inspection import Status
from seatrial.raft.membership import decode_configuration
from seatrial.raft.messages import (
    COMMAND,
    CONFIGURATION,
    NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
    Entry,
    ForwardProposal,
    HardState,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    SnapshotMeta,
    TimeoutNow,
)
from seatrial.raft.ready import Ready

_DATA_SHOWN: Final = 20
_ENTRIES_SHOWN: Final = 6
_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    PreVote: ("last_log_index", "last_log_term"),
    PreVoteResponse: ("vote_granted",),
    RequestVote: ("last_log_index", "last_log_term", "leadership_transfer"),
    RequestVoteResponse: ("vote_granted",),
    AppendEntriesResponse: ("success", "match_index", "hint_index", "hint_term"),
    HeartbeatResponse: ("read_round",),
    InstallSnapshotResponse: ("last_included_index", "next_offset"),
    TimeoutNow: (),
    ReadIndexRequest: ("context",),
    ReadIndexResponse: ("context", "index"),
    ForwardProposal: ("data",),
}
_KINDS: Final = {COMMAND: "", NOOP: " noop"}


def describe_entry(entry: Entry) -> str:
    """`2/7 "data"`: term 2, index 7."""
    if entry.kind == CONFIGURATION:
        return f"{entry.term}/{entry.index} configuration {describe_configuration(decode_configuration(entry.data))}"
    return f"{entry.term}/{entry.index}{_KINDS[entry.kind]}{_data(entry.data)}"


def _data(data: bytes) -> str:
    if not data:
        return ""
    if len(data) > _DATA_SHOWN:
        return f" ({len(data)} bytes)"
    return f' "{repr(data)[2:-1]}"'  # as Python writes it, so that no control character reaches a terminal


def describe_entries(entries: Sequence[Entry]) -> str:
    if len(entries) > _ENTRIES_SHOWN:
        first, last = entries[0], entries[-1]
        return f"[{describe_entry(first)} … {describe_entry(last)}: {len(entries)} entries]"
    return "[" + ", ".join(describe_entry(entry) for entry in entries) + "]"


def describe_meta(meta: SnapshotMeta) -> str:
    return f"{meta.last_included_term}/{meta.last_included_index} of {describe_configuration(meta.configuration)}"


def describe_configuration(configuration: Configuration) -> str:
    """`(1 2 3)`, during joint consensus `(1 2 4)&(1 2 3)`, with learners `(1 2 3) learners (4)`."""
    text = _group(configuration.voters)
    if configuration.voters_outgoing:
        text += f"&{_group(configuration.voters_outgoing)}"
    if configuration.learners:
        text += f" learners {_group(configuration.learners)}"
    if configuration.learners_next:
        text += f" learners next {_group(configuration.learners_next)}"
    if configuration.voters_outgoing and not configuration.auto_leave:
        text += " until told to leave"
    return text


def _group(nodes: Sequence[int]) -> str:
    return "(" + " ".join(str(node) for node in nodes) + ")"


def describe_hard_state(state: HardState) -> str:
    return f"term={state.term} voted_for={state.voted_for or '-'} commit={state.commit_index}"


def describe_message(message: Message) -> str:
    """`1->2 AppendEntries term=3 …`."""
    head = f"{message.sender}->{message.to} {type(message).__name__} term={message.term}"
    if isinstance(message, AppendEntries):
        return (
            f"{head} prev={message.prev_log_term}/{message.prev_log_index} commit={message.leader_commit} "
            f"{describe_entries(message.entries)}"
        )
    if isinstance(message, InstallSnapshot):
        end = message.offset + len(message.data)
        return f"{head} snapshot={describe_meta(message.meta)} bytes {message.offset}-{end} of {message.total_size}"
    if isinstance(message, Heartbeat):
        return f"{head} commit={message.leader_commit} round={message.read_round}"
    return " ".join([head, *(f"{field}={_plain(getattr(message, field))}" for field in _FIELDS[type(message)])])


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return _data(value).strip()
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_ready(ready: Ready) -> str:
    """What is to be done, apart from the messages; empty where that is nothing."""
    parts = []
    if ready.role_changed is not None:
        role, term, leader = ready.role_changed
        parts.append(f"{role.name.lower()} in term {term}, leader {leader or '-'}")
    if ready.configuration_changed is not None:
        parts.append(f"members {describe_configuration(ready.configuration_changed)}")
    if ready.hard_state is not None:
        parts.append(f"save {describe_hard_state(ready.hard_state)}")
    if ready.entries:
        parts.append(f"save {describe_entries(ready.entries)}")
    if ready.snapshot is not None:
        parts.append(f"save snapshot {describe_meta(ready.snapshot.meta)}, {len(ready.snapshot.data)} bytes")
    if ready.committed:
        parts.append(f"apply {describe_entries(ready.committed)}")
    for context, index in ready.reads:
        parts.append(f"read {context} at {index}" if index else f"read {context} refused")
    return "; ".join(parts)


def describe_status(status: Status) -> list[str]:
    """One line for the node, and one for each peer of a leader."""
    lines = [
        f"{status.node_id} {status.role.name.lower()} term={status.term} voted_for={status.voted_for or '-'} "
        f"leader={status.leader or '-'} log={status.first_index}..{status.last_index} commit={status.commit_index} "
        f"applied={status.last_applied} durable={status.durable_index} snapshot={status.snapshot_index}"
    ]
    for peer_id, peer in status.peers.items():
        extra = "" if peer.snapshot_offset is None else f" offset={peer.snapshot_offset}"
        lines.append(
            f"  {peer_id} {peer.state} match={peer.match_index} next={peer.next_index} "
            f"inflight={peer.inflight_messages}{extra}{' learner' if peer.is_learner else ''}"
        )
    return lines
