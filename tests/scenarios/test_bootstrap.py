"""Cluster bootstrap: how nodes are told who they are, in which order they come, and what they do when told wrongly.

What needs settings of each node's own runs `seatrial serve` by hand (`serving`); the rest is written for `cluster`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from leadership import elected, leads_still, nobody_leads, refuses_writes, safe, view
from serving import PORTS, SERVE, Site, environment_of, flags_of, serving, toml_of, until

from seatrial.scenario import ScenarioCluster

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
processes = pytest.mark.slow


# -- by command line, environment and TOML


def start(site: Site, node: int, source: str) -> None:
    """Start a node that has all of its settings from one source."""
    settings = site.settings(node)
    if source == "flags":
        site.start(node, *flags_of(settings))
    elif source == "environment":
        site.start(node, environment=environment_of(settings))
    else:
        file = site.root / f"node{node}.toml"
        file.write_text(toml_of(settings))
        site.start(node, "--config", file.name)


def serves_everywhere(site: Site) -> None:
    """All nodes name one leader, and what is written at one is read at each."""
    leader = site.wait_for_leader()
    site.put(leader, "x", "1")
    for node in site.nodes:
        site.put(node, f"at-{node}", str(node))
        assert site.get(node, "x") == "1"
        assert site.get(site.nodes[0], f"at-{node}") == str(node)


@processes
@pytest.mark.parametrize("source", ["flags", "environment", "toml"])
def test_bootstrap_by_command_line_environment_or_toml(source: str, tmp_path: Path) -> None:
    """Three nodes that have every setting from one source elect a leader and serve."""
    with serving(tmp_path, 3) as site:
        for node in site.nodes:
            start(site, node, source)
        serves_everywhere(site)


@processes
def test_bootstrap_of_nodes_that_are_each_told_in_another_way(tmp_path: Path) -> None:
    """Where settings come from makes no difference in a cluster, nor for a node that is restarted with others."""
    with serving(tmp_path, 3) as site:
        for node, source in zip(site.nodes, ("flags", "environment", "toml"), strict=True):
            start(site, node, source)
        serves_everywhere(site)
        assert site.terminate(1) == 0
        start(site, 1, "environment")
        assert site.get(1, "x") == "1"


@processes
def test_bootstrap_where_a_flag_beats_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    """A node that is told three numbers takes the flag's; it is the one that its peers hear of."""
    with serving(tmp_path, 1) as site:
        settings = site.settings(1)
        (tmp_path / "node.toml").write_text(toml_of(settings | {"node-id": "3", "cluster-id": "of-the-file"}))
        spoken = {"SEATRIAL_NODE_ID": "2", "SEATRIAL_CLUSTER_ID": "of-the-environment"}
        site.start(1, "--config", "node.toml", "--node-id", "1", environment=spoken)
        assert site.wait_for_leader() == 1
        assert site.terminate(1) == 0
        # The directory remembers whose it is: the file's name is refused, that of the environment is not.
        site.start(1, "--config", "node.toml", "--node-id", "1")
        assert site.exit_status(1) == 11
        assert "of-the-environment" in site.said(1).splitlines()[-1]


# -- in any order, at any time


@pytest.mark.real
@pytest.mark.cluster(nodes=5, boot=False)
async def test_nodes_started_in_any_order(cluster: ScenarioCluster) -> None:
    """However the seed orders them: two of five elect nobody, three do, and who comes later follows."""
    order = list(cluster.nodes)
    cluster.rng.child("order").shuffle(order)
    for node in order[:2]:
        await cluster.start(node)
    await nobody_leads(cluster, order[:2])
    await refuses_writes(cluster, order[0], "x")
    await cluster.start(order[2])
    leader, term = await elected(cluster, among=order[:3])
    await cluster.kv.put("x", 1, via=order[0])
    for node in order[3:]:
        await cluster.start(node)
    await cluster.wait_for_consensus()
    await leads_still(cluster, leader, term)
    for node in order:
        assert await cluster.kv.get("x", via=node) == 1
    await safe(cluster)


