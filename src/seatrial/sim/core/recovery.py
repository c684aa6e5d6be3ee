"""After the faults: heal a connected core, and it must elect, converge and serve; then all; then after a power cut.

Rule: everything waits for a condition with a limit in virtual time, and says what it last saw.  What is left at the end
is compared: replicas at an equal index, and every write that was acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from seatrial.history import OpType
from seatrial.raft.messages import Configuration
from seatrial.raft.quorum import majority_size
from seatrial.sim.core import reconfiguring
from seatrial.sim.core.cluster import CoreCluster, NotReached
from seatrial.sim.core.host import Host
from seatrial.sim.core.machine import Command, decode
from seatrial.sim.core.service import Request

PROBE_RETRY_US = 50_000
_PROBE_SESSION = 1_000_000  # the first session of a probe; clients have small numbers


def patience_us(cluster: CoreCluster) -> int:
    """How long recovery may take: generous, for it is the proof of liveness and not of speed."""
    case = cluster.case
    return 20_000_000 + 60 * case.raft.election_timeout_us + 500 * case.disk.sync_us[1] + 500 * case.network.delay_us[1]


# -- who must recover --------------------------------------------------------------------------------------------------


def connected_core(cluster: CoreCluster) -> list[int]:
    """A random set of nodes, as small as it can be, that has a majority of every configuration that any node holds."""
    order = sorted(cluster.hosts)
    cluster.world.stream("core").shuffle(order)
    groups: list[Sequence[int]] = []
    for host in cluster.hosts.values():
        if host.up:
            groups += _groups(host.node.configuration)
    core: list[int] = []
    for node_id in order:
        wanted = any(node_id in group and not _has_majority(core, group) for group in groups)
        if wanted:
            core.append(node_id)
    return sorted(core)


def _groups(configuration: Configuration) -> list[Sequence[int]]:
    groups: list[Sequence[int]] = [configuration.voters] if configuration.voters else []
    return [*groups, configuration.voters_outgoing] if configuration.voters_outgoing else groups


def _has_majority(nodes: Iterable[int], group: Sequence[int]) -> bool:
    return sum(node in group for node in nodes) >= majority_size(len(group))


def leader_among(cluster: CoreCluster, nodes: Iterable[int]) -> Host | None:
    """The one of the highest term.  One that is cut off from these nodes may not know yet that it leads no more."""
    leading = [host for host in (cluster.hosts[node_id] for node_id in nodes) if host.up and host.node.is_leader]
    return max(leading, key=lambda host: int(host.core.term), default=None)


def members_in(cluster: CoreCluster, nodes: Iterable[int]) -> list[Host]:
    """Those of the nodes that their leader's configuration names; all others need not follow."""
    leader = leader_among(cluster, nodes)
    if leader is None:
        return []
    configuration = leader.node.configuration
    named = {*configuration.voters, *configuration.voters_outgoing, *configuration.learners}
    return [cluster.hosts[node_id] for node_id in nodes if node_id in named]


def has_converged(cluster: CoreCluster, nodes: Iterable[int]) -> bool:
    """One of the nodes leads, and all members among them have applied its whole log."""
    leader = leader_among(cluster, nodes)
    if leader is None or leader.core.log.commit_index != leader.core.log.last_index:
        return False
    hosts = members_in(cluster, nodes)
    last = leader.core.log.last_index
    return bool(hosts) and all(host.up and host.machine.applied_index == last for host in hosts)


def recover(cluster: CoreCluster, nodes: Sequence[int]) -> None:
    """Wait until these nodes elect, converge and serve.  Raises NotReached."""
    within = patience_us(cluster)
    cluster.run_until(lambda: all(client.is_idle for client in cluster.clients), within_us=within)
    cluster.run_until(lambda: has_converged(cluster, nodes), within_us=within, step_us=20_000)
    probes = [Probe(cluster, nodes, host, key=0, writes=True) for host in members_in(cluster, nodes)[:1]]
    cluster.run_until(lambda: all(probe.done for probe in probes), within_us=within)
    keys = range(cluster.case.load.keys)
    members = members_in(cluster, nodes)
    reads = [Probe(cluster, nodes, host, key=key, writes=False) for host in members for key in keys]
    cluster.run_until(lambda: all(probe.done for probe in reads), within_us=within)
    cluster.run_until(lambda: has_converged(cluster, nodes), within_us=within, step_us=20_000)


