"""A simulated cluster of Raft nodes that a test, a case or a person at a prompt can drive.

    cluster = CoreCluster(Case(level="core", seed=1, nodes=3))
    cluster.run_until_leader()
    cluster.cut((1, 2), (1, 3))
    cluster.propose(b"...")
    cluster.run_for(1_000_000)
    cluster.check()

Rule: what happens is decided by the case and by the calls made; every step is checked (`ledger`), and the first broken
promise of Raft raises SafetyViolation out of whatever was running.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import EntryId, NodeId
from seatrial.raft.membership import decode_configuration, members
from seatrial.raft.messages import Configuration
from seatrial.raft.roles import Role
from seatrial.sim.case import Case
from seatrial.sim.clocks import HostClock
from seatrial.sim.core.adapter import MakeCore, make_raft_node
from seatrial.sim.core.clients import Client, Recorder
from seatrial.sim.core.disk import RecordDisk
from seatrial.sim.core.host import Host
from seatrial.sim.core.ledger import Ledger
from seatrial.sim.core.machine import Command
from seatrial.sim.core.network import CoreNetwork, Effect
from seatrial.sim.core.outbox import Outbox
from seatrial.sim.core.trace import Digest
from seatrial.sim.world import World
from seatrial.transport.filters import ActiveFilter, Filter, FilterSet

Pair = tuple[int, int]


class NotReached(AssertionError):
    """A condition that was waited for did not come true in its time."""


class CoreCluster:
    """`case.nodes` nodes and `case.spares` empty ones, their network, clocks and disks; without clients and faults."""

    def __init__(
        self, case: Case, *, trace: Callable[[str], None] | None = None, make_core: MakeCore = make_raft_node
    ) -> None:
        self.case = case
        self._make_core = make_core
        self.world = World(case.seed)
        self.digest = Digest(self.world)
        self.recorder = Recorder(self.world)
        self.trace = trace
        self.clients: list[Client] = []
        self.members = tuple(range(1, case.nodes + 1))
        self._operations_left = case.load.operations_max
        self._proposed = 0
        self.filters = FilterSet(self._now_us, self._schedule)
        decoded: dict[bytes, Command] = {}
        configuration = Configuration([NodeId(i) for i in self.members])
        self.ledger = Ledger(self.world, configuration)
        self.hosts: dict[int, Host] = {}
        for node_id in range(1, case.nodes + case.spares + 1):
            is_member = node_id <= case.nodes
            self.hosts[node_id] = self._make_host(node_id, configuration if is_member else Configuration(()), decoded)
        self.network = CoreNetwork(self.world, case.network, {i: host.receive for i, host in self.hosts.items()})
        for host in self.hosts.values():
            host.outbox = Outbox(host.watch, self.ledger, self.filters, self.network.links)
            host.start()

    def _now_us(self) -> int:
        return self.world.now_us

    def _schedule(self, delay_us: int, callback: Callable[[], None]) -> None:
        self.world.after(delay_us, lambda _: callback())

    def _make_host(self, node_id: int, configuration: Configuration, decoded: dict[bytes, Command]) -> Host:
        case, world = self.case, self.world
        raft = case.raft
        config = RaftConfig(
            node_id=NodeId(node_id),
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
        stream = world.stream(f"clock {node_id}")
        clock = HostClock(
            world,
            drift_ppm=stream.integer(-case.drift_ppm, case.drift_ppm),
            wall_offset_us=stream.integer(-case.wall_offset_us, case.wall_offset_us),
        )
        disk = RecordDisk(world, world.stream(f"disk {node_id}"), case.disk)
        host = Host(
            world, config, configuration, disk, clock, self.ledger, self.filters, decoded, self.digest, self._make_core
        )
        host.trace = self.trace
        host.snapshot_entries = raft.snapshot_entries
        host.keep_entries = raft.keep_entries
        host.crash_mode = case.disk.unsynced
        return host

    # -- time --------------------------------------------------------------------------------------------------------

    def run_for(self, duration_us: int) -> None:
        """Raises SafetyViolation, EventStorm, and whatever a node raises."""
        self._run(self.world.now_us + duration_us)

    def _run(self, until_us: int) -> None:
        # What a simulation throws away is in no cycles, and looking for cycles costs it a seventh of its time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self.world.run(until_us)
        finally:
            if collecting:
                gc.enable()

    def run_until(self, condition: Callable[[], bool], *, within_us: int = 10_000_000, step_us: int = 10_000) -> None:
        """Raises NotReached, which says how things stand."""
        until = self.world.now_us + within_us
        while not condition():
            if self.world.now_us >= until:
                raise NotReached(f"not within {within_us / 1e6:g} s: {self.describe()}")
            self._run(min(self.world.now_us + step_us, until))

    def run_until_leader(self, *, within_us: int = 10_000_000) -> Host:
        self.run_until(lambda: self.leader() is not None, within_us=within_us)
        leader = self.leader()
        assert leader is not None
        return leader

    # -- looking -----------------------------------------------------------------------------------------------------

    def leader(self) -> Host | None:
        """The running leader of the highest term."""
        leading = [host for host in self.hosts.values() if host.up and host.node.is_leader]
        return max(leading, key=lambda host: int(host.core.term), default=None)

    def describe(self) -> str:
        return "; ".join(self._describe_host(host) for host in self.hosts.values())

    def _describe_host(self, host: Host) -> str:
        if not host.up:
            return f"{host.node_id} is down"
        core, log = host.core, host.core.log
        paused = ", paused" if host.paused else ""
        return (
            f"{host.node_id} {Role(core.role).name.lower()}{paused} term {core.term}, leader {core.leader or '-'}, "
            f"applied {log.last_applied}, committed {log.commit_index}, last {log.last_index}"
        )

    def say(self, text: str) -> None:
        """A line of the trace."""
        if self.trace is not None:
            self.trace(f"{self.world.now_us:>10} {text}")

    def is_member_anywhere(self, node_id: int) -> bool:
        """Does the committed configuration name the node, or one that may still be committed?"""
        if is_member(self.ledger.configuration, node_id):
            return True
        beyond = self.ledger.configuration_index
        return any(
            is_member(decode_configuration(entry.data), node_id)
            for host in self.hosts.values()
            for entry in host.disk.configurations()
            if entry.index > beyond
        )

    def check(self) -> None:
        """Look at everything once more: every running node, and every leader's completeness."""
        for host in self.hosts.values():
            if host.up:
                self.ledger.stepped(host.watch, host.core)

    # -- acting ------------------------------------------------------------------------------------------------------

    def propose(self, data: bytes | None = None, *, at: int | None = None) -> EntryId:
        """Propose at the leader, or at node `at`; without `data`, a write of a value of its own to register 0.

        Raises ProposalRefused.
        """
        host = self.hosts[at] if at is not None else self.leader()
        assert host is not None and host.up, f"nobody can take a proposal: {self.describe()}"
        if data is None:
            self._proposed += 1
            data = Command(0, 0, 0, self._proposed).encode(0)
        result: EntryId = host.call(lambda node, now_us: node.propose(data, now_us))
        return result

    def add_clients(self) -> None:
        """Start the clients of the case's load."""
        for name in range(1, self.case.load.clients + 1):
            self.clients.append(
                Client(self.world, name, self.hosts, self.case.load, self.recorder, self._take_operation)
            )

    def _take_operation(self) -> bool:
        self._operations_left -= 1
        return self._operations_left >= 0

    def add(self, kind: str, pairs: Iterable[Pair], value: float = 0) -> Effect:
        """Let a network fault of this kind begin on the directed links; `remove` ends it."""
        effect = Effect(kind, value)
        self.network.add(effect, list(pairs))
        return effect

    def filter(self, described: Filter) -> ActiveFilter:
        """Let a message filter judge every message from now on: `cluster.filter(drop(AppendEntries, to=2))`."""
        return self.filters.attach(described)

    def forget_messages(self, *node_ids: int) -> None:
        """What is under way from these nodes and to them is lost, as when connections break; none named: from all."""

        def is_theirs(_: object, argument: object) -> bool:
            ends = (getattr(argument, "sender", 0), getattr(argument, "to", 0))
            return any(ends) and (not node_ids or any(node_id in ends for node_id in node_ids))

        self.world.discard(is_theirs)
        for link in self.network.links.values():
            if not node_ids or link.sender in node_ids or link.to in node_ids:
                link.forget()

    def remove(self, effect: Effect) -> None:
        self.network.remove(effect)

    def cut(self, *pairs: Pair) -> Effect:
        """Nothing passes from the first to the second of each pair."""
        return self.add("cut", pairs)

    def isolate(self, node_id: int) -> Effect:
        """Cut the node off from all others, both ways."""
        return self.add("cut", [pair for pair in self.network.links if node_id in pair])

    def heal(self) -> None:
        """End every fault of the network."""
        effects = {id(effect): effect for link in self.network.links.values() for effect in link.effects}
        for effect in effects.values():
            self.network.remove(effect)


def is_member(configuration: Configuration, node_id: int) -> bool:
    """Voter of either majority, or learner."""
    return node_id in members(configuration) or node_id in configuration.learners_next
