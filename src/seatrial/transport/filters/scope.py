"""Which messages a rule sees, and how many rules there are: a filter, as one line of a test.

    on(Leading(is_append, is_heartbeat), to=2)          one rule for all messages to node 2
    drop(AppendEntries, from_=1, to=2, allow=3)         the first three pass
    each_link(lambda name: Duplicate(0.1, rng.child(name)))   one rule, with its own stream, for every group and link

Rule: a filter is a description; whoever attaches it makes the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from seatrial.raft.ids import GroupId
from seatrial.raft.messages import Message
from seatrial.transport.filters.rules import DelayEach, Drop, HoldAll, Rule

Side: TypeAlias = Literal["send", "receive"]
Links: TypeAlias = Collection[tuple[int, int]]
Nodes: TypeAlias = int | Collection[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A rule, or a maker of rules, and the messages that it sees.

    make: gives a rule for a name, which is "all", "node 1" or "group 0 link 1-2", by `per`; each name is made once.
    types: of messages; () means all.  senders, receivers, links (directed), group: None means any.
    side: where the sender hands the message to the network, or where the receiver takes it.
    """

    make: Callable[[str], Rule]
    per: Literal["all", "node", "link"] = "all"
    types: tuple[type[Message], ...] = ()
    senders: frozenset[int] | None = None
    receivers: frozenset[int] | None = None
    links: frozenset[tuple[int, int]] | None = None
    side: Side = "send"
    group: GroupId | None = None

    def of_group(self, group: GroupId) -> Filter:
        """The same for this group alone."""
        return replace(self, group=group)

    def sees(self, group: int, message: Message) -> bool:
        return (
            (not self.types or isinstance(message, self.types))
            and (self.senders is None or message.sender in self.senders)
            and (self.receivers is None or message.to in self.receivers)
            and (self.links is None or (message.sender, message.to) in self.links)
            and (self.group is None or group == self.group)
        )

    def name_of_rule(self, group: int, message: Message) -> str:
        if self.per == "all":
            return "all"
        if self.per == "node":
            return f"node {message.sender if self.side == 'send' else message.to}"
        return f"group {group} link {message.sender}-{message.to}"


def on(
    rule: Rule,
    *types: type[Message],
    from_: Nodes = None,
    to: Nodes = None,
    links: Links | None = None,
    side: Side = "send",
    group: GroupId | None = None,
) -> Filter:
    """This one rule on the messages of these types (none named: of all), from and to these nodes."""
    return Filter(
        make=lambda name: rule,
        types=types,
        senders=_nodes(from_),
        receivers=_nodes(to),
        links=None if links is None else frozenset(links),
        side=side,
        group=group,
    )


def drop(
    *types: type[Message],
    from_: Nodes = None,
    to: Nodes = None,
    allow: int = 0,
    count: int | None = None,
    side: Side = "send",
    group: GroupId | None = None,
) -> Filter:
    """Drop them, after letting `allow` through, `count` of them (None: all)."""
    return on(Drop(allow=allow, count=count), *types, from_=from_, to=to, side=side, group=group)


def delay(
    delay_us: int,
    *types: type[Message],
    from_: Nodes = None,
    to: Nodes = None,
    side: Side = "send",
    group: GroupId | None = None,
) -> Filter:
    """Let them arrive so much later."""
    return on(DelayEach(delay_us), *types, from_=from_, to=to, side=side, group=group)


def hold(
    *types: type[Message],
    from_: Nodes = None,
    to: Nodes = None,
    until: Callable[[Message], bool] | None = None,
    side: Side = "send",
    group: GroupId | None = None,
) -> Filter:
    """Hold them until one comes of which `until` holds (None: until released)."""
    return on(HoldAll(until), *types, from_=from_, to=to, side=side, group=group)


def each_node(make: Callable[[str], Rule], *types: type[Message], side: Side = "send") -> Filter:
    """A rule of its own for every node: for its sender, or on the side "receive" for its receiver."""
    return Filter(make=make, per="node", types=types, side=side)


def each_link(
    make: Callable[[str], Rule], *types: type[Message], links: Links | None = None, side: Side = "send"
) -> Filter:
    """A rule of its own for every group and directed link."""
    return Filter(make=make, per="link", types=types, side=side, links=None if links is None else frozenset(links))


def partition(group1: Collection[int], group2: Collection[int]) -> Filter:
    """Nothing passes between the two groups of nodes."""
    both = [(a, b) for a in group1 for b in group2]
    return on(Drop(), links=[*both, *((b, a) for a, b in both)])


def isolate(node: int, nodes: Collection[int]) -> Filter:
    """Nothing passes between the node and the others."""
    return partition([node], [other for other in nodes if other != node])


def _nodes(nodes: Nodes) -> frozenset[int] | None:
    if nodes is None:
        return None
    return frozenset((nodes,)) if isinstance(nodes, int) else frozenset(nodes)


def of_types(*types: type[Message]) -> Callable[[Message], bool]:
    """The predicate "is one of these"."""
    return lambda message: isinstance(message, types)
