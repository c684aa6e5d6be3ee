"""One Raft group on this node: the pure node, its storage and its state machine, wired in the order Raft demands.

Rule (raft.Ready): a Ready's `messages` leave at once, its save is queued, what is committed is applied, reads are
answered, and only when the save is durable do `messages_after_save` leave and the node advance; several Readys may be
on their way to disk, and they finish in order.  A proposal's future ends in the machine's result only when this
very entry (index and term) was applied here.  An exception on the way breaks this order (its Ready was taken, and is
never finished), so it ends the node (`Host.failed`).
Knows nothing of Kafka, HTTP or what commands mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seatrial.marks import reached
from seatrial.raft.ids import GroupId, Index, NodeId, Term
from seatrial.raft.inspection import Status
from seatrial.raft.log import StableLog
from seatrial.raft.membership import ConfigurationChange
from seatrial.raft.messages import Entry, Message, Snapshot, SnapshotMeta
from seatrial.raft.node import RaftNode
from seatrial.raft.ready import Ready
from seatrial.server.proposals import OpenProposals
from seatrial.server.read_barriers import ReadBarriers
from seatrial.storage.base import GroupStorage

READYS_A_TURN = 16  # then other groups get their turn


class Machine(Protocol):
    """A state machine that also keeps a digest of everything applied, to compare replicas by."""

    @property
    def digest(self) -> str: ...

    def apply(self, entry: Entry) -> Any: ...

    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...


class Host(Protocol):
    """What a replica wants of the process it lives in."""

    loop: asyncio.AbstractEventLoop

    def now_us(self) -> int: ...

    def mark_dirty(self, replica: Replica) -> None:
        """Have `process` called later in this loop turn."""

    def send(self, group: GroupId, messages: Sequence[Message]) -> None: ...

    def role_changed(self, replica: Replica) -> None: ...

    def configuration_changed(self, replica: Replica) -> None:
        """Another configuration is in effect here, committed or not."""

    def heard_us(self, replica: Replica, peer: NodeId) -> int:
        """When the peer's node last answered in the name of this group, which leads and rests; 0 where it does not."""

    def failed(self, error: Exception) -> None:
        """Something broke off half-way: nothing more may leave this node, nor be saved by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """How a group is kept.

    `snapshot_entries` / `snapshot_bytes`: a snapshot is made when that much was applied since the last one.
    `keep_entries`: how much of the log stays behind a snapshot for slow followers; None keeps all of it.
    `request_id`: the id by which a forwarded command is known again, from its bytes (None: it has none).
    `once_id`: the same of a command that its sender sends but once; None: there are none, or this is not one.
    `predict`: only for the planted bug `ack-before-commit`: a result made up before the entry is committed.
    `needs_room`: whether a command is data of clients, which is not taken while disks are nearly full; None: none is.
    `stable`: what the Raft node is to see of the group's storage; None: the storage itself.
    `grace_us`: how long after losing the lead a proposal may still end in a definite answer.
    """

    snapshot_entries: int = 20_000
    snapshot_bytes: int = 64 << 20
    keep_entries: int | None = 5_000
    request_id: Callable[[bytes], bytes | None] | None = None
    once_id: Callable[[bytes], bytes | None] | None = None
    predict: Callable[[bytes, Term, Index], Any] | None = None
    needs_room: Callable[[bytes], bool] | None = None
    stable: Callable[[GroupStorage], StableLog] | None = None
    grace_us: int = 1_000_000


class Replica:
    """One group on this node.  All methods run on the event loop; none blocks."""

    def __init__(
        self,
        *,
        group: GroupId,
        name: str,
        node: RaftNode,
        storage: GroupStorage,
        machine: Machine,
        host: Host,
        options: ReplicaOptions,
    ) -> None:
        self.group = group
        self.name = name
        self.node = node
        self.storage = storage
        self.machine = machine
        self.host = host
        self.options = options
        self.closed = False
        self.armed_us = 0  # when the host's timer will next look at this group
        self.patient_until_us = 0  # while nobody has stood for election in this group, it is left to another node
        self.dirty = False
        self.idle_beats = 0  # heartbeats since anything but heartbeats happened, on a leader
        self.last_applied: Index = Index(0)
        self.applied_term: Term = Term(0)
        self.durable_term: Term = storage.hard_state.term  # what a power failure would leave of the node's
        self._told_commit: Index = Index(0)
        self.proposals = OpenProposals(name, options.request_id, options.once_id)
        self.reads = ReadBarriers(name)
        self._saving: deque[tuple[Ready, bool]] = deque()  # (ready, whether it has a save of its own)
        self._change: asyncio.Future[None] | None = None  # shared by all that wait for the next change
        self._snapshot_pending = False
        self._applied_since_snapshot = 0
        self._bytes_since_snapshot = 0
        self._restore_from_storage()

    def _restore_from_storage(self) -> None:
        snapshot = self.storage.read_snapshot()
        if snapshot is not None:
            self.machine.restore(snapshot.data)
            self.last_applied = snapshot.meta.last_included_index
            self.applied_term = snapshot.meta.last_included_term

    # ---- what others ask of it -------------------------------------------------------------------------------------

    def propose(self, data: bytes) -> asyncio.Future[Any]:
        """Append `data` here, as the leader; the future gives what applying it returned.

        The future fails with ProposalLost (surely not applied) or OutcomeUnknown (may have been).

        Raises:
            NotLeader, ProposalDropped: nothing was appended.
        """
        term, index = self.node.propose(data, self.host.now_us())
        future: asyncio.Future[Any] = self.host.loop.create_future()
        predict = self.options.predict
        if predict is None:
            self.proposals.appended(term, index, future)
        else:
            future.set_result(predict(data, term, index))
        self.host.mark_dirty(self)
        return future

    def submit(self, data: bytes, request_id: bytes) -> asyncio.Future[Any]:
        """Propose here or, on a follower, pass it on to the leader; matched by `request_id` when it is applied here.

        A command that was passed on may be lost without a word: then the future never ends, and the caller's own
        deadline has to (its outcome is unknown).

        Raises:
            NotLeader: no leader is known here; nothing was sent.
            ProposalDropped: this node leads, and is full or handing over.
        """
        if self.node.is_leader:
            return self.propose(data)
        self.node.forward(data, self.host.now_us())
        future: asyncio.Future[Any] = self.host.loop.create_future()
        self.proposals.passed_on(request_id, future)
        self.host.mark_dirty(self)
        return future

    def read_barrier(self) -> asyncio.Future[None]:
        """Ends when everything committed before the call is applied here: reading then is linearizable.

        Fails with NoLeader when no leader could vouch for it; asking again is safe.
        """
        future: asyncio.Future[None] = self.host.loop.create_future()
        self.reads.join(future, self.host.now_us())
        self.host.mark_dirty(self)
        return future

    def now_us(self) -> int:
        """The host's clock."""
        return self.host.now_us()

    def changed(self) -> asyncio.Future[None]:
        """Ends at the next apply or change of role, leader or members; shared by all that wait, so never cancel it."""
        if self._change is None:
            self._change = self.host.loop.create_future()
        return self._change

    def step(self, message: Message) -> None:
        self.node.step(message, self.host.now_us())
        self.host.mark_dirty(self)

    @property
    def has_open_reads(self) -> bool:
        return self.reads.has_unanswered

    def tick(self, now_us: int) -> None:
        self.idle_beats += 1
        self.node.tick(now_us)
        self.host.mark_dirty(self)

    def transfer_leadership(self, to: NodeId) -> None:
        self.node.transfer_leadership(to, self.host.now_us())
        self.host.mark_dirty(self)

    def reconfigure(self, change: ConfigurationChange) -> None:
        """Begin a change of members.  Raises ProposalRefused, of which ConfigurationRefused says why not now."""
        self.node.propose_configuration(change, self.host.now_us())
        self.host.mark_dirty(self)

    def campaign(self) -> None:
        self.node.campaign(self.host.now_us())
        self.host.mark_dirty(self)

    def told(self) -> tuple[Term, Index]:
        """The term and the commit index to tell of: what is known by a term that is not durable yet is not told.

        So while a term is on its way to the disk, the index stays what it was, or what is applied (that was durable).
        """
        if self.durable_term == self.node.term:
            self._told_commit = self.node.commit_index
        elif self._told_commit < self.last_applied:
            self._told_commit = self.last_applied
        return self.durable_term, self._told_commit

    def status(self) -> Status:
        return self.node.status()

    def close(self) -> None:
        """No longer take part; whoever waits is told that the outcome is unknown."""
        self.closed = True
        self.proposals.close()
        self.reads.close()
        self.wake_watchers()

    # ---- the wiring ------------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Carry out what the node has ready; the host calls it once a loop turn while the replica is dirty."""
        if self.closed:
            return
        node = self.node
        if self.reads.must_ask:
            self.reads.ask(node, self.host.now_us())
        for _ in range(READYS_A_TURN):
            ready = node.take_ready()
            if ready is None:
                return
            self._carry_out(ready)
        self.host.mark_dirty(self)

    def _carry_out(self, ready: Ready) -> None:
        if ready.messages:
            self.host.send(self.group, ready.messages)
        saves = bool(ready.entries) or ready.hard_state is not None or ready.snapshot is not None
        if saves or ready.committed or ready.reads:
            self.idle_beats = 0
        waits = saves or bool(ready.messages_after_save)
        in_order = saves or (waits and bool(self._saving))
        if in_order:
            self._saving.append((ready, saves))
        if saves:
            self.storage.save(
                hard_state=ready.hard_state, entries=ready.entries, snapshot=ready.snapshot, done=self._saved
            )
        if ready.role_changed:
            self._role_changed()
        if ready.configuration_changed is not None:
            self.host.configuration_changed(self)
            self.wake_watchers()
        if ready.committed:
            self._apply(ready.committed)
        if ready.reads:
            self.reads.answered(ready.reads, self.last_applied)
        if waits and not in_order:
            self._finish(ready)

    def _saved(self) -> None:
        """The oldest save is durable: finish it, and what waited behind it without a save of its own."""
        if self.closed:
            return
        try:
            ready, _ = self._saving.popleft()
            self._finish(ready)
            while self._saving and not self._saving[0][1]:
                self._finish(self._saving.popleft()[0])
        except Exception as error:  # the process ends with it
            self.host.failed(error)
            return
        self.host.mark_dirty(self)

    def _finish(self, ready: Ready) -> None:
        if ready.hard_state is not None:
            self.durable_term = ready.hard_state.term
        if ready.messages_after_save:
            self.host.send(self.group, ready.messages_after_save)
        if ready.snapshot is not None:
            self._install(ready.snapshot)
        self.node.advance(ready, self.host.now_us())

    def _install(self, snapshot: Snapshot) -> None:
        self.machine.restore(snapshot.data)
        self.last_applied = snapshot.meta.last_included_index
        self.applied_term = snapshot.meta.last_included_term
        self._applied_since_snapshot = self._bytes_since_snapshot = 0
        self.proposals.skipped_to(self.last_applied)
        self.reads.applied(self.last_applied)
        self.wake_watchers()

    def _apply(self, committed: Sequence[Entry]) -> None:
        apply, proposals = self.machine.apply, self.proposals
        size = 0
        for entry in committed:
            result = apply(entry)
            size += len(entry.data)
            if entry.term != self.applied_term:
                self.applied_term = entry.term
                proposals.term_begun(entry)
            if proposals:
                proposals.applied(entry, result)
        self.last_applied = committed[-1].index
        self._applied_since_snapshot += len(committed)
        self._bytes_since_snapshot += size
        self.reads.applied(self.last_applied)
        self.wake_watchers()
        self._consider_snapshot()

    def _role_changed(self) -> None:
        if not self.node.is_leader and self.proposals.waiters:
            self.host.loop.call_later(self.options.grace_us / 1e6, self._give_up, self.proposals.waiters[-1].term)
        self.host.role_changed(self)
        self.wake_watchers()

    def _give_up(self, term: Term) -> None:
        if not (self.node.is_leader and self.node.term == term):
            self.proposals.give_up(term)

    def wake_watchers(self) -> None:
        """End what `changed` gave out: there is something to look at anew."""
        if self._change is not None:
            change, self._change = self._change, None
            if not change.done():
                change.set_result(None)

    # ---- snapshots -------------------------------------------------------------------------------------------------

    def _consider_snapshot(self) -> None:
        if self._snapshot_pending:
            return
        options = self.options
        if (
            self._applied_since_snapshot >= options.snapshot_entries
            or self._bytes_since_snapshot >= options.snapshot_bytes
        ):
            self.make_snapshot()

    def make_snapshot(self, *, keep_entries: int | None = None, first_needed: int = 0) -> bool:
        """Save the machine's state as of now, and then forget the log behind it but for the tail that is kept.

        keep_entries: how long a tail; None: as the options say, which may also keep all of it for good, but for what is
        before `first_needed`.
        False where another one is being saved just now, the leader's that takes the place of this state included.
        """
        if self._snapshot_pending or self.node.is_installing:
            reached("a snapshot was wanted while another one was being saved")
            return False
        if self.last_applied == 0:
            return True
        self._snapshot_pending = True
        self._applied_since_snapshot = self._bytes_since_snapshot = 0
        # The one in effect at that entry, which is not the latest while a change is not yet applied.
        configuration = self.node.configuration_at(self.last_applied)
        meta = SnapshotMeta(self.last_applied, self.applied_term, configuration)
        kept = self.options.keep_entries
        if kept is not None and keep_entries is not None:
            kept = keep_entries
        snapshot = Snapshot(meta, self.machine.snapshot())
        self.storage.save_snapshot(snapshot, done=lambda: self._snapshot_saved(meta, kept, first_needed))
        return True

    def forget_before(self, first_needed: Index, *, decided_at: Index) -> bool:
        """Drop the entries before it, behind a snapshot that knows why: the state of an older one would miss them.

        decided_at: the entry that says that they are not needed.  False where another snapshot is being saved just
        now: to be asked again.
        """
        meta = self.storage.snapshot_meta
        if meta is None or meta.last_included_index < max(first_needed - 1, decided_at):
            return self.make_snapshot(first_needed=first_needed)
        self._forget(first_needed)
        return True

    def _snapshot_saved(self, meta: SnapshotMeta, keep_entries: int | None, first_needed: int) -> None:
        self._snapshot_pending = False
        if self.closed:
            return
        if keep_entries is None:
            self._forget(first_needed)
        elif (first_kept := meta.last_included_index + 1 - keep_entries) > self.storage.first_index:
            self.storage.compact(Index(first_kept))

    def _forget(self, first_needed: int) -> None:
        if first_needed > self.storage.first_index:
            reached("a log gave up the entries that nobody needs any more")
            self.storage.compact(Index(first_needed))
