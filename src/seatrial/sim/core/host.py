"""One simulated node: the pure Raft node with its clock, disk and machine, driven in the order that Raft demands.

Rule (raft.ready): `messages` leave at once, the save is queued, what is committed is applied, reads are answered, and
only when the save is durable do `messages_after_save` leave; several Readys may be on their way to the disk.  There is
at most one timer under way for a node.  A crash leaves nothing behind but the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seatrial.raft.describe import describe_ready
from seatrial.raft.errors import NotLeader, ProposalRefused
from seatrial.raft.ids import Index
from seatrial.raft.messages import Configuration
from seatrial.raft.node import RaftNode
from seatrial.raft.ready import Ready
from seatrial.raft.roles import LEADER
from seatrial.sim.core.disk import ReadFailed
from seatrial.sim.core.machine import RegisterMachine
from seatrial.sim.core.parts import HostParts
from seatrial.sim.core.service import Request, Service
from seatrial.sim.core.trace import describe


class Host(HostParts):
    """A node that can crash, pause and restart."""

    __slots__ = ()

    @property
    def machine(self) -> RegisterMachine:
        return self.service.machine

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From what its disk holds."""
        assert not self.up, f"node {self.node_id} runs"
        disk = self.disk
        disk.failed = self._disk_failed
        self.service = Service(self.watch, self.ledger, self.decoded, self.snapshot_entries)
        self.watch.forget_volatile()
        snapshot = disk.read_snapshot()
        if snapshot is not None:
            self.service.restore(snapshot)
        self._now_us = now = self.clock.now_us()
        self.node, self.core = self._make_core(
            self.config, disk, configuration=self.configuration, random=self._random, now_us=now
        )
        self._raft = self.node if isinstance(self.node, RaftNode) else None
        self.up = True
        self._out = self.paused = False
        self.starts += 1
        self._armed_us = None
        self._say("starts")
        self._arm()
        self.drive()

    def crash(self, mode: str) -> None:
        """`mode` as `case.Disk.unsynced`."""
        if not self.up:
            return
        self._say(f"crashes, {self.disk.unsynced()} records unsynced ({mode})")
        self._out = True
        self.up = self.paused = False
        self.node = self.core = self._raft = None
        self._backlog = []
        self._saving.clear()
        self._timer += 1
        self.crash_point = ""
        self.disk.crash(mode)

    def pause(self) -> None:
        """Everything that comes waits, its clock does not."""
        if self.up and not self.paused:
            self._out = self.paused = True
            self._say("pauses")

    def resume(self) -> None:
        if not self.paused:
            return
        self._out = self.paused = False
        self._say(f"goes on, {len(self._backlog)} things waited")
        backlog, self._backlog = self._backlog, []
        for callback, argument in backlog:
            self.world.after(0, callback, argument)

    def wipe(self) -> None:
        """It loses its disk, and with it who it was."""
        self.crash("lost")
        self.disk.wipe()
        self.watch.wiped()
        self.configuration = Configuration(())

    def condemn(self) -> None:
        """Never run again: the run is over, and what is undone now must change nothing."""
        self.kept_down += 1 << 30
        self.crash("kept")

    def release(self) -> None:
        """One fault fewer keeps it down; without any it starts again."""
        self.kept_down -= 1
        if not self.kept_down and not self.up:
            self.start()

    def _disk_failed(self, error: str) -> None:
        self._say(f"ends: its disk says {error}")
        self.crash("prefix")

    def _say(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.world.now_us:>10} node {self.node_id} {text}")

    # -- what happens to it ------------------------------------------------------------------------------------------

    def receive(self, message: Any, filtered: bool = False) -> None:
        """A message arrives; filtered: and the filters have let it go on."""
        if self._out:
            self._receive_out(message)
            return
        if self.filters.receiving and not filtered:
            self.filters.receive(0, message, self._receive_filtered)
            return
        now = self.world.now_us
        self._record(now + self._received_code)
        if self.trace is not None:
            self._say(f"<- {describe(message)}")
        clock = self.clock
        now = self._now_us = clock.now_us() if clock.drifts else now + clock.ahead_us
        try:
            raft = self._raft
            if raft is not None:
                raft.step(message, now)
            else:
                self.node.step(message, now)
            self.drive()
        except ReadFailed:
            return

    def _receive_filtered(self, _: int, message: Any) -> None:
        self.receive(message, True)

    def _receive_out(self, message: Any) -> None:
        self.messages_while_out += 1
        if self.paused:
            self._backlog.append((self.receive, message))

    def _timer_fired(self, number: int) -> None:
        if number != self._timer:
            return
        if self.paused:
            self.messages_while_out += 1
            self._backlog.append((self._timer_fired, number))
            return
        self._armed_us = None
        self._now_us = now = self.clock.now_us()
        if now >= self.node.next_deadline():
            self._record(self.world.now_us + self._ticked_code)
            self._digest.flush_if_large()
            if self.trace is not None:
                self._say("ticks")
            try:
                self.node.tick(now)
                self.drive()
            except ReadFailed:
                return
            if not self.up:
                return
        self._arm()

    def _arm(self) -> None:
        """See to it that a timer fires at the node's deadline, or before; it is armed again then."""
        deadline = self.node.next_deadline()
        if self._armed_us is None or deadline < self._armed_us:
            self._armed_us = deadline
            self._timer += 1
            self.world.at(self.clock.world_time(deadline), self._timer_fired, self._timer)

    # -- what is asked of it -----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> None:
        """Propose here, or pass it on to the leader; its outcome is known when it is applied here."""
        if not self._takes(self.submit, request):
            return
        self._now_us = now = self.clock.now_us()
        try:
            if request.once:
                self.node.propose(request.data, now)
            else:
                self.node.forward(request.data, now)
        except ProposalRefused:
            request.answer(request, self.node_id, None)
            return
        self.service.wait(request)
        self._drive_and_arm()

    def read(self, request: Request) -> None:
        """A linearizable read, wherever this node stands."""
        if not self._takes(self.read, request):
            return
        context = self.service.wait_to_read(request)
        self._now_us = now = self.clock.now_us()
        try:
            self.node.read_index(context, now)
        except NotLeader:
            self.service.refuse_read(context)
            return
        self._drive_and_arm()

    def call(self, action: Callable[[Any, int], Any]) -> Any:
        """`action(node, now_us)` on a node that runs, then whatever follows from it; None where it does not run.

        Raises ProposalRefused and whatever else the node refuses with.
        """
        if not self.up or self.paused:
            return None
        self._now_us = now = self.clock.now_us()
        result = action(self.node, now)
        self._drive_and_arm()
        return result

    def _drive_and_arm(self) -> None:
        """After a call that may have brought the node's deadline nearer."""
        try:
            self.drive()
        except ReadFailed:
            return
        if self.up:
            self._arm()

    def _takes(self, again: Callable[[Any], None], request: Request) -> bool:
        if not self.up:
            return False
        if self.paused:
            self._backlog.append((again, request))
            return False
        return True

    # -- the contract with the node ----------------------------------------------------------------------------------

    def drive(self) -> None:
        """Carry out every Ready, then have the ledger look."""
        raft = self._raft
        if raft is None:
            self._drive_another()
            return
        own = raft._core
        watch, log = self.watch, own.log
        ready = raft.take_ready()
        # A new commit enters the book before anyone can hear of it: this node may crash on the way.
        commit = log.commit_index
        if commit != watch.commit:
            self.ledger.commit_seen(watch, own, commit, log.term(commit))
        while ready is not None:
            if not self._carry_out(ready, own.role):
                return
            if log.last_applied >= log.commit_index:
                break
            ready = raft.take_ready()
            commit = log.commit_index
            if commit != watch.commit:
                self.ledger.commit_seen(watch, own, commit, log.term(commit))
        if own.term != watch.term or own.role != watch.role or own.voted_for != watch.voted_for:
            self.ledger.role_moved(watch, own)
        last, applied, commit = log.last_index, log.last_applied, log.commit_index
        if last != watch.last or applied != watch.applied or commit != watch.settled:
            self.ledger.log_moved(watch, last, commit, applied)

    def _drive_another(self) -> None:
        """As `drive`, of a core that is not Seatrial's."""
        node, core, watch = self.node, self.core, self.watch
        while (ready := node.take_ready()) is not None:
            commit = core.log.commit_index
            if commit != watch.commit:
                self.ledger.commit_seen(watch, core, commit, core.log.term(commit))
            if not self._carry_out(ready, core.role):
                return
        self.ledger.stepped(watch, core)

    def _carry_out(self, ready: Ready, role: int) -> bool:
        """False where the node crashed over it."""
        finishes = False
        if self.trace is not None and (text := describe_ready(ready)):
            self._say(text)
        if ready.messages:
            self.outbox.send(ready.messages, role == LEADER)
        if ready.entries or ready.hard_state is not None or ready.snapshot is not None:
            self._saving.append(ready)
            if self.crash_point and self._crash_here("before-save"):
                return False
            if ready.snapshot is not None:
                self.watch.saved_index = 0  # what comes next stands behind the snapshot
            if ready.entries:
                self.ledger.saved(self.watch, self.core, ready.entries)
            self.disk.save(ready.hard_state, ready.entries, ready.snapshot, self._saved)
            if not self.up or (self.crash_point and self._crash_here("after-save")):
                return False
        elif ready.messages_after_save or self._raft is None:
            if self._saving:
                self._saving.append(ready)
            else:
                finishes = True
        if ready.committed:
            wants_snapshot = self.service.apply(ready.committed)
            if self.crash_point and self._crash_here("after-apply"):
                return False
            if wants_snapshot:
                self.make_snapshot()
                if not self.up:
                    return False
        if ready.reads:
            self.service.answer_reads(ready.reads)
        if finishes:
            self._finish(ready)
            if not self.up:
                return False
        if ready.role_changed is not None:
            self._arm()
        return True

    def _saved(self, _: Any = None) -> None:
        """The oldest save is durable: finish it, and what waited behind it without a save of its own."""
        saving = self._saving
        if not saving:
            return  # it crashed while the disk reported
        if self.paused:
            self._backlog.append((self._saved, None))
            return
        now = self.world.now_us
        self._record(now + self._saved_code)
        clock = self.clock
        self._now_us = clock.now_us() if clock.drifts else now + clock.ahead_us
        try:
            self._finish(saving.popleft())
            while saving and not saving[0].must_sync:
                self._finish(saving.popleft())
            if self.up:
                self.drive()
        except ReadFailed:
            return

    def _finish(self, ready: Ready) -> None:
        """It is durable, and so is everything before it."""
        if ready.messages_after_save:
            if self.crash_point and self._crash_here("before-send"):
                return
            self.outbox.send(ready.messages_after_save, self.core.role == LEADER)
        if ready.snapshot is not None:
            self.service.restore(ready.snapshot)
        raft = self._raft
        if raft is not None:
            raft.advance(ready, self._now_us)
        else:
            self.node.advance(ready, self._now_us)

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def make_snapshot(self) -> bool:
        """Save the machine's state as of now, then forget the log behind it; False where there is nothing to do."""
        service = self.service
        if not self.up or not service.can_snapshot() or (self._raft is not None and self._raft.is_installing):
            return False
        index = service.machine.applied_index
        snapshot = service.make_snapshot(self.node.configuration_at(Index(index)))
        self._say(f"makes a snapshot at {index}")
        self.disk.save_snapshot(snapshot, lambda: self._snapshot_saved(service, index))
        if self.crash_point:
            self._crash_here("during-snapshot")
        return True

    def _snapshot_saved(self, service: Service, index: int) -> None:
        if service is not self.service or not self.up:
            return  # a life has ended meanwhile
        service.snapshot_pending = False
        first_kept = index + 1 - self.keep_entries
        if first_kept > self.disk.first_index:
            self.disk.compact(first_kept)

    def _crash_here(self, point: str) -> bool:
        if self.crash_point != point:
            return False
        self._say(f"comes to the crash point {point}")
        told = self.crashed_at
        self.crash(self.crash_mode)
        if told is not None:
            told(point)
        return True
