"""Changes of who takes part: the arithmetic, as pure functions (§6; dissertation §4).

A change that alters at most one voter is entered directly: majorities of two configurations that differ by one voter
always overlap (dissertation §4.1).  Every other change goes through joint consensus, which is left by a second entry.
Either way the whole resulting configuration is the data of one entry, and is in effect on a node as soon as it is in
its log, committed or not.

Rule: nothing here knows terms, commits or progress; what a leader has to see to is in `reconfiguring`.  A
configuration that these functions return has at least one voter, and no node in two places that contradict.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from seatrial.raft.errors import ConfigurationRefused
from seatrial.raft.ids import NodeId
from seatrial.raft.messages import Configuration

ADD_VOTER: Final = 0  # of a learner: its promotion
ADD_LEARNER: Final = 1  # of a voter: its demotion
REMOVE: Final = 2
_OPERATIONS: Final = ("add as a voter", "add as a learner", "remove")

_HEAD: Final = struct.Struct("<BHHHH")  # flags; voters, outgoing, learners, learners next
_AUTO_LEAVE: Final = 1
_NODE_BYTES: Final = 8


class ConfigurationChange:
    """What to change, all of it at once.

    changes: pairs (operation, node id), each node at most once.  explicit_leave: go through joint consensus whatever
    the change, and stay there until `RaftNode.leave_joint`.
    """

    __slots__ = ("changes", "explicit_leave")

    def __init__(self, changes: Sequence[tuple[int, NodeId]], explicit_leave: bool = False) -> None:
        self.changes = tuple(changes)
        self.explicit_leave = explicit_leave

    def __repr__(self) -> str:
        words = ", ".join(f"{_OPERATIONS[operation]} {node_id}" for operation, node_id in self.changes)
        return f"ConfigurationChange({words}{', explicit leave' if self.explicit_leave else ''})"


def enter(configuration: Configuration, change: ConfigurationChange) -> Configuration:
    """The configuration that begins the change.  Raises ConfigurationRefused where the change makes no sense."""
    if configuration.voters_outgoing:
        raise ConfigurationRefused(
            "pending", f"{configuration} is joint: wait until it is left, or leave it, before the next change"
        )
    old = set(configuration.voters)
    voters, learners = _applied(configuration, change)
    if len(voters ^ old) <= 1 and not change.explicit_leave:
        return Configuration(sorted(voters), (), sorted(learners))
    # Who still votes in the outgoing majority cannot be a learner yet.
    return Configuration(
        sorted(voters),
        sorted(old),
        sorted(learners - old),
        sorted(learners & old),
        auto_leave=not change.explicit_leave,
    )


def _applied(configuration: Configuration, change: ConfigurationChange) -> tuple[set[NodeId], set[NodeId]]:
    """Voters and learners when all of the change is done."""
    voters, learners = set(configuration.voters), set(configuration.learners)
    if not change.changes:
        raise ConfigurationRefused("empty", "the change names no node: say whom to add or remove")
    seen: set[NodeId] = set()
    for operation, node_id in change.changes:
        if node_id in seen or node_id < 1:
            raise ConfigurationRefused("repeated", f"node {node_id} is named twice or is no node: name each node once")
        seen.add(node_id)
        if operation == ADD_VOTER:
            _refuse_if(node_id in voters, "already", f"node {node_id} is a voter already")
            voters.add(node_id)
            learners.discard(node_id)
        elif operation == ADD_LEARNER:
            _refuse_if(node_id in learners, "already", f"node {node_id} is a learner already")
            learners.add(node_id)
            voters.discard(node_id)
        elif operation == REMOVE:
            known = node_id in voters or node_id in learners
            _refuse_if(not known, "unknown-node", f"node {node_id} is not a member; the members: {configuration}")
            voters.discard(node_id)
            learners.discard(node_id)
        else:
            raise ValueError(f"unknown operation {operation}; there are ADD_VOTER, ADD_LEARNER and REMOVE")
    _refuse_if(not voters, "no-voter", "this would leave no voter: promote or add one in the same change")
    return voters, learners


def _refuse_if(condition: bool, code: str, message: str) -> None:
    if condition:
        raise ConfigurationRefused(code, message)


def leave(configuration: Configuration) -> Configuration:
    """The configuration after joint consensus.  Raises ConfigurationRefused where it is not joint."""
    if not configuration.voters_outgoing:
        raise ConfigurationRefused("not-joint", f"{configuration} is not joint: there is nothing to leave")
    return Configuration(configuration.voters, (), (*configuration.learners, *configuration.learners_next))


def members(configuration: Configuration) -> list[NodeId]:
    """Everyone that the leader sends to, itself included: voters of either majority and learners, sorted."""
    return sorted({*configuration.voters, *configuration.voters_outgoing, *configuration.learners})


def violation(configuration: Configuration) -> str | None:
    """1. there are voters; 2. learners do not vote; 3. learners-to-be are outgoing voters and vote no longer;
    4. only what is joint is left by itself; 5. nobody is named twice."""
    voters, outgoing = set(configuration.voters), set(configuration.voters_outgoing)
    learners, learners_next = set(configuration.learners), set(configuration.learners_next)
    if not voters:
        return f"1: no voters in {configuration}"
    if learners & (voters | outgoing):
        return f"2: a learner that votes in {configuration}"
    if not learners_next <= outgoing - voters:
        return f"3: {configuration} turns voters that stay into learners"
    if configuration.auto_leave and not outgoing:
        return f"4: {configuration} is not joint, and is to be left"
    counted = len(voters) + len(outgoing) + len(learners) + len(learners_next)
    groups = (configuration.voters, configuration.voters_outgoing, configuration.learners, configuration.learners_next)
    if counted != sum(len(group) for group in groups):
        return f"5: a node is named twice in {configuration}"
    return None


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a CONFIGURATION entry; snapshots carry it in the same form, on the wire and on disk.

    Flags (bit 0: leaves by itself), the four lengths (16 bits each), then the node ids (64 bits), little-endian.
    """
    groups = (configuration.voters, configuration.voters_outgoing, configuration.learners, configuration.learners_next)
    voters, outgoing, learners, learners_next = groups
    nodes = (*voters, *outgoing, *learners, *learners_next)
    flags = _AUTO_LEAVE if configuration.auto_leave else 0
    head = _HEAD.pack(flags, len(voters), len(outgoing), len(learners), len(learners_next))
    return head + struct.pack(f"<{len(nodes)}Q", *nodes)


