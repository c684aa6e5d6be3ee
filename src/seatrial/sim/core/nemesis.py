"""The faults of a case, carried out on a cluster: each is a generator that does it, waits, and undoes it.

Rule: ending a generator undoes its fault, whenever that is; what a fault did is counted as its evidence; chance that a
fault has of its own comes from a stream named after the fault.  Membership and wiping are in `reconfiguring`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from seatrial.raft.errors import ProposalRefused
from seatrial.raft.ids import NodeId
from seatrial.sim.case import Fault
from seatrial.sim.core import reconfiguring
from seatrial.sim.core.cluster import CoreCluster
from seatrial.sim.core.host import Host
from seatrial.sim.core.proof import FOR_EVER_US, Proof
from seatrial.transport.filters import named

Steps: TypeAlias = Iterator[int]  # µs to wait until the next step


def _lasting(fault: Fault) -> int:
    return fault.duration_us or FOR_EVER_US


def _hosts(cluster: CoreCluster, fault: Fault) -> list[Host]:
    return [cluster.hosts[node_id] for node_id in fault.nodes if node_id in cluster.hosts]


# -- network -----------------------------------------------------------------------------------------------------------


def _on_links(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    effect = cluster.add(fault.kind, [pair for pair in fault.links if pair in cluster.network.links], fault.value)
    try:
        yield _lasting(fault)
    finally:
        proof.bit = effect.hits > 0
        cluster.remove(effect)


def _swizzle(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    nodes = list(fault.nodes)
    pause_us = _lasting(fault) // max(2 * len(nodes), 1)
    effects = {}
    try:
        for node_id in nodes:
            effects[node_id] = cluster.add("clog", [pair for pair in cluster.network.links if node_id in pair])
            yield pause_us
        order = list(nodes)
        cluster.world.stream(f"swizzle {fault.at_us}").shuffle(order)
        for node_id in order:
            proof.bit |= effects[node_id].hits > 0
            cluster.remove(effects.pop(node_id))
            yield pause_us
    finally:
        for effect in effects.values():
            proof.bit |= effect.hits > 0
            cluster.remove(effect)


def _filter(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    stream = cluster.world.stream(f"filter {fault.mode} {fault.at_us}")
    active = cluster.filter(named(fault.mode, fault.value, stream, links=frozenset(fault.links) or None))
    try:
        yield _lasting(fault)
    finally:
        proof.bit = active.bit
        active.remove()


# -- processes ---------------------------------------------------------------------------------------------------------


def _crash(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    mode = "kept" if fault.mode == "kill" else cluster.case.disk.unsynced
    hosts = _hosts(cluster, fault)
    for host in hosts:
        proof.bit |= host.up
        host.crash(mode)
        host.kept_down += 1
    try:
        yield _lasting(fault)
    finally:
        for host in hosts:
            host.release()


def _crash_at(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    crashed: list[Host] = []

    def armed(host: Host) -> None:
        def crashed_here(point: str) -> None:
            proof.bit = True
            host.kept_down += 1
            crashed.append(host)
            cluster.world.after(int(fault.value), start_again, host)

        if host.up:
            host.crash_point = fault.mode
            host.crashed_at = crashed_here

    def start_again(host: Host) -> None:
        if host in crashed:
            crashed.remove(host)
            host.release()

    for host in hosts:
        armed(host)
    try:
        yield _lasting(fault)
    finally:
        for host in hosts:
            host.crash_point = ""
        for host in list(crashed):
            start_again(host)


def _pause(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    seen = sum(host.messages_while_out for host in hosts)
    for host in hosts:
        host.pause()
    try:
        yield _lasting(fault)
    finally:
        proof.bit = sum(host.messages_while_out for host in hosts) > seen
        for host in hosts:
            host.resume()


# -- disks -------------------------------------------------------------------------------------------------------------


def _slow_sync(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    seen = sum(host.disk.slow_syncs for host in hosts)
    for host in hosts:
        host.disk.sync_more_us += int(fault.value)
    try:
        yield _lasting(fault)
    finally:
        proof.bit = sum(host.disk.slow_syncs for host in hosts) > seen
        for host in hosts:
            host.disk.sync_more_us -= int(fault.value)


def _stall_sync(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    seen = sum(host.disk.held_syncs for host in hosts)
    for host in hosts:
        host.disk.stalled = True
    try:
        yield _lasting(fault)
    finally:
        proof.bit = sum(host.disk.held_syncs for host in hosts) > seen
        for host in hosts:
            host.disk.resume()


def _failing_disk(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    seen = sum(host.disk.failures for host in hosts)
    for host in hosts:
        host.kept_down += 1  # once it has ended
        if host.up:
            host.disk.fault = "full" if fault.kind == "disk-full" else fault.mode or "write"
    try:
        yield _lasting(fault)
    finally:
        proof.bit = sum(host.disk.failures for host in hosts) > seen
        for host in hosts:
            host.disk.fault = ""
            host.release()


# -- clocks ------------------------------------------------------------------------------------------------------------


def _clock_drift(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    before = {host.node_id: host.clock.drift_ppm for host in hosts}
    shown = {host.node_id: host.clock.now_us() for host in hosts}
    began = cluster.world.now_us
    for host in hosts:
        host.clock.set_drift(int(fault.value))
    try:
        yield _lasting(fault)
    finally:
        elapsed = cluster.world.now_us - began
        for host in hosts:
            proof.bit |= host.clock.now_us() - shown[host.node_id] != elapsed
            host.clock.set_drift(before[host.node_id])


def _clock_jump(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    hosts = _hosts(cluster, fault)
    for host in hosts:
        before = host.clock.wall_ms()
        host.clock.jump_wall(int(fault.value))
        proof.bit |= host.clock.wall_ms() != before
    try:
        yield _lasting(fault)
    finally:
        for host in hosts:
            host.clock.jump_wall(-int(fault.value))


# -- the cluster's own operations --------------------------------------------------------------------------------------


def _transfer(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    leader = cluster.leader()
    to = NodeId(fault.nodes[0])
    if leader is not None and leader.node_id != to:
        try:
            leader.call(lambda node, now_us: node.transfer_leadership(to, now_us))
            proof.bit = not leader.paused
        except (ProposalRefused, ValueError) as refused:
            cluster.say(f"node {leader.node_id} does not hand over: {refused}")
    yield from ()


def _campaign(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    for host in _hosts(cluster, fault):
        if host.up and not host.paused:
            before = (host.core.role, host.core.term)
            host.call(lambda node, now_us: node.campaign(now_us))
            proof.bit |= host.up and (host.core.role, host.core.term) != before
    yield from ()


def _snapshot(cluster: CoreCluster, fault: Fault, proof: Proof) -> Steps:
    for host in _hosts(cluster, fault):
        proof.bit |= host.up and not host.paused and host.make_snapshot()
    yield from ()


CARRIED_OUT: Final[Mapping[str, Callable[[CoreCluster, Fault, Proof], Steps]]] = {
    **dict.fromkeys(("cut", "clog", "delay", "loss", "duplicate", "reorder", "bandwidth"), _on_links),
    "swizzle-clog": _swizzle,
    "filter": _filter,
    "crash": _crash,
    "crash-at": _crash_at,
    "pause": _pause,
    "wipe": reconfiguring.wipe,
    "slow-sync": _slow_sync,
    "stall-sync": _stall_sync,
    "io-error": _failing_disk,
    "disk-full": _failing_disk,
    "clock-drift": _clock_drift,
    "clock-jump": _clock_jump,
    "transfer": _transfer,
    "campaign": _campaign,
    "snapshot": _snapshot,
    "membership": reconfiguring.change_members,
}


class Nemesis:
    """Carries out a case's faults, each at its time, until `end`."""

    def __init__(self, cluster: CoreCluster) -> None:
        self._cluster = cluster
        self._running: dict[int, Steps] = {}
        self._proofs: dict[int, Proof] = {}
        for number, fault in enumerate(cluster.case.faults):
            if fault.kind not in CARRIED_OUT:
                raise ValueError(f"the core level knows no fault {fault.kind!r}: see seatrial.sim.faults.KINDS")
            cluster.world.at(fault.at_us, self._begin, number)

    def _begin(self, number: int) -> None:
        fault = self._cluster.case.faults[number]
        if self._cluster.trace is not None:
            self._cluster.trace(f"{self._cluster.world.now_us:>10} fault {fault}")
        proof = self._proofs[number] = Proof(fault.kind)
        self._running[number] = CARRIED_OUT[fault.kind](self._cluster, fault, proof)
        self._step(number)

    def _step(self, number: int) -> None:
        steps = self._running.get(number)
        if steps is None:
            return
        wait_us = next(steps, None)
        if wait_us is None:
            del self._running[number]
            if self._cluster.trace is not None:
                self._cluster.trace(f"{self._cluster.world.now_us:>10} fault {number} ends")
        else:
            self._cluster.world.after(wait_us, self._step, number)

    def end(self) -> None:
        """Undo whatever lasts, in the order in which it began."""
        running, self._running = self._running, {}
        for number in sorted(running):
            steps: Any = running[number]
            steps.close()

    def bit(self) -> dict[str, tuple[int, int]]:
        """For each kind: how often it was carried out, how often there is evidence."""
        counts: dict[str, tuple[int, int]] = {}
        for number in sorted(self._proofs):
            proof = self._proofs[number]
            carried, bit = counts.get(proof.kind, (0, 0))
            counts[proof.kind] = (carried + 1, bit + proof.bit)
        return counts
