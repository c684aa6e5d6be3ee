"""Faults of processes and clocks: crashes at any time or at a named point, pauses, clocks that drift and jump.

Rule: a node that is down is down once for each fault that wants it so, and starts when the last of them ends.
Knows nothing of disks beyond that a machine's crash is also its disk's.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from seatrial.sim.case import Fault
from seatrial.sim.full.carried import Carried, Carriers
from seatrial.sim.full.cluster import Cluster
from seatrial.sim.full.server_host import ServerHost


def servers(cluster: Cluster, fault: Fault) -> list[ServerHost]:
    return [cluster.nodes[node] for node in fault.nodes]


def _crash(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    for server in hit:
        server.hold()
    fell = [server.crash(power=fault.mode == "power") for server in hit]

    def end() -> None:
        for server in hit:
            server.release()

    return Carried(bit=lambda: any(fell), end=end)


def _crash_at(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    fell: list[ServerHost] = []
    done: list[bool] = []

    def reached(server: ServerHost) -> None:
        fell.append(server)
        server.hold()
        cluster.world.after(int(fault.value), back, server)

    def back(server: ServerHost) -> None:
        if not done:
            server.release()

    for server in hit:
        server.arm(fault.mode, partial(reached, server))

    def end() -> None:
        for server in hit:
            server.disarm(fault.mode)

    def bit() -> bool:
        return bool(fell)

    return Carried(bit=bit, end=end)


def _pause(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    stood = [server.pause() for server in hit]

    def end() -> None:
        for server in hit:
            server.resume()

    return Carried(bit=lambda: any(stood), end=end)


def _clock_drift(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    before = {server.slot: server.host.clock.now_us() - cluster.world.now_us for server in hit}
    for server in hit:
        server.drift_by(int(fault.value))

    def bit() -> bool:
        return any(s.host.clock.now_us() - cluster.world.now_us != before[s.slot] for s in hit)

    def end() -> None:
        for server in hit:
            server.drift_by(-int(fault.value))

    return Carried(bit=bit, end=end)


def _clock_jump(cluster: Cluster, fault: Fault) -> Carried:
    hit = servers(cluster, fault)
    before = [server.host.clock.wall_ms() for server in hit]
    for server in hit:
        server.host.clock.jump_wall(int(fault.value))
    jumped = [server.host.clock.wall_ms() for server in hit] != before

    def end() -> None:
        for server in hit:
            server.host.clock.jump_wall(-int(fault.value))

    return Carried(bit=lambda: jumped, end=end)


CARRIERS: Final[Carriers] = {
    "crash": _crash,
    "crash-at": _crash_at,
    "pause": _pause,
    "clock-drift": _clock_drift,
    "clock-jump": _clock_jump,
}
