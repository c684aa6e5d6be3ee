"""Faults of disks: slow, stalled, failing, full; and damage, which only a case's fragile nodes suffer.

Rule: the disk's own counters are the evidence.  A node whose disk is damaged is known to the observer from then on: it
may refuse to serve, and nobody else may.
Knows nothing of what is on the disks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from seatrial.sim.case import Fault
from seatrial.sim.disk import SimDisk
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.nemesis_process import servers
from seatrial.sim.full.server_host import ServerHost


def _more(disks: list[SimDisk], kind: str) -> Callable[[], bool]:
    """Whether it was counted again since now."""
    before = sum(disk.counts[kind] for disk in disks)
    return lambda: sum(disk.counts[kind] for disk in disks) > before


def _slow_sync(cluster: Cluster, fault: Fault) -> Carried:
    disks = [server.disk for server in servers(cluster, fault)]
    bit = _more(disks, "slow-sync")
    for disk in disks:
        disk.slow_sync_us += int(fault.value)

    def end() -> None:
        for disk in disks:
            disk.slow_sync_us -= int(fault.value)

    return Carried(bit=bit, end=end)


def _stall_sync(cluster: Cluster, fault: Fault) -> Carried:
    disks = [server.disk for server in servers(cluster, fault)]
    bit = _more(disks, "stall-sync")
    for disk in disks:
        disk.stall()

    def end() -> None:
        for disk in disks:
            disk.release()

    return Carried(bit=bit, end=end)


def _io_error(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    disks = [server.disk for server in hit]
    bit = _more(disks, "io-error")
    for server in hit:
        server.disk.fail_next(fault.mode)
        if fault.mode == "read":
            cluster.observer.unreadable.add(server.node_id)

    def end() -> None:
        for server in hit:
            server.disk.forget_failures()
            server.start()

    return Carried(bit=bit, end=end)


def _disk_full(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    disks = [server.disk for server in hit]
    bit = _more(disks, "disk-full")
    for disk in disks:
        disk.fills += 1

    def end() -> None:
        for server in hit:
            server.disk.fills -= 1
            server.start()

    return Carried(bit=bit, end=end)


# ---- damage --------------------------------------------------------------------------------------------------------


def _damaged(cluster: Cluster, fault: Fault) -> list[ServerHost]:
    hit = servers(cluster, fault)
    cluster.observer.damaged.update(server.node_id for server in hit)
    return hit


def _bit_rot(cluster: Cluster, fault: Fault) -> Carried:
    flipped = [server.disk.rot(fault.value) for server in _damaged(cluster, fault)]
    return Carried(bit=lambda: any(flipped))


def _silent_write(cluster: Cluster, fault: Fault, *, lost: bool) -> Carried:
    disks = [server.disk for server in _damaged(cluster, fault)]
    bit = _more(disks, "silent-write")
    for disk in disks:
        if lost:
            disk.lose_next_write()
        else:
            disk.misdirect_next_write(fault.value)
    return Carried(bit=bit)


def _damage_in_a_crash(cluster: Cluster, fault: Fault, *, damage: Callable[[SimDisk, float], bool]) -> Carried:
    hit = _damaged(cluster, fault)
    done = []
    for server in hit:
        server.hold()
        server.crash(power=False)
        done.append(damage(server.disk, fault.value))

    def end() -> None:
        for server in hit:
            server.release()

    return Carried(bit=lambda: any(done), end=end)


CARRIERS: Final[Carriers] = {
    "slow-sync": _slow_sync,
    "stall-sync": _stall_sync,
    "io-error": _io_error,
    "disk-full": _disk_full,
    "bit-rot": _bit_rot,
    "lost-write": partial(_silent_write, lost=True),
    "misdirected-write": partial(_silent_write, lost=False),
    "truncate-file": partial(_damage_in_a_crash, damage=lambda disk, left: disk.truncate_file(left)),
    "roll-back-file": partial(_damage_in_a_crash, damage=lambda disk, _: disk.roll_back_file()),
}
