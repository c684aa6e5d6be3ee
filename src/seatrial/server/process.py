"""The node as an operating-system process: settings, sockets, loop, signals, exit status.

Rule: the listening sockets exist before the rest of the node is imported (asyncio included), so that a client that
connects early waits in the kernel's queue and is not refused.  Every way out has its own exit status (EXIT_STATUS)
and one line on stderr.  Knows nothing of what the node does.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seatrial.server.config import Address, HelpShown, ServerConfig, UsageError, parse

if TYPE_CHECKING:
    import asyncio

    from seatrial.env import RealClock
    from seatrial.server.logs import Logger
    from seatrial.server.node import Node

FILES_MAX = 1 << 20  # that a process asks for; the kernel's own bound, where nobody has changed it
STOP_DEADLINE_S = 4.0  # SIGTERM to exit, hand-over of leadership included
EXIT_STATUS: Mapping[str, int] = {
    "stopped": 0,
    "bug": 1,
    "address": 10,  # a port is in use, or the address is not ours
    "foreign": 11,  # the data directory belongs to another node or cluster
    "locked": 12,  # another process uses the data directory
    "damaged": 13,  # a log or snapshot is damaged other than by a torn tail
    "full": 14,  # the disk is full
    "storage": 15,  # any other failed read, write or sync
    "amnesia": 16,  # the cluster knows this node by another data directory: what it had promised is lost
    "not a member": 17,  # the node was removed, or may not join as it is
    "usage": 64,
}


def main(argv: Sequence[str]) -> int:
    """Run one node until it is told to stop; the process's exit status."""
    if not __debug__:
        print("seatrial: refusing to run under python -O: assertions guard the data", file=sys.stderr)
        return EXIT_STATUS["usage"]
    try:
        config = parse(argv, os.environ, _read_file)
    except HelpShown:
        return 0
    except UsageError as error:
        print(f"seatrial serve: {error}\n(seatrial serve --help lists the options)", file=sys.stderr)
        return EXIT_STATUS["usage"]
    _stop_at_once_while_starting()
    files = _raise_file_limit()
    if not config.max_connections:
        # The other half is for the files of partitions and for peers: a node that cannot open these must end.
        config = replace(config, max_connections=max(files // 2, 1))
    try:
        sockets = {place: _bind(name, place, listens=_listens(name, config)) for name, place in _addresses(config)}
        refusal = ""
    except OSError as error:
        refusal = str(error)

    import asyncio

    from seatrial.env import RealClock
    from seatrial.server.logs import Logger

    clock = RealClock()
    logger = Logger(_write_line, clock, config.log_level, node=config.node_id)
    if refusal:
        logger.error("fatal", reason=refusal, status=EXIT_STATUS["address"])
        return EXIT_STATUS["address"]
    for name, address in _addresses(config):
        logger.info("listening", server=name, address=_told(sockets[address], address))
    logger.info("file_limit", files=files, max_connections=config.max_connections)
    if config.max_connections > files // 2:
        logger.warning(
            "file_limit_low",
            reason=f"--max-connections {config.max_connections} of {files} files that this process may open leave "
            "few for partitions and peers: raise the limit (ulimit -Hn), or lower the option",
        )
    with asyncio.Runner(loop_factory=_loop_factory(config)) as runner:
        return runner.run(_serve(config, clock, logger, sockets))


def _raise_file_limit() -> int:
    """As many files and sockets as this process may have open, from now on; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _stop_at_once_while_starting() -> None:
    """A node that is told to stop while it still imports has nothing to hand over or to flush; `_serve` takes over.

    It exits without unwinding: SystemExit out of a handler makes uvloop crash (SIGSEGV, 4 of 120).
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def _read_file(path: str) -> bytes:
    from seatrial.env import RealFiles

    file = RealFiles().open(path)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def _free_bytes(directory: str) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def _write_line(line: str) -> None:
    try:
        os.write(2, line.encode())
    except OSError:  # nobody reads our log any more: go on without
        return


def _addresses(config: ServerConfig) -> list[tuple[str, Address]]:
    return [("raft", config.raft_addr), ("kafka", config.kafka_addr), ("http", config.http_addr)]


def _listens(name: str, config: ServerConfig) -> bool:
    """gRPC takes no socket that listens: it binds the port a second time, which this one keeps free for it."""
    return name != "raft" or config.transport != "grpc"


def _bind(name: str, address: Address, *, listens: bool) -> socket.socket:
    """A socket, listening or only bound; the OSError that it raises says what to change."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        if listens:
            sock.listen(1024)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror or error}"
        raise OSError(error.errno, f"--{name}-addr {address} {why}; choose another address or port") from None
    sock.setblocking(False)
    return sock


def _told(sock: socket.socket, address: Address) -> str:
    return str(Address(address.host, sock.getsockname()[1]))


def _loop_factory(config: ServerConfig) -> Callable[[], asyncio.AbstractEventLoop]:
    if config.uvloop:
        try:
            import uvloop

            return uvloop.new_event_loop  # type: ignore[no-any-return,unused-ignore]
        except ImportError:
            pass
    import asyncio

    return asyncio.new_event_loop


async def _serve(
    config: ServerConfig, clock: RealClock, logger: Logger, sockets: Mapping[Address, socket.socket]
) -> int:
    import asyncio
    import gc
    from traceback import format_exception

    from seatrial.env import RealFiles, Rng, fresh_seed
    from seatrial.server.allocator import keep_freed_memory
    from seatrial.server.errors import StartError
    from seatrial.server.node import build_node

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def on_fatal(error: StartError) -> None:
        # Nothing after a failed write may be told to anybody: no clean-up, no goodbye.
        bug = {"traceback": format_exception(error.__cause__)} if error.status == EXIT_STATUS["bug"] else {}
        logger.error("fatal", reason=str(error), status=error.status, **bug)
        os._exit(error.status)

    async def create(factory: Callable[[], Any], host: str, port: int) -> asyncio.Server:
        return await loop.create_server(factory, sock=sockets[Address(host, port)], backlog=1024)

    seed = fresh_seed()
    logger.info("starting", seed=seed, cluster_id=config.cluster_id, durability=config.durability)
    try:
        node = build_node(
            config,
            clock,
            Rng(seed),
            RealFiles(),
            loop,
            logger=logger,
            listen=create,
            on_fatal=on_fatal,
            sockets={"raft": sockets[config.raft_addr]},
            free_bytes=lambda: _free_bytes(config.data_dir),
        )
        await node.start()
    except StartError as error:
        logger.error("fatal", reason=str(error), status=error.status)
        return error.status
    gc.collect()
    gc.freeze()  # what was imported stays: the collector need not look at it again
    gc.set_threshold(20_000, 20, 50)
    keep_freed_memory()
    return await _until_stopped(node, stop, logger)


async def _until_stopped(node: Node, stop: asyncio.Event, logger: Logger) -> int:
    import asyncio

    await stop.wait()
    logger.info("stopping")
    try:
        await asyncio.wait_for(node.stop(), STOP_DEADLINE_S)
    except TimeoutError:
        logger.warning("stop_deadline_passed", seconds=STOP_DEADLINE_S)
    logger.info("stopped")
    return EXIT_STATUS["stopped"]
