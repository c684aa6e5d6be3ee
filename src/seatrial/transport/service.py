"""The receiving side of a node: whom it hears, and which replica a message is for.

Rule: nobody is heard who was not allowed, and who is forbidden is told so; a message goes to the replica that is
registered for its group, and to the node's host where none is.
Knows nothing of dialling, nor of what messages mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from seatrial.env import Clock
from seatrial.marks import reached
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Message
from seatrial.transport.client import Received
from seatrial.transport.codec import Decoded
from seatrial.transport.handshake import Hello, Refusal, Rejected, check_cluster_id, check_hello, differs
from seatrial.transport.limits import Limits
from seatrial.transport.receiver import OversizedFrame
from seatrial.transport.wire import IncomingConnection, ListenAddress, Listener, Wire

TOLD_ONE_IN: Final = 1000
Receive: TypeAlias = Callable[[GroupId, Message], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredReplica:
    """A replica that takes its own messages."""

    topic: str
    partition: int
    group: GroupId
    receive: Receive


class RaftService:
    """Takes peers' calls (an Acceptor), and hands on their messages.

    `report` gets each sentence that an operator should read, `on_call` each peer whose HELLO was accepted,
    `on_stranger` each node of this cluster that called, is not known and was refused.
    `refusals` counts the connections that this side ended: "rejected", "oversized", "malformed", "overdue", "too many".
    Raises ValueError for a cluster id that is too long.
    """

    def __init__(
        self,
        node_id: NodeId,
        cluster_id: str,
        *,
        clock: Clock,
        limits: Limits | None = None,
        report: Callable[[str], None] = lambda sentence: None,
        on_call: Callable[[NodeId], None] = lambda peer: None,
        on_stranger: Callable[[NodeId], None] = lambda node: None,
    ) -> None:
        check_cluster_id(cluster_id)
        self.node_id, self.clock, self.limits = node_id, clock, limits or Limits()
        self._cluster_id, self._report = cluster_id, report
        self._on_call, self._on_stranger = on_call, on_stranger
        self.refusals: Counter[str] = Counter()
        self._callers: dict[NodeId, Received] = {}
        self._directories: dict[NodeId, int] = {}  # of peers, as far as they are known
        self._removed: set[NodeId] = set()
        self._connections: dict[IncomingConnection, None] = {}
        self._listener: Listener | None = None
        self._replicas: dict[tuple[str, int], RegisteredReplica] = {}
        self._by_group: dict[GroupId, Receive] = {}
        self._host: Receive = lambda group, message: None
        self.inbound: Receive | None = None  # in the way of each message: message filters

    # Listening.

    async def start(self, wire: Wire, where: ListenAddress, receive: Receive) -> None:
        """Take calls; `receive` gets the messages of groups for which no replica is registered.

        Raises:
            OSError: the address is in use or not this machine's.
        """
        assert self._listener is None, "started twice"
        self._host = receive
        self._listener = await wire.listen(where, self)

    @property
    def address(self) -> str:
        """Where this node listens, once started."""
        assert self._listener is not None, "not started"
        return self._listener.address

    @property
    def connections(self) -> tuple[IncomingConnection, ...]:
        """Those that are open, handshake done or not."""
        return tuple(self._connections)

    def stop(self) -> None:
        """Take no call from now on."""
        if self._listener is not None:
            self._listener.stop()

    async def close(self) -> None:
        """Take no call, and end all connections."""
        self.stop()
        for connection in list(self._connections):
            connection.abort()
        if self._listener is not None:
            await self._listener.stopped()

    def check_connections(self) -> None:
        """To be called a few times a second: end what never said HELLO, or was rejected and does not hang up; and what
        began a frame and does not come to its end."""
        now_us = self.clock.now_us()
        overdue = now_us - self.limits.dead_after_s * 1e6
        for connection in list(self._connections):
            if connection.hello is None and connection.since_us < overdue:
                connection.abort()
            elif connection.is_overdue(now_us):
                reached("a peer was waited for long enough")
                self.refusals["overdue"] += 1
                self._report(
                    f"the connection from {connection.address} is closed: of a frame there are "
                    f"{connection.half_frame_bytes} bytes after {self.limits.frame_s_max:g} s or more"
                )
                connection.abort()

    # Who may call.

    def allow(self, peer: NodeId, *, directory: int = 0) -> None:
        """Hear it from now on: where `directory` is not 0, only with that data directory."""
        if directory:
            self._directories[peer] = directory
            self._hang_up(peer, lambda hello: differs(hello.directory, directory))
        self._callers.setdefault(peer, Received())

    def refuse(self, peer: NodeId, *, for_good: bool = False) -> None:
        """Hang up on it and do not hear it any more; `for_good`: and tell it that it was removed."""
        if for_good:
            self._removed.add(peer)
        if self._callers.pop(peer, None) is not None:
            self._hang_up(peer, lambda hello: True)

    def _hang_up(self, peer: NodeId, on: Callable[[Hello], bool]) -> None:
        for connection in list(self._connections):
            if connection.hello is not None and connection.hello.sender == peer and on(connection.hello):
                connection.close()

    def hears(self, peer: NodeId) -> bool:
        return peer in self._callers

    def received_from(self) -> Mapping[NodeId, Received]:
        """What came from each peer, on connections that are closed and on those that are open."""
        totals: dict[NodeId, Received] = {}
        for peer, known in self._callers.items():
            totals[peer] = total = Received()
            total.bytes_received, total.last_received_us = known.bytes_received, known.last_received_us
        for connection in self._connections:
            if connection.hello is not None and connection.hello.sender in totals:
                totals[connection.hello.sender].bytes_received += connection.bytes_received
        return totals

    # Replicas.

    def register(self, topic: str, partition: int, group: GroupId, receive: Receive) -> RegisteredReplica:
        """From now on the group's messages go to this replica; raises ValueError where one is registered already."""
        if (topic, partition) in self._replicas:
            raise ValueError(f"a replica of {topic}/{partition} is registered already; unregister it first")
        if group in self._by_group:
            raise ValueError(f"a replica of group {group} is registered already; each group has one on a node")
        made = RegisteredReplica(topic=topic, partition=partition, group=group, receive=receive)
        self._replicas[topic, partition] = made
        self._by_group[group] = receive
        return made

    def lookup(self, topic: str, partition: int) -> RegisteredReplica | None:
        return self._replicas.get((topic, partition))

    def unregister(self, topic: str, partition: int) -> None:
        """Its messages go to the node's host again; raises LookupError where none is registered."""
        found = self._replicas.pop((topic, partition), None)
        if found is None:
            raise LookupError(f"no replica of {topic}/{partition} is registered; registered: {self._shown()}")
        del self._by_group[found.group]

    @property
    def replicas(self) -> tuple[RegisteredReplica, ...]:
        """All that are registered, by topic and partition."""
        return tuple(self._replicas[key] for key in sorted(self._replicas))

    def _shown(self) -> str:
        return ", ".join(f"{replica.topic}/{replica.partition}" for replica in self.replicas) or "none"

    def deliver(self, group: GroupId, message: Message) -> None:
        """To the replica that is registered for the group, or to the host."""
        self._by_group.get(group, self._host)(group, message)

    # As an Acceptor.

    def check(self, hello: memoryview) -> Hello:
        return check_hello(
            hello,
            node_id=self.node_id,
            cluster_id=self._cluster_id,
            known=self._callers,
            removed=self._removed,
            directories=self._directories,
        )

    def opened(self, connection: IncomingConnection) -> None:
        self._connections[connection] = None
        if 0 < self.limits.connections_max < len(self._connections):
            self._make_room()

    def _make_room(self) -> None:
        """End one connection: the oldest of those that have not said who they are, which leaves peers alone."""
        reached("there were too many connections from peers")
        known_to_nobody = (one for one in self._connections if one.hello is None)
        chosen = next(known_to_nobody)  # the newest is one of them, so there is one
        self.refusals["too many"] += 1
        if self.refusals["too many"] % TOLD_ONE_IN == 1:
            self._report(
                f"a connection from {chosen.address} is closed: there are {len(self._connections)}, and at most "
                f"{self.limits.connections_max} are kept (--raft-max-connections)"
            )
        del self._connections[chosen]  # and not only when its end is heard of: there may be more this very moment
        chosen.abort()

    def accepted(self, connection: IncomingConnection, hello: Hello) -> None:
        """A peer that calls is up; its older connection is a leftover."""
        for other in list(self._connections):
            if other is not connection and other.hello == hello:
                other.abort()
        self._on_call(hello.sender)

    def received(self, connection: IncomingConnection, messages: Decoded) -> None:
        if connection.hello is not None and (caller := self._callers.get(connection.hello.sender)) is not None:
            caller.last_received_us = connection.received_us
        if self.inbound is not None:
            for group, message in messages:
                self.inbound(group, message)
            return
        by_group, host = self._by_group, self._host
        for group, message in messages:
            by_group.get(group, host)(group, message)

    def refused(self, address: str, error: Exception) -> None:
        self.refusals[_kind(error)] += 1
        if isinstance(error, Rejected) and error.refusal is Refusal.STRANGER and error.sender is not None:
            self._on_stranger(error.sender)
        self._report(f"a connection from {address} is refused: {error}")

    def closed(self, connection: IncomingConnection) -> None:
        self._connections.pop(connection, None)
        if connection.hello is not None and (caller := self._callers.get(connection.hello.sender)) is not None:
            caller.bytes_received += connection.bytes_received


def _kind(error: Exception) -> str:
    if isinstance(error, Rejected):
        return "rejected"
    return "oversized" if isinstance(error, OversizedFrame) else "malformed"
