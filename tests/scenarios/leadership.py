"""What scenarios claim of leaders and terms, over what the nodes say of themselves.

Rule: nothing here knows a system: the group that is asked about is the one behind the key-value store.  Every wait has
a deadline; what must not happen is watched for longer than any node waits for its leader (`TIMEOUTS_S`).  That a leader
stays is claimed only as long as the machine kept time: nodes that do not get the processor have every right to elect.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Collection

import pytest

from seatrial.cluster.status import NodeStatus
from seatrial.scenario import ScenarioCluster, Unavailable, eventually, retry

TIMEOUTS_S = 1.2  # twice what the most patient node waits for a leader before it stands itself
REFUSED_WITHIN_S = 0.7
LOOK_S = 0.05
ELECTION_S = {"sim": 10.0, "local": 20.0}  # where a bare majority has to agree, a busy machine may need many rounds
TICK_S = 0.02
LATE_S = 0.06  # of the 200 to 300 ms for which nodes wait, beside which these tests are idle


def group_of(cluster: ScenarioCluster) -> str:
    """The group behind the key-value store, as statuses name it."""
    return cluster.kv.group or cluster.driver.group


class Punctuality:
    """How late this process was at most, of when it wanted to run: on a machine that is too busy the nodes are, too."""

    def __init__(self) -> None:
        self.late_s = 0.0
        self._measuring = asyncio.ensure_future(self._measure())

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late_s = max(self.late_s, loop.time() - wanted)


_measured: weakref.WeakKeyDictionary[ScenarioCluster, Punctuality] = weakref.WeakKeyDictionary()


def kept_time(cluster: ScenarioCluster) -> bool:
    """Whether the machine kept time since this was first asked for the cluster; simulated ones always do."""
    if cluster.env == "sim":
        return True
    if cluster not in _measured:
        _measured[cluster] = Punctuality()
    return _measured[cluster].late_s <= LATE_S


def not_judged(cluster: ScenarioCluster, what: str) -> bool:
    """Whether the machine was too busy for this to mean anything; then it is printed."""
    if kept_time(cluster):
        return False
    print(f"not judged, for the machine was {_measured[cluster].late_s * 1000:.0f} ms late: {what}")
    return True


async def view(cluster: ScenarioCluster, node: int) -> NodeStatus:
    """What the node says of the group now.  Raises NeverSo where it says nothing."""

    async def told() -> NodeStatus:
        said = await cluster.status(node)
        for status in said:
            if status.group == group_of(cluster) and status.error is None:
                return status
        raise AssertionError(f"node {node} does not tell of {group_of(cluster)}: {[one.describe() for one in said]}")

    return await eventually(told)


async def term_of(cluster: ScenarioCluster, node: int) -> int:
    """The term that the node is in."""
    term = (await view(cluster, node)).term
    assert term is not None, f"node {node} tells no term"
    return term


async def elected(
    cluster: ScenarioCluster,
    *,
    among: Collection[int] | None = None,
    other_than: int | Collection[int] | None = None,
    timeout: float | None = None,
) -> tuple[int, int]:
    """(leader, term), once there is a leader by its own word and a majority's.

    A system whose statuses are not of one moment (etcd's new leader may still tell the last term) has to say it twice.
    """
    kept_time(cluster)  # it is measured from now on
    before: tuple[int, int] | None = None
    limit = ELECTION_S[cluster.env] if timeout is None else timeout
    while True:
        leader = await cluster.wait_for_leader(limit, among=among, other_than=other_than, group=group_of(cluster))
        told = leader, await term_of(cluster, leader)
        if cluster.driver.status_is_atomic or told == before:
            return told
        before = told
        await asyncio.sleep(LOOK_S)


async def says_that_it_leads(cluster: ScenarioCluster, node: int) -> bool:
    """Whether it does; a node that says nothing (etcd's, before it has found a majority) does not."""
    return any(status.group == group_of(cluster) and status.role == "leader" for status in await cluster.status(node))


async def stepped_down(cluster: ScenarioCluster, node: int, timeout: float = 10.0) -> None:
    """Wait until the node itself no longer says that it leads."""

    async def leads_no_more() -> bool:
        return not await says_that_it_leads(cluster, node)

    await eventually(leads_no_more, timeout)


async def for_a_while(claim: Callable[[], Awaitable[object]], seconds: float = TIMEOUTS_S) -> None:
    """The claim, which raises AssertionError where it does not hold, holds whenever it is looked at in this time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        await claim()
        if loop.time() >= deadline:
            return
        await asyncio.sleep(LOOK_S)


async def nobody_leads(cluster: ScenarioCluster, nodes: Collection[int], seconds: float = TIMEOUTS_S) -> None:
    """None of the nodes says that it leads, for longer than any of them waits before it stands for election."""

    async def none_of_them() -> None:
        for node in nodes:
            assert not await says_that_it_leads(cluster, node), f"node {node} says that it leads"

    await for_a_while(none_of_them, seconds)


async def still_leads(
    cluster: ScenarioCluster, leader: int, term: int, seconds: float = TIMEOUTS_S, *, nodes: Collection[int] = ()
) -> None:
    """The node leads in this very term, all the time; and none of `nodes` is in a later one."""

    async def it_does() -> None:
        seen = await view(cluster, leader)
        assert (seen.role, seen.term) == ("leader", term), f"it led term {term}, and now: {seen.describe()}"
        for node in nodes:
            assert await term_of(cluster, node) <= term, f"node {node} went into a later term"

    try:
        await for_a_while(it_does, seconds)
    except AssertionError as error:
        if not not_judged(cluster, str(error)):
            raise


async def leads_still(cluster: ScenarioCluster, leader: int, term: int) -> bool:
    """There is a leader, and it is this node, in this very term; False where another one may be."""
    now = await elected(cluster)
    if now != (leader, term) and not_judged(cluster, f"node {leader} led term {term}, and now {now[0]} leads {now[1]}"):
        return False
    assert now == (leader, term)
    return True


async def in_no_later_term(cluster: ScenarioCluster, nodes: Collection[int], term: int) -> None:
    """None of the nodes has gone into a later term than this one."""
    terms = {node: await term_of(cluster, node) for node in nodes}
    if max(terms.values()) > term and not not_judged(cluster, f"there are terms after {term}: {terms}"):
        raise AssertionError(f"there are terms after {term}: {terms}")


async def serves(cluster: ScenarioCluster, key: str, value: int, via: int | None = None) -> None:
    """A write is acknowledged; what is in doubt after a change of the leader is written once more."""
    await retry(lambda: cluster.kv.put(key, value, via=via), on=Unavailable, timeout=ELECTION_S[cluster.env])


async def refuses_writes(cluster: ScenarioCluster, node: int, key: str) -> None:
    """The node does not acknowledge a write."""
    with pytest.raises(Unavailable):
        await cluster.kv.put(key, f"refused by {node}", via=node, timeout=REFUSED_WITHIN_S, retries=False)


async def refuses_reads(cluster: ScenarioCluster, node: int, key: str) -> None:
    """The node does not answer a linearizable read."""
    with pytest.raises(Unavailable):
        await cluster.kv.get(key, via=node, timeout=REFUSED_WITHIN_S, retries=False)


async def safe(cluster: ScenarioCluster) -> None:
    """The healed cluster agrees, has every acknowledged write and no refused one by half, and no term that any node
    ever told of had two leaders."""
    await cluster.verify()
    if cluster.driver.status_is_atomic:
        for term, leaders in cluster.leaders_seen(group_of(cluster)).items():
            assert len(leaders) <= 1, f"term {term} had the leaders {sorted(leaders)}"
