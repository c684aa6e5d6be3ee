"""Each fault of a link does what its name says, leaves evidence, ends when it is undone, and moves no other draw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from test_tcp import PORT, Recorder, ask, connected, later, serve

from seatrial.sim import Network, SimNetwork, World, run
from seatrial.sim.links import IMPOSABLE, Link

SECOND = 1_000_000


def sent(pair: Any, data: bytes = b"hello", wait_us: int = 50_000) -> bytes:
    """What has arrived at `b` some time after `a` sent this over a new connection."""
    client, served = connected(pair)
    client.transport.write(data)
    later(pair, wait_us)
    return bytes(served.received)


def test_a_cut_holds_bytes_until_it_ends_and_tcp_sends_again(pair: Any) -> None:
    client, served = connected(pair)
    link = pair.network.link("a", "b")
    undo = link.impose("cut")
    client.transport.write(b"hello")
    later(pair, 2 * SECOND)
    assert served.received == b""
    undo()
    later(pair, 1_000)
    assert served.received == b""
    later(pair, SECOND)
    assert served.received == b"hello"
    assert link.evidence == {"cut": 1}


def test_a_cut_in_one_direction_leaves_the_other_open(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.link("a", "b").impose("cut")
    served.transport.write(b"from b")
    client.transport.write(b"from a")
    later(pair, 10_000)
    assert client.received == b"from b"
    assert served.received == b""


def test_a_cut_that_lasts_times_connections_out_on_both_sides(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.link("a", "b").impose("cut")
    client.transport.write(b"held")
    served.transport.write(b"arrives, but its acknowledgement does not")
    later(pair, 40 * SECOND)
    assert client.received
    assert isinstance(client.error, TimeoutError)
    assert isinstance(served.error, TimeoutError)


def test_dialling_over_a_cut_link_waits_and_tries_again(pair: Any) -> None:
    pair.b.spawn(serve())
    undo = pair.network.link("b", "a").impose("cut")
    pair.world.after(2_500_000, lambda _: undo())
    assert pair.run(ask(b"x")) == b"x"
    assert pair.world.now_us >= 3 * SECOND
    assert pair.network.link("b", "a").evidence["cut"] == 2


def test_a_clogged_link_lets_everything_go_at_once(pair: Any) -> None:
    client, served = connected(pair)
    link = pair.network.link("a", "b")
    undo = link.impose("clog")
    for number in range(10):
        client.transport.write(b"%d" % number)
        later(pair, 100_000)
    assert served.received == b""
    undo()
    later(pair, 100)
    assert served.received == b"0123456789"
    assert len(served.pieces) == 1
    assert link.evidence == {"clog": 10}


def test_a_link_that_is_cut_twice_opens_with_the_last_end(pair: Any) -> None:
    link = pair.network.link("a", "b")
    first, second = link.impose("cut"), link.impose("cut")
    first()
    first()
    assert link.blocked
    second()
    assert not link.blocked


def test_delay_makes_everything_late(pair: Any) -> None:
    undo = pair.network.link("a", "b").impose("delay", 20_000)
    client, served = connected(pair)
    client.transport.write(b"hello")
    later(pair, 19_000)
    assert served.received == b""
    later(pair, 2_000)
    assert served.received == b"hello"
    undo()
    client.transport.write(b"!")
    later(pair, 1_000)
    assert served.received == b"hello!"
    assert pair.network.link("a", "b").evidence["delay"] >= 2


def test_loss_makes_tcp_send_again(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.link("a", "b").impose("loss", 0.99)
    client.transport.write(b"hello")
    later(pair, 150_000)
    assert served.received == b""
    later(pair, 60 * SECOND)
    assert served.received == b"hello"
    assert pair.network.link("a", "b").evidence["loss"] >= 1


def test_a_slow_link_takes_as_long_as_its_bytes(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.link("a", "b").impose("bandwidth", 10_000)
    for _ in range(10):
        client.transport.write(b"x" * 1_000)
    later(pair, 500_000)
    assert 4_000 <= len(served.received) <= 5_000
    later(pair, 520_000)
    assert len(served.received) == 10_000
    assert pair.network.link("a", "b").evidence["bandwidth"] == 10


def test_splitting_cuts_at_every_byte(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.link("a", "b").impose("split", 1)
    client.transport.write(b"hello, world")
    later(pair, 10_000)
    assert served.received == b"hello, world"
    assert served.pieces == [1] * 12
    assert pair.network.link("a", "b").evidence == {"split": 1}


def test_a_reset_breaks_the_connections_of_one_dialler_on_both_sides(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.reset("b", "a")
    later(pair, 10_000)
    assert client.told == ["made"]
    pair.network.reset("a", "b")
    later(pair, 10_000)
    assert isinstance(client.error, ConnectionResetError)
    assert isinstance(served.error, ConnectionResetError)
    assert pair.network.link("a", "b").evidence == {"reset": 1}


def test_a_half_open_connection_is_known_to_one_side_until_it_times_out(pair: Any) -> None:
    client, served = connected(pair)
    pair.network.half_open("a", "b")
    later(pair, 10_000)
    assert isinstance(served.error, ConnectionResetError)
    assert client.told == ["made"]
    client.transport.write(b"are you there?")
    later(pair, 5 * SECOND)
    assert client.told == ["made"]
    later(pair, 30 * SECOND)
    assert isinstance(client.error, TimeoutError)
    assert pair.network.link("a", "b").evidence["half-open"] >= 1


def test_everything_imposed_can_be_cleared_at_once(pair: Any) -> None:
    link = pair.network.link("a", "b")
    for kind in IMPOSABLE:
        link.impose(kind, 1)
    assert link.blocked
    pair.network.clear()
    assert not link.blocked
    assert not any(link.is_imposed(kind) for kind in IMPOSABLE)
    assert sent(pair) == b"hello"


def test_an_unknown_fault_is_refused(pair: Any) -> None:
    with pytest.raises(KeyError):
        pair.network.link("a", "b").impose("rain")


def delays(seed: int, *, impose: bool = False, others: bool = False) -> list[tuple[int, int]]:
    world = World(seed)
    link = Link(world, "a", "b", Network())
    if others:
        Link(world, "b", "a", Network()).transit(100)
    undo = link.impose("cut") if impose else None
    transits = [link.transit(100) for _ in range(20)]
    if undo is not None:
        undo()
    return transits


def test_a_links_draws_depend_on_nothing_but_its_name_and_the_seed() -> None:
    assert delays(1) == delays(1, impose=True) == delays(1, others=True)
    assert delays(1) != delays(2)


def test_what_is_imposed_moves_no_later_draw() -> None:
    def after(impose: Callable[[Link], object]) -> tuple[int, int]:
        link = Link(World(3), "a", "b", Network())
        impose(link)
        for _ in range(5):
            link.transit(1_000)
        link.clear()
        return link.transit(1_000)

    plain = after(lambda link: None)
    for kind in ("loss", "delay", "split", "cut"):
        assert after(lambda link, kind=kind: link.impose(kind, 0.5)) == plain


def test_a_connection_does_not_move_the_delays_of_another_link() -> None:
    def arrivals(*, chatter: bool) -> list[int]:
        world = World(5)
        network = SimNetwork(world, Network())
        hosts = [network.add_host(name) for name in ("a", "b", "c")]
        times: list[int] = []

        class Timed(Recorder):
            def data_received(self, data: bytes) -> None:
                times.append(world.now_us)

        async def listen() -> None:
            await asyncio.get_running_loop().create_server(Timed, "0.0.0.0", PORT)

        async def talk() -> None:
            await asyncio.sleep(0.1)
            _, writer = await asyncio.open_connection("b", PORT)
            for _ in range(50):
                writer.write(b"x")
                await asyncio.sleep(0.1)

        async def other() -> None:
            await asyncio.sleep(0.05)
            for _ in range(100):
                await asyncio.get_running_loop().getaddrinfo("a", 1)
                await asyncio.wait([asyncio.create_task(asyncio.open_connection("a", 9))])

        hosts[1].spawn(listen())
        hosts[0].spawn(talk())
        if chatter:
            hosts[2].spawn(other())
        run(world, 10_000_000)
        return times

    assert arrivals(chatter=False) == arrivals(chatter=True)


def test_a_calm_network_loses_nothing_and_nothing_takes_long_by_chance() -> None:
    """Of links that are there and of links that come; what a fault imposes stays."""
    network = SimNetwork(World(3), Network(loss=0.5, tail=0.5, delay_us=(100, 200)))
    for name in ("a", "b", "c"):
        network.add_host(name)
    rough = [network.link("a", "b").transit(10)[0] for _ in range(50)]
    network.calm()
    for link in (network.link("a", "b"), network.link("a", "c")):
        assert max(link.transit(10)[0] for _ in range(50)) <= 200
    assert max(rough) > 200_000
    link = network.link("a", "b")
    link.impose("loss", 0.9)
    assert max(link.transit(10)[0] for _ in range(50)) > 200_000
