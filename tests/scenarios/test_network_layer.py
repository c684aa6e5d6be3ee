"""Network layer, as far as it takes a cluster: peers out of reach, links that break, other transports, strangers.

`tests/transport/test_contract_*.py` holds what one connection, client or service has to keep, for every transport; here
it is what a cluster makes of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
from leadership import elected, leads_still, nobody_leads, refuses_writes, safe, stepped_down, still_leads, view
from serving import serving, until

from seatrial import scenario
from seatrial.scenario import ScenarioCluster

PEERS = "peers.cluster.test"
LOCAL = pytest.mark.environments("local", reason="gRPC and TLS are C libraries with sockets of their own")


# -- peers that are out of reach, and come back


@pytest.mark.real
@pytest.mark.cluster(boot=False)
async def test_unreachable_peer_holds_up_nobody(cluster: ScenarioCluster) -> None:
    """A peer that was never there costs the others neither their leader nor time for each write."""
    first, second, absent = cluster.nodes
    await cluster.start(first)
    await cluster.start(second)
    leader, term = await elected(cluster, among=[first, second], timeout=20)
    for number in range(8):
        await cluster.kv.put(f"key-{number}", number, via=leader)
    await still_leads(cluster, leader, term)
    await cluster.start(absent)
    await cluster.wait_for_consensus(timeout=20)
    assert await cluster.kv.get("key-7", via=absent) == 7
    await safe(cluster)


@pytest.mark.real
async def test_reconnect_after_the_peer_restarts(cluster: ScenarioCluster) -> None:
    """A follower that restarts, again and again, is reached again each time, by the same leader in the same term."""
    leader, term = await elected(cluster)
    follower = cluster.others(leader)[0]
    for turn in range(3):
        await cluster.restart(follower)
        await cluster.kv.put("x", turn, via=leader)
        assert await cluster.kv.get("x", via=follower, timeout=20) == turn
    await leads_still(cluster, leader, term)
    await safe(cluster)


async def test_reconnect_with_everything_broken_at_once(cluster: ScenarioCluster) -> None:
    """When every connection of every node breaks, each is made anew; nothing that was on its way is taken for sent."""
    await elected(cluster)
    for turn in range(2):
        async with cluster.reset(cluster.all_links()):
            await refuses_writes(cluster, cluster.nodes[0], f"cut-{turn}")
        await cluster.kv.put(f"healed-{turn}", turn, timeout=20)
    await cluster.wait_for_consensus(timeout=20)
    await safe(cluster)


@pytest.mark.real
async def test_black_hole_looks_like_a_connection_and_is_left(cluster: ScenarioCluster) -> None:
    """A leader whose bytes vanish while its connections look alive gives up; the others elect, and take it back."""
    old, term = await elected(cluster)
    async with cluster.timeout(cluster.links_of(old)):
        new, later = await elected(cluster, among=cluster.others(old), timeout=20)
        assert later > term
        await stepped_down(cluster, old)
        await cluster.kv.put("x", 1, via=new, timeout=20)
    await cluster.wait_for_consensus(timeout=20)
    assert await cluster.kv.get("x", via=old, timeout=20) == 1
    await safe(cluster)


async def test_messages_that_come_twice_late_and_out_of_order_change_nothing(cluster: ScenarioCluster) -> None:
    """What one connection never does to its messages, several of them in turn may: it is all the same to the logs."""
    await elected(cluster)
    links = cluster.all_links()
    async with cluster.duplicate(links, 0.5), cluster.reorder(links, most_ms=30), cluster.loss(links, 0.05):
        for number in range(10):
            await cluster.kv.put("x", number, timeout=20)
    assert await cluster.kv.get("x") == 9
    await safe(cluster)


async def test_bulk_data_leaves_room_for_heartbeats(cluster: ScenarioCluster) -> None:
    """A follower behind a thin line gets what is large late, but no reason to stand for election."""
    leader, term = await elected(cluster)
    follower = cluster.others(leader)[0]
    async with cluster.bandwidth(cluster.links_between([leader], [follower]), 128):
        for number in range(5):
            await cluster.kv.put(f"bulk-{number}", f"{number}" * 10_000, via=leader, timeout=20)
        await still_leads(cluster, leader, term, 0)
    await cluster.wait_for_consensus(timeout=20)
    await safe(cluster)


# -- who may take part


@pytest.mark.cluster(system="own")
async def test_peers_are_added_and_removed(cluster: ScenarioCluster) -> None:
    """A new member is dialled by all, and serves with one old one down; a removed one is heard of no more."""
    leader, _ = await elected(cluster)
    added = await cluster.members.add()
    await cluster.kv.put("x", 1)
    assert await cluster.kv.get("x", via=added) == 1
    gone = next(node for node in cluster.others(leader) if node != added)
    await cluster.members.remove(gone)
    assert gone not in cluster.nodes
    await cluster.kill(next(node for node in cluster.nodes if node not in (leader, added)))
    await cluster.kv.put("x", 2, timeout=20)
    assert await cluster.kv.get("x", via=added) == 2
    await cluster.start_all()
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(nodes=1)
async def test_single_node_elects_itself(cluster: ScenarioCluster) -> None:
    """With nobody to talk to it leads, commits and answers alone, and again in a later term when it is back."""
    (node,) = cluster.nodes
    assert (await elected(cluster))[0] == node
    await cluster.kv.put("x", 1)
    before = await view(cluster, node)
    await cluster.kill(node)
    await cluster.start(node)
    _, later = await elected(cluster)
    assert later > (before.term or 0)
    assert await cluster.kv.get("x") == 1
    cluster.check()


@pytest.mark.real
@pytest.mark.cluster(nodes=2)
async def test_two_nodes_pass_messages_and_need_each_other(cluster: ScenarioCluster) -> None:
    """Both have what either was told; cut off from each other neither serves, and then both go on."""
    leader, _ = await elected(cluster)
    (other,) = cluster.others(leader)
    await cluster.kv.put("x", 1, via=other)
    assert await cluster.kv.get("x", via=leader) == 1
    async with cluster.partition([leader], [other]):
        await stepped_down(cluster, leader)
        await refuses_writes(cluster, other, "y")
        await nobody_leads(cluster, cluster.nodes)
    await cluster.wait_for_consensus(timeout=20)
    await cluster.kv.put("x", 2, via=other, timeout=20)
    assert await cluster.kv.get("x", via=leader, timeout=20) == 2
    await safe(cluster)


@pytest.mark.real
async def test_state_is_told_alike_by_all_nodes(cluster: ScenarioCluster) -> None:
    """Term, leader, commit and applied index move on with every write, and are the same everywhere once it is calm."""
    seen = await view(cluster, (await elected(cluster))[0])
    for number in range(5):
        await cluster.kv.put("x", number)
    await cluster.wait_for_consensus()
    leader, term = await elected(cluster)
    told = [await view(cluster, node) for node in cluster.nodes]
    assert {(one.leader, one.term) for one in told} == {(leader, term)}
    (commit,) = {one.commit_index for one in told}
    (applied,) = {one.last_applied for one in told}
    assert commit == applied
    assert (commit or 0) >= (seen.commit_index or 0) + 5
    await safe(cluster)


@pytest.mark.real
@pytest.mark.cluster(system="own")
async def test_node_that_does_not_lead_names_the_leader(cluster: ScenarioCluster) -> None:
    """Asked for what only a leader can do, a follower says no, that nothing was done, and who leads."""
    await cluster.wait_for_consensus()
    leader, term = await elected(cluster)
    follower, other = cluster.others(leader)
    http = cluster.open_http()
    try:
        url = f"{cluster.http_url(follower)}/api/v1/raft/groups/kv/transfer"
        answer = await http.request("POST", url, params={"to": str(other)}, content=None, headers={})
    finally:
        await http.aclose()
    told = answer.json()
    assert (answer.status_code, told["definite"], told["leader_id"]) == (503, True, leader), told
    await leads_still(cluster, leader, term)
    await safe(cluster)


# -- strangers


@pytest.mark.slow
def test_node_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """A node that was told another cluster's name gets nothing from these, says so, and takes no part in any vote."""
    with serving(tmp_path, 3) as site:
        for node in (1, 2):
            site.start_by_flags(node)
        leader = site.wait_for_leader(1, 2)
        site.put(1, "x", "1")
        site.start_by_flags(3, cluster_id="another")
        until(lambda: "another" in site.said(3) and "seatrial" in site.said(3), site.describe)
        group = site.kv_group(3)
        assert group is None or (group["term"], group["commit_index"]) == (0, 0)
        site.put(2, "x", "2")
        assert site.wait_for_leader(1, 2) == leader
        site.kill(3)
        site.kill(2)
        assert site.ask("PUT", 1, "/api/v1/kv/x?timeout_ms=500", "3") is None or site.processes[2].poll() is not None


