"""What the proxy costs: pass-through MB/s, round-trip time and CPU time, for ours and, where it is, a real Toxiproxy.

    python benchmarks/proxy.py [--megabytes 2000] [--round-trips 5000]

A real Toxiproxy is measured if SEATRIAL_TOXIPROXY_SERVER names its binary, or if the tests have built one already.
Sender and receiver are processes of their own, so that neither shares an interpreter with the other.
On a busy machine the CPU columns are the ones to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from seatrial.cluster.proxy.client import ProxyClient

CHUNK_BYTES = 256 * 1024
MESSAGE = b"x" * 128
START_TIMEOUT_SECONDS = 10.0
SINK = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    accepted, _ = listening.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A first byte of "e": echo what comes.  Else: swallow it all, and answer one byte at its end.
    if accepted.recv(1) == b"e":
        while data := accepted.recv(65536):
            accepted.sendall(data)
    else:
        buffer = bytearray(1 << 18)
        while accepted.recv_into(buffer):
            pass
        accepted.sendall(b"!")
    accepted.close()
"""


@contextmanager
def spawned(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def dial(port: int) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=60)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def megabytes_a_second(port: int, megabytes: int) -> float:
    chunk = bytes(CHUNK_BYTES)
    with dial(port) as sender:
        sender.sendall(b"s")
        began = time.perf_counter()
        for _ in range(megabytes * 1_000_000 // CHUNK_BYTES):
            sender.sendall(chunk)
        sender.shutdown(socket.SHUT_WR)
        # Toxiproxy closes both directions at the first end: then the answer is an end, too.
        sender.recv(1)
        return megabytes / (time.perf_counter() - began)


def round_trip_microseconds(port: int, count: int) -> list[float]:
    times = []
    with dial(port) as client:
        client.sendall(b"e")
        for _ in range(count):
            began = time.perf_counter()
            client.sendall(MESSAGE)
            got = 0
            while got < len(MESSAGE):
                got += len(client.recv(len(MESSAGE) - got))
            times.append((time.perf_counter() - began) * 1e6)
    return times


def cpu_seconds(pid: int) -> float:
    """User and system time that the process has used so far."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def measure(name: str, port: int, pid: int, options: argparse.Namespace) -> None:
    """Print one line; `pid` is the process whose CPU time counts."""
    round_trip_microseconds(port, 200)
    before = cpu_seconds(pid)
    times = round_trip_microseconds(port, options.round_trips)
    between = cpu_seconds(pid)
    rate = megabytes_a_second(port, options.megabytes)
    trip_cpu = (between - before) / options.round_trips * 1e6
    gigabyte_cpu = (cpu_seconds(pid) - between) / options.megabytes * 1000
    p50 = statistics.median(times)
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"{name:<18}{rate:>7.0f}{gigabyte_cpu:>9.2f}{p50:>10.0f}{p99:>8.0f}{trip_cpu:>11.0f}", flush=True)


def proxied_port(api: str, upstream_port: int) -> int:
    async def create() -> int:
        client = ProxyClient(api)
        await client.wait_until_ready(START_TIMEOUT_SECONDS)
        shown = await client.create("benchmark", "127.0.0.1:0", f"127.0.0.1:{upstream_port}")
        return int(shown["listen"].rpartition(":")[2])

    return asyncio.run(create())


def toxiproxy() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    built = cache / "seatrial" / "toxiproxy-2.12.0" / "server"
    binary = Path(os.environ.get("SEATRIAL_TOXIPROXY_SERVER", built))
    return binary if binary.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description="What the proxy costs.")
    parser.add_argument("--megabytes", type=int, default=2000, help="bytes to pass through, in millions")
    parser.add_argument("--round-trips", type=int, default=5000)
    options = parser.parse_args()
    with spawned([sys.executable, "-c", SINK]) as sink:
        upstream = int(first_line(sink))
        print(f"{'':<18}{'MB/s':>7}{'CPU s/GB':>9}{'p50 us':>10}{'p99 us':>8}{'CPU us/trip':>12}")
        measure("direct", upstream, sink.pid, options)
        for loop in ("auto", "asyncio"):
            command = [sys.executable, "-m", "seatrial.cluster.proxy", "--listen", "127.0.0.1:0", "--event-loop", loop]
            with spawned(command) as process:
                api = json.loads(first_line(process))["listen"]
                measure(f"seatrial {loop}", proxied_port(api, upstream), process.pid, options)
        if (binary := toxiproxy()) is None:
            print("toxiproxy         not measured: run the external tests once, or set SEATRIAL_TOXIPROXY_SERVER")
            return 0
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with spawned([str(binary), "-host", "127.0.0.1", "-port", str(port)]) as process:
            measure("toxiproxy 2.12", proxied_port(f"127.0.0.1:{port}", upstream), process.pid, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
