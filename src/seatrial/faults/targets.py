"""Which nodes a fault hits: a word, a view of the cluster and a stream of randomness give node ids.  PURE.

Rule: the same word, view and stream give the same nodes; only nodes that run are hit.
Knows nothing of faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from seatrial.cluster.status import majority_of
from seatrial.env import Rng


class Target(StrEnum):
    """Words for "which nodes"."""

    ONE = "one"  # any node
    LEADER = "leader"
    FOLLOWERS = "followers"  # every node but the leader
    MINORITY = "minority"  # from one node to the largest minority
    HALF = "half"  # the largest minority: 1 of 3, 2 of 5
    MAJORITY = "majority"  # the smallest majority: 2 of 3, 3 of 5
    ALL = "all"


# Targets that leave no majority untouched; a plan has them only where they were asked for by name.
LEAVE_NO_MAJORITY = frozenset({Target.FOLLOWERS, Target.MAJORITY, Target.ALL})
NEED_LEADER = frozenset({Target.LEADER, Target.FOLLOWERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known when a target is chosen: all nodes, those that run, who leads (None: nobody knows).

    `room`: how many nodes may be hit at most, by the budget; None: as many as the word says.
    """

    nodes: tuple[int, ...]
    running: tuple[int, ...]
    leader: int | None = None
    room: int | None = None


def budget_of(nodes: int) -> int:
    """How many nodes may be out at once: a minority; one, where even one is a majority."""
    return max(1, (nodes - 1) // 2)


def choose(target: Target, view: View, rng: Rng) -> tuple[int, ...]:
    """The nodes to hit, in order; empty when there is none of the kind (no leader, nothing runs)."""
    running = sorted(view.running)
    if target in NEED_LEADER and view.leader not in running:
        return ()
    if target is Target.LEADER:
        return (view.leader,) if view.leader is not None else ()
    if target is Target.FOLLOWERS:
        return tuple(node for node in running if node != view.leader)
    if target is Target.ALL:
        return tuple(running)
    room = len(view.nodes) if view.room is None else view.room
    minority_max = budget_of(len(view.nodes))
    if target is Target.MINORITY:
        count = rng.integer(1, max(1, min(minority_max, room)))
    else:
        count = {Target.ONE: 1, Target.HALF: minority_max, Target.MAJORITY: majority_of(len(view.nodes))}[target]
    return tuple(sorted(rng.sample(running, min(count, len(running)))))
