"""What a fault is: settings, where it can be done, and a context in which it is.

Rule: leaving the context undoes it, cancelled or not, and then `Injection.bit` says, with evidence, whether it did
anything at all: a green run under a fault that never happened proves nothing.
Knows nothing of plans.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from seatrial.cluster.cluster import Cluster
from seatrial.cluster.errors import ClusterError, DeadlineExceeded
from seatrial.env import Rng
from seatrial.faults.targets import NEED_LEADER, Target, View, choose

LEADER_PATIENCE_S = 2.0


class NothingToHit(ClusterError):
    """There is no node of the wanted kind now; nothing was done."""


@dataclass(slots=True, kw_only=True)
class Injection:
    """A fault that is active.  `evidence` and `bit` are complete once its context was left."""

    description: str
    targets: tuple[int, ...]
    evidence: dict[str, Any] = field(default_factory=dict)
    bit: bool | None = None


class Fault(Protocol):
    """One kind of fault with its settings; a frozen dataclass whose fields they are.

    `kind` is its name in plans.  `takes_out`: whether its targets count as lost to the cluster while it is active.
    """

    kind: ClassVar[str]
    takes_out: ClassVar[bool]

    @property
    def target(self) -> Target: ...

    def unavailable(self, cluster: Cluster) -> str | None:
        """Why it cannot be done to this cluster; None when it can."""

    def injected(
        self, cluster: Cluster, rng: Rng, targets: tuple[int, ...] | None = None
    ) -> AbstractAsyncContextManager[Injection]:
        """Do it on entering, undo it on leaving.  `targets`: from `aim`, which it asks itself where None.

        Raises ClusterError when the cluster cannot be made to do it, NothingToHit when there is no target.
        """


async def aim(target: Target, cluster: Cluster, rng: Rng, *, room: int | None = None) -> tuple[int, ...]:
    """The nodes that the word means now.  Raises NothingToHit."""
    leader = None
    if target in NEED_LEADER:
        try:
            leader = await cluster.wait_for_leader(LEADER_PATIENCE_S, among=cluster.running())
        except DeadlineExceeded as error:
            raise NothingToHit(f"nobody led for {LEADER_PATIENCE_S:g} s") from error
    view = View(nodes=cluster.nodes, running=cluster.running(), leader=leader, room=room)
    targets = choose(target, view, rng)
    if not targets:
        raise NothingToHit(f"no node is {target} now; running: {list(cluster.running())}")
    return targets


def people(targets: tuple[int, ...]) -> str:
    """ "node 1", "nodes 1 and 3", "nodes 1, 2 and 3"."""
    names = [str(node) for node in targets]
    if len(names) == 1:
        return f"node {names[0]}"
    return f"nodes {', '.join(names[:-1])} and {names[-1]}"
