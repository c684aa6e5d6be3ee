"""Programs to be run again and again in other processes; each returns its digest and what it did.

They are what a simulation must replay: streams with crashes and partitions, a real HTTP client and server, and the
things whose order a Python process does not decide by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from seatrial.sim import Network, SimNetwork, Trace, World, run

Result = tuple[str, dict[str, Any]]


def echo(argument: tuple[int, str]) -> Result:
    """A server that crashes twice and is cut off, and five clients.  argument: the seed, and a file for the trace."""
    seed, path = argument
    file = Path(path).open("w") if path else None  # noqa: SIM115
    world = World(seed)
    network = SimNetwork(world, Network(), trace=Trace(file.write if file else None))
    server = network.add_host("server")
    clients = [network.add_host(f"client-{number}", drift_ppm=10_000 * number) for number in range(5)]
    told = {"answers": 0, "errors": 0}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                await asyncio.sleep(random.random() / 500)
                writer.write(line)
        finally:
            writer.close()

    async def serve() -> None:
        await (await asyncio.start_server(handle, "0.0.0.0", 7000)).serve_forever()

    async def ask() -> None:
        for _ in range(20):
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection("server", 7000), 1)
                for _ in range(10):
                    writer.write(b"%s\n" % os.urandom(8).hex().encode())
                    told["answers"] += bool(await asyncio.wait_for(reader.readline(), 0.5))
                writer.close()
            except OSError:
                told["errors"] += 1
                await asyncio.sleep(0.1)

    def again(_: None) -> None:
        server.boot()
        server.spawn(serve())

    server.spawn(serve())
    world.at(500_000, lambda _: server.crash(power=False))
    world.at(700_000, again)
    world.at(1_500_000, lambda _: server.crash(power=True))
    world.at(2_000_000, again)
    undo = [network.link("client-1", "server").impose("cut"), network.link("server", "client-2").impose("clog")]
    world.at(1_000_000, lambda _: [heal() for heal in undo])
    for task in [client.spawn(ask()) for client in clients]:
        run(world, 60_000_000, until=task)
    digest = network.trace.digest()
    if file:
        file.close()
    return digest, told | {"evidence": {link.name: link.evidence for link in network.links() if link.evidence}}


class Plain:
    """Hashed by its address."""


async def observe() -> dict[str, Any]:
    """What differs between two processes that nobody pinned."""
    import secrets
    import uuid

    tasks = [asyncio.create_task(asyncio.sleep(0.1, number)) for number in range(30)]
    done, _ = await asyncio.wait(tasks)
    plain = [Plain() for _ in range(40)]
    numbers = {id(one): number for number, one in enumerate(plain)}
    return {
        "set of strings": list({f"key-{number}" for number in range(20)}),
        "set with None": list({(letter, None) for letter in "abcdef"}),
        "set of plain objects": [numbers[id(one)] for one in set(plain)],
        "done of asyncio.wait": [task.result() for task in done],
        "task name": asyncio.current_task().get_name(),  # type: ignore[union-attr]
        "time": time.time(),
        "chance": (random.random(), os.urandom(4), secrets.token_hex(2), str(uuid.uuid1()), str(uuid.uuid4())),
        "pid": os.getpid(),
    }


def observed(seed: int) -> dict[str, Any]:
    world = World(seed)
    task = SimNetwork(world).add_host("host").spawn(observe())
    run(world, 1_000_000, until=task)
    result: dict[str, Any] = task.result()
    return result


async def application(scope: Any, receive: Any, send: Any) -> None:
    """The least ASGI application that reads a body and answers after a while."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"].endswith("shutdown"):
                return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await asyncio.sleep(random.random() / 50)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"%d" % size})


def web(seed: int) -> Result:
    """uvicorn and httpx as they are, with a cut and a crash between them."""
    import httpx
    import uvicorn

    world = World(seed)
    network = SimNetwork(world)
    server, client = network.add_host("server"), network.add_host("client")
    told = {"answers": 0, "errors": 0}

    async def serve() -> None:
        config = uvicorn.Config(application, host="0.0.0.0", port=8080, log_level="critical", lifespan="on")
        await uvicorn.Server(config).serve()

    async def ask() -> None:
        await asyncio.sleep(0.1)
        async with httpx.AsyncClient(timeout=1) as session:
            for size in range(0, 600, 20):
                try:
                    answer = await session.post("http://server:8080/", content=b"x" * size)
                    assert answer.text == str(size)
                    told["answers"] += 1
                except httpx.HTTPError:
                    told["errors"] += 1
                    await asyncio.sleep(0.2)

    def again(_: None) -> None:
        server.boot()
        server.spawn(serve())

    server.spawn(serve())
    world.at(400_000, lambda _: heal.append(network.link("client", "server").impose("cut")))
    heal: list[Any] = []
    world.at(1_900_000, lambda _: [undo() for undo in heal])
    world.at(2_400_000, lambda _: server.crash(power=False))
    world.at(2_900_000, again)
    task = client.spawn(ask())
    run(world, 120_000_000, until=task)
    task.result()
    return network.trace.digest(), told


def stop_gracefully(seed: int) -> str:
    """uvicorn, told to stop by a simulated SIGTERM."""
    import uvicorn

    world = World(seed)
    server = SimNetwork(world).add_host("server")
    config = uvicorn.Config(application, host="0.0.0.0", port=8080, log_level="critical", lifespan="on")
    task = server.spawn(uvicorn.Server(config).serve())
    world.at(1_000_000, lambda _: server.signals.send(signal.SIGTERM))
    stopped = run(world, 60_000_000, until=task)
    return "stopped" if stopped or not server.is_up else "still serving"


def hang(_: None) -> None:
    while True:
        pass


def abort(_: None) -> None:
    os.abort()


def leave(code: int) -> None:
    os._exit(code)


def fail(text: str) -> None:
    raise ValueError(text)


def double(number: int) -> int:
    return 2 * number


def unpicklable(_: None) -> Any:
    return lambda: None


if __name__ == "__main__":
    from seatrial.sim.launch import ensure_deterministic_process

    ensure_deterministic_process()
    print(echo((int(sys.argv[1]), ""))[0])