@pytest.mark.environments("sim", reason="nobody waits for minutes where they are real")
@pytest.mark.cluster(
    boot=False, timeout=1000, system="own", options={"heartbeat_ms": 3000, "election_timeout_ms": 12000}
)
async def test_nodes_started_minutes_apart(cluster: ScenarioCluster) -> None:
    """A node that waited for minutes elects with the second one soon after that came, in a low term; the third, minutes
    later still, has all that they wrote."""
    order = list(cluster.nodes)
    cluster.rng.child("order").shuffle(order)
    first, second, third = order
    await cluster.start(first)
    await asyncio.sleep(cluster.rng.child("pause").uniform(60, 75))
    lonely = await view(cluster, first)
    assert (lonely.leader, lonely.term) == (None, 0), "it asks who would vote for it, and goes into no term by itself"
    await cluster.start(second)
    leader, term = await elected(cluster, among=[first, second], timeout=90)
    assert term <= 4
    await cluster.kv.put("x", 1)
    await asyncio.sleep(cluster.rng.child("second pause").uniform(60, 75))
    await cluster.start(third)
    await cluster.wait_for_consensus(timeout=90)
    await leads_still(cluster, leader, term)
    assert await cluster.kv.get("x", via=third) == 1
    await cluster.verify(timeout=90)


@pytest.mark.real
@pytest.mark.parametrize("nodes", [pytest.param(n, marks=pytest.mark.cluster(nodes=n)) for n in (1, 2, 4, 7)])
async def test_bootstrap_of_any_size(cluster: ScenarioCluster, nodes: int) -> None:
    """A cluster of any size, even ones too, has one leader, and every node serves what any of them was told."""
    assert len(cluster.nodes) == nodes
    leader, _ = await elected(cluster, timeout=30)
    await cluster.wait_for_consensus(timeout=30)
    assert {(await view(cluster, node)).leader for node in cluster.nodes} == {leader}
    for node in cluster.nodes:
        await cluster.kv.put(f"at-{node}", node, via=node, timeout=20)
    for node in cluster.nodes:
        assert await cluster.kv.get(f"at-{node}", via=cluster.nodes[-node], timeout=20) == node
    await cluster.verify() if nodes > 1 else cluster.check()


@pytest.mark.cluster(boot=False)
async def test_bootstrap_interrupted_by_crashes(cluster: ScenarioCluster) -> None:
    """Nodes that die again and again while the cluster begins leave it able to begin: no term has two leaders."""
    rng = cluster.rng.child("crashes")
    async with cluster.watch():
        for _ in range(8):
            node = rng.choice(cluster.nodes)
            if node in cluster.running():
                await cluster.kill(node)
            else:
                await cluster.start(node)
            await asyncio.sleep(rng.uniform(0.01, 0.3))
        await cluster.start_all()
        await elected(cluster)
    await cluster.kv.put("x", 1)
    await safe(cluster)


@pytest.mark.real
async def test_whole_cluster_restarted_in_another_order(cluster: ScenarioCluster) -> None:
    """What was acknowledged is there after all nodes were ended and started again, in an order of the seed's."""
    _, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    for node in cluster.nodes:
        await cluster.terminate(node)
    order = list(cluster.nodes)
    cluster.rng.child("order").shuffle(order)
    await cluster.start(order[0])
    await nobody_leads(cluster, order[:1], 0.7)
    for node in order[1:]:
        await cluster.start(node)
    _, later = await elected(cluster)
    assert later > term
    assert await cluster.kv.get("x") == 1
    await safe(cluster)


# -- told wrongly


@processes
def test_a_peer_list_with_a_wrong_address_serves_and_is_mended_by_a_restart(tmp_path: Path) -> None:
    """A node that looks for another where nobody is serves with the third; told rightly, it reaches all.

    Until then the other follows or not, depending on who leads; it never disturbs them.
    """
    with serving(tmp_path, 3) as site:
        wrong = site.peers.replace(f"2@{site.address(2, 'raft')}", f"2@{site.address(99, 'raft')}")
        site.start_by_flags(1, peers=wrong)
        site.start_by_flags(3)
        leader = site.wait_for_leader(1, 3)
        site.put(1, "x", "1")
        site.start_by_flags(2)
        until(lambda: site.kv_group(2), site.describe)
        site.put(1, "y", "1")
        assert site.wait_for_leader(1, 3) == leader
        assert site.terminate(1) == 0
        site.start_by_flags(1)
        assert site.get(2, "y") == "1"
        serves_everywhere(site)


