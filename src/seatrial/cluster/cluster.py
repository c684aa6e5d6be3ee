"""A running cluster: its nodes can be started, killed, paused and cut off, asked for their state, and waited for.

Rule: every wait has a deadline, and says what it last saw of every node when it expires.  Whatever is done to links is
undone by leaving its context.
Knows nothing of workloads, plans and verdicts.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import permutations
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from seatrial.cluster.connectivity import Cuts, Link, connected_majority, links_between_groups, links_of
from seatrial.cluster.drivers.base import Driver, NoAnswer
from seatrial.cluster.errors import ClusterError, DeadlineExceeded
from seatrial.cluster.links import LinkFault
from seatrial.cluster.message_filters import FilterFault
from seatrial.cluster.node_group import NodeGroup
from seatrial.cluster.status import NodeStatus, StatusByNode, agreed_leader, disagreement, majority_of

T = TypeVar("T")
CutMode: TypeAlias = Literal["hold", "reset"]
LinkContext: TypeAlias = AbstractAsyncContextManager[LinkFault]

POLL_S = 0.02
STATUS_TIMEOUT_S = 1.0
# The last look before a deadline may outlast it by this much: its answers are what the error is about.
LAST_LOOK_S = 0.5


class LinkControl(Protocol):
    """What is done to the links of one cluster.  `cuts` are those that are severed now."""

    cuts: Cuts

    def applied(
        self, kind: str, attributes: Mapping[str, int | float], links: Sequence[Link]
    ) -> AbstractAsyncContextManager[LinkFault]:
        """Do it to these links; undo it at the end, and gather what it did.  The kinds are the proxy's toxics."""

    async def clean(self) -> None:
        """Make every link whole, whatever was done to it."""


