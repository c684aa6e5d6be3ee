"""`cluster.kv`: what it stores, whom it asks, how often, and what the history says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from seatrial.history import OpType
from seatrial.scenario import CheckFailed, Refused, ScenarioCluster, Unavailable

pytestmark = pytest.mark.slow
Run = Callable[..., Any]


def ended(cluster: ScenarioCluster) -> list[tuple[str, str, OpType]]:
    """(operation, key, how it ended), in order."""
    return [(op.f, op.key or "", op.type) for op in cluster.records.history if op.type is not OpType.INVOKE]


def test_a_store_keeps_what_it_is_given_and_forgets_what_is_deleted(run_any: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        kv = cluster.kv
        assert await kv.get("x") is None
        for value in (1, "one", "1", [1, {"two": None}], 2.5, True):
            await kv.put("x", value)
            assert await kv.get("x") == value
        assert await kv.compare_and_set("x", True, "set")
        assert not await kv.compare_and_set("x", True, "set again")
        await kv.delete("x")
        assert await kv.get("x") is None
        assert not await kv.compare_and_set("x", "set", "from what is not there")
        assert await kv.compare_and_set("x", None, "created")
        assert not await kv.compare_and_set("x", None, "created twice")
        for node in cluster.nodes:
            assert await kv.get("x", via=node) == "created"
        with pytest.raises(ValueError, match="delete"):
            await kv.put("x", None)
        await cluster.verify()

    run_any(scenario)


def test_a_majority_serves_and_a_minority_says_that_it_cannot(run_any: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 1)
        leader = await cluster.wait_for_leader(group=cluster.kv.group)
        async with cluster.partition([leader], cluster.others(leader)) as fault:
            new = await cluster.wait_for_leader(group=cluster.kv.group, among=cluster.others(leader))
            await cluster.kv.put("x", 2, via=new)
            with pytest.raises(Unavailable) as read:
                await cluster.kv.get("x", via=leader, timeout=1)
            assert read.value.definite, "a read has no effect"
            with pytest.raises(Unavailable):
                await cluster.kv.put("x", 3, via=leader, timeout=1, retries=False)
        assert fault.bit
        assert await cluster.kv.get("x", via=new) in (2, 3)  # the third put may be carried out once it is healed
        await cluster.verify()

    run_any(scenario)


def test_one_attempt_is_one_attempt_and_others_go_on_elsewhere(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kill(1)
        with pytest.raises(Unavailable) as caught:
            await cluster.kv.put("x", 1, via=1, retries=False)
        assert caught.value.definite, "nobody can have heard it"
        assert " attempts in " not in str(caught.value)
        with pytest.raises(Unavailable, match="attempts in"):
            await cluster.kv.put("x", 1, via=1, timeout=0.3)
        await cluster.kv.put("x", 1)
        assert ended(cluster) == [("write", "x", OpType.FAIL), ("write", "x", OpType.FAIL), ("write", "x", OpType.OK)]

    simulate(scenario)


def test_a_write_that_is_sent_again_is_applied_once(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 0)
        leader = await cluster.wait_for_leader(group="kv")
        # Longer than one attempt may take: the write is sent again, to another node, while the first is on its way.
        late = cluster.messages("delay-appends", at=leader, value=1_800_000, direction="out", group="kv")
        async with late as injection:
            with pytest.raises(Unavailable) as caught:
                await cluster.kv.put("y", 1, timeout=1, retries=False)
            assert not caught.value.definite
            assert await cluster.kv.compare_and_set("x", 0, 1), "a second one would have found 1"
        assert injection.bit
        assert await cluster.kv.get("y") == 1, "what nobody answered for was carried out all the same"
        assert ended(cluster)[1:3] == [("write", "y", OpType.INFO), ("cas", "x", OpType.OK)]
        await cluster.verify()

    simulate(scenario)


def test_what_is_too_large_is_refused_and_never_repeated(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        with pytest.raises(Refused, match="at most"):
            await cluster.kv.put("x", "x" * (9 << 20))
        assert await cluster.kv.get("x") is None

    simulate(scenario)


@pytest.mark.parametrize(("options", "stale"), [({}, False), ({"unsafe": "stale-reads"}, True)])
def test_a_stale_answer_to_a_linearizable_read_fails_the_check(
    simulate: Run, options: dict[str, str], *, stale: bool
) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await cluster.kv.put("x", 1)
        await cluster.wait_for_consensus()
        leader = await cluster.wait_for_leader(group="kv")
        cut_off = cluster.others(leader)[0]
        async with cluster.isolate(cut_off):
            await cluster.kv.put("x", 2, via=leader)
            if stale:
                assert await cluster.kv.get("x", via=cut_off, timeout=1) == 1
            else:
                with pytest.raises(Unavailable):
                    await cluster.kv.get("x", via=cut_off, timeout=1)
                assert await cluster.kv.get("x", via=cut_off, consistency="stale", timeout=1) == 1
        if stale:
            with pytest.raises(CheckFailed, match="linearizability: INVALID"):
                cluster.check()
        else:
            cluster.check()
        assert cluster.records.verdicts

    simulate(scenario, options=options)


def test_a_session_that_reads_back_in_time_fails_the_check_of_sessions_alone(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        client = cluster.kv.session()
        await client.put("x", 1)
        await cluster.wait_for_consensus()
        leader = await cluster.wait_for_leader(group="kv")
        behind = cluster.others(leader)[0]
        async with cluster.isolate(behind):
            await client.put("x", 2, via=leader)
            assert await client.get("x", via=leader, consistency="stale") == 2
            cluster.check("sessions")
            assert await client.get("x", via=behind, consistency="stale") == 1
            with pytest.raises(ValueError, match="one thing at a time"):
                await asyncio.gather(client.get("x"), client.get("x"))
        with pytest.raises(CheckFailed, match="sessions: INVALID"):
            cluster.check("sessions")
        cluster.check()

    simulate(scenario)


def test_operations_at_once_have_a_client_each(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        await asyncio.gather(*(cluster.kv.put(f"k{number % 3}", number) for number in range(12)))
        seen = await asyncio.gather(*(cluster.kv.get(f"k{number}") for number in range(3)))
        assert [value % 3 for value in seen] == [0, 1, 2]
        clients = {op.client for op in cluster.records.history if op.f == "write"}
        assert len(clients) == 12
        await cluster.verify()

    simulate(scenario)
