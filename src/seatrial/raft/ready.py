"""What the driver of a node is told to do.

Rule: the order of effects is in the data.  For each Ready, in order:

    send(ready.messages)                                   at once
    save(ready.hard_state, ready.entries, ready.snapshot)  begin at once, behind the saves of earlier Readys
    apply(ready.committed), then answer(ready.reads)       at once
    …when the saves of this Ready and of all earlier ones are durable:
    restore(ready.snapshot) if there is one; send(ready.messages_after_save); node.advance(ready)

More Readys may be taken while saves are under way; each that `waits` is advanced once, in the order they were taken,
also those that had nothing to save; for the others `advance` has no effect.  Knows nothing of how any of it is done.
"""

from __future__ import annotations

from typing import NamedTuple

from seatrial.raft.ids import NodeId, Term
from seatrial.raft.messages import Configuration, Entry, HardState, Message, Snapshot
from seatrial.raft.reads import ReadState
from seatrial.raft.roles import Role


class SoftState(NamedTuple):
    """What a node is just now; never saved."""

    role: Role
    term: Term
    leader: NodeId | None


class Ready:
    """The effects of everything that happened since the last one; see the module's rule for their order.

    hard_state: to save, or None.  entries: to save; `entries[0].index` may be at or before the last one saved, and
        then replaces it and all after it.  snapshot: received from the leader, to save in the place of the whole log,
        and to restore the machine from once durable.
    committed: to apply, in order; durable here.  reads: may be answered once `committed` is applied; index 0: refused.
    configuration_changed: who takes part from now on, where that is another configuration than was told last, or
        None: add peers that are new to the transport.  Keep the way to one that was removed open for a while, for its
        leader is still telling it.
    role_changed: the new role, term and leader where one of them changed, or None.
    """

    __slots__ = (
        "committed",
        "configuration_changed",
        "entries",
        "hard_state",
        "messages",
        "messages_after_save",
        "reads",
        "role_changed",
        "snapshot",
    )

    def __init__(
        self,
        hard_state: HardState | None,
        entries: list[Entry],
        snapshot: Snapshot | None,
        messages: list[Message],
        messages_after_save: list[Message],
        committed: list[Entry],
        reads: list[ReadState],
        role_changed: SoftState | None,
        configuration_changed: Configuration | None = None,
    ) -> None:
        self.hard_state = hard_state
        self.entries = entries
        self.snapshot = snapshot
        self.messages = messages
        self.messages_after_save = messages_after_save
        self.committed = committed
        self.reads = reads
        self.role_changed = role_changed
        self.configuration_changed = configuration_changed

    @property
    def waits(self) -> bool:
        """Is anything of it only done when saves are durable?"""
        return bool(self.messages_after_save) or self.must_sync

    @property
    def must_sync(self) -> bool:
        """Is there anything to save?"""
        return bool(self.entries) or self.hard_state is not None or self.snapshot is not None
