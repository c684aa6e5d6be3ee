"""Membership: nodes come, learn, vote, go and are replaced, and no step of it stops or splits the cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from leadership import elected, for_a_while, nobody_leads, refuses_writes, stepped_down, still_leads, view

from seatrial.scenario import Refused, ScenarioCluster, Unavailable, eventually

pytestmark = pytest.mark.cluster(system="own")
GROUPS = ("metadata", "kv")


async def expect_members_at(cluster: ScenarioCluster, node: int, voters: list[int], learners: list[int]) -> None:
    """The node knows these, and of no change under way, in the groups that all nodes share."""
    for group in GROUPS:
        told = await cluster.members.group(group, via=node)
        seen = told["voters"], told["voters_outgoing"], told["learners"]
        assert seen == (voters, [], learners), f"node {node}, {group}: {seen}"


async def expect_members(cluster: ScenarioCluster, *, voters: list[int], learners: list[int] | None = None) -> None:
    """Every member comes to know these."""

    async def known() -> bool:
        for node in (*voters, *(learners or ())):
            await expect_members_at(cluster, node, voters, learners or [])
        return True

    await eventually(known)


async def has(cluster: ScenarioCluster, node: int, key: str, value: object) -> bool:
    """Whether the node's own copy has this."""
    return bool(await cluster.kv.get(key, via=node, consistency="stale") == value)


async def leads_nothing(cluster: ScenarioCluster, node: int) -> None:
    """The node leads no group that it takes part in, if any."""
    assert all(status.role != "leader" for status in await cluster.status(node))


@pytest.fixture(autouse=True)
async def everybody_is_known(cluster: ScenarioCluster) -> None:
    """The cluster knows its nodes: each tells it of itself when it has started."""

    async def known() -> bool:
        return set(await cluster.members.states()) == set(cluster.nodes)

    await eventually(known)


async def test_add_node(cluster: ScenarioCluster) -> None:
    """A node that is added gets all there is, and from then on counts: with it three of four are a majority."""
    await cluster.kv.put("x", 1)
    first, second, third = cluster.nodes
    new = await cluster.members.add()
    await expect_members(cluster, voters=[first, second, third, new])
    await eventually(lambda: has(cluster, new, "x", 1))
    await cluster.kill(first)
    await cluster.kv.put("x", 2, via=second)
    assert await cluster.kv.get("x", via=new) == 2
    await cluster.kill(second)
    await refuses_writes(cluster, third, "y")
    await cluster.start(first)
    await cluster.start(second)
    await cluster.verify()


async def test_remove_node(cluster: ScenarioCluster) -> None:
    """Without the node that was removed the others are enough; its number is used up, and it stays out when it comes
    back."""
    leader, _ = await elected(cluster)
    removed, other = cluster.others(leader)
    await cluster.kv.put("x", 1)
    await cluster.members.remove(removed)
    await expect_members(cluster, voters=sorted([leader, other]))
    assert (await cluster.members.status(via=leader))["removed"] == [removed]
    await cluster.kill(removed)
    await cluster.kv.put("x", 2)
    await cluster.verify()
    await cluster.kill(other)
    await refuses_writes(cluster, leader, "y")
    await cluster.start(other)
    await elected(cluster)
    assert sorted((await cluster.members.states(via=leader)).items()) == [(n, "voter") for n in sorted([leader, other])]


@pytest.mark.parametrize("fate", ["alive", pytest.param("dead", marks=pytest.mark.real)])
async def test_replace_node(cluster: ScenarioCluster, fate: str) -> None:
    """A new node takes the place of an old one, which may be dead, and has everything that was acknowledged."""
    leader, _ = await elected(cluster)
    old, other = cluster.others(leader)
    await cluster.kv.put("x", 1)
    if fate == "dead":
        await cluster.kill(old)
    new = await cluster.members.replace(old)
    await expect_members(cluster, voters=sorted([leader, other, new]))
    await cluster.kill(leader)
    await elected(cluster, among=[other, new])
    assert await cluster.kv.get("x", via=new) == 1, "the new one is of the majority"
    await cluster.start(leader)
    await cluster.verify()


