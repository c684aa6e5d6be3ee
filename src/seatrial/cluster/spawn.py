"""Starting a cluster and ending it: addresses, directories, proxies, nodes, and all of it away again.

Rule: leaving the context, by whatever way, leaves no process, no address and no temporary directory behind; how that
holds even when this process is killed is told in node_process.py.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from seatrial.cluster.completion import to_the_end
from seatrial.cluster.drivers import registry
from seatrial.cluster.drivers.base import Driver, LinkStyle, NodePlace
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, Unavailable
from seatrial.cluster.links import Links, proxy_names
from seatrial.cluster.node_process import NodeProcess
from seatrial.cluster.nodes import clean_environment
from seatrial.cluster.ports import AddressLease, lease_addresses
from seatrial.cluster.process_cluster import ProcessCluster
from seatrial.cluster.proxy.client import ProxyClient, ProxyError
from seatrial.cluster.spec import ClusterSpec
from seatrial.cluster.workspace import TemporaryWorkspace, sweep
from seatrial.rundir import RunDirectory

# Slots of the leased network: node i has slot i, the proxies on its behalf 100 + i, and the proxies' own API 250.
PROXY_SLOT = 100
API_SLOT = 250
API_PORT = 8474
PROXY_START_TIMEOUT_S = 30.0  # of a process that starts within a second; a busy machine takes its time


@asynccontextmanager
async def spawn_cluster(what: int | ClusterSpec = 3, *, boot: bool = True) -> AsyncIterator[ProcessCluster]:
    """A cluster of so many nodes of our own server, or as the spec says; every node accepts connections.

    boot: start the nodes; without it all of them are down.

    Raises ValueError for a spec that makes no sense, Unavailable when this machine cannot run it, NodeExited or
    DeadlineExceeded when a node does not come up.
    """
    spec = ClusterSpec(nodes=what) if isinstance(what, int) else what
    driver = registry.by_name(spec.system, spec.version, spec.options)
    reason = driver.unavailable()
    if reason is not None:
        raise Unavailable(reason)
    await asyncio.to_thread(driver.prepare)
    async with AsyncExitStack() as stack:
        lease = lease_addresses()
        stack.callback(lease.close)
        temporary = TemporaryWorkspace() if spec.directory is None else None
        if temporary is not None:
            stack.callback(temporary.close)
            sweep()
        run = RunDirectory(temporary.root if temporary is not None else Path(spec.directory or "").resolve())
        cluster = ProcessCluster(spec, driver, run, node_places(spec, driver, run, lease))
        stack.push_async_callback(lambda: to_the_end(cluster.close()))
        if temporary is not None:
            cluster.processes.remove_at_end(temporary.root)
        if spec.links and spec.nodes > 1:
            links = await _links(cluster, lease)
            cluster.attach(links)
            if spec.toxiproxy is not None:  # it lives on without us
                stack.push_async_callback(lambda: to_the_end(links.delete()))
        if spec.links:
            cluster.make_place = partial(_newcomer, cluster, lease)
        if boot:
            await cluster.start_all()
        yield cluster


def node_places(spec: ClusterSpec, driver: Driver, run: RunDirectory, lease: AddressLease) -> dict[int, NodePlace]:
    """Every node's directory and addresses; `peers` lead through the proxies, where there are any."""
    nodes = range(1, spec.nodes + 1)
    return {
        node: NodePlace(
            node=node,
            directory=run.node(node) / "data",
            listen={service: lease.address(node, port) for service, port in driver.ports.items()},
            peers={peer: _peer_address(spec, driver, lease, node, peer) for peer in nodes},
        )
        for node in nodes
    }


def _peer_address(spec: ClusterSpec, driver: Driver, lease: AddressLease, node: int, peer: int) -> str:
    port = driver.ports["peer"]
    if not spec.links or spec.nodes == 1:
        return lease.address(peer, port)
    if driver.link_style is LinkStyle.PER_DESTINATION:
        return lease.address(PROXY_SLOT + peer, port)
    return lease.address(PROXY_SLOT + node, port + peer) if node != peer else lease.address(node, port)


async def _newcomer(cluster: ProcessCluster, lease: AddressLease, node: int) -> NodePlace:
    """The place of a node that joins, its links to and from all others led through proxies."""
    links = cluster.proxies
    if links is None:  # the first link that there is
        links = await _links(cluster, lease)
        for other in cluster.nodes:
            await links.set_caller(other, [cluster.node_state(other).pid])
        cluster.attach(links)
    ports, slot = cluster.driver.ports, PROXY_SLOT + node
    upstream = {other: lease.address(other, ports["peer"]) for other in (*cluster.nodes, node)}
    advertised = lease.address(slot, ports["peer"])
    peers = {other: lease.address(slot, ports["peer"] + other) for other in cluster.nodes}
    proxies = {f"to-{node}": (advertised, node)} | {f"{node}-{to}": (peers[to], to) for to in cluster.nodes}
    await links.add_node(
        node,
        [
            {"name": name, "listen": listen, "upstream": upstream[to], "enabled": True}
            for name, (listen, to) in proxies.items()
        ],
    )
    return NodePlace(
        node=node,
        directory=cluster.run.node(node) / "data",
        listen={service: lease.address(node, port) for service, port in ports.items()},
        peers=peers,
        advertised=advertised,
    )


async def _proxy_url(cluster: ProcessCluster, lease: AddressLease) -> str:
    """The given Toxiproxy's URL, or that of one of our own, started now."""
    if cluster.spec.toxiproxy is not None:
        return cluster.spec.toxiproxy
    address = lease.address(API_SLOT, API_PORT)
    logs = cluster.run.root / "proxy"
    logs.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "seatrial.cluster.proxy", "--listen", address]
    argv += ["--seed", str(cluster.spec.seed), "--parent-pid", str(os.getpid())]
    process = cluster.processes.spawn("the proxy", argv, environment=clean_environment({}), cwd=logs, logs=logs)
    url = f"http://{address}"
    await _until_proxy_answers(url, process)
    return url


async def _until_proxy_answers(url: str, process: NodeProcess) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PROXY_START_TIMEOUT_S
    client = ProxyClient(url)
    while True:
        process.check_alive()
        try:
            await client.version()
            return
        except ProxyError as error:
            if loop.time() >= deadline:
                raise DeadlineExceeded("answer of the proxy", PROXY_START_TIMEOUT_S, {0: str(error)}) from error
        await asyncio.sleep(0.01)


async def _links(cluster: ProcessCluster, lease: AddressLease) -> Links:
    """Create every proxy.  Raises Unavailable for a Toxiproxy that cannot do what this system needs."""
    client = ProxyClient(await _proxy_url(cluster, lease))
    style = cluster.driver.link_style
    ours = (await client.version()).ours
    if style is LinkStyle.PER_DESTINATION and not ours:
        raise Unavailable(
            f"each node of {cluster.driver.name} has one address for all, and a real Toxiproxy cannot tell callers "
            "apart: leave toxiproxy out, to use the built-in one"
        )
    proxies = [
        {
            "name": name,
            "listen": _peer_address(cluster.spec, cluster.driver, lease, source or target, target),
            "upstream": lease.address(target, cluster.driver.ports["peer"]),
            "enabled": True,
        }
        for name, (source, target) in proxy_names(style, cluster.nodes).items()
    ]
    try:
        await client.populate(proxies)
    except ProxyError as error:
        raise ClusterError(f"the proxies cannot be created: {error}") from error
    return Links(client, style, cluster.nodes, ours=ours)
