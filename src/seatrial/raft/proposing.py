"""How commands get into a leader's log, and how many bytes of them may wait there.

Rule: a leader takes no more than `max_uncommitted_bytes` of commands that are not yet committed and handed out (one
command is always taken, however large), so that a leader without a quorum does not fill its memory.
"""

from __future__ import annotations

from seatrial.marks import reached
from seatrial.raft.core import Core
from seatrial.raft.errors import NotLeader, ProposalDropped
from seatrial.raft.ids import EntryId, Term
from seatrial.raft.leadership import Leadership
from seatrial.raft.messages import COMMAND, Entry, ForwardProposal


def propose(core: Core, data: bytes) -> EntryId:
    """Raises NotLeader, and ProposalDropped during a transfer or while too much is uncommitted."""
    entry = _append(core, data)
    return EntryId(entry.term, entry.index)


def _append(core: Core, data: bytes) -> Entry:
    leadership = core.leadership
    if leadership is None:
        raise NotLeader(core.leader)
    if leadership.transfer_to is not None:
        reached("a proposal was dropped during a transfer")
        raise ProposalDropped(f"leadership is being handed over to node {leadership.transfer_to}")
    waiting, limit = leadership.uncommitted_bytes, core.config.max_uncommitted_bytes
    if waiting and waiting + len(data) > limit:
        reached("a proposal was dropped because too much is uncommitted")
        raise ProposalDropped(f"{waiting} bytes are not yet committed and applied, of {limit} allowed")
    leadership.uncommitted_bytes = waiting + len(data)
    leadership.dirty = True
    log = core.log
    entry = Entry(core.term, log.last_index + 1, COMMAND, data)
    log.append(entry)
    return entry


def forward(core: Core, data: bytes) -> None:
    """Propose here, or pass it on to the leader.  Raises NotLeader(None), and ProposalDropped as `propose`."""
    if core.leadership is not None:
        _append(core, data)
    elif core.leader is None:
        raise NotLeader(None)
    else:
        core.messages.append(ForwardProposal(core.node_id, core.leader, Term(core.term), data))


def on_forward_proposal(core: Core, message: ForwardProposal) -> None:
    """Takes it if it can; otherwise it is lost, which its sender must expect anyway."""
    if core.leadership is None or core.leadership.transfer_to is not None:
        reached("a forwarded proposal was lost")
        return
    try:
        _append(core, message.data)
    except ProposalDropped:
        return


def handed_out(leadership: Leadership, committed: list[Entry]) -> None:
    """Committed entries went to the state machine: those of this leadership no longer wait."""
    for entry in committed:
        if entry.index > leadership.first_index:
            leadership.uncommitted_bytes -= len(entry.data)
