"""Which replica a consumer should read from: near it, not too far behind, and with few readers (KIP-392).

Rule: a pure function of what the asked node knows; it always names a node.  On the wire the asked node's own number is
said as -1, because clients take any other number for an order to move.
Knows nothing of how lag, racks and readers are found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NEVER_S: Final = float("inf")  # behind: nobody vouched for it in time


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica as the asked node sees it.

    start_offset, end_offset: of the records that it surely has.  lag_s: how old the newest of what it has is at most,
    0 where it lacks nothing.  readers: how many consumers are thought to read from it, besides the one that asks.
    """

    node: int
    rack: str = ""
    is_up: bool = True
    start_offset: int = 0
    end_offset: int = 0
    lag_s: float = 0.0
    readers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """lag_s: a replica further behind is named to nobody.  moment_s: one that is no further behind can be asked for
    what it does not have yet: it has it before the consumer comes."""

    lag_s: float = 10.0
    moment_s: float = 0.5


def preferred_replica(
    *,
    asked: int,
    leader: int,
    replicas: Sequence[ReplicaView],
    offset: int,
    rack: str = "",
    spread: bool = False,
    limits: Limits,
) -> int:
    """The node to read from.

    A follower names itself or, where it is too far behind, the leader (-1: it knows of none).  A leader names itself,
    but for a consumer with a rack the replica in that rack with the fewest readers; with `spread`, also for those
    without a rack, or with one in which nobody can serve, the replica with the fewest readers anywhere.
    """
    if asked != leader:
        own = next(replica for replica in replicas if replica.node == asked)
        return asked if own.lag_s <= limits.lag_s else leader
    able = [replica for replica in replicas if replica.node == leader or _can_serve(replica, offset, limits)]
    near = [replica for replica in able if rack and replica.rack == rack]
    if not near and not spread:
        return leader
    if not spread and any(replica.node == leader for replica in near):
        return leader
    best = min(near or able, key=lambda replica: (replica.readers, replica.node != leader, replica.lag_s, replica.node))
    return best.node


def _can_serve(replica: ReplicaView, offset: int, limits: Limits) -> bool:
    has_it = replica.start_offset <= offset and (offset <= replica.end_offset or replica.lag_s <= limits.moment_s)
    return replica.is_up and replica.lag_s <= limits.lag_s and has_it