@processes
@pytest.mark.parametrize(
    ("peers", "says"),
    [
        ("127.0.0.1:7101", "is not NODE@host:port; write for example"),
        ("1@127.0.0.1:7101,1@127.0.0.2:7101", "node 1 is named twice"),
        ("2@127.0.0.1:0", "needs a host and a port other than 0"),
    ],
)
def test_a_peer_list_that_makes_no_sense_is_refused_with_an_example(peers: str, says: str, tmp_path: Path) -> None:
    """The node ends with the status of wrong usage, before it has touched its directory."""
    with serving(tmp_path, 1) as site:
        site.start_by_flags(1, peers=peers)
        assert site.exit_status(1) == 64
        assert says in site.said(1)
        assert not site.directory(1).exists()


@processes
def test_the_same_data_directory_twice(tmp_path: Path) -> None:
    """The second process is refused, says why, and changes nothing; the first goes on serving."""
    with serving(tmp_path, 2) as site:
        alone = f"1@{site.address(1, 'raft')}"
        site.start_by_flags(1, peers=alone)
        site.put(1, "x", "1")
        site.start_by_flags(2, node_id=1, peers=alone, data_dir=site.directory(1))
        assert site.exit_status(2) == 12
        assert re.search(r"in use|locked", site.said(2)), site.said(2)
        assert site.get(1, "x") == "1"
        site.put(1, "x", "2")


@processes
def test_the_data_directory_of_another_node(tmp_path: Path) -> None:
    """A node that is given its neighbour's directory is refused: its vote could be given twice."""
    with serving(tmp_path, 3) as site:
        for node in site.nodes:
            site.start_by_flags(node)
        site.put(1, "x", "1")
        assert site.terminate(3) == 0
        site.kill(2)
        site.start_by_flags(2, data_dir=site.directory(3))
        assert site.exit_status(2) == 11
        assert str(site.directory(3)) in site.said(2).splitlines()[-1]
        site.start_by_flags(3)
        site.start_by_flags(2)
        assert site.get(2, "x") == "1"


# -- the scripts


def ended_group(process: subprocess.Popen[str]) -> bool:
    """Whether nothing is left of the process and all that it started."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@processes
@pytest.mark.parametrize(("script", "nodes"), [("three-nodes.sh", 3), ("five-nodes.sh", 5)])
def test_scripts_for_three_and_five_nodes(script: str, nodes: int, tmp_path: Path) -> None:
    """The script starts the cluster, which serves; Ctrl-C ends it and leaves nothing; started again it has its data."""
    with serving(tmp_path, nodes) as site:
        host = site.address(1, "raft").rpartition(".")[0]
        command = ["sh", str(SCRIPTS / script), str(tmp_path / "data"), host]
        environment = {**os.environ, "SEATRIAL": " ".join(f"'{word}'" for word in SERVE[:-1])}
        for turn in range(2):
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
            )
            try:
                leader = site.wait_for_leader()
                if turn == 0:
                    site.put(leader, "x", "1")
                for node in site.nodes:
                    assert site.get(node, "x") == "1"
                os.killpg(process.pid, signal.SIGINT)
                said = process.communicate(timeout=30)[0]
                until(partial(ended_group, process), said.splitlines)
            finally:
                if not ended_group(process):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            bootstrap = ",".join(site.address(node, "kafka") for node in site.nodes)
            assert f"bootstrap.servers={bootstrap}" in said
            assert process.returncode in (0, 130), said
    assert set(PORTS) == {"raft", "kafka", "http"}


@processes
def test_a_script_ends_when_a_node_cannot_start(tmp_path: Path) -> None:
    """It says which node it was, ends the others, and fails: half a cluster is not left running."""
    with serving(tmp_path, 3) as site:
        site.start_by_flags(2, peers=f"2@{site.address(2, 'raft')}")
        site.wait_for_leader(2)
        host = site.address(1, "raft").rpartition(".")[0]
        environment = {**os.environ, "SEATRIAL": " ".join(f"'{word}'" for word in SERVE[:-1])}
        begun = time.monotonic()
        done = subprocess.run(
            ["sh", str(SCRIPTS / "three-nodes.sh"), str(tmp_path / "data"), host],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        assert "node 2 ended" in done.stderr
        assert time.monotonic() - begun < 60
        for node in (1, 3):
            assert site.ask("GET", node, "/readyz") is None, "a node of the script was left"