async def test_learner_catch_up_and_promotion(cluster: ScenarioCluster) -> None:
    """A learner is refused a vote until it has what the others have; then it gets one, and it counts."""
    voters = list(cluster.nodes)
    await cluster.kv.put("x", 1)
    starved = {"rule": "drop-appends", "to": [max(voters) + 1], "side": "send"}
    async with cluster.filtered(voters, [starved]) as hunger:
        learner = await cluster.members.add(learner=True, wait=False)
        with pytest.raises(Refused) as error:
            await cluster.members.promote(learner, wait=False)
        assert error.value.code == "NOT_CAUGHT_UP"
        assert (await cluster.members.states(via=voters[0]))[learner] == "learner"
        leader = await cluster.wait_for_leader(group="metadata", among=voters)
        await eventually(lambda: is_followed(cluster, learner, by=leader))
    assert hunger.bit
    await eventually(lambda: has(cluster, learner, "x", 1))
    await expect_members(cluster, voters=voters, learners=[learner])
    await cluster.members.promote(learner)
    await expect_members(cluster, voters=[*voters, learner])
    await cluster.kill(voters[0])
    await cluster.kv.put("x", 2)
    assert await cluster.kv.get("x", via=learner) == 2
    await cluster.start(voters[0])
    await cluster.verify()


async def is_followed(cluster: ScenarioCluster, learner: int, *, by: int) -> bool:
    """Whether the leader of the members has begun to send to the learner."""
    return learner in (await cluster.members.group("metadata", via=by))["learners"]


async def test_a_learner_that_is_cut_off_gets_its_vote_when_it_is_back(cluster: ScenarioCluster) -> None:
    """A promotion waits for a learner that cannot be reached, as one voter more that is silent would be a danger."""
    voters = list(cluster.nodes)
    learner = await cluster.members.add(learner=True)
    await cluster.wait_for_consensus()
    leader = await cluster.wait_for_leader(group="metadata")
    async with cluster.isolate(learner):
        await cluster.kv.put("x", 1, via=leader)
        await still_leads(cluster, *await elected(cluster), seconds=0.5)  # by then its silence is noticed
        await cluster.members.promote(learner, wait=False, via=leader)
        await for_a_while(lambda: expect_members_at(cluster, leader, voters, [learner]), seconds=0.3)
    await expect_members(cluster, voters=[*voters, learner])
    await cluster.verify()


@pytest.mark.real
async def test_learner_never_votes(cluster: ScenarioCluster) -> None:
    """With a learner in the place of a voter there is no majority, neither for an entry nor for a leader; and the
    learner itself never leads."""
    first, second, third = cluster.nodes
    learner = await cluster.members.add(learner=True)
    await cluster.kv.put("x", 1)
    await eventually(lambda: has(cluster, learner, "x", 1))
    leader, _ = await elected(cluster)
    dead = [node for node in (first, second, third) if node != leader]
    for node in dead:
        await cluster.kill(node)
    await refuses_writes(cluster, leader, "y")
    await stepped_down(cluster, leader)
    await nobody_leads(cluster, [leader, learner])
    await cluster.kill(leader)
    await cluster.start(dead[0])
    await nobody_leads(cluster, [dead[0], learner], seconds=0.8)
    for node in (dead[1], leader):
        await cluster.start(node)
    assert (await elected(cluster))[0] != learner
    await cluster.verify()
    assert all(learner not in leaders for leaders in cluster.leaders_seen("kv").values())