def await_end_of_changes(cluster: CoreCluster) -> None:
    """A change of members that is to complete by itself does, whichever leader began it.  Raises NotReached."""

    def is_over() -> bool:
        leader = cluster.leader()
        return leader is not None and not reconfiguring.leaves_by_itself(leader.node.configuration)

    try:
        cluster.run_until(is_over, within_us=patience_us(cluster))
    except NotReached as late:
        raise NotReached(f"joint consensus is never left: {late}") from None


def change_members_again(cluster: CoreCluster) -> None:
    """Where members were changed they can be changed again, and nobody stays in joint consensus.  Raises NotReached."""
    if not cluster.ledger.configuration_index:
        return
    try:
        for step in reconfiguring.once_more(cluster):
            cluster.run_until(partial(step, cluster), within_us=patience_us(cluster))
    except NotReached as late:
        raise NotReached(f"no further change of members is taken: {late}") from None


class Probe:
    """One write or read at one of the nodes, asked again until it is answered; part of the history."""

    __slots__ = ("_client", "_cluster", "_host", "_nodes", "_request", "_value", "done", "key", "writes")

    def __init__(self, cluster: CoreCluster, nodes: Sequence[int], host: Host, *, key: int, writes: bool) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._host = host
        self.key = key
        self.writes = writes
        self.done = False
        recorder = cluster.recorder
        self._client = recorder.number()
        self._value = (_PROBE_SESSION + self._client) * 10_000_000 if writes else 0
        data = b""
        if writes:
            data = Command(_PROBE_SESSION + self._client, 1, key, self._value).encode(0)
        self._request = Request(key, data, self._answered)
        recorder.add(self._client, OpType.INVOKE, self._name, key, self._value, None, host.node_id)
        self._ask()

    @property
    def _name(self) -> str:
        return "write" if self.writes else "read"

    def _ask(self, _: object = None) -> None:
        if self.done:
            return
        self._cluster.world.after(PROBE_RETRY_US * 4, self._ask)
        if self.writes:
            self._host.submit(self._request)
        else:
            self._host.read(self._request)

    def _answered(self, request: Request, node_id: int, result: int | None) -> None:
        if self.done:
            return
        if result is None:
            self._host = (
                leader_among(self._cluster, self._nodes) or self._host
            )  # where it is not served, the leader must
            return
        self.done = True
        recorder = self._cluster.recorder
        if self.writes:
            recorder.acknowledged.append((result, self.key, self._value))
        recorder.counts["ok"] += 1
        value = self._value if self.writes else result
        recorder.add(self._client, OpType.OK, self._name, self.key, value, None, node_id)


# -- what must be equal, and what must still be there ------------------------------------------------------------------


def compare_replicas(cluster: CoreCluster) -> None:
    """Equal states at an equal index.  Raises SafetyViolation."""
    states: dict[int, tuple[int, bytes]] = {}
    for host in cluster.hosts.values():
        if not host.up or not host.machine.applied_index:
            continue
        state = host.machine.snapshot()
        first, expected = states.setdefault(host.machine.applied_index, (host.node_id, state))
        if state != expected:
            raise cluster.ledger.broken(
                "replicas-differ",
                f"nodes {first} and {host.node_id} differ, and have both applied {host.machine.applied_index} entries",
            )


def find_acknowledged(cluster: CoreCluster) -> None:
    """Every acknowledged write stands in the log at the index that its client was told.  Raises SafetyViolation."""
    ledger = cluster.ledger
    for index, key, value in cluster.recorder.acknowledged:
        entry = ledger.entries[index] if index <= ledger.committed else None
        command = None if entry is None or entry.kind else decode(entry.data)
        if command is None or (command.key, command.value) != (key, value):
            raise ledger.broken(
                "lost-write", f"the write of {value} to {key} was acknowledged at index {index}, where there is {entry}"
            )
