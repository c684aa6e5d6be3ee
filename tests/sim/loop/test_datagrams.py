"""UDP endpoints: what arrives, what is lost, and who is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.sim import Network, SimEscape, SimNetwork, run, simulate


class Inbox(asyncio.DatagramProtocol):
    """Keeps what comes, and echoes it where it was asked to."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.came: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost = 0
        self.echoes = echoes

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.came.append((data, addr))
        if self.echoes:
            self.transport.sendto(data.upper(), addr)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


async def bound(port: int, host: str = "0.0.0.0", **settings: Any) -> Inbox:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: Inbox(**settings), local_addr=(host, port))
    return protocol


async def connected(host: str, port: int) -> Inbox:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(Inbox, remote_addr=(host, port))
    return protocol


def served(pair: Any, *, count: int = 1, before: Callable[[], object] = lambda: None) -> tuple[Inbox, Inbox]:
    """A connected client on `a` sends so many datagrams to an echo on `b`."""
    server = pair.run(bound(7000, echoes=True), on=pair.b)
    client = pair.run(connected("b", 7000))
    before()

    async def send() -> None:
        for number in range(count):
            client.transport.sendto(b"n%d" % number)
            await asyncio.sleep(0.001)
        await asyncio.sleep(5)

    pair.run(send())
    return server, client


def test_a_datagram_arrives_whole_and_its_sender_can_be_answered(pair: Any) -> None:
    server, client = served(pair)
    (data, source), answer = server.came[0], client.came[0]
    assert (data, source[0]) == (b"n0", pair.a.address)
    assert source == client.transport.get_extra_info("sockname")
    assert answer == (b"N0", (pair.b.address, 7000))
    assert client.transport.get_extra_info("socket").type == socket.SOCK_DGRAM


def test_a_link_that_loses_loses_some_for_good_and_says_so(pair: Any) -> None:
    link = pair.network.link("a", "b")
    server, _ = served(pair, count=200, before=lambda: link.impose("loss", 0.3))
    assert 100 < len(server.came) < 180
    assert link.evidence["loss"] == 200 - len(server.came)


@pytest.mark.parametrize("kind", ["cut", "clog"])
def test_what_is_sent_while_nothing_passes_never_comes(pair: Any, kind: str) -> None:
    link = pair.network.link("a", "b")
    server, client = served(pair, count=3, before=lambda: link.impose(kind))
    link.clear()
    run(pair.world, pair.world.now_us + 60_000_000)
    assert server.came == client.errors == []
    assert link.evidence[kind] == 3


def test_datagrams_overtake_each_other_where_delays_vary(pair: Any) -> None:
    pair.network.settings = Network(delay_us=(100, 50_000), tail=0.0, split=0.5)
    server, _ = served(pair, count=50)
    came = [data for data, _ in server.came]
    assert sorted(came) == sorted(b"n%d" % number for number in range(50))
    assert came != [b"n%d" % number for number in range(50)]


def test_a_connected_sender_is_told_that_nobody_listens_and_an_unconnected_one_is_not(pair: Any) -> None:
    told, untold = pair.run(connected("b", 7001)), pair.run(bound(0))

    async def send() -> None:
        told.transport.sendto(b"x")
        untold.transport.sendto(b"x", ("b", 7001))
        untold.transport.sendto(b"x", ("10.99.99.99", 7001))
        await asyncio.sleep(1)

    pair.run(send())
    assert [type(error) for error in told.errors] == [ConnectionRefusedError]
    assert untold.errors == []


def test_a_connected_endpoint_hears_only_its_peer_and_a_local_one_only_its_host(pair: Any) -> None:
    client, local = pair.run(connected("b", 7000)), pair.run(bound(7002, "127.0.0.1"))
    stranger, neighbour = pair.run(bound(7003), on=pair.b), pair.run(bound(7003))
    _, port = client.transport.get_extra_info("sockname")

    async def send(sender: Inbox) -> None:
        sender.transport.sendto(b"x", (pair.a.address, port))
        sender.transport.sendto(b"y", (pair.a.address, 7002))
        await asyncio.sleep(1)

    pair.run(send(stranger), on=pair.b)
    assert client.came == local.came == []
    pair.run(send(neighbour))
    assert client.came == []
    assert [data for data, _ in local.came] == [b"y"]


def test_a_port_is_taken_until_it_is_closed_or_its_process_crashes(pair: Any) -> None:
    first = pair.run(bound(7000))
    with pytest.raises(OSError, match="in use"):
        pair.run(bound(7000))
    first.transport.close()
    first.transport.sendto(b"nothing is sent any more", ("b", 7000))
    pair.run(bound(7000))
    assert first.lost == 1
    assert first.transport.is_closing()
    pair.a.crash(power=False)
    pair.a.boot()
    pair.run(bound(7000))


def test_a_receiver_that_stands_still_loses_what_its_buffer_does_not_hold(pair: Any) -> None:
    server, client = pair.run(bound(7000), on=pair.b), pair.run(connected("b", 7000))

    async def send() -> None:
        pair.b.pause()
        for _ in range(10):
            client.transport.sendto(bytes(60_000))
        await asyncio.sleep(1)
        pair.b.resume()
        await asyncio.sleep(1)

    pair.run(send())
    assert len(server.came) == 3


def test_what_cannot_be_sent_is_an_error_as_it_is_on_linux(pair: Any) -> None:
    client = pair.run(connected("b", 7000))

    async def send() -> None:
        client.transport.sendto(bytes(65_508))
        with pytest.raises(TypeError, match="bytes-like"):
            client.transport.sendto("text")
        with pytest.raises(ValueError, match="must be None or"):
            client.transport.sendto(b"x", ("b", 7001))
        await asyncio.sleep(0)

    pair.run(send())
    assert [error.errno for error in client.errors if isinstance(error, OSError)] == [90]


@pytest.mark.parametrize("address", ["255.255.255.255", "239.1.2.3"])
def test_broadcast_and_multicast_are_refused_with_what_to_do_instead(pair: Any, address: str) -> None:
    async def send() -> None:
        (await bound(0)).transport.sendto(b"x", (address, 7000))

    pair.a.spawn(send())
    with pytest.raises(SimEscape, match="each host by its name"):
        run(pair.world, 1_000_000)


def test_a_name_is_looked_up_for_datagrams_as_such(pair: Any) -> None:
    async def look_up() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("b", 7000, type=socket.SOCK_DGRAM)

    ((family, kind, protocol, _, address),) = pair.run(look_up())
    assert (family, kind, protocol) == (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    assert address == (pair.b.address, 7000)


def test_a_gossip_of_five_hosts_replays_from_its_seed() -> None:
    async def gossip(network: SimNetwork, name: str, names: list[str]) -> set[bytes]:
        inbox = await bound(7000)
        chance = network.world.stream(f"gossip {name}")
        known = {name.encode()}
        for _ in range(30):
            inbox.transport.sendto(b" ".join(sorted(known)), (chance.choice(names), 7000))
            await asyncio.sleep(0.1)
            known.update(word for data, _ in inbox.came for word in data.split())
        return known

    async def main(network: SimNetwork) -> list[set[bytes]]:
        names = [f"node-{number}" for number in range(5)]
        hosts = [network.add_host(name) for name in names]
        return await asyncio.gather(*(host.run(gossip(network, host.name, names)) for host in hosts))

    lossy = Network(loss=0.2)
    first, again, other = (simulate(main, seed=seed, network=lossy) for seed in (1, 1, 2))
    assert all(len(known) == 5 for known in first.value)
    assert first.digest == again.digest != other.digest