@pytest.mark.slow
def test_bytes_that_are_no_messages_close_their_own_connection_alone(tmp_path: Path) -> None:
    """Junk, a frame that claims gigabytes, and a caller that says nothing leave a serving cluster in its term."""
    with serving(tmp_path, 3) as site:
        for node in site.nodes:
            site.start_by_flags(node)
        leader = site.wait_for_leader()
        site.put(leader, "x", "1")
        term = (site.kv_group(leader) or {})["term"]
        callers = [socket.create_connection(_place(site.address(node, "raft")), timeout=10) for node in site.nodes]
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x7f\xff\xff\xff" + b"x" * 4096):
            with socket.create_connection(_place(site.address(leader, "raft")), timeout=10) as caller:
                caller.sendall(junk)
                caller.settimeout(20)
                assert _closed(caller), f"{junk[:8]!r} was not refused"
        site.put(leader, "x", "2")
        assert site.get(site.nodes[-1], "x") == "2"
        assert (site.kv_group(leader) or {})["term"] == term
        for caller in callers:
            caller.close()


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _closed(caller: socket.socket) -> bool:
    try:
        while caller.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


# -- gRPC and TLS


async def loses_and_regains_a_leader(cluster: ScenarioCluster) -> None:
    """What every transport has to carry: an election, writes at each node, an isolation, a crash, and a catch-up."""
    old, term = await elected(cluster, timeout=30)
    await cluster.kv.put("x", 1, via=cluster.others(old)[0], timeout=20)
    async with cluster.isolate(old):
        new, later = await elected(cluster, among=cluster.others(old), timeout=30)
        assert later > term
        await cluster.kv.put("x", 2, via=new, timeout=20)
    await cluster.wait_for_consensus(timeout=30)
    await cluster.kill(new)
    await elected(cluster, other_than=new, timeout=30)
    assert await cluster.kv.get("x", timeout=20) == 2
    await cluster.kv.put("x", 3, timeout=20)
    await cluster.start(new)
    await cluster.wait_for_consensus(timeout=30)
    assert await cluster.kv.get("x", via=new, timeout=20) == 3
    await safe(cluster)