async def test_isolation_of_a_learner(cluster: ScenarioCluster) -> None:
    """A learner that is cut off is missed by nobody, not even where one of three voters is down too; it stays in its
    term, and catches up when it is back."""
    learner = await cluster.members.add(learner=True)
    leader, term = await elected(cluster)
    await cluster.kv.put("x", 1)
    await eventually(lambda: has(cluster, learner, "x", 1))
    async with cluster.isolate(learner):
        voter = next(node for node in cluster.others(leader) if node != learner)
        await cluster.kill(voter)
        await cluster.kv.put("x", 2, via=leader)
        await still_leads(cluster, leader, term, nodes=[learner])
        assert await has(cluster, learner, "x", 1)
        await cluster.start(voter)
    await eventually(lambda: has(cluster, learner, "x", 2))
    await still_leads(cluster, leader, term, seconds=0.5, nodes=cluster.nodes)
    await cluster.verify()


@pytest.mark.parametrize("group", ["metadata", pytest.param("kv", marks=pytest.mark.real)])
async def test_remove_the_leader(cluster: ScenarioCluster, group: str) -> None:
    """A leader carries out its own removal and hands over: the others go on in one later term, with everything."""
    await cluster.kv.put("x", 1)
    leader = await cluster.wait_for_leader(group=group)
    others = cluster.others(leader)
    await cluster.members.remove(leader)
    await expect_members(cluster, voters=sorted(others))
    assert await cluster.wait_for_leader(group=group) in others
    await cluster.kv.put("x", 2, via=others[0])
    assert await cluster.kv.get("x", via=others[1]) == 2
    await for_a_while(lambda: leads_nothing(cluster, leader), seconds=0.7)
    await cluster.verify()


async def test_a_node_that_lags_refuses_no_change_by_what_it_has_not_heard_of(cluster: ScenarioCluster) -> None:
    """A node that is asked to replace a member of which it does not know yet waits until it does, and does not say that
    there is none."""
    leader = await cluster.wait_for_leader(group="metadata")
    behind = cluster.others(leader)[0]
    starved = {"rule": "drop-appends", "to": [behind], "side": "send", "group": "metadata"}
    async with cluster.filtered(cluster.others(behind), [starved]) as hunger:
        old = await cluster.members.add(learner=True, wait=False, via=leader)
        await eventually(lambda: told_of(cluster, old, by=leader))
        assert not await told_of(cluster, old, by=behind)
        replacing = asyncio.create_task(cluster.members.replace(old, wait=False, via=behind))
        await for_a_while(lambda: is_undecided(replacing), seconds=0.4)
    assert hunger.bit
    new = await replacing
    await eventually(lambda: told_of(cluster, new, by=behind))


async def told_of(cluster: ScenarioCluster, node: int, *, by: int) -> bool:
    """Whether it is a member, as one node has it."""
    return node in await cluster.members.states(via=by)


async def is_undecided(task: asyncio.Task[int]) -> None:
    """It has neither succeeded nor failed."""
    assert not task.done(), task


async def test_remove_leader_with_uncommitted_log(cluster: ScenarioCluster) -> None:
    """A leader that was removed while it was cut off brings nothing back of what it could not commit."""
    await cluster.kv.put("x", "acknowledged")
    old, _ = await elected(cluster)
    others = cluster.others(old)
    async with cluster.isolate(old):
        with pytest.raises(Unavailable):
            await cluster.kv.put("x", "uncommitted", via=old, timeout=0.3, retries=False)
        assert await last_index(cluster, old) > await last_index(cluster, others[0])
        new, term = await elected(cluster, among=others)
        await cluster.members.remove(old, via=new)
        assert await cluster.kv.get("x", via=new) == "acknowledged"
        await cluster.kv.put("x", "later", via=new)
    await still_leads(cluster, new, term, nodes=others)
    assert [await cluster.kv.get("x", via=node) for node in others] == ["later", "later"]
    await leads_nothing(cluster, old)
    await expect_members(cluster, voters=sorted(others))
    await cluster.verify()


async def last_index(cluster: ScenarioCluster, node: int) -> int:
    """Where the node's log ends."""
    return (await view(cluster, node)).last_index or 0


