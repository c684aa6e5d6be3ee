"""Three nodes' worth of Raft groups in one loop: real replicas on real storage, joined by an in-memory network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from seatrial.env import RealClock, RealFiles, Rng
from seatrial.machines.kv import KeyValueMachine, KvResult, encode_put
from seatrial.raft.config import RaftConfig
from seatrial.raft.ids import GroupId, NodeId
from seatrial.raft.messages import Message
from seatrial.server.multiraft import MultiRaft
from seatrial.server.replica import Replica, ReplicaOptions
from seatrial.storage.segments import SegmentStorage
from seatrial.transport.base import PeerStatus

GROUP = GroupId(1)
DEADLINE_S = 20.0
ELECTION_TIMEOUT_S = 0.1


async def eventually(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Poll until it holds; on expiry say what was last seen."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while not condition():
        assert loop.time() < deadline, f"not within {DEADLINE_S} s; last seen: {what()}"
        await asyncio.sleep(0.005)


class Wires:
    """Delivers every message in the next loop turn, unless its directed link is cut."""

    def __init__(self) -> None:
        self.receivers: dict[NodeId, Callable[[GroupId, Message], None]] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.delivered = 0

    def isolate(self, node: NodeId) -> None:
        for other in self.receivers:
            self.cut |= {(node, other), (other, node)}

    def deliver(self, group: GroupId, message: Message) -> None:
        receive = self.receivers.get(message.to)
        if receive is not None and (message.sender, message.to) not in self.cut:
            self.delivered += 1
            receive(group, message)


class WireTransport:
    """One node's end of the wires (a Transport)."""

    def __init__(self, wires: Wires, node: NodeId) -> None:
        self._wires = wires
        self._node = node

    async def start(self, receive: Callable[[GroupId, Message], None]) -> None:
        self._wires.receivers[self._node] = receive

    def send(self, group: GroupId, messages: Sequence[Message]) -> None:
        loop = asyncio.get_running_loop()
        for message in messages:
            loop.call_soon(self._wires.deliver, group, message)

    def flush(self) -> None: ...

    def add_peer(self, peer: NodeId, address: str, *, directory: int = 0) -> None: ...

    def remove_peer(self, peer: NodeId, *, for_good: bool = False) -> None: ...

    def peers(self) -> Mapping[NodeId, PeerStatus]:
        status = PeerStatus(
            connected=True, last_received_us=None, bytes_sent=0, bytes_received=0, messages_dropped=0, last_error=None
        )
        return dict.fromkeys((NodeId(node) for node in range(1, 6) if node != self._node), status)

    async def close(self) -> None:
        self._wires.receivers.pop(self._node, None)


class GroupCluster:
    """One key-value group on each of several nodes."""

    def __init__(self, root: Path, options: ReplicaOptions) -> None:
        self.root = root
        self.options = options
        self.wires = Wires()
        self.hosts: dict[NodeId, MultiRaft] = {}
        self.machines: dict[NodeId, KeyValueMachine] = {}
        self.replicas: dict[NodeId, Replica] = {}
        self.members = (NodeId(1), NodeId(2), NodeId(3))
        self.requests = 0
        self.fatal: list[Exception] = []

    async def start(self, node: NodeId, voters: Sequence[NodeId] | None = None) -> None:
        """`voters`: with which the group began; none of them on a node that comes later."""
        loop, clock, rng = asyncio.get_running_loop(), RealClock(), Rng(7).child(str(node))
        storage = SegmentStorage(
            RealFiles(),
            str(self.root / str(node)),
            node_id=node,
            cluster_id="test",
            durability="os",
            on_fatal=lambda error: pytest.fail(repr(error)),
            report=print,
        )
        host = MultiRaft(
            loop=loop,
            clock=clock,
            rng=rng,
            storage=storage,
            transport=WireTransport(self.wires, node),
            on_fatal=self.fatal.append,
            raft=RaftConfig(node_id=node, heartbeat_us=20_000, election_timeout_us=int(ELECTION_TIMEOUT_S * 1e6)),
            on_role_change=lambda replica: None,
        )
        self.hosts[node], self.machines[node] = host, KeyValueMachine()
        began_with = self.members if voters is None else voters
        self.replicas[node] = host.open(GROUP, "kv", self.machines[node], began_with, self.options)
        await host.start()

    async def stop(self, node: NodeId) -> None:
        await self.hosts.pop(node).close()
        del self.replicas[node], self.machines[node]

    async def leader(self, among: Sequence[NodeId] = ()) -> Replica:
        """A node that leads and has applied an entry of its own term, so that all before it are applied too."""

        def found() -> list[Replica]:
            ours = [self.replicas[n] for n in among or sorted(self.replicas)]
            return [r for r in ours if r.node.is_leader and r.applied_term == r.node.term]

        await eventually(lambda: bool(found()), lambda: [r.status() for r in self.replicas.values()])
        return max(found(), key=lambda replica: replica.node.term)

    def follower(self) -> Replica:
        return next(r for r in self.replicas.values() if not r.node.is_leader)

    def put(self, key: bytes, value: bytes, **more: Any) -> tuple[bytes, bytes]:
        """(command, its request id)."""
        self.requests += 1
        request_id = self.requests.to_bytes(16, "big")
        return encode_put(key, value, request_id=request_id, **more), request_id

    async def write(self, key: bytes, value: bytes) -> KvResult:
        leader = await self.leader()
        result: KvResult = await asyncio.wait_for(leader.propose(self.put(key, value)[0]), DEADLINE_S)
        return result

    async def converged(self) -> None:
        """All nodes applied the same entries."""

        def states() -> list[tuple[int, str]]:
            return [(r.last_applied, r.machine.digest) for r in self.replicas.values()]

        await eventually(lambda: len(set(states())) == 1, states)
