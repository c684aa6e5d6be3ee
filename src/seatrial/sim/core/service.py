"""What a node does with what Raft commits, for as long as it runs: apply, answer, and make snapshots.

Rule: a request is answered by what applying its very command returned here, and a read after its index was applied; the
ledger sees every entry that is applied and every snapshot.  A new life begins with a new one.
Knows nothing of messages or of the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seatrial.raft.ids import Index, Term
from seatrial.raft.messages import Configuration, Entry, Snapshot, SnapshotMeta
from seatrial.raft.reads import ReadState
from seatrial.sim.core.ledger import Ledger, Watch
from seatrial.sim.core.machine import Command, RegisterMachine


class Request:
    """One operation of a client at one node.

    data: the command; b"" for a read.  answer: told (request, node id, result) of its end, if there is one; the result
    is the version written or the value read, or None where it was refused and nothing happened.
    once: the command has no session, so it must not be passed on: links repeat messages, and it would be written twice.
    """

    __slots__ = ("answer", "data", "key", "once")

    def __init__(
        self, key: int, data: bytes, answer: Callable[[Request, int, int | None], None], once: bool = False
    ) -> None:
        self.key = key
        self.data = data
        self.answer = answer
        self.once = once


class Service:
    """The machine of one life of a node, and the requests that wait for it."""

    __slots__ = (
        "_applied_term",
        "_ledger",
        "_next_context",
        "_reads",
        "_snapshot_entries",
        "_snapshot_index",
        "_waiting",
        "_watch",
        "machine",
        "snapshot_pending",
    )

    def __init__(self, watch: Watch, ledger: Ledger, decoded: dict[bytes, Command], snapshot_entries: int) -> None:
        self._watch = watch
        self._ledger = ledger
        self._snapshot_entries = snapshot_entries
        self.machine = RegisterMachine(decoded)
        self._waiting: dict[bytes, Request] = {}
        self._reads: dict[int, Request] = {}
        self._next_context = 1
        self._applied_term = 0
        self._snapshot_index = 0  # of the newest one made or installed
        self.snapshot_pending = False  # one is made here, and not yet durable

    def wait(self, request: Request) -> None:
        """Its command was proposed or passed on."""
        self._waiting[request.data] = request

    def wait_to_read(self, request: Request) -> int:
        """The context to ask Raft with."""
        context = self._next_context
        self._next_context += 1
        self._reads[context] = request
        return context

    def refuse_read(self, context: int) -> None:
        request = self._reads.pop(context)
        request.answer(request, self._watch.node_id, None)

    def apply(self, committed: list[Entry]) -> bool:
        """True where it is time for a snapshot."""
        machine, waiting = self.machine, self._waiting
        entries, chains = self._ledger.entries, self._ledger.chains
        for entry in committed:
            version = machine.apply(entry)
            index = entry.index
            if entries[index] is not entry or chains[index] != machine.chain:
                self._ledger.applied(self._watch, entry, machine.chain)
            if waiting and version:
                request = waiting.pop(entry.data, None)
                if request is not None:
                    request.answer(request, self._watch.node_id, version)
        self._applied_term = committed[-1].term
        return machine.applied_index - self._snapshot_index >= self._snapshot_entries

    def answer_reads(self, states: Sequence[ReadState]) -> None:
        for context, index in states:
            request = self._reads.pop(context, None)
            if request is not None:
                value = self.machine.value(request.key) if index else None
                request.answer(request, self._watch.node_id, value)

    def can_snapshot(self) -> bool:
        return not self.snapshot_pending and self.machine.applied_index > self._snapshot_index

    def make_snapshot(self, configuration: Configuration) -> Snapshot:
        """Of the state as of now; `configuration` is the one in effect at the applied index."""
        index = self.machine.applied_index
        meta = SnapshotMeta(Index(index), Term(self._applied_term), configuration)
        snapshot = Snapshot(meta, self.machine.snapshot())
        self._ledger.snapshot_made(self._watch, snapshot)
        self.snapshot_pending = True
        self._snapshot_index = index
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot, the node's own at its start or its leader's."""
        self.machine.restore(snapshot.data)
        meta = snapshot.meta
        self._snapshot_index = meta.last_included_index
        self._applied_term = meta.last_included_term
        self._ledger.restored(self._watch, meta.last_included_index, self.machine.chain)