async def test_remove_an_isolated_node(cluster: ScenarioCluster) -> None:
    """A node is removed without its being asked; when it can be reached again it knows, or has at least no say."""
    leader, term = await elected(cluster)
    removed, other = cluster.others(leader)
    async with cluster.isolate(removed):
        await cluster.members.remove(removed)
        await expect_members(cluster, voters=sorted([leader, other]))
        await cluster.kv.put("x", 1)
    await still_leads(cluster, leader, term, nodes=[other])
    await leads_nothing(cluster, removed)
    await cluster.verify()


@pytest.mark.parametrize("cut_first", [False, True])
async def test_removed_node_cannot_disturb(cluster: ScenarioCluster, cut_first: bool) -> None:
    """A node that was removed, whether it knows or not, is started again and deposes nobody: the leader and its term
    stay."""
    leader, _ = await elected(cluster)
    removed = cluster.others(leader)[0]
    if cut_first:
        async with cluster.isolate(removed):
            await cluster.members.remove(removed)
            await cluster.restart(removed)
    else:
        await cluster.members.remove(removed)
        await cluster.restart(removed)
    leader, term = await elected(cluster)
    await still_leads(cluster, leader, term, seconds=2, nodes=cluster.nodes)
    await cluster.kv.put("x", 1)
    await refuses_writes(cluster, removed, "x")
    await cluster.verify()


@pytest.mark.cluster(nodes=1)
async def test_the_last_voter_cannot_be_removed(cluster: ScenarioCluster) -> None:
    """A cluster of one refuses to become one of none, and goes on."""
    (only,) = cluster.nodes
    with pytest.raises(Refused) as error:
        await cluster.members.remove(only)
    assert error.value.code == "NO_VOTER_LEFT"
    await cluster.kv.put("x", 1)
    assert await cluster.kv.get("x") == 1


async def test_a_minority_changes_no_members(cluster: ScenarioCluster) -> None:
    """A leader that is cut off cannot remove the others to have a majority of its own."""
    leader = await cluster.wait_for_leader(group="metadata")
    others = cluster.others(leader)
    async with cluster.isolate(leader):
        with pytest.raises(Unavailable):
            await cluster.members.remove(others[0], via=leader, timeout=1)
        await elected(cluster, among=others)
        await cluster.kv.put("x", 1, via=others[0])
        assert await voters_of(cluster, leader) == list(cluster.nodes)


async def voters_of(cluster: ScenarioCluster, node: int) -> list[int]:
    """Who votes, as the node has it."""
    told: dict[str, Any] = await cluster.members.group("metadata", via=node)
    return list(told["voters"])


@pytest.mark.real
@pytest.mark.cluster(nodes=1, timeout=110)
async def test_grow_1_to_3_to_5_to_3(cluster: ScenarioCluster) -> None:
    """A cluster grows from one node to five and shrinks to three that were not there at first; each acknowledged write
    is there all the way."""
    (first,) = cluster.nodes
    await cluster.kv.put("size", 1)
    for size in range(2, 6):
        await cluster.members.add()
        await cluster.kv.put("size", size)
    assert await cluster.kv.get("size", via=max(cluster.nodes)) == 5
    second = cluster.others(first)[0]
    for node in (first, second):
        await cluster.members.remove(node)
        await cluster.kill(node)
    await expect_members(cluster, voters=[3, 4, 5])
    assert await cluster.kv.get("size") == 5
    await cluster.kill(3)
    await cluster.kv.put("size", 3)
    await cluster.start(3)
    await cluster.verify()


async def test_replacing_nodes_under_load(cluster: ScenarioCluster) -> None:
    """Two of three nodes are replaced, the leader first, and of what clients were told in the meantime all holds."""
    async with cluster.traffic(kv=True, rate=20) as traffic:  # at the nodes of the beginning, so one of them stays
        leader, _ = await elected(cluster)
        for old in (leader, cluster.others(leader)[0]):
            await cluster.members.replace(old)
            await cluster.kill(old)
            await traffic.progress(more=2)
    await cluster.wait_for_consensus()
    for key in sorted({op.key for op in traffic.history if op.key is not None}):
        await cluster.kv.get(key)
    cluster.check("linearizability")
