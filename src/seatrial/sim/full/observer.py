"""Looks into the nodes while they run: what every replica applied, who led when, what nobody caught.

Rule: it changes nothing that a node does, except that a case's Raft settings, which the server's options do not offer,
are put in here before a group is opened.  The first violation of each promise is kept.
Checked at every step: one leader a term (Raft §5.2), a new leader holds all that was applied (§5.4), the same entry at
the same index on every replica (§5.4.3), entries applied without a gap, votes known again after a restart (figure 2).
The statuses that it samples are judged by the checkers when the run is over.
Knows nothing of clients and of faults.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from seatrial.history import StatusSample
from seatrial.machines.partition_log import PartitionLog
from seatrial.raft.config import RaftConfig
from seatrial.raft.describe import describe_message
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Entry, Heartbeat, HeartbeatResponse, Message
from seatrial.server.broker import role_name
from seatrial.server.errors import StartError
from seatrial.server.node import Node
from seatrial.server.replica import Machine, Replica, ReplicaOptions
from seatrial.sim.case import Case, Violation
from seatrial.sim.full.promises import Promises
from seatrial.sim.world import World

ANOTHER_REPLICA: Final = 1_000  # added to a node's id for each replica of a group that it deleted before
DAMAGE_STATUSES: Final = frozenset({11, 13})  # how a process exits that will not serve what it found on its disk


class ObservedMachine:
    """A state machine whose every applied entry is shown to the observer first."""

    __slots__ = ("_applied", "_machine", "_show", "_skip", "snapshot")

    def __init__(
        self,
        machine: Machine,
        show: Callable[[Entry], None],
        applied: Callable[[], object],
        skip: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._show = show
        self._applied = applied
        self._skip = skip
        self.snapshot = machine.snapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    @property
    def digest(self) -> str:
        return self._machine.digest

    def apply(self, entry: Entry) -> Any:
        self._show(entry)
        result = self._machine.apply(entry)
        self._applied()
        return result

    def restore(self, data: bytes) -> None:
        self._skip()
        self._machine.restore(data)


class Applied:
    """What was applied at each index of one group, by whomever first; and the furthest index, for leaders' logs.

    starts: where the log of a partition started then.
    """

    __slots__ = ("entries", "last", "starts")

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.starts: dict[int, int] = {}
        self.last: Entry | None = None


class Observer:
    """Collects violations and samples of one run.

    damaged: nodes whose disks were damaged on purpose, which may refuse to serve; unreadable: those on which a read
    was made to fail, which may until it reads again; exits: how nodes ended by themselves.  tell: given a line of the
    trace for each change of role.  remark: given one for each message, where somebody reads them.  stops_at_first: halt
    the world when a promise was broken.
    """

    def __init__(self, world: World, case: Case) -> None:
        self.violations: dict[str, Violation] = {}
        self.samples: list[StatusSample] = []
        self.exits: list[tuple[int, int, str]] = []
        self.damaged: set[int] = set()
        self.unreadable: set[int] = set()
        self.stops_at_first = False
        self.logs: Callable[[], dict[str, list[str]]] = dict
        self.tell: Callable[[str], None] = lambda text: None
        self.remark: Callable[[str], None] | None = None
        self._world = world
        self._case = case
        self._applied: dict[GroupId, Applied] = {}
        self._leaders: dict[tuple[GroupId, int], int] = {}
        self._promises = Promises()
        self._removals: Counter[tuple[int, GroupId]] = Counter()
        self.elections = 0

    def report(self, name: str, message: str, **detail: Any) -> None:
        """A promise was broken; the first time it was is kept."""
        if self.stops_at_first:
            self._world.halt()
        if name not in self.violations:
            detail["logs"] = self.logs()
            self.violations[name] = Violation(name=name, message=message, at_us=self._world.now_us, detail=detail)

    # ---- nodes come and go -----------------------------------------------------------------------------------------

    def attach(self, node_id: int, node: Node, at_point: Callable[[str], bool]) -> None:
        """A new life of a node, before it opens its groups; `at_point` is told what named points it comes to."""
        multiraft, raft = node.multiraft, self._case.raft
        opened, role_changed = multiraft.open, multiraft.role_changed
        multiraft._raft = self._with_settings(multiraft._raft)
        if self._case.load.deletes:
            node.retaining.free_bytes = 1  # or no disk would ever be freed in so short a time
        multiraft._quiet.groups_min, multiraft._quiet.idle_beats = raft.quiet_groups, raft.quiet_beats

        def open_observed(
            group: GroupId, name: str, machine: Machine, voters: Sequence[NodeId], options: ReplicaOptions, **named: Any
        ) -> Replica:
            keep = None if options.keep_entries is None else raft.keep_entries
            options = replace(options, snapshot_entries=raft.snapshot_entries, keep_entries=keep)
            replica = opened(group, name, machine, voters, options, **named)
            self._recovered(node_id, replica)
            replica.machine = self._observed(node_id, replica, lambda: at_point("after-apply"))
            return replica

        def role_changed_observed(replica: Replica) -> None:
            leads = "leads" if replica.node.is_leader else "does not lead"
            self.tell(f"{replica.name}: node {node_id} {leads} in term {replica.node.term}")
            if replica.node.is_leader:
                self._elected(node_id, replica)
            role_changed(replica)

        sent = multiraft.send

        def send_observed(group: GroupId, messages: Sequence[Message]) -> None:
            if not at_point("before-send"):
                self._leave(node_id, group, messages)
                sent(group, messages)

        removed = multiraft.remove_group

        def remove_observed(group: GroupId, *, done: Callable[[], None] = lambda: None) -> None:
            self._promises.forget(node_id, group)
            self._removals[node_id, group] += 1
            removed(group, done=done)

        multiraft.send = send_observed
        multiraft.remove_group = remove_observed  # type: ignore[method-assign]
        multiraft.open = open_observed  # type: ignore[method-assign]
        multiraft.role_changed = role_changed_observed  # type: ignore[method-assign]

    def _leave(self, node_id: int, group: GroupId, messages: Sequence[Message]) -> None:
        """Messages leave the node; what they promise it must know of from now on in every later life."""
        for message in messages:
            if self.remark is not None:
                self.remark(f"group {group} {describe_message(message)}")
            # Two of three promise nothing.
            if type(message) is not Heartbeat and type(message) is not HeartbeatResponse:
                self._promises.leave(node_id, group, (message,))

    def _recovered(self, node_id: int, replica: Replica) -> None:
        if node_id in self.damaged:
            return
        broken = self._promises.broken(node_id, replica.group, replica.storage)
        if broken is not None:
            message = f"node {node_id} {broken} ({replica.name})"
            self.report("promise-not-durable", message, group=replica.name)

    def _with_settings(self, config: RaftConfig) -> RaftConfig:
        raft = self._case.raft
        return replace(
            config,
            heartbeat_us=raft.heartbeat_us,
            election_timeout_us=raft.election_timeout_us,
            pre_vote=raft.pre_vote,
            check_quorum=raft.check_quorum,
            lease_reads=raft.lease_reads,
            max_message_bytes=raft.max_message_bytes,
            max_inflight_messages=raft.max_inflight_messages,
            snapshot_chunk_bytes=raft.snapshot_chunk_bytes,
            max_uncommitted_bytes=raft.max_uncommitted_bytes,
        )

    def _observed(self, node_id: int, replica: Replica, applied: Callable[[], object]) -> ObservedMachine:
        known = self._applied.setdefault(replica.group, Applied())
        expected: int | None = replica.last_applied + 1

        def show(entry: Entry) -> None:
            nonlocal expected
            if expected is not None and entry.index != expected:
                self.report(
                    "applied-in-order",
                    f"node {node_id} applied entry {entry.index} of {replica.name} where {expected} was next",
                )
            expected = entry.index + 1
            self._show(node_id, replica.name, known, entry)

        def skip() -> None:
            nonlocal expected
            expected = None

        machine = replica.machine
        if not (self._case.load.deletes and isinstance(machine, PartitionLog)):
            return ObservedMachine(machine, show, applied, skip)

        def applied_and_started() -> object:
            self._started(node_id, replica.name, known, machine)
            return applied()

        return ObservedMachine(machine, show, applied_and_started, skip)

    def _started(self, node_id: int, group: str, known: Applied, machine: PartitionLog) -> None:
        """Where a log starts goes back for nobody, whatever a replica was restored from."""
        index, start = machine.applied_index, machine.log_start_offset
        first = known.starts.setdefault(index, start)
        if start < first:
            self.report(
                "log-start-went-back",
                f"the log of {group} starts at {start} on node {node_id} after entry {index}, and started at {first} "
                "there for another replica",
                group=group,
                index=index,
            )

    def _show(self, node_id: int, group: str, known: Applied, entry: Entry) -> None:
        first = known.entries.setdefault(entry.index, entry)
        if first is not entry and (first.term, first.kind, first.data) != (entry.term, entry.kind, entry.data):
            self.report(
                "state-machine-safety",
                f"node {node_id} applied an entry of term {entry.term} at index {entry.index} of {group}, "
                f"where another replica had applied one of term {first.term}"
                + (" with other contents" if first.term == entry.term else ""),
                group=group,
                index=entry.index,
            )
        if known.last is None or entry.index > known.last.index:
            known.last = entry

    def _elected(self, node_id: int, replica: Replica) -> None:
        term = int(replica.node.term)
        first = self._leaders.setdefault((replica.group, term), node_id)
        self.elections += 1
        if first != node_id:
            self.report(
                "election-safety",
                f"nodes {first} and {node_id} both led {replica.name} in term {term}",
                group=replica.name,
                term=term,
            )
        known = self._applied.get(replica.group)
        if known is None or known.last is None or known.last.term >= term:
            return
        last = known.last
        held = replica.node.entry_term(last.index)
        snapshot = replica.storage.snapshot_meta
        covered = 0 if snapshot is None else snapshot.last_included_index
        if held != last.term and covered < last.index:
            self.report(
                "leader-completeness",
                f"node {node_id} leads {replica.name} in term {term} without entry {last.index} of term {last.term}, "
                f"which was committed (it has {'none' if held is None else f'one of term {held}'} there)",
                group=replica.name,
                term=term,
            )

    def exited(self, node_id: int, error: StartError) -> None:
        """A process ended by itself: after a failed write that is right; for damage, only where there was any."""
        self.exits.append((self._world.now_us, node_id, str(error)))
        if error.status == 1:
            self.report("crash", f"node {node_id} ended itself: {error}", trace=_trace(error.__cause__))
        elif error.status in DAMAGE_STATUSES and node_id not in self.damaged | self.unreadable:
            self.report("damage", f"node {node_id} refuses its disk, which nothing damaged: {error}")

    def unhandled(self, node_id: int, message: str, error: BaseException | None) -> None:
        what = message if error is None else f"{type(error).__name__}: {error}"
        self.report("crash", f"on node {node_id} nobody caught: {what}", trace=_trace(error), context=message)

    # ---- statuses --------------------------------------------------------------------------------------------------

    def sample(self, nodes: Sequence[tuple[int, Node | None, int]]) -> None:
        """What each node (with its incarnation) holds of each of its groups now."""
        time_ns = self._world.now_us * 1000
        for node_id, node, incarnation in nodes:
            if node is None:
                continue
            for _, replica in sorted(node.multiraft.replicas.items()):
                if not _is_saving_its_state(replica):
                    # A replica that was deleted and comes back is another one: it has promised nothing yet.
                    known_as = node_id + ANOTHER_REPLICA * self._removals[node_id, replica.group]
                    self.samples.append(sample_of(known_as, replica, time_ns, incarnation))


def _is_saving_its_state(replica: Replica) -> bool:
    """A term that is not durable yet was told to nobody, and a crash may take it back."""
    return replica.node.has_ready() or any(ready.hard_state is not None for ready, _ in replica._saving)


def sample_of(node_id: int, replica: Replica, time_ns: int, incarnation: int) -> StatusSample:
    """One replica's status, as the checkers want it."""
    node = replica.node
    return StatusSample(
        time_ns=time_ns,
        node=node_id,
        group=replica.name,
        role=role_name(replica),
        term=node.term,
        leader=node.leader,
        commit_index=node.commit_index,
        last_applied=replica.last_applied,
        last_index=node.last_index,
        digest=replica.machine.digest,
        incarnation=incarnation,
    )


def _trace(error: BaseException | None) -> list[str]:
    return [] if error is None else "".join(traceback.format_exception(error)).splitlines()[-30:]
