"""Whatever would leave the simulation raises where it is called; time and chance are the host's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import os
import pickle
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seatrial.sim import Network, SimEscape, SimNetwork, World, run, simulate
from seatrial.sim.clocks import WALL_EPOCH_MS

taken_early = random.random


def _start_in_pool() -> None:
    concurrent.futures.ThreadPoolExecutor().submit(print)


ESCAPES: dict[str, tuple[Callable[[], Any], str]] = {
    "thread": (lambda: threading.Thread(target=print).start(), "run_in_executor"),
    "pool": (_start_in_pool, "run_in_executor"),
    "sleep": (lambda: time.sleep(0.1), "asyncio.sleep"),
    "process": (lambda: subprocess.run([sys.executable, "-V"], check=False), "host of its own"),
    "system": (lambda: os.system("true"), "host of its own"),
    "connect": (lambda: socket.create_connection(("127.0.0.1", 9)), "loop.getaddrinfo"),
    "bind": (lambda: socket.socket().bind(("127.0.0.1", 0)), "start_server"),
    "look-up": (lambda: socket.getaddrinfo("localhost", 80), "loop.getaddrinfo"),
    "file": (lambda: Path("left-behind").write_text("x"), "env.Files"),
    "reader": (lambda: asyncio.get_running_loop().add_reader(0, print), "create_connection"),
    "loop": (lambda: asyncio.get_running_loop().run_forever(), "run by its world"),
}


@pytest.mark.parametrize("name", sorted(ESCAPES))
def test_leaving_the_simulation_raises_and_says_what_to_use_instead(pair: Any, name: str) -> None:
    leave, instead = ESCAPES[name]

    async def program() -> None:
        leave()

    task = pair.a.spawn(program())
    with pytest.raises(SimEscape, match=instead):
        run(pair.world, 1_000_000)
    assert isinstance(task.exception(), SimEscape)


def test_an_escape_that_a_library_swallows_comes_out_of_the_run(pair: Any) -> None:
    async def program() -> None:
        try:
            time.sleep(1)  # noqa: ASYNC251
        except Exception:
            return

    pair.a.spawn(program())
    with pytest.raises(SimEscape, match="on a: "):
        run(pair.world, 1_000_000)


def test_asynchronous_escapes_raise_too(pair: Any) -> None:
    async def program() -> None:
        await asyncio.create_subprocess_exec("true")

    pair.a.spawn(program())
    with pytest.raises(SimEscape):
        run(pair.world, 1_000_000)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "TLS, dialled": (lambda: asyncio.open_connection("b", 80, ssl=True), "plain TCP"),
    "TLS, served": (lambda: asyncio.start_server(print, "0.0.0.0", 80, ssl=ssl.create_default_context()), "plain TCP"),
    "TLS, later": (lambda: _loop().start_tls(None, None, None), "without TLS"),
    "UNIX sockets": (lambda: asyncio.open_unix_connection("/tmp/x"), "host and port"),
    "a shell": (lambda: asyncio.create_subprocess_shell("true"), "host of its own"),
    "sock_recv": (lambda: _loop().sock_recv(socket.socket(), 1), "use streams"),
    "sock_sendall": (lambda: _loop().sock_sendall(socket.socket(), b""), "use streams"),
    "sock_accept": (lambda: _loop().sock_accept(socket.socket()), "create_server"),
    "sock_recvfrom": (lambda: _loop().sock_recvfrom(socket.socket(), 1), "create_datagram_endpoint"),
    "sock_sendto": (lambda: _loop().sock_sendto(socket.socket(), b"", ("b", 1)), "create_datagram_endpoint"),
    "a server on a socket": (lambda: _loop().create_server(asyncio.Protocol, sock=socket.socket()), "host and port"),
    "a connection by a socket": (lambda: asyncio.open_connection(sock=socket.socket()), "host and port"),
}


def _loop() -> Any:
    return asyncio.get_running_loop()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_loop_does_not_simulate_says_what_to_use_instead(pair: Any, name: str) -> None:
    ask, instead = REFUSED[name]

    async def program() -> None:
        await ask()

    pair.a.spawn(program())
    with pytest.raises(SimEscape, match=instead):
        run(pair.world, 1_000_000)


def test_a_job_for_a_thread_runs_on_the_loop_a_while_later(pair: Any) -> None:
    """And is all that runs then: it may block nothing but its own host, and is not parallel to anything."""

    async def program() -> tuple[str, float]:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert await loop.run_in_executor(None, int, "7") == 7
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return name, time.monotonic() - began

    name, took = pair.run(program())
    assert name == threading.current_thread().name
    assert took > 0


def test_outside_of_hosts_everything_is_real(pair: Any) -> None:
    run(pair.world, 1_000_000)
    before = time.monotonic()
    time.sleep(0.001)
    assert time.monotonic() > before
    assert abs(time.time() - WALL_EPOCH_MS / 1000) > 3600
    assert subprocess.run([sys.executable, "-c", ""], check=False).returncode == 0


async def _clocks() -> dict[str, Any]:
    return {
        "monotonic": time.monotonic(),
        "perf_counter": time.perf_counter(),
        "time": time.time(),
        "time_ns": time.time_ns(),
        "now": datetime.datetime.now(datetime.UTC).timestamp(),
        "localtime": time.mktime(time.localtime()),
        "loop": asyncio.get_running_loop().time(),
    }


def test_every_clock_is_the_hosts_own() -> None:
    world = World(1)
    host = SimNetwork(world).add_host("h", drift_ppm=100_000, wall_offset_us=-3_600_000_000)
    run(world, 10_000_000)
    task = host.spawn(_clocks())
    run(world, 11_000_000)
    seen = task.result()
    assert seen["monotonic"] == seen["perf_counter"] == seen["loop"] == pytest.approx(1011, abs=0.001)
    wall = WALL_EPOCH_MS / 1000 + 11 - 3600
    assert seen["time"] == pytest.approx(wall, abs=0.001)
    assert seen["now"] == pytest.approx(wall, abs=0.001)
    assert seen["time_ns"] / 1e9 == pytest.approx(wall, abs=0.001)
    assert seen["localtime"] == pytest.approx(wall, abs=1.001)


async def _chances() -> list[Any]:
    return [
        os.urandom(8),
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        secrets.token_hex(4),
        uuid.uuid4(),
        uuid.uuid1(),
    ]


def chances(seed: int, *, others: int = 0) -> list[Any]:
    """What a host draws, beside so many others that draw as well."""
    world = World(seed)
    network = SimNetwork(world)
    host = network.add_host("h")
    for number in range(others):
        network.add_host(f"other-{number}").spawn(_chances())
    task = host.spawn(_chances())
    run(world, 1_000_000)
    return task.result()


def test_chance_is_decided_by_the_seed_and_the_host_alone() -> None:
    once = chances(1)
    assert chances(1) == once
    assert chances(1, others=3) == once
    assert all(one != other for one, other in zip(chances(2), once, strict=True))


def test_process_ids_are_the_hosts_own(pair: Any) -> None:
    async def pid() -> int:
        return os.getpid()

    assert pair.run(pid()) != pair.run(pid(), on=pair.b)
    assert pair.run(pid()) != os.getpid()


def test_signal_handlers_stay_inside_and_can_be_sent_to(pair: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    said: list[str] = []

    async def program() -> None:
        stop = asyncio.Event()
        signal.signal(signal.SIGINT, lambda number, frame: said.append("interrupted"))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        said.append("stopped")

    pair.a.spawn(program())
    run(pair.world, 1_000_000)
    pair.a.signals.send(signal.SIGINT)
    pair.a.signals.send(signal.SIGTERM)
    run(pair.world, 2_000_000)
    assert said == ["interrupted", "stopped"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_without_a_handler_ends_the_process(pair: Any) -> None:
    pair.a.signals.send(signal.SIGTERM)
    assert not pair.a.is_up


def test_names_are_known_and_unknown_ones_are_refused(pair: Any) -> None:
    async def look_up(name: str) -> str:
        infos = await asyncio.get_running_loop().getaddrinfo(name, 80)
        return infos[0][4][0]

    assert pair.run(look_up("b")) == pair.b.address
    assert pair.run(look_up(pair.b.address)) == pair.b.address
    with pytest.raises(socket.gaierror, match="nobody"):
        pair.run(look_up("nobody"))


def test_dates_are_dates_whether_made_before_within_or_after(pair: Any) -> None:
    before = datetime.datetime.now()

    async def program() -> list[datetime.datetime]:
        own = type("Own", (datetime.datetime,), {})
        assert type(own(2026, 1, 1)) is own
        made = [datetime.datetime.now(), datetime.datetime(2026, 1, 1), datetime.datetime.fromisoformat("2026-01-01")]
        assert all(isinstance(date, datetime.datetime) for date in [before, *made])
        return made

    made = pair.run(program())
    assert {type(date) for date in made} == {datetime.datetime}
    assert pickle.loads(pickle.dumps(made)) == made


def everything_patched() -> dict[str, Any]:
    return {
        f"{module.__name__}.{name}": value
        for module in (time, random, os, datetime, signal, threading, uuid, socket, threading.Thread)
        for name, value in vars(module).items()
    }


@pytest.mark.parametrize("ends", ["well", "by leaving the simulation", "by an error"])
def test_a_run_leaves_the_process_as_it_was(ends: str) -> None:
    async def main(network: SimNetwork) -> None:
        program = asyncio.get_running_loop().create_task(_clocks())
        await program
        random.random()
        if ends == "by leaving the simulation":
            time.sleep(1)  # noqa: ASYNC251
        assert ends == "well", "an error"

    before, chance = everything_patched(), random.getstate()
    if ends == "well":
        simulate(main, seed=1)
    else:
        with pytest.raises((SimEscape, AssertionError)):
            simulate(main, seed=1)
    after = everything_patched()
    assert [name for name in before if after[name] is not before[name]] == []
    assert random.getstate() == chance


def test_programs_that_took_the_functions_of_random_before_go_on_where_their_world_stood() -> None:
    def drawn(*pauses: int) -> list[float]:
        world = World(3)
        host, found = SimNetwork(world).add_host("h"), list[float]()

        async def program() -> None:
            for _ in range(5):
                found.append(taken_early())
                await asyncio.sleep(1)

        host.spawn(program())
        for pause_us in (*pauses, 10_000_000):
            run(world, pause_us)
            random.random()  # the process's own, which is none of the world's business
        return found

    assert len(set(drawn())) == 5
    assert drawn(500_000, 2_500_000) == drawn()


def test_two_hosts_cannot_have_one_name() -> None:
    network = SimNetwork(World(1), Network())
    network.add_host("a")
    with pytest.raises(ValueError, match="already"):
        network.add_host("a")
