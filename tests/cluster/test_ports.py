"""Addresses that nobody else has."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from seatrial.cluster.ports import HeldPorts, LoopbackNetwork, lease_addresses, split_address


@pytest.fixture
def held() -> Iterator[HeldPorts]:
    ports = HeldPorts()
    yield ports
    ports.close()


def listen(address: str, *, reuse: bool) -> socket.socket:
    server = socket.socket()
    if reuse:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(split_address(address))
        server.listen()
    except OSError:
        server.close()
        raise
    return server


def test_two_leases_never_share_an_address() -> None:
    leases = [lease_addresses() for _ in range(20)]
    try:
        assert len({lease.address(1, 7000) for lease in leases}) == len(leases)
    finally:
        for lease in leases:
            lease.close()


def test_a_leased_network_keeps_slots_and_ports_readable() -> None:
    lease = lease_addresses()
    try:
        if not isinstance(lease, LoopbackNetwork):
            pytest.skip("this machine has 127.0.0.1 alone")
        assert lease.address(2, 9092) == f"{lease.prefix}.2:9092"
        listen(lease.address(2, 9092), reuse=False).close()
    finally:
        lease.close()


def test_a_held_port_stays_the_same_and_a_server_can_still_take_it(held: HeldPorts) -> None:
    address = held.address(1, 7000)
    assert held.address(1, 7000) == address
    assert held.address(2, 7000) != address
    listen(address, reuse=True).close()


def test_a_held_port_is_given_to_nobody_who_does_not_know_of_it(held: HeldPorts) -> None:
    address = held.address(1, 7000)
    with pytest.raises(OSError) as refused:
        listen(address, reuse=False)
    assert refused.value.errno == errno.EADDRINUSE
    anonymous = [socket.create_server(("127.0.0.1", 0)) for _ in range(50)]
    try:
        assert split_address(address)[1] not in {server.getsockname()[1] for server in anonymous}
    finally:
        for server in anonymous:
            server.close()