@LOCAL
@pytest.mark.real
@pytest.mark.cluster(system="own", options={"transport": "grpc"}, timeout=120)
async def test_grpc_cluster_loses_and_regains_a_leader(cluster: ScenarioCluster) -> None:
    """Everything that the framed transport is asked above, over gRPC."""
    await loses_and_regains_a_leader(cluster)


def secured(directory: Path, authority: trustme.CA, name: str = PEERS) -> dict[str, str]:
    """Options for mutual TLS by name (nodes dial each other through proxies), with the files that they name."""
    directory.mkdir(exist_ok=True)
    files = {part: directory / f"{part}.pem" for part in ("cert", "key", "ca")}
    issued = authority.issue_cert(name)
    files["cert"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files["key"].write_bytes(issued.private_key_pem.bytes())
    files["ca"].write_bytes(authority.cert_pem.bytes())
    return {**{f"raft_tls_{part}": str(path) for part, path in files.items()}, "raft_tls_name": PEERS}


def on_processes(body: Callable[[ScenarioCluster], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a scenario on a cluster of processes whose options are only known when it runs."""

    async def run() -> None:
        async with scenario.local(**settings) as cluster:
            try:
                await asyncio.wait_for(body(cluster), 110)
            except Exception:
                print("\n".join(f"node {node}: {cluster.log_tail(node)}" for node in cluster.nodes))
                raise

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["framed", "grpc"])
def test_mutual_tls_cluster_loses_and_regains_a_leader(transport: str, tmp_path: Path) -> None:
    """The same once more, with every node showing a certificate of the cluster's authority."""
    options = {"transport": transport, **secured(tmp_path / "tls", trustme.CA())}
    on_processes(loses_and_regains_a_leader, options=options)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["framed", "grpc"])
def test_node_with_a_stranger_s_certificate_stays_outside(transport: str, tmp_path: Path) -> None:
    """A node whose certificate is of another authority reaches nobody and elects nobody; with a right one it joins."""
    authority = trustme.CA()
    options = {"transport": transport, **secured(tmp_path / "tls", authority)}

    async def body(cluster: ScenarioCluster) -> None:
        first, second, stranger = cluster.nodes
        for node in (first, second):
            await cluster.start(node)
        leader, term = await elected(cluster, among=[first, second], timeout=30)
        secured(tmp_path / "tls", trustme.CA())  # files are read once, when a node starts
        await cluster.start(stranger)
        await nobody_leads(cluster, [stranger])
        outside = await view(cluster, stranger)
        assert (outside.leader, outside.term, outside.commit_index) == (None, 0, 0)
        await cluster.kv.put("x", 1, via=leader, timeout=20)
        await leads_still(cluster, leader, term)
        await cluster.kill(stranger)
        secured(tmp_path / "tls", authority)
        await cluster.start(stranger)
        await cluster.wait_for_consensus(timeout=30)
        assert await cluster.kv.get("x", via=stranger, timeout=20) == 1

    on_processes(body, options=options, boot=False)


@pytest.mark.slow
def test_nodes_of_two_transports_do_not_meet_and_say_why(tmp_path: Path) -> None:
    """Two framed nodes go on; one that speaks gRPC stays outside, and names the setting to look at."""
    with serving(tmp_path, 3) as site:
        for node in (1, 2):
            site.start_by_flags(node)
        leader = site.wait_for_leader(1, 2)
        site.start_by_flags(3, transport="grpc")
        until(lambda: "do both sides run with the same --transport" in site.said(3), site.describe)
        site.put(leader, "x", "1")
        site.kill(3)
        site.start_by_flags(3)
        assert site.get(3, "x") == "1"