def decode_configuration(data: bytes) -> Configuration:
    """What `encode_configuration` wrote, the unknown configuration included.  Raises ValueError for anything else."""
    if len(data) < _HEAD.size:
        raise ValueError(f"a configuration of {len(data)} bytes is cut off in its head")
    flags, *counts = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + _NODE_BYTES * sum(counts):
        raise ValueError(f"a configuration of {sum(counts)} nodes in {len(data)} bytes")
    if flags > _AUTO_LEAVE:
        raise ValueError(f"a configuration with unknown flags {flags:#x}")
    nodes = [NodeId(n) for n in struct.unpack_from(f"<{sum(counts)}Q", data, _HEAD.size)]
    groups: list[list[NodeId]] = []
    at = 0
    for count in counts:
        groups.append(nodes[at : at + count])
        at += count
    voters, outgoing, learners, learners_next = groups
    configuration = Configuration(voters, outgoing, learners, learners_next, bool(flags & _AUTO_LEAVE))
    broken = violation(configuration) if nodes else None
    if broken is not None:
        raise ValueError(broken)
    return configuration


class ConfigurationHistory:
    """The configurations of one log: the one in effect at its beginning, and each that an entry brought.

    Rule: entries are in the order of their indexes; the last one is in effect, and the one before it again if the log
    loses that entry.  initial: what holds where no entry and no snapshot says anything.
    """

    __slots__ = ("_configurations", "_indexes", "_initial")

    def __init__(self, initial: Configuration) -> None:
        self._initial = initial
        self._indexes = [0]
        self._configurations = [initial]

    @property
    def latest(self) -> Configuration:
        return self._configurations[-1]

    @property
    def latest_index(self) -> int:
        """Of the entry that brought it, or of the snapshot; 0: the initial one."""
        return self._indexes[-1]

    @property
    def previous(self) -> Configuration | None:
        """What is in effect again if the log loses the entry that brought the latest."""
        return self._configurations[-2] if len(self._configurations) > 1 else None

    def append(self, index: int, configuration: Configuration) -> None:
        assert index > self._indexes[-1], f"a configuration at {index} does not follow the one at {self._indexes[-1]}"
        self._indexes.append(index)
        self._configurations.append(configuration)

    def truncate_from(self, index: int) -> bool:
        """The entries from `index` on are gone; True if a configuration went with them."""
        kept = len(self._indexes)
        while kept > 1 and self._indexes[kept - 1] >= index:
            kept -= 1
        gone = kept < len(self._indexes)
        del self._indexes[kept:]
        del self._configurations[kept:]
        return gone

    def restart_at(self, index: int, configuration: Configuration) -> None:
        """A snapshot up to `index` stands for the log.  One without voters was made before any entry changed them, by
        a node that did not know who took part at the start: then what this node knows of that still holds."""
        self._indexes = [index]
        self._configurations = [configuration if configuration.voters else self._initial]

    def forget_before(self, index: int) -> None:
        """Nobody will ask for what was in effect before `index`, nor can an entry up to it be lost."""
        kept = 0
        while kept + 1 < len(self._indexes) and self._indexes[kept + 1] <= index:
            kept += 1
        del self._indexes[:kept]
        del self._configurations[:kept]

    def at(self, index: int) -> Configuration:
        """What was in effect when `index` was the last entry.  Raises ValueError where that is forgotten."""
        for position in range(len(self._indexes) - 1, -1, -1):
            if self._indexes[position] <= index:
                return self._configurations[position]
        raise ValueError(f"the configuration at {index} is forgotten; known from {self._indexes[0]} on")
