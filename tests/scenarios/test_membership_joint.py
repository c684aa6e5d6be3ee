"""Joint consensus: what happens to a change of two voters at once when it is caught half-way.

A partition moves from three replicas to three of which one is the same.  The two that go do not answer for a while, so
that the entry which begins the change is everywhere and not committed: the group needs both majorities.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from leadership import for_a_while

from seatrial.scenario import Refused, ScenarioCluster, Unavailable, eventually

pytestmark = pytest.mark.cluster(nodes=5, system="own")
GROUP = "t/0"


@dataclass(frozen=True, slots=True)
class Change:
    """The leader, which stays; who goes, and who comes in their place."""

    leader: int
    outgoing: tuple[int, ...]
    incoming: tuple[int, ...]

    @property
    def target(self) -> list[int]:
        return sorted((self.leader, *self.incoming))


@contextlib.asynccontextmanager
async def joint(cluster: ScenarioCluster) -> AsyncIterator[Change]:
    """The group in joint consensus, known to all five and not committed; on leaving, those that go answer again."""
    log = cluster.log(replication=3)
    assert [await log.append(number) for number in range(3)] == [0, 1, 2]
    replicas = await log.replicas()
    leader = await cluster.wait_for_leader(group=GROUP)
    change = Change(
        leader,
        outgoing=tuple(node for node in replicas if node != leader),
        incoming=tuple(node for node in cluster.nodes if node not in replicas),
    )
    await cluster.members.move(GROUP, learners=change.incoming)
    await expect_everywhere(cluster, replicas, [], list(change.incoming))
    async with cluster.messages("hold-append-answers", at=change.outgoing, direction="out", group=GROUP) as silence:
        await cluster.members.move(GROUP, add=change.incoming, remove=change.outgoing, wait=False)
        await expect_everywhere(cluster, change.target, replicas, [])
        yield change
    assert silence.bit


async def expect_everywhere(
    cluster: ScenarioCluster, voters: list[int], outgoing: list[int], learners: list[int]
) -> None:
    """All five nodes come to know these, and are in the group."""

    async def known() -> bool:
        for node in cluster.nodes:
            told = await cluster.members.group(GROUP, via=node)
            seen = told["voters"], told["voters_outgoing"], told["learners"]
            assert seen == (voters, outgoing, learners), f"node {node}: {seen}"
        return True

    await eventually(known)


async def expect_carried_out(cluster: ScenarioCluster, change: Change, *, values: int) -> None:
    """The change comes to its end by itself, the records are all there, and the group serves."""
    log = cluster.log()

    async def done() -> bool:
        leader = await cluster.wait_for_leader(group=GROUP)
        told = await cluster.members.group(GROUP, via=leader)
        assert (told["voters"], told["voters_outgoing"], told["learners"]) == (change.target, [], [])
        return True

    await eventually(done)

    async def told_to_clients() -> bool:
        return await log.replicas() == change.target

    await eventually(told_to_clients)
    await log.append(values)
    assert [value for _, value in await log.read()] == list(range(values + 1))
    await cluster.verify()


async def test_a_change_of_two_voters_goes_through_joint_consensus(cluster: ScenarioCluster) -> None:
    """While the group is in joint consensus the majority of those that come is not enough; then the change goes on."""
    async with joint(cluster) as change:
        append = asyncio.ensure_future(cluster.log().append(3))
        await asyncio.wait([append], timeout=0.3)
        assert not append.done(), "no majority of those that go has answered"
    assert await append == 3
    await expect_carried_out(cluster, change, values=4)


@pytest.mark.real
async def test_leader_down_in_joint(cluster: ScenarioCluster) -> None:
    """The next leader, which both majorities elect, leaves the joint consensus of its predecessor."""
    async with joint(cluster) as change:
        await cluster.kill(change.leader)

    async def led_by_another() -> bool:
        said = [status for node in cluster.running() for status in await cluster.status(node)]
        return any(status.group == GROUP and status.role == "leader" for status in said)

    await eventually(led_by_another)
    await cluster.start(change.leader)
    await expect_carried_out(cluster, change, values=3)


@pytest.mark.parametrize("who", ["all", "leader", "incoming", "outgoing"])
async def test_restart_in_joint(cluster: ScenarioCluster, who: str) -> None:
    """Nodes that were killed in joint consensus find it in their logs again, and it is left."""
    async with joint(cluster) as change:
        victims = {
            "all": cluster.nodes,
            "leader": (change.leader,),
            "incoming": change.incoming,
            "outgoing": change.outgoing,
        }[who]
        for node in victims:
            await cluster.kill(node)
    for node in victims:
        await cluster.start(node)
    await expect_carried_out(cluster, change, values=3)


@pytest.mark.environments("sim", reason="a killed process loses nothing that it wrote; a simulated machine does")
async def test_power_failure_in_joint(cluster: ScenarioCluster) -> None:
    """All lose their power in joint consensus, and what was not synced; it is left all the same."""
    async with joint(cluster) as change:
        await cluster.power_failure()
    await cluster.start_all()
    await expect_carried_out(cluster, change, values=3)


@pytest.mark.parametrize("with_leader", [pytest.param("incoming", marks=pytest.mark.real), "outgoing"])
async def test_partition_in_joint(cluster: ScenarioCluster, with_leader: str) -> None:
    """Neither the old nor the new majority elects or commits without the other; together they finish the change."""
    async with joint(cluster) as change:
        here = (change.leader, *(change.incoming if with_leader == "incoming" else change.outgoing))
        there = tuple(node for node in cluster.nodes if node not in here)
        partition = cluster.partition(here, there)
        await partition.__aenter__()
    try:
        for node in cluster.nodes:
            with pytest.raises(Unavailable):
                await cluster.log().append(f"refused by {node}", via=node, timeout=0.3, retries=False)

        async def no_leader() -> bool:
            said = [status for statuses in (await cluster.statuses()).values() for status in statuses]
            leaders = [status.node for status in said if status.group == GROUP and status.role == "leader"]
            assert leaders == []
            return True

        await eventually(no_leader)
        await for_a_while(no_leader, seconds=0.8)
    finally:
        await partition.__aexit__(None, None, None)
    await cluster.wait_for_leader(group=GROUP)
    log = cluster.log()
    told = [value for _, value in await log.read()]
    assert told[:3] == [0, 1, 2]
    assert all(str(value).startswith("refused by") for value in told[3:]), "at most what was refused and not for sure"

    async def settled() -> bool:
        return await log.replicas() == change.target

    await eventually(settled)
    await cluster.verify()


@pytest.mark.real
async def test_change_refused_while_one_is_pending(cluster: ScenarioCluster) -> None:
    """A second change of the same partition is refused, by name, until the first is carried out."""
    log = cluster.log(replication=3)
    await log.append(0)
    replicas = await log.replicas()
    first, second = (node for node in cluster.nodes if node not in replicas)
    await cluster.kill(first)
    await cluster.members.move(GROUP, add=(first,), wait=False)
    with pytest.raises(Refused) as error:
        await cluster.members.move(GROUP, add=(second,), wait=False)
    assert error.value.code == "CHANGE_PENDING"
    await log.append(1)  # a change that waits holds up nobody
    await cluster.start(first)
    await eventually(lambda: moved(cluster, sorted([*replicas, first])))
    await cluster.members.move(GROUP, add=(second,))
    assert await log.replicas() == list(cluster.nodes)
    await cluster.verify()


async def moved(cluster: ScenarioCluster, replicas: list[int]) -> bool:
    """Whether the partition is on these, and its change carried out."""
    told = await cluster.members.status()
    return not told["moving"] and await cluster.log().replicas() == replicas


async def test_leader_down_before_the_change_is_known(cluster: ScenarioCluster) -> None:
    """A change that only its dead leader knows of is not in effect with the others, and is made anew by the next."""
    log = cluster.log(replication=3)
    await log.append(0)
    replicas = await log.replicas()
    leader = await cluster.wait_for_leader(group=GROUP)
    others = [node for node in replicas if node != leader]
    new = next(node for node in cluster.nodes if node not in replicas)
    async with cluster.messages("drop-appends", at=leader, direction="out", group=GROUP):
        await cluster.members.move(GROUP, add=(new,), wait=False)

        async def begun() -> bool:
            told = await cluster.members.group(GROUP, via=leader)
            return new in told["learners"] or leader != await cluster.leader(group=GROUP)

        await eventually(begun)
        await cluster.kill(leader)
    await cluster.wait_for_leader(group=GROUP, among=others)
    await cluster.start(leader)
    await eventually(lambda: moved(cluster, sorted([*replicas, new])))
    await log.append(1)
    assert await log.read() == [(0, 0), (1, 1)]
    await cluster.verify()
