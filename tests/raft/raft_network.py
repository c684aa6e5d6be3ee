"""A cluster in memory for tests of the core: real nodes, disks that can lose unsynced saves, a network one can hold.

Rule: nothing happens by itself; time moves, messages arrive and saves become durable only when a test says so
(`auto_sync` finishes saves at once).  After every pump the safety properties of figure 3 are checked.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from seatrial.raft import (
    ADD_LEARNER,
    ADD_VOTER,
    ConfigurationChange,
    NotLeader,
    RaftConfig,
    RaftNode,
    ReadState,
    Ready,
    Role,
)
from seatrial.raft.ids import EntryId, Index, NodeId, Term
from seatrial.raft.log import ENTRY_OVERHEAD_BYTES
from seatrial.raft.messages import (
    COMMAND,
    CONFIGURATION,
    Configuration,
    Entry,
    HardState,
    Message,
    Snapshot,
    SnapshotMeta,
)

Filter = Callable[[Message], bool]


def entries_of(terms: Sequence[int], first: int = 1) -> list[Entry]:
    """Entries with these terms from index `first` on; equal (term, index) have equal data."""
    return [
        Entry(Term(term), Index(index), COMMAND, b"%d.%d" % (term, index)) for index, term in enumerate(terms, first)
    ]


class Contents:
    """What one disk holds."""

    def __init__(self) -> None:
        self.hard_state = HardState(Term(0), None, Index(0))
        self.snapshot: Snapshot | None = None
        self.first = 1
        self.entries: list[Entry] = []

    def copy(self) -> Contents:
        other = Contents()
        other.hard_state, other.snapshot, other.first = self.hard_state, self.snapshot, self.first
        other.entries = list(self.entries)
        return other

    def save(self, hard_state: HardState | None, entries: list[Entry], snapshot: Snapshot | None) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if snapshot is not None:
            index = snapshot.meta.last_included_index
            self.snapshot = snapshot
            keeps = self.term(index) == snapshot.meta.last_included_term
            self.entries = [entry for entry in self.entries if keeps and entry.index > index]
            self.first = index + 1
        if entries:
            assert entries[0].index >= self.first, "a save replaces what is compacted"
            assert entries[0].index <= self.first + len(self.entries), "a save leaves a gap"
            self.entries = self.entries[: entries[0].index - self.first] + entries

    def term(self, index: int) -> Term | None:
        if self.first <= index < self.first + len(self.entries):
            return self.entries[index - self.first].term
        if self.snapshot is not None and index == self.snapshot.meta.last_included_index:
            return self.snapshot.meta.last_included_term
        return Term(0) if index == 0 else None

    def compact(self, first_kept: int) -> None:
        assert self.snapshot is not None and first_kept <= self.snapshot.meta.last_included_index + 1
        if first_kept > self.first:
            self.entries = self.entries[first_kept - self.first :]
            self.first = first_kept


class Disk:
    """A StableLog whose saves become durable one by one, in order."""

    def __init__(self, log: Sequence[int] = (), term: int = 0) -> None:
        self.durable = Contents()
        self.durable.entries = entries_of(log)
        self.durable.hard_state = HardState(Term(max((term, *log))), None, Index(0))
        self.visible = self.durable.copy()
        self._pending: deque[Callable[[Contents], None]] = deque()

    def _write(self, change: Callable[[Contents], None]) -> None:
        change(self.visible)
        self._pending.append(change)

    def save(self, ready: Ready) -> None:
        self._write(lambda contents: contents.save(ready.hard_state, ready.entries, ready.snapshot))

    def save_snapshot(self, snapshot: Snapshot, first_kept: int) -> None:
        """One that the machine made: durable at once, for simplicity; then the log is compacted."""
        assert not self._pending, "finish saves first"
        for contents in (self.visible, self.durable):
            contents.snapshot = snapshot
            contents.compact(first_kept)

    def finish_one(self) -> None:
        self._pending.popleft()(self.durable)

    def crash(self) -> None:
        self._pending.clear()
        self.visible = self.durable.copy()

    @property
    def hard_state(self) -> HardState:
        return self.visible.hard_state

    @property
    def snapshot_meta(self) -> SnapshotMeta | None:
        return None if self.visible.snapshot is None else self.visible.snapshot.meta

    @property
    def first_index(self) -> Index:
        return Index(self.visible.first)

    @property
    def last_index(self) -> Index:
        return Index(self.visible.first + len(self.visible.entries) - 1)

    def term(self, index: Index) -> Term | None:
        return self.visible.term(index)

    def entries(self, first: Index, last: Index, max_bytes: int) -> list[Entry]:
        assert self.visible.first <= first <= last <= self.last_index, f"no entries [{first}, {last}]"
        found: list[Entry] = []
        size = 0
        for entry in self.visible.entries[first - self.visible.first : last - self.visible.first + 1]:
            size += len(entry.data) + ENTRY_OVERHEAD_BYTES
            if size > max_bytes and found:
                break
            found.append(entry)
        return found

    def configuration_indexes(self) -> list[Index]:
        return [entry.index for entry in self.visible.entries if entry.kind == CONFIGURATION]

    def read_snapshot(self) -> Snapshot | None:
        return self.durable.snapshot


class Host:
    """One node with its disk, its machine (the list of applied entries) and the Readys that wait for the disk."""

    def __init__(
        self, network: Network, config: RaftConfig, configuration: Configuration, log: Sequence[int], term: int
    ) -> None:
        self.network = network
        self.config = config
        self.configuration = configuration
        self.disk = Disk(log, term)
        self.up = False
        self.auto_sync = True
        self.start()

    def start(self) -> None:
        assert not self.up
        self.up = True
        self.node = RaftNode(
            self.config,
            self.disk,
            configuration=self.configuration,
            random=self.network.random.random,
            now_us=self.network.now_us,
        )
        self.saving: deque[Ready] = deque()
        self.reads: list[ReadState] = []
        self.applied: list[Entry] = []
        self.readys: list[Ready] = []
        snapshot = self.disk.read_snapshot()
        if snapshot is not None:
            self._restore(snapshot)

    def crash(self) -> None:
        self.up = False
        self.disk.crash()

    def wipe(self) -> None:
        """Lose the disk; what starts next knows nothing, as any new node."""
        if self.up:
            self.crash()
        self.disk = Disk()
        self.configuration = Configuration(())

    def pump(self) -> None:
        """Carry out every Ready; with `auto_sync`, finish its save as well."""
        while self.up and self.node.has_ready():
            ready = self.node.ready()
            self.readys.append(ready)
            self.network.took_ready(self, ready)
            self.network.send(ready.messages)
            self.disk.save(ready)
            self.saving.append(ready)
            for entry in ready.committed:
                assert entry.index == self.applied_index + 1, f"{entry} was handed out after {self.applied_index}"
                self.applied.append(entry)
                self.network.check_applied(self, entry)
            for state in ready.reads:
                assert state.index <= self.applied_index, "a read was answered before its index was applied"
            self.reads.extend(ready.reads)
            if self.auto_sync:
                while self.saving:
                    self.finish_one_save()
            self.network.check_node(self)

    def finish_one_save(self) -> None:
        ready = self.saving.popleft()
        self.disk.finish_one()
        if ready.snapshot is not None:
            self._restore(ready.snapshot)
        self.network.send(ready.messages_after_save)
        self.node.advance(ready, self.network.now_us)

    def sync(self) -> None:
        """Finish all saves, and what follows from them."""
        while self.saving:
            while self.saving:
                self.finish_one_save()
            self.pump()

    def _restore(self, snapshot: Snapshot) -> None:
        self.applied = _decode(snapshot)

    @property
    def applied_index(self) -> int:
        return self.applied[-1].index if self.applied else 0

    def make_snapshot(self, keep: int = 0) -> None:
        """Snapshot the machine and compact all but `keep` of the entries in it."""
        index = self.applied_index
        meta = SnapshotMeta(Index(index), self.applied[-1].term, self.node.configuration_at(Index(index)))
        self.disk.save_snapshot(Snapshot(meta, _encode(self.applied)), index + 1 - keep)

    def commands(self) -> list[bytes]:
        return [entry.data for entry in self.applied if entry.kind == COMMAND]

    def log(self) -> list[EntryId]:
        first, last = self.node.status().first_index, self.node.last_index
        return [EntryId(self._term(index), Index(index)) for index in range(first, last + 1)]

    def _term(self, index: int) -> Term:
        term = self.node.entry_term(Index(index))
        assert term is not None
        return term


def _encode(entries: list[Entry]) -> bytes:
    return repr([(entry.term, entry.index, entry.kind, entry.data) for entry in entries]).encode()


def _decode(snapshot: Snapshot) -> list[Entry]:
    rows: list[tuple[int, int, int, bytes]] = eval(snapshot.data)  # our own repr of plain literals
    entries = [Entry(Term(term), Index(index), kind, data) for term, index, kind, data in rows]
    assert entries[-1].index == snapshot.meta.last_included_index
    assert entries[-1].term == snapshot.meta.last_included_term
    return entries


class Network:
    """The hosts and the messages that are under way between them."""

    def __init__(
        self,
        nodes: int = 3,
        *,
        seed: int = 0,
        spares: int = 0,  # nodes more, which no configuration names yet
        configuration: Configuration | None = None,
        logs: Mapping[int, Sequence[int]] | None = None,  # node -> the terms of the entries it starts with
        terms: Mapping[int, int] | None = None,  # node -> its term at the start, if later than its log's
        **settings: Any,
    ) -> None:
        logs, terms = logs or {}, terms or {}
        ids = [NodeId(i) for i in range(1, nodes + 1)]
        self.random = random.Random(seed)
        self.now_us = 1_000_000
        self.under_way: list[Message] = []
        self.watch: Callable[[Message], object] = lambda message: None  # sees each message that is delivered
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.leaders: dict[int, NodeId] = {}  # term -> who led it
        self.committed: dict[int, Entry] = {}  # index -> what was applied there, by anyone
        configuration = configuration or Configuration(ids)
        self.hosts = {
            i: Host(self, RaftConfig(node_id=i, **settings), configuration, logs.get(i, ()), terms.get(i, 0))
            for i in ids
        }
        for number in range(nodes + 1, nodes + spares + 1):
            spare = NodeId(number)
            config = RaftConfig(node_id=spare, **settings)
            self.hosts[spare] = Host(self, config, Configuration(()), logs.get(spare, ()), terms.get(spare, 0))

    def __getitem__(self, node_id: int) -> Host:
        return self.hosts[NodeId(node_id)]

    # -- the network -------------------------------------------------------------------------------------------------

    def send(self, messages: Iterable[Message]) -> None:
        self.under_way.extend(m for m in messages if (m.sender, m.to) not in self.cut)

    def deliver_one(self, message: Message) -> None:
        """Hand a message over; the caller has taken it out of `under_way`, or repeats it."""
        self.watch(message)
        host = self.hosts.get(message.to)
        if host is not None and host.up:
            host.node.step(message, self.now_us)
            host.pump()

    def deliver(self, wanted: Filter | None = None) -> int:
        """Deliver in order until nothing (wanted) is under way; how many were delivered."""
        count = 0
        while True:
            found = next((m for m in self.under_way if wanted is None or wanted(m)), None)
            if found is None:
                return count
            self.under_way.remove(found)
            self.deliver_one(found)
            count += 1
            assert count < 100_000, f"messages without end, lately {found!r}"

    def drop(self, unwanted: Filter | None = None) -> list[Message]:
        dropped = [m for m in self.under_way if unwanted is None or unwanted(m)]
        self.under_way = [m for m in self.under_way if m not in dropped]
        return dropped

    def isolate(self, *node_ids: int) -> None:
        """Cut these nodes off from all others, and lose what is under way there; they still reach each other."""
        inside = {NodeId(i) for i in node_ids}
        outside = set(self.hosts) - inside
        self.cut |= {(a, b) for a in inside for b in outside} | {(b, a) for a in inside for b in outside}
        self.drop(lambda m: (m.sender, m.to) in self.cut)

    def heal(self) -> None:
        self.cut = set()

    # -- time --------------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        for host in self.hosts.values():
            host.pump()

    def advance(self, us: int, *, deliver: bool = True) -> None:
        """Let time pass; nodes are ticked at their deadlines, and messages arrive at once unless `deliver` is off."""
        until = self.now_us + us
        self._settle(deliver)
        while True:
            due = min((h.node.next_deadline() for h in self.hosts.values() if h.up), default=until)
            if due > until:
                break
            self.now_us = max(self.now_us, due)
            for host in self.hosts.values():
                if host.up and host.node.next_deadline() <= self.now_us:
                    host.node.tick(self.now_us)
                    assert host.node.next_deadline() > self.now_us, "a tick left its deadline behind"
            self._settle(deliver)
        self.now_us = until

    def _settle(self, deliver: bool) -> None:
        self.pump()
        if deliver:
            self.deliver()

    # -- common moves ------------------------------------------------------------------------------------------------

    def elect(self, node_id: int) -> Host:
        """Let the others forget that they heard of a leader, and this node win."""
        host = self[node_id]
        self.now_us += host.config.election_timeout_us
        host.node.campaign(self.now_us)
        host.pump()
        self.deliver()
        assert host.node.is_leader, f"{host.node.status()}"
        return host

    def propose(self, data: bytes, *, at: int | None = None) -> EntryId:
        """Propose at the leader (or `at`), without delivering anything yet."""
        host = self.leader() if at is None else self[at]
        entry_id = host.node.propose(data, self.now_us)
        host.pump()
        return entry_id

    def propose_change(self, *changes: tuple[int, int], explicit_leave: bool = False, at: int | None = None) -> EntryId:
        """Begin a change of members at the leader (or `at`), without delivering anything yet."""
        host = self.leader() if at is None else self[at]
        change = ConfigurationChange([(operation, NodeId(node)) for operation, node in changes], explicit_leave)
        entry_id = host.node.propose_configuration(change, self.now_us)
        host.pump()
        return entry_id

    def change(self, *changes: tuple[int, int], explicit_leave: bool = False) -> None:
        """As `propose_change`, and deliver everything."""
        self.propose_change(*changes, explicit_leave=explicit_leave)
        self.deliver()

    def add_voter(self, node_id: int) -> None:
        """Add as a learner, let it catch up, promote."""
        self.change((ADD_LEARNER, node_id))
        self.run_until(lambda: self.leader().node.status().peers[NodeId(node_id)].caught_up)
        self.change((ADD_VOTER, node_id))

    def leader(self) -> Host:
        leading = [h for h in self.hosts.values() if h.up and h.node.is_leader]
        if not leading:
            raise NotLeader(None)
        return max(leading, key=lambda h: h.node.term)

    def run_until(self, condition: Callable[[], bool], *, limit_us: int = 10_000_000) -> None:
        """Let time pass until it holds; virtual time, so this costs nothing but the work done."""
        until = self.now_us + limit_us
        while not condition():
            assert self.now_us < until, f"not within {limit_us} us: " + "; ".join(
                str(h.node.status()) for h in self.hosts.values()
            )
            self.advance(10_000)

    def has_leader(self) -> bool:
        return any(h.up and h.node.is_leader for h in self.hosts.values())

    def took_ready(self, host: Host, ready: Ready) -> None:
        """For those who want to watch."""

    # -- safety (figure 3) -------------------------------------------------------------------------------------------

    def check_node(self, host: Host) -> None:
        node = host.node
        if node.role == Role.LEADER:
            before = self.leaders.setdefault(node.term, node.node_id)
            assert before == node.node_id, f"election safety: {before} and {node.node_id} both led term {node.term}"
        status = node.status()
        assert status.last_applied <= status.commit_index <= status.last_index
        assert status.snapshot_index <= status.commit_index
        assert status.configuration_index <= status.last_index, "a configuration in effect is not in the log"

    def check_applied(self, host: Host, entry: Entry) -> None:
        before = self.committed.setdefault(entry.index, entry)
        assert before == entry, f"state machine safety: {before} and {entry} were both applied"

    def check_logs(self) -> None:
        """Log matching: equal (index, term) means equal up to there; leader completeness: see `check_leader`."""
        logs = [{e.index: e.term for e in host.log()} for host in self.hosts.values() if host.up]
        for number, one in enumerate(logs):
            for other in logs[number + 1 :]:
                shared = sorted(one.keys() & other.keys())
                agree = [one[index] == other[index] for index in shared]
                assert agree == sorted(agree, reverse=True), f"log matching: {one} and {other}"
