"""Addresses that no other process on this machine uses, without asking anybody.

On Linux all of 127.0.0.0/8 can be bound: a cluster leases one /24 of it, and every node has its own address with
well-known ports.  The lease is a listening socket inside the /24, so the kernel ends it however this process ends.
Where only 127.0.0.1 exists (macOS), each port is held by a bound, never listening socket with SO_REUSEADDR for as long
as the cluster lives; a server that sets SO_REUSEADDR itself, as servers do, can bind it all the same.

Rule: an address that was handed out stays the same, and ours, until `close`.
Knows nothing of nodes and services: it hands out (slot, port) pairs.
"""

from __future__ import annotations

import errno
import socket
from typing import Protocol

from seatrial.cluster.errors import Unavailable
from seatrial.env import Rng, fresh_seed

# Source addresses of loopback connections are 127.0.0.1, so no ephemeral port ever collides inside the /24.
LEASE_SLOT = 254
LEASE_PORT = 7999
SLOT_MAX = 253
ATTEMPTS_MAX = 200


class AddressLease(Protocol):
    """Addresses that are ours until `close`."""

    def address(self, slot: int, port: int) -> str:
        """ "host:port" for this slot (1 to 253) and this port; the same each time."""

    def close(self) -> None: ...


class LoopbackNetwork:
    """One leased /24 of 127.0.0.0/8: slot N is its address .N, and ports are what was asked for."""

    def __init__(self, lease: socket.socket, prefix: str) -> None:
        self._lease = lease
        self.prefix = prefix

    def address(self, slot: int, port: int) -> str:
        assert 1 <= slot <= SLOT_MAX, f"slot {slot}"
        return f"{self.prefix}.{slot}:{port}"

    def close(self) -> None:
        self._lease.close()


class HeldPorts:
    """Ports of 127.0.0.1 that the system chose, each held by a bound socket that never listens."""

    def __init__(self) -> None:
        self._sockets: dict[tuple[int, int], socket.socket] = {}

    def address(self, slot: int, port: int) -> str:
        held = self._sockets.get((slot, port))
        if held is None:
            held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            self._sockets[slot, port] = held
        return f"127.0.0.1:{held.getsockname()[1]}"

    def close(self) -> None:
        for held in self._sockets.values():
            held.close()
        self._sockets.clear()


def lease_addresses() -> AddressLease:
    """A /24 of our own where the system has them, else held ports of 127.0.0.1.

    Raises Unavailable when 200 networks in a row are taken.
    """
    # Which network it is must not depend on the trial's seed: two runs of one seed may be alive at once.
    rng = Rng(fresh_seed())
    for _ in range(ATTEMPTS_MAX):
        prefix = f"127.{rng.integer(64, 127)}.{rng.integer(0, 255)}"
        lease = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            lease.bind((f"{prefix}.{LEASE_SLOT}", LEASE_PORT))
            lease.listen(1)
        except OSError as error:
            lease.close()
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno == errno.EADDRNOTAVAIL:
                return HeldPorts()
            raise
        return LoopbackNetwork(lease, prefix)
    raise Unavailable(f"{ATTEMPTS_MAX} loopback networks in a row are leased by other clusters; end some of them")


def split_address(address: str) -> tuple[str, int]:
    """("host", port) of "host:port"."""
    host, _, port = address.rpartition(":")
    return host, int(port)
