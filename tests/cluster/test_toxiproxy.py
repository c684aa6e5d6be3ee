"""A real Toxiproxy server in the place of our proxy, where this machine has one (tests/proxy builds and keeps it)."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seatrial.cluster.errors import Unavailable
from seatrial.cluster.ports import lease_addresses, split_address
from seatrial.cluster.proxy.client import ProxyClient
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec

pytestmark = [pytest.mark.slow, pytest.mark.external]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "seatrial" / "toxiproxy-2.12.0"
START_DEADLINE_S = 30.0
TESTDATA = Path(__file__).parent / "testdata"


@pytest.fixture
def toxiproxy() -> Iterator[str]:
    """The URL of a running Toxiproxy server."""
    binary = Path(os.environ.get("SEATRIAL_TOXIPROXY_SERVER", CACHE / "server"))
    if not binary.exists():
        pytest.skip(f"there is no {binary}: run tests/proxy first, on a machine with Go")
    lease = lease_addresses()
    host, port = split_address(lease.address(1, 8474))
    server = subprocess.Popen(
        [binary, "-host", host, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_it_listens(host, port)
        yield f"http://{host}:{port}"
    finally:
        server.kill()
        server.wait()
        lease.close()


def wait_until_it_listens(host: str, port: int) -> None:
    deadline_s = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as error:
            assert time.monotonic() < deadline_s, f"no Toxiproxy in {START_DEADLINE_S} s; last: {error}"
            time.sleep(0.01)


def test_a_real_toxiproxy_cuts_the_links_of_a_system_with_a_proxy_for_each(toxiproxy: str) -> None:
    async def scenario() -> None:
        spec = ClusterSpec(system=str(TESTDATA / "dummy.toml"), toxiproxy=toxiproxy)
        async with spawn_cluster(spec) as cluster:
            await cluster.wait_for_leader(10, among=[1])
            async with cluster.isolate(1) as cut:
                await cluster.wait_for_leader(10, among=[2])
            assert cut.bit is None, "it counts nothing, so nobody can say whether the fault bit"
            await cluster.wait_for_leader(10, among=[1])
            assert len(await ProxyClient(toxiproxy).proxies()) == 6
        assert await ProxyClient(toxiproxy).proxies() == {}

    asyncio.run(scenario())


def test_a_real_toxiproxy_is_refused_where_callers_have_to_be_told_apart(toxiproxy: str) -> None:
    async def scenario() -> None:
        spec = ClusterSpec(system=str(TESTDATA / "dummy_one_address.toml"), toxiproxy=toxiproxy)
        with pytest.raises(Unavailable, match="cannot tell callers apart: leave toxiproxy out"):
            async with spawn_cluster(spec):
                pytest.fail("it cannot have started")

    asyncio.run(scenario())
