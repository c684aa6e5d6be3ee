"""The proxy as a process of its own: options, start, one line on stdout when ready, and an end that is never
missed.

Rule: it goes when it is told to (SIGTERM, SIGINT: exit status 0) and when whoever started it is gone
(`--parent-pid`, `--exit-on-stdin-eof`), whatever killed that.  Options of toxiproxy-server are taken too,
with one dash or two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from seatrial.cluster.proxy.addresses import bound_address, listen, resolve_listen
from seatrial.cluster.proxy.api import TOXIPROXY_VERSION, Api
from seatrial.cluster.proxy.errors import ApiError
from seatrial.cluster.proxy.events import EventLog
from seatrial.cluster.proxy.http_server import HttpConnection
from seatrial.cluster.proxy.registry import Registry
from seatrial.env import RealClock, Rng, fresh_seed

EXIT_USAGE = 64
EXIT_CANNOT_LISTEN = 69


class StartError(Exception):
    """The server could not be started; nothing is left running."""

    definite = True

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 64, as all of seatrial's commands."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="seatrial proxy",
        description="A TCP proxy that simulates network faults, driven over HTTP; compatible with Toxiproxy.",
    )
    made.add_argument("--listen", metavar="HOST:PORT", help="address of the API (default 127.0.0.1:8474)")
    made.add_argument("-host", "--host", help="host of the API, as toxiproxy-server takes it")
    made.add_argument("-port", "--port", type=int, help="port of the API, as toxiproxy-server takes it")
    made.add_argument("-config", "--config", type=Path, metavar="FILE", help="JSON list of proxies to create at start")
    made.add_argument("-seed", "--seed", type=int, help="decides all randomness; printed at start if not given")
    made.add_argument("--parent-pid", type=int, metavar="PID", help="exit when this process does")
    made.add_argument(
        "--event-loop", choices=("auto", "asyncio"), default="auto", help="auto: uvloop where it is installed"
    )
    made.add_argument("--exit-on-stdin-eof", action="store_true", help="exit when standard input ends")
    made.add_argument(
        "-proxy-metrics", "--proxy-metrics", action="store_true", help="accepted; /metrics always has them"
    )
    made.add_argument(
        "-runtime-metrics", "--runtime-metrics", action="store_true", help="add this process's own to /metrics"
    )
    made.add_argument("-version", "--version", action="version", version=f"seatrial proxy, API {TOXIPROXY_VERSION}")
    return made


def main(arguments: Sequence[str]) -> int:
    """Run until told to stop; returns the exit status."""
    options = parser().parse_args(arguments)
    with asyncio.Runner(loop_factory=loop_factory(options.event_loop)) as runner:
        try:
            return runner.run(serve(options))
        except StartError as error:
            print(f"seatrial proxy: {error}", file=sys.stderr)
            return error.status
        except KeyboardInterrupt:
            return 0


def loop_factory(wanted: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed (less CPU for small messages), unless asyncio's own is asked for."""
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def serve(options: argparse.Namespace) -> int:
    """Start everything, say so on stdout in one line of JSON, and wait for the end.  Raises StartError."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    watched = watch_parent(options, stopped)
    raise_descriptor_limit()
    seed = fresh_seed() if options.seed is None else options.seed
    registry = Registry(rng=Rng(seed), events=EventLog(RealClock()))
    api = Api(registry, runtime_metrics=options.runtime_metrics)
    try:
        if options.config is not None:
            await populate(registry, options.config)
        opened = listen(await resolve_listen(api_address(options)))
        address = bound_address(opened)
        server = await loop.create_server(lambda: HttpConnection(api.handle), sock=opened)
    except ApiError as error:
        registry.close()
        raise StartError(error.message, EXIT_CANNOT_LISTEN) from None
    ready = {"event": "ready", "listen": str(address), "seed": seed, "pid": os.getpid()}
    print(json.dumps(ready), flush=True)
    await stopped.wait()
    server.close()
    registry.close()
    for descriptor in watched:
        loop.remove_reader(descriptor)
    # One turn of the loop, so that aborted sockets are closed before the loop is.
    await asyncio.sleep(0)
    return 0


def api_address(options: argparse.Namespace) -> str:
    if options.listen is not None:
        if options.host is not None or options.port is not None:
            raise StartError("give either --listen or -host and -port", EXIT_USAGE)
        return str(options.listen)
    host = "127.0.0.1" if options.host in (None, "localhost") else options.host
    port = 8474 if options.port is None else options.port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def populate(registry: Registry, path: Path) -> None:
    """Create the proxies of a Toxiproxy configuration file.  Raises StartError that names the file."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read --config {path}: {error}", EXIT_USAGE) from None
    _, failure = await registry.populate(body)
    if failure is not None:
        registry.close()
        raise StartError(f"--config {path}: {failure.message}", EXIT_USAGE)


def watch_parent(options: argparse.Namespace, stopped: asyncio.Event) -> list[int]:
    """Set `stopped` when the parent ends.  Returns the descriptors that are watched."""
    loop = asyncio.get_running_loop()
    watched = []
    if options.parent_pid is not None:
        try:
            # A pidfd becomes readable when its process ends.  Unlike PR_SET_PDEATHSIG it does not fire when
            # merely the thread that spawned us does.
            descriptor = os.pidfd_open(options.parent_pid)
        except ProcessLookupError:
            raise StartError(f"--parent-pid {options.parent_pid} is not running", EXIT_USAGE) from None
        except (AttributeError, OSError) as error:
            reason = f"--parent-pid needs pidfd_open ({error}); use --exit-on-stdin-eof"
            raise StartError(reason, EXIT_USAGE) from None
        loop.add_reader(descriptor, stopped.set)
        watched.append(descriptor)
    if options.exit_on_stdin_eof:

        def read() -> None:
            if not os.read(0, 4096):
                stopped.set()

        os.set_blocking(0, False)
        loop.add_reader(0, read)
        watched.append(0)
    return watched


def raise_descriptor_limit() -> None:
    """Two sockets a connection: take all the descriptors we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
