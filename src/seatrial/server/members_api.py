"""The HTTP API of membership: of the cluster, and of each partition.

    GET    /api/v1/members                                   members, removed ids, and what changes wait for
    POST   /api/v1/members {"node_id", "raft_addr", …}       add one, as a learner that is promoted when caught up
    POST   /api/v1/members/{id}/promote                      a learner that was added with "learner": true
    POST   /api/v1/members/{id}/replace {"node_id", …}       the new node takes every place of the old one
    DELETE /api/v1/members/{id}                              its replicas move away, then it leaves
    GET    /api/v1/raft/groups/{topic}/{partition}/members   as the Raft group and as the metadata have it
    POST   …/members {"add": […], "remove": […], "learners": […], "override": false}

Any node takes them: what is decided is a command to the metadata group, which is passed on to its leader.  Answers come
when the change is decided, not when it is carried out; GET tells what it waits for.
Rule: a request that has been carried out already is answered as if it had just been; what a change is made from, and
that something does not exist, is said only by what was decided before the request came, however far this node lags.
Knows nothing of how changes are carried out (`membership`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seatrial.kafka.backend import BackendError
from seatrial.machines.metadata import (
    AddNode,
    AssignReplicas,
    MetadataError,
    MetadataResult,
    Node,
    NodeState,
    Partition,
    PromoteNode,
    RemoveNode,
    Topic,
    encode_command,
)
from seatrial.machines.metadata import MemberCommand as Command
from seatrial.marks import reached
from seatrial.raft.ids import NodeId
from seatrial.server.broker import Broker
from seatrial.server.config import Address, read_address
from seatrial.server.errors import NoLeader, OutcomeUnknown, ProposalLost
from seatrial.server.http_answers import BadRequest, RefusedRequest, json_response
from seatrial.server.http_json import NoAnswer, ask_json
from seatrial.server.read_barriers import until_current

Endpoint = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body")
DECISION_TIMEOUT_S: Final = 10.0
ATTEMPT_S: Final = 1.0  # a command that was passed on is lost with the leader that it was passed to: send it again
LOOK_AGAIN_S: Final = 0.1
NOT_LEADER: Final = "NOT_LEADER"
PASSED_ON: Final = "passed-on"  # of a request that one node asks another: it goes no further
NOT_FOUND: Final = (MetadataError.UNKNOWN_NODE, MetadataError.UNKNOWN_TOPIC)


class NewMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node to add.  What is not given, it tells itself when it starts."""

    node_id: int
    raft_addr: str = ""
    kafka_addr: str = ""
    http_addr: str = ""
    rack: str = ""
    cluster_id: str = ""
    directory: int = 0
    learner: bool = False


class PartitionChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes to add as replicas, to remove, and to have as learners; `override`: also while another change goes on."""

    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    override: bool = False


class MembersApi:
    """The routes; each method is one."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def routes(self, guarded: Callable[[Endpoint], Endpoint]) -> list[Route]:
        member = "/api/v1/members/{node_id:int}"
        return [
            Route("/api/v1/members", guarded(self.members), methods=["GET", "POST"]),
            Route(member + "/promote", guarded(self.promote), methods=["POST"]),
            Route(member + "/replace", guarded(self.replace), methods=["POST"]),
            Route(member, guarded(self.remove), methods=["DELETE"]),
            Route(
                "/api/v1/raft/groups/{topic}/{partition:int}/members",
                guarded(self.partition_members),
                methods=["GET", "POST"],
            ),
        ]

    # ---- the cluster -----------------------------------------------------------------------------------------------

    async def members(self, request: Request) -> Response:
        if request.method == "POST":
            await self._add(await _read(request, NewMember))
            return json_response(202, self._told())
        return json_response(200, self._told())

    def _told(self) -> dict[str, Any]:
        broker, metadata = self._broker, self._broker.metadata
        alive = set(broker.alive_nodes())
        leader = broker.metadata_replica.node.leader
        return {
            "cluster_id": broker.cluster_id,
            "leader_id": leader,
            "members": [
                {
                    "node_id": node.node_id,
                    "state": NodeState(node.state).name.lower(),
                    "alive": node.node_id in alive,
                    "raft_addr": node.raft_address,
                    "kafka_addr": str(Address(node.kafka_host, node.kafka_port)) if node.kafka_host else "",
                    "http_addr": node.http_address,
                    "rack": node.rack or "",
                    "keeps": broker.membership.what_keeps(node.node_id) if _is_leaving(node) else None,
                }
                for node in (metadata.nodes[n] for n in sorted(metadata.nodes))
            ],
            "never_registered": self._never_registered(),
            "removed": sorted(metadata.removed),
            "moving": [
                f"{name}/{partition.index}"
                for name in sorted(metadata.topics)
                for partition in metadata.topics[name].partitions
                if not partition.settled
            ],
            "waiting_for": dict(sorted(broker.membership.waiting_for.items())),
        }

    async def _add(self, new: NewMember) -> MetadataResult:
        if not 1 <= new.node_id <= 0xFFFF:
            raise BadRequest(f'"node_id" is 1 to 65535, not {new.node_id}')
        if new.cluster_id and new.cluster_id != self._broker.cluster_id:
            text = f"this is cluster {self._broker.cluster_id!r}, not {new.cluster_id!r}; check --cluster-id"
            raise RefusedRequest(409, "CLUSTER_ID_MISMATCH", text)
        raft = _address(new.raft_addr, "raft_addr")
        if not raft.host or not raft.port:
            raise BadRequest('"raft_addr" is needed: host:port at which the others reach the node')
        kafka = _address(new.kafka_addr, "kafka_addr") if new.kafka_addr else Address("", 0)
        http = str(_address(new.http_addr, "http_addr")) if new.http_addr else ""
        return await self._decide(
            AddNode(new.node_id, str(raft), kafka.host, kafka.port, http, new.rack or None, new.directory, new.learner)
        )

    async def promote(self, request: Request) -> Response:
        """Passed on to the metadata's leader, which alone knows whether the learner has caught up."""
        broker, node_id = self._broker, _node_id(request)
        replica, loop = broker.metadata_replica, broker.multiraft.loop
        deadline = loop.time() + DECISION_TIMEOUT_S
        while not replica.node.is_leader:
            leader = broker.metadata.nodes.get(NodeId(broker.controller_id))
            if leader is not None and PASSED_ON not in request.query_params:
                url = f"http://{leader.http_address}{request.url.path}?{PASSED_ON}=1"
                try:
                    status, answer = await ask_json(
                        "POST", url, {}, token=broker.config.http_token, timeout_s=DECISION_TIMEOUT_S
                    )
                except NoAnswer as error:
                    raise OutcomeUnknown(str(error)) from error
                if answer.get("code") != NOT_LEADER:
                    return json_response(status, answer)
            if PASSED_ON in request.query_params or loop.time() >= deadline:
                raise RefusedRequest(503, NOT_LEADER, "the leader of the metadata, who decides this, is not known now")
            reached("a promotion waited for the metadata's leader to be known")
            await asyncio.wait([replica.changed()], timeout=LOOK_AGAIN_S)
        self._refuse_unless_caught_up(node_id)
        await self._decide(PromoteNode(node_id))
        return json_response(202, self._told())

    def _refuse_unless_caught_up(self, node_id: NodeId) -> None:
        node = self._broker.metadata.nodes.get(node_id)
        if node is None or node.state != NodeState.LEARNER:
            return  # the metadata will say what is wrong with it
        replica = self._broker.metadata_replica
        progress = replica.status().peers.get(node_id)
        if progress is None or not progress.caught_up:
            behind = replica.node.commit_index - (progress.match_index if progress else 0)
            text = f"node {node_id} is still {behind} entries behind; ask again when it has caught up"
            raise RefusedRequest(409, "NOT_CAUGHT_UP", text)

    async def remove(self, request: Request) -> Response:
        result = await self._decide(await self._removal(_node_id(request)))
        return json_response(202, {**self._told(), "message": result.message})

    async def replace(self, request: Request) -> Response:
        new = await _read(request, NewMember)
        node_id = _node_id(request)
        await self._be_current()
        removal = await self._removal(node_id, by=new.node_id)
        known = node_id in self._broker.metadata.nodes or node_id in self._broker.metadata.removed
        if not known and removal.founder is None:
            raise RefusedRequest(404, "UNKNOWN_NODE", f"node {node_id} is no member of this cluster")
        if NodeId(new.node_id) not in self._broker.metadata.nodes or new.raft_addr:
            await self._add(new)
        result = await self._decide(removal)
        return json_response(202, {**self._told(), "message": result.message})

    async def _removal(self, node_id: NodeId, by: int = 0) -> RemoveNode:
        """A founder that never came up is known by the configuration alone, in which it votes from the beginning."""
        broker = self._broker
        if node_id not in broker.metadata.nodes and node_id not in broker.metadata.removed:
            await self._be_current()
        founder = broker.config.peers.get(node_id, "") if node_id in self._never_registered() else None
        return RemoveNode(node_id, by, founder)

    def _never_registered(self) -> list[NodeId]:
        metadata = self._broker.metadata
        voters = self._broker.metadata_replica.node.committed_configuration.voters
        return [n for n in voters if n not in metadata.nodes and n not in metadata.removed]

    # ---- one partition ---------------------------------------------------------------------------------------------

    async def partition_members(self, request: Request) -> Response:
        if request.method == "GET":
            if self._partition(request) is None:
                await self._be_current()
            return json_response(200, self._partition_told(*self._known_partition(request)))
        change = await _read(request, PartitionChange)
        await self._be_current()
        topic, partition = self._known_partition(request)
        dropped = {*change.remove, *change.learners}
        replicas = [n for n in partition.replicas if n not in dropped]
        replicas += [n for n in map(NodeId, change.add) if n not in replicas]
        learners = {*partition.learners, *change.learners} - {*change.remove, *change.add}
        strangers = sorted({*change.remove} - {*partition.hosts})
        if strangers:
            raise RefusedRequest(404, "UNKNOWN_NODE", f"these hold no replica of it: {strangers}")
        await self._decide(
            AssignReplicas(topic.topic_id, partition.index, tuple(replicas), tuple(sorted(learners)), change.override)
        )
        return json_response(202, self._partition_told(*self._known_partition(request)))

    def _partition(self, request: Request) -> tuple[Topic, Partition] | None:
        topic, number = self._broker.metadata.topics.get(request.path_params["topic"]), request.path_params["partition"]
        return None if topic is None or number >= len(topic.partitions) else (topic, topic.partitions[number])

    def _known_partition(self, request: Request) -> tuple[Topic, Partition]:
        found = self._partition(request)
        if found is None:
            name, number = request.path_params["topic"], request.path_params["partition"]
            raise RefusedRequest(404, "UNKNOWN_TOPIC", f"there is no partition {name}/{number}")
        return found

    def _partition_told(self, topic: Topic, partition: Partition) -> dict[str, Any]:
        """The group's own configuration only where it has a replica here."""
        hosted = self._broker.partition(topic.name, partition.index)
        name = f"{topic.name}/{partition.index}"
        told: dict[str, Any] = {
            "group": name,
            "leader_id": max(self._broker.leadership(topic.name, partition.index).leader_id, 0) or None,
            "target": {"replicas": partition.replicas, "learners": partition.learners},
            "settled": partition.settled,
            "leaving": partition.leaving,
            "lingering": partition.lingering,
            "waiting_for": self._broker.membership.waiting_for.get(name),
        }
        if hosted is not None:
            configuration = hosted.replica.node.configuration
            told["voters"] = configuration.voters
            told["outgoing"] = configuration.voters_outgoing
            told["learners"] = configuration.learners
        return told

    # ---- deciding --------------------------------------------------------------------------------------------------

    async def _be_current(self) -> None:
        """Wait until this node has applied whatever the metadata had decided when this was called."""
        self._refuse_if_closed()
        await until_current(self._broker.metadata_replica, DECISION_TIMEOUT_S)

    def _refuse_if_closed(self) -> None:
        if self._broker.hosting.is_closed:
            raise NoLeader("this node is no member any more; ask another one")

    async def _decide(self, command: Command) -> MetadataResult:
        """Have the metadata decide; what it refuses is the answer.  Each of these commands may be sent again."""
        broker = self._broker
        self._refuse_if_closed()
        deadline, sent = broker.multiraft.loop.time() + DECISION_TIMEOUT_S, False
        while True:
            encoded = encode_command(command, request_id=broker.new_request_id())
            try:
                result = await broker.propose_metadata(encoded, ATTEMPT_S)
                break
            except (BackendError, ProposalLost) as error:
                sent = sent or not error.definite
                if broker.multiraft.loop.time() >= deadline:
                    raise (OutcomeUnknown if sent else NoLeader)(str(error)) from error
                reached("a change of members had to be proposed again")
        if result.error:
            status = 404 if result.error in NOT_FOUND else 409
            raise RefusedRequest(status, MetadataError(result.error).name, result.message)
        return result


def _is_leaving(node: Node) -> bool:
    return node.state == NodeState.LEAVING


def _node_id(request: Request) -> NodeId:
    return NodeId(int(request.path_params["node_id"]))


def _address(text: str, field: str) -> Address:
    try:
        return read_address(text)
    except ValueError as error:
        raise BadRequest(f'"{field}": {error}') from None


async def _read(request: Request, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is no such JSON object: {error}") from None
