"""Checkers by the names that users give them.

Rule: every checker that works without settings is here, with one line for `seatrial list checkers`.
Knows nothing of trials: workloads name the checkers they need themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from seatrial.checkers.availability import Availability
from seatrial.checkers.base import Checker
from seatrial.checkers.group_offsets import GroupOffsets
from seatrial.checkers.linearizability import Linearizability
from seatrial.checkers.log_sessions import LogSessions
from seatrial.checkers.partition_log import PartitionLog
from seatrial.checkers.raft_invariants import RaftInvariants
from seatrial.checkers.replica_equality import ReplicaEquality
from seatrial.checkers.sessions import Sessions

_MODELS: Final[Mapping[str, tuple[str, Callable[[], Checker]]]] = {
    "register": (
        "linearizable reads and writes, each key on its own",
        lambda: Linearizability(operations=frozenset({"read", "write"})),
    ),
    "cas-register": (
        "linearizable reads, writes and compare-and-sets, each key on its own",
        lambda: Linearizability(operations=frozenset({"read", "write", "cas"})),
    ),
    "kv": ("linearizable key-value store: reads, writes, compare-and-sets and deletes", Linearizability),
    "log": ("Kafka-log anomalies of appends, polls and final reads", PartitionLog),
    "log-sessions": (
        "what readers are told of a log's end: it never goes back, nor is it before what was acknowledged",
        LogSessions,
    ),
    "groups": ("consumer groups: nothing acknowledged is lost to them, no committed offset goes back", GroupOffsets),
    "sessions": ("monotonic reads and read-your-writes of each client, where reads may be stale", Sessions),
}

_OVER_THE_RUN: Final[Mapping[str, str]] = {
    RaftInvariants().name: "Raft's own promises over the nodes' status: leaders, terms, commit and applied indexes",
    ReplicaEquality().name: "equal states at equal applied indexes, and all replicas caught up at the end",
    Availability().name: "longest time without an acknowledgement under a connected majority; recovery after faults",
}


class UnknownModel(ValueError):
    """No checker of a history has this name; the message lists those that exist."""


def by_model(name: str) -> Checker:
    """The checker of a stored history against a model.  Raises UnknownModel."""
    if name not in _MODELS:
        raise UnknownModel(f"no model {name!r}; there are {', '.join(_MODELS)}")
    return _MODELS[name][1]()


def models() -> tuple[str, ...]:
    """What `by_model` takes."""
    return tuple(_MODELS)


def names() -> dict[str, str]:
    """Every checker's name with one line on what it checks; models first."""
    return {name: line for name, (line, _) in _MODELS.items()} | dict(_OVER_THE_RUN)
