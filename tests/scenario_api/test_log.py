"""`cluster.log`: what is appended, by whom it can be read, and what is never there twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seatrial.history import OpType
from seatrial.scenario import CheckFailed, NotHere, Refused, ScenarioCluster, Unavailable

pytestmark = pytest.mark.slow
Run = Callable[..., Any]


def test_records_are_read_as_what_they_were_from_the_leader_and_from_every_node(run: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log("t", partitions=2)
        values: list[int | str | bytes] = [7, "seven", "8", b"\x00\xff", b"9"]
        for offset, value in enumerate(values):
            assert await log.append(value) == offset
        assert await log.append("elsewhere", partition=1, key="k") == 0
        assert await log.read() == list(enumerate(values))
        assert await log.read(from_offset=3) == [(3, b"\x00\xff"), (4, b"9")]
        assert await log.read(1) == [(0, "elsewhere")]
        await cluster.wait_for_consensus()
        for node in cluster.nodes:
            assert await log.read(via=node) == list(enumerate(values))
        assert await log.leader() in cluster.nodes and await log.replicas(1) == list(cluster.nodes)
        assert cluster.log("t") is log
        with pytest.raises(ValueError, match="partitions"):
            cluster.log("t", partitions=3)
        await cluster.verify()

    run(scenario)


def test_an_append_finds_the_new_leader_and_is_there_once(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log()
        for value in range(3):
            await log.append(value)
        leader = await log.leader()
        async with cluster.isolate(leader):
            assert await log.append(3) == 3
            with pytest.raises(Unavailable) as caught:
                await log.append(4, via=leader, timeout=1)
            assert not caught.value.definite or "NotLeader" not in str(caught.value)
        with pytest.raises(Unavailable) as follower:
            await log.append(5, via=cluster.others(await log.leader())[0], retries=False)
        assert "NotLeader" in str(follower.value)
        await log.append(6)
        await cluster.verify()
        values = [value for _, value in await log.read()]
        assert [value for value in values if value not in (4, 5)] == [0, 1, 2, 3, 6]

    simulate(scenario)


def test_an_append_that_is_sent_again_is_there_once(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log()
        await log.append(1)
        late = cluster.messages("delay-appends", at=await log.leader(), value=1_800_000, direction="out", group="t/0")
        async with late as injection:
            assert await log.append(2) == 1
        assert injection.bit
        assert await log.append(3) == 2
        await cluster.verify()

    simulate(scenario)


def test_what_is_too_large_is_refused_and_what_is_large_goes_through(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log()
        large = bytes(range(256)) * 12_000
        with pytest.raises(Refused, match="TooLarge"):
            await log.append(large + large)
        assert await log.append(large) == 0
        assert await log.read() == [(0, large)]
        shown = [op.value for op in cluster.records.history if op.f == "append" and op.type is OpType.OK]
        assert len(str(shown)) < 100, "the history has a digest"
        await cluster.verify()

    simulate(scenario, options={"max_message_bytes": 4 << 20})


@pytest.mark.parametrize("options", [{}, {"unsafe": "ack-before-commit"}], ids=["sound", "broken"])
def test_an_acknowledged_record_that_is_lost_fails_the_check(simulate: Run, options: dict[str, str]) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log()
        await log.append("before")
        leader = await log.leader()
        async with cluster.isolate(leader):
            await cluster.wait_for_leader(group="t/0", other_than=leader)
            await log.append("in the majority", via=await cluster.wait_for_leader(group="t/0", other_than=leader))
        await cluster.wait_for_consensus()
        leader = await cluster.wait_for_leader(group="t/0")
        async with cluster.isolate(leader):
            if options:
                await log.append("to be lost", via=leader, timeout=1)
            else:
                with pytest.raises(Unavailable):
                    await log.append("to be lost", via=leader, timeout=1)
            new = await cluster.wait_for_leader(group="t/0", other_than=leader)
            await log.append("instead", via=new)
        if not options:
            await cluster.verify()
            return
        with pytest.raises(CheckFailed, match="partition-log: INVALID"):
            await cluster.verify()

    simulate(scenario, options=options)


def test_a_check_of_records_that_nobody_read_is_no_pass(simulate: Run) -> None:
    async def scenario(cluster: ScenarioCluster) -> None:
        log = cluster.log()
        await log.append(1)
        with pytest.raises(CheckFailed, match="never read"):
            cluster.check()
        await log.read()
        cluster.check()

    simulate(scenario)


@pytest.mark.external
def test_a_system_that_does_not_speak_kafka_has_no_log(etcd: Run) -> None:

    async def scenario(cluster: ScenarioCluster) -> None:
        with pytest.raises(NotHere, match="Kafka"):
            await cluster.log().append(1)

    etcd(scenario)
