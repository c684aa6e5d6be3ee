"""Clusters of real processes, of a dummy system: what each call promises, and what is said when it cannot be kept."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from seatrial.cluster.cluster import Cluster, LinkContext
from seatrial.cluster.errors import ClusterError, DeadlineExceeded, NodeExited, Unavailable
from seatrial.cluster.spawn import spawn_cluster
from seatrial.cluster.spec import ClusterSpec

pytestmark = pytest.mark.slow
TESTDATA = Path(__file__).parent / "testdata"
DUMMY = str(TESTDATA / "dummy.toml")
DUMMY_ONE_ADDRESS = str(TESTDATA / "dummy_one_address.toml")


def with_cluster(scenario: Callable[[Cluster], Awaitable[None]], **settings: Any) -> None:
    """Run a scenario on a fresh cluster of dummy nodes."""

    async def run() -> None:
        async with spawn_cluster(ClusterSpec(**{"system": DUMMY, **settings})) as cluster:
            await scenario(cluster)

    asyncio.run(run())


def starts(cluster: Cluster, node: int) -> int:
    """How often the node has written to its data directory that it started."""
    return len((cluster.run.node(node) / "data" / "starts").read_text().splitlines())


def test_a_killed_leader_is_replaced_and_comes_back_with_its_data() -> None:
    async def scenario(cluster: Cluster) -> None:
        assert cluster.nodes == (1, 2, 3)
        await cluster.wait_for_leader(5, among=[1])
        before = cluster.node_state(1)
        report = await cluster.kill(1)
        assert (report.pid, report.exit_status, report.incarnation) == (before.pid, -signal.SIGKILL, 1)
        assert cluster.node_state(1).describe() == "down (ended by SIGKILL, incarnation 1)"
        assert cluster.connected_majority() == (2, 3)
        await cluster.wait_for_leader(5, among=[2])
        await cluster.start(1)
        assert cluster.node_state(1).incarnation == 2
        assert cluster.node_state(1).pid != before.pid
        await cluster.wait_for_consensus(5)
        assert starts(cluster, 1) == 2
        assert cluster.unexpected_exits == []

    with_cluster(scenario, links=False)


def test_a_paused_node_is_stopped_until_it_is_resumed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.pause(2)
        assert psutil.Process(cluster.node_state(2).pid).status() == psutil.STATUS_STOPPED
        assert cluster.node_state(2).state == "paused"
        assert cluster.connected_majority() == (1, 3)
        (status,) = await cluster.status(2)
        assert status.error is not None and "paused" in status.error
        await cluster.resume(2)
        assert psutil.Process(cluster.node_state(2).pid).status() != psutil.STATUS_STOPPED
        assert cluster.connected_majority() == (1, 2, 3)

    with_cluster(scenario, links=False)


def test_a_paused_node_can_be_terminated_restarted_and_wiped() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.pause(1)
        assert (await cluster.terminate(1)).exit_status == -signal.SIGTERM
        await cluster.restart(1)
        assert starts(cluster, 1) == 2
        with pytest.raises(ClusterError, match=r"node 1 is running .*; kill it before wiping"):
            await cluster.wipe(1)
        await cluster.kill(1)
        await cluster.wipe(1)
        await cluster.start(1)
        assert starts(cluster, 1) == 1
        assert starts(cluster, 2) == 1

    with_cluster(scenario, links=False)


def test_all_nodes_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        reports = await cluster.kill_all()
        assert [report.exit_status for report in reports] == [-9, -9, -9]
        assert cluster.connected_majority() is None
        await cluster.start_all()
        await cluster.pause_all()
        assert [cluster.node_state(node).state for node in cluster.nodes] == ["paused"] * 3
        await cluster.resume_all()
        await cluster.restart_all()
        await cluster.pause(1)
        await cluster.kill(2)
        await cluster.heal_everything(10)
        assert [cluster.node_state(node).incarnation for node in cluster.nodes] == [3, 4, 3]
        await cluster.wait_for_consensus(5)

    with_cluster(scenario, links=False)


def test_what_makes_no_sense_is_refused_and_says_how_the_node_is() -> None:
    async def scenario(cluster: Cluster) -> None:
        with pytest.raises(ClusterError, match=r"node 1 is already running \(pid \d+, incarnation 1\)"):
            await cluster.start(1)
        await cluster.kill(1)
        for action in (cluster.kill, cluster.terminate, cluster.pause, cluster.resume):
            with pytest.raises(ClusterError, match=r"node 1 is down \(ended by SIGKILL, incarnation 1\)"):
                await action(1)
        with pytest.raises(ClusterError, match=r"there is no node 7; the cluster has \[1, 2, 3\]"):
            await cluster.kill(7)
        with pytest.raises(ClusterError, match=r"ClusterSpec\(links=True\)"):
            cluster.isolate(1)

    with_cluster(scenario, links=False)


def test_an_expired_wait_says_what_it_last_saw_of_every_node() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.wait_for_leader(5)
        await cluster.kill(1)
        await cluster.pause(2)
        with pytest.raises(DeadlineExceeded) as expired:
            await cluster.wait_for_leader(0.5)
        assert expired.value.timeout == 0.5
        seen = expired.value.last_seen
        assert seen[1] == "down (ended by SIGKILL, incarnation 1)"
        assert seen[2].startswith("paused (pid ")
        assert "dummy: " in seen[3] and "term 1" in seen[3]
        assert str(expired.value).startswith("no leader of group dummy within 0.5 s; last seen:\n  node 1: down")

    with_cluster(scenario, links=False)


def test_an_exit_that_nobody_asked_for_is_kept_with_the_end_of_the_log() -> None:
    async def scenario(cluster: Cluster) -> None:
        os.kill(cluster.node_state(3).pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            while cluster.node_state(3).state != "down":
                await asyncio.sleep(0.01)
        (exit,) = cluster.unexpected_exits
        assert (exit.who, exit.exit_status, exit.log_tail) == ("node 3", -9, "listening")
        with pytest.raises(DeadlineExceeded) as expired:
            await cluster.wait_for_consensus(0.05)
        assert "ended by SIGKILL, unexpectedly" in expired.value.last_seen[3]
        assert "listening" in expired.value.last_seen[3]

    with_cluster(scenario, links=False)


def test_a_node_that_ends_at_its_start_is_reported_with_its_log(tmp_path: Path) -> None:
    description = tmp_path / "broken.toml"
    description.write_text(
        'name = "broken"\ncommand = ["sh", "-c", "echo no disk >&2; exit 3"]\n[ports]\npeer = 7000\n'
    )

    async def scenario(cluster: Cluster) -> None:
        pytest.fail("it cannot have started")

    with pytest.raises(NodeExited, match=r"node 1 exited with status 3; the end of its log:\n  \| no disk"):
        with_cluster(scenario, system=str(description), nodes=1)


def test_a_node_that_never_answers_is_reported_with_what_was_tried(tmp_path: Path) -> None:
    description = tmp_path / "mute.toml"
    description.write_text('name = "mute"\ncommand = ["sleep", "60"]\n[ports]\npeer = 7000\n')

    async def scenario(cluster: Cluster) -> None:
        pytest.fail("it cannot have started")

    with pytest.raises(DeadlineExceeded, match=r"answer of node 1 .* 0.3 s; last seen:\n  node 1: .*:7000 does not"):
        with_cluster(scenario, system=str(description), nodes=1, start_timeout=0.3)


def test_a_missing_program_is_unavailable_before_anything_is_started(tmp_path: Path) -> None:
    description = tmp_path / "missing.toml"
    description.write_text('name = "missing"\ncommand = ["no-such-program"]\n[ports]\npeer = 7000\n')

    async def scenario(cluster: Cluster) -> None:
        pytest.fail("it cannot have started")

    with pytest.raises(Unavailable, match="there is no program 'no-such-program' here"):
        with_cluster(scenario, system=str(description))


def test_settings_in_the_harness_environment_do_not_reach_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATRIAL_DURABILITY", "os")
    monkeypatch.setenv("ETCD_NAME", "x")
    monkeypatch.setenv("OTHER", "kept")

    async def scenario(cluster: Cluster) -> None:
        environment = psutil.Process(cluster.node_state(1).pid).environ()
        assert environment["OTHER"] == "kept"
        assert not {"SEATRIAL_DURABILITY", "ETCD_NAME"} & set(environment)

    with_cluster(scenario, links=False, nodes=1)


@pytest.mark.parametrize("system", [DUMMY, DUMMY_ONE_ADDRESS], ids=["per link", "per destination"])
def test_a_cut_off_node_is_no_leader_and_the_cut_heals(system: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.wait_for_leader(5, among=[1])
        async with cluster.isolate(1) as cut:
            assert cluster.connected_majority() == (2, 3)
            await cluster.wait_for_leader(5, among=[2])
        assert cut.bit
        assert set(cut.by_link) == {"1->2", "1->3", "2->1", "3->1"}
        assert all(evidence.get("bytes_held") for evidence in cut.by_link.values())
        await cluster.wait_for_leader(5, among=[1])
        assert cluster.connected_majority() == (1, 2, 3)

    with_cluster(scenario, system=system)


async def heard_by(cluster: Cluster, node: int, nodes: set[int]) -> None:
    """Wait until the dummy node has lately heard of exactly these."""
    import httpx

    async with asyncio.timeout(5), httpx.AsyncClient(trust_env=False) as http:
        while True:
            answer = await http.get(f"{cluster.addresses(node).http}/status")
            if set(answer.json()["raft"]["heard"]) == nodes:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("system", [DUMMY, DUMMY_ONE_ADDRESS], ids=["per link", "per destination"])
@pytest.mark.parametrize("mode", ["hold", "reset"])
def test_a_one_way_cut_leaves_the_other_direction_whole(system: str, mode: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        await heard_by(cluster, 1, {1, 2, 3})
        await heard_by(cluster, 2, {1, 2, 3})
        async with cluster.cut(1, 2, mode=mode) as cut:
            await heard_by(cluster, 2, {2, 3})
            # An RST ends both directions of a connection, so only a hold is really one way.
            await heard_by(cluster, 1, {1, 2, 3} if mode == "hold" else {1, 3})
            await heard_by(cluster, 3, {1, 2, 3})
        await heard_by(cluster, 1, {1, 2, 3})
        await heard_by(cluster, 2, {1, 2, 3})
        assert cut.bit

    with_cluster(scenario, system=system)


@pytest.mark.parametrize(
    ("fault", "proof"),
    [
        (lambda cluster: cluster.latency(cluster.all_links(), 20, 5), "bytes_delayed"),
        (lambda cluster: cluster.bandwidth(cluster.all_links(), 1), "bytes_delayed"),
        (lambda cluster: cluster.timeout(cluster.links_of(1)), "bytes_dropped"),
        (lambda cluster: cluster.reset(cluster.all_links()), "connections_reset"),
    ],
    ids=["latency", "bandwidth", "timeout", "reset"],
)
def test_a_fault_of_links_proves_that_it_bit_and_leaves_no_trace(
    fault: Callable[[Cluster], LinkContext], proof: str
) -> None:
    async def scenario(cluster: Cluster) -> None:
        for lasting_s in (0.1, 0.4, 1.6):
            async with fault(cluster) as injected:
                await asyncio.sleep(lasting_s)  # how long the fault lasts; longer where the machine is slow
            if injected.evidence.get(proof):
                break
        assert injected.evidence.get(proof), injected
        assert injected.bit
        await heard_by(cluster, 1, {1, 2, 3})

    with_cluster(scenario)


def test_a_cut_of_links_that_carry_nothing_did_not_bite() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.kill_all()
        async with cluster.partition([1]) as cut:
            assert cluster.links.cuts.links() == cluster.links_of(1)
        assert cut.bit is False

    with_cluster(scenario)


def test_overlapping_faults_on_a_link_end_independently() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with cluster.isolate(1):
            async with cluster.partition([1, 2]):
                assert cluster.connected_majority() is None
            assert cluster.connected_majority() == (2, 3)
            await heard_by(cluster, 3, {2, 3})
        await heard_by(cluster, 3, {1, 2, 3})

    with_cluster(scenario)


def test_healing_everything_under_an_active_fault_is_no_error() -> None:
    async def scenario(cluster: Cluster) -> None:
        async with cluster.isolate(1):
            await cluster.heal_everything(5)
            await heard_by(cluster, 1, {1, 2, 3})

    with_cluster(scenario)


def test_a_fault_on_a_link_that_is_not_there_is_refused() -> None:
    async def scenario(cluster: Cluster) -> None:
        with pytest.raises(ValueError, match=r"there is no link \(1, 9\)"):
            async with cluster.cut(1, 9):
                pytest.fail("it cannot be active")
        assert cluster.connected_majority() == (1, 2, 3)

    with_cluster(scenario)


def test_two_clusters_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = tmp_path / "run"
        async with (
            spawn_cluster(ClusterSpec(system=DUMMY)) as one,
            spawn_cluster(ClusterSpec(system=DUMMY, directory=kept)) as two,
        ):
            assert one.addresses(1).http != two.addresses(1).http
            await one.kill_all()
            await two.wait_for_consensus(5)
            temporary = one.run.root
        assert not temporary.exists()
        assert (kept / "nodes" / "1" / "stderr.log").read_text() == "listening\n"

    asyncio.run(scenario())