class Cluster(NodeGroup):
    """Nodes, the links between them, and what they say.  `spawn_cluster` (cluster/spawn.py) makes one of processes.

    answers_at_once: a node is asked without waiting for it (in the simulator), so no deadline has to watch over that,
    and nodes that are asked one after the other are asked at the same time.
    """

    driver: Driver
    answers_at_once = False

    def __init__(self) -> None:
        self._links: LinkControl | None = None

    @abstractmethod
    async def _ask(self, node: int, *, digest: bool) -> tuple[NodeStatus, ...]:
        """What a node that runs says of each of its groups.  Raises NoAnswer."""

    @abstractmethod
    def filtered(
        self, nodes: Sequence[int], requests: Sequence[Mapping[str, Any]]
    ) -> AbstractAsyncContextManager[FilterFault]:
        """Filter messages on these nodes, each by these requests (the bodies that `--test-hooks` takes)."""

    # -- links

    @property
    def links(self) -> LinkControl:
        """Raises ClusterError for a cluster without proxies."""
        if self._links is None:
            raise ClusterError("this cluster has no links to break: start it with ClusterSpec(links=True)")
        return self._links

    @property
    def has_links(self) -> bool:
        return self._links is not None

    def all_links(self) -> tuple[Link, ...]:
        return tuple(permutations(self.nodes, 2))

    def links_of(self, node: int) -> tuple[Link, ...]:
        """Every directed link to and from one node."""
        return links_of(self.nodes, node)

    def links_between(self, *groups: Collection[int]) -> tuple[Link, ...]:
        """Every directed link between nodes of different groups; nodes in no group are one more group together."""
        return links_between_groups(self.nodes, groups)

    def partition(self, *groups: Collection[int], mode: CutMode = "hold") -> LinkContext:
        """Cut all links between the groups.  Nodes that are in none of them form one more group together."""
        return self.cut_links(self.links_between(*groups), mode=mode)

    def isolate(self, node: int, mode: CutMode = "hold") -> LinkContext:
        """Cut one node off from all others, both ways."""
        return self.cut_links(self.links_of(node), mode=mode)

    def cut(self, source: int, target: int, mode: CutMode = "hold") -> LinkContext:
        """Cut one way: what `source` sends does not reach `target`; what `target` sends still reaches `source`."""
        return self.cut_links([(source, target)], mode=mode)

    def cut_links(self, links: Sequence[Link], mode: CutMode = "hold") -> LinkContext:
        """Cut these directed links.

        `hold` keeps the bytes and delivers them when the cut ends, as TCP does across a broken network; `reset` breaks
        every connection, and each new one, with an RST.
        """
        if mode == "hold":
            return self.links.applied("hold", {}, links)
        return self.reset(links)

    def latency(self, links: Sequence[Link], latency_ms: int, jitter_ms: int = 0) -> LinkContext:
        """Delay the bytes on these links by `latency_ms`, give or take up to `jitter_ms`."""
        return self.links.applied("latency", {"latency": latency_ms, "jitter": jitter_ms}, links)

    def bandwidth(self, links: Sequence[Link], kilobytes_per_second: int) -> LinkContext:
        """Let no more than this through each of these links."""
        return self.links.applied("bandwidth", {"rate": kilobytes_per_second}, links)

    def timeout(self, links: Sequence[Link]) -> LinkContext:
        """A black hole: bytes on these links vanish; the connections close when it ends."""
        return self.links.applied("timeout", {"timeout": 0}, links)

    def reset(self, links: Sequence[Link]) -> LinkContext:
        """Break every connection that carries these links, and each new one, with an RST."""
        return self.links.applied("reset_peer", {"timeout": 0}, links)

    def connected_majority(self) -> tuple[int, ...] | None:
        """Nodes that run, are not paused and all reach each other both ways, where they are a majority; else None."""
        running = self.running()
        if self.has_links:
            return connected_majority(self.nodes, running, self.links.cuts)
        return running if len(running) >= majority_of(len(self.nodes)) else None

    async def heal_everything(self, timeout: float) -> None:
        """Whatever was done: every link whole, every node resumed or started.  Raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout):
                if self.has_links:
                    await self.links.clean()
                await self.resume_all()
                await self.start_all()
        except TimeoutError as error:
            if isinstance(error, DeadlineExceeded):
                raise
            raise DeadlineExceeded("healed cluster", timeout, self._last_seen()) from None

    # -- what the nodes say

    async def status(
        self, node: int, *, digest: bool = False, timeout: float = STATUS_TIMEOUT_S
    ) -> tuple[NodeStatus, ...]:
        """What the node says of each of its Raft groups; one entry with `error` if it says nothing.  Never raises.

        `digest`: also a digest of the node's state, even where asking for it costs the node something (etcd).
        """
        state = self.node_state(node)
        try:
            if state.state != "running":
                raise NoAnswer(state.describe())
            if self.answers_at_once:
                answers = await self._ask(node, digest=digest)
            else:
                async with asyncio.timeout(timeout):
                    answers = await self._ask(node, digest=digest)
        except NoAnswer as error:
            answers = (NodeStatus(node=node, group=self.driver.group, error=str(error)),)
        except TimeoutError:
            answers = (NodeStatus(node=node, group=self.driver.group, error=f"no answer within {timeout:g} s"),)
        return tuple(
            answer if answer.incarnation == state.incarnation else replace(answer, incarnation=state.incarnation)
            for answer in answers
        )

    async def statuses(self, *, digest: bool = False, timeout: float = STATUS_TIMEOUT_S) -> StatusByNode:
        """Every node's status, asked at once."""
        if self.answers_at_once:
            return {node: await self.status(node, digest=digest, timeout=timeout) for node in self.nodes}
        answers = await asyncio.gather(*(self.status(node, digest=digest, timeout=timeout) for node in self.nodes))
        return dict(zip(self.nodes, answers, strict=True))

    async def leader(self, group: str | None = None) -> int | None:
        """The node that leads now, by its own word and that of a majority; None if there is none."""
        return agreed_leader(await self.statuses(), group or self.driver.group, self.nodes)

    async def wait_for_leader(
        self,
        timeout: float,
        *,
        among: Collection[int] | None = None,
        other_than: int | Collection[int] | None = None,
        group: str | None = None,
    ) -> int:
        """The node that leads `group`, by its own word and that of a majority of the cluster.

        `among`, `other_than`: only these nodes count, or only others.
        """
        excluded = {other_than} if isinstance(other_than, int) else set(other_than or ())
        allowed = set(self.nodes if among is None else among) - excluded
        name = group or self.driver.group

        def decide(statuses: StatusByNode) -> int | None:
            leader = agreed_leader(statuses, name, self.nodes)
            return leader if leader in allowed else None

        whom = "" if allowed == set(self.nodes) else f" among {sorted(allowed)}"
        return await self.wait_until(f"leader of group {name}{whom}", timeout, decide)

    async def wait_for_consensus(self, timeout: float) -> None:
        """All nodes answer; every group has one leader, and the same term, commit and applied index on all of them."""

        def decide(statuses: StatusByNode) -> bool | None:
            return True if disagreement(statuses, self.nodes) is None else None

        await self.wait_until("consensus of all nodes", timeout, decide)

    async def wait_until(self, what: str, timeout: float, decide: Callable[[StatusByNode], T | None]) -> T:
        """Ask all nodes again and again until `decide` makes something of their answers.  Raises DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            left = deadline - loop.time()
            statuses = await self.statuses(timeout=max(LAST_LOOK_S, min(STATUS_TIMEOUT_S, left)))
            decision = decide(statuses)
            if decision is not None:
                return decision
            if loop.time() >= deadline:
                raise DeadlineExceeded(what, timeout, self._last_said(statuses))
            await asyncio.sleep(POLL_S)

    def _last_said(self, statuses: StatusByNode) -> dict[int, str]:
        """For each node its process and what it said of each group."""
        return {
            # Of a node that does not run, its status says no more than its process does.
            node: "; ".join([self._seen(node), *(s.describe() for s in said if node in self.running())])
            for node, said in sorted(statuses.items())
        }
