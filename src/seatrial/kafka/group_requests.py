"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup: from the wire to a group and back.

Rule: a request reaches its group before the handler returns, so that a member's requests are taken in their order.
Knows nothing of what a group does with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupCoordinator
from seatrial.kafka.group_messages import Identity, JoinRequest, JoinResult, LeaveResult, SyncRequest, SyncResult

KNOWN_MEMBER_ID_SINCE: Final = 4  # versions of JoinGroup (KIP-394, KIP-814)
SKIP_ASSIGNMENT_SINCE: Final = 9
NULL_PROTOCOL_SINCE: Final = 7
LOADING_WAIT_S: Final = 0.3  # for the commit of a new leader's first entry, which takes milliseconds
LOADING_LOOK_S: Final = 0.01
MANY_LEAVE_SINCE: Final = 3  # of LeaveGroup (KIP-345)


def coordinator_of(call: Call, group_id: str) -> GroupCoordinator | ErrorCode:
    """The coordinator of a group that has members, so that it must have a name."""
    if not group_id:
        return ErrorCode.INVALID_GROUP_ID
    return call.backend.groups.coordinator_of(group_id)


async def ready_coordinator_of(call: Call, group_id: str) -> GroupCoordinator | ErrorCode:
    """The same, after a new leader's first moment: for clients that do not ask again, such as administrators'."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LOADING_WAIT_S
    found = call.backend.groups.coordinator_of(group_id)
    while found == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and loop.time() < deadline:
        await asyncio.sleep(LOADING_LOOK_S)
        found = call.backend.groups.coordinator_of(group_id)
    return found


def join_group(call: Call) -> Any:
    """JoinGroup 0 to 9; answered when the group has a new generation."""
    request = call.request
    found = coordinator_of(call, request.group_id)
    if isinstance(found, ErrorCode):
        return _joined(call, JoinResult(error=found, member_id=request.member_id))
    timeout_ms = request.session_timeout_ms
    answer = found.join(
        request.group_id,
        JoinRequest(
            identity=Identity(request.member_id, request.group_instance_id),
            client_id=call.client.client_id or "",
            client_host=f"/{call.client.peer.rpartition(':')[0]}",
            session_timeout_ms=timeout_ms,
            # Version 0 has one timeout for both.
            rebalance_timeout_ms=request.rebalance_timeout_ms if request.rebalance_timeout_ms >= 0 else timeout_ms,
            protocol_type=request.protocol_type,
            protocols=tuple((protocol.name, bytes(protocol.metadata)) for protocol in request.protocols),
            needs_known_id=call.version >= KNOWN_MEMBER_ID_SINCE,
            can_skip_assignment=call.version >= SKIP_ASSIGNMENT_SINCE,
        ),
    )

    async def later() -> Any:
        return _joined(call, await answer)

    return later()


def _joined(call: Call, result: JoinResult) -> Any:
    codec = message("JoinGroupResponse")
    member = codec.structure("JoinGroupResponseMember")
    protocol = result.protocol
    if protocol is None and call.version < NULL_PROTOCOL_SINCE:
        protocol = ""
    return codec.new(
        error_code=result.error,
        generation_id=result.generation,
        protocol_type=result.protocol_type,
        protocol_name=protocol,
        leader=result.leader,
        skip_assignment=result.skip_assignment,
        member_id=result.member_id,
        members=[
            member(member_id=one.member_id, group_instance_id=one.instance_id, metadata=one.metadata)
            for one in result.members
        ],
    )


def sync_group(call: Call) -> Any:
    """SyncGroup 0 to 5; answered when the leader has sent the assignment."""
    request = call.request
    found = coordinator_of(call, request.group_id)
    if found == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
        found = ErrorCode.REBALANCE_IN_PROGRESS  # older clients do not expect the other one here (as Kafka has it)
    if isinstance(found, ErrorCode):
        return _synced(SyncResult(error=found))
    answer = found.sync(
        request.group_id,
        SyncRequest(
            identity=Identity(request.member_id, request.group_instance_id),
            generation=request.generation_id,
            protocol_type=request.protocol_type,
            protocol=request.protocol_name,
            assignments={item.member_id: bytes(item.assignment) for item in request.assignments},
        ),
    )

    async def later() -> Any:
        return _synced(await answer)

    return later()


def _synced(result: SyncResult) -> Any:
    return message("SyncGroupResponse").new(
        error_code=result.error,
        protocol_type=result.protocol_type,
        protocol_name=result.protocol,
        assignment=result.assignment,
    )


def heartbeat(call: Call) -> Any:
    """Heartbeat 0 to 4."""
    request = call.request
    found = coordinator_of(call, request.group_id)
    if not isinstance(found, ErrorCode):
        identity = Identity(request.member_id, request.group_instance_id)
        found = found.heartbeat(request.group_id, identity, request.generation_id)
    if found == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
        found = ErrorCode.NONE  # in a moment sessions begin anew; aiokafka's heartbeats end for good at this error
    return message("HeartbeatResponse").new(error_code=found)


def leave_group(call: Call) -> Any | Coroutine[Any, Any, Any]:
    """LeaveGroup 0 to 5: one member, or from version 3 on several."""
    request = call.request
    if call.version >= MANY_LEAVE_SINCE:
        identities = [Identity(member.member_id, member.group_instance_id) for member in request.members]
    else:
        identities = [Identity(request.member_id)]
    found = coordinator_of(call, request.group_id)
    if isinstance(found, ErrorCode):
        return message("LeaveGroupResponse").new(error_code=found)
    answer = found.leave(request.group_id, identities)

    async def later() -> Any:
        return _left(call, identities, await answer)

    return later()


def _left(call: Call, identities: list[Identity], errors: LeaveResult) -> Any:
    codec = message("LeaveGroupResponse")
    if ErrorCode.NOT_COORDINATOR in errors:
        return codec.new(error_code=ErrorCode.NOT_COORDINATOR)
    if call.version < MANY_LEAVE_SINCE:
        return codec.new(error_code=errors[0])
    member = codec.structure("MemberResponse")
    return codec.new(
        members=[
            member(member_id=identity.member_id, group_instance_id=identity.instance_id, error_code=error)
            for identity, error in zip(identities, errors, strict=True)
        ]
    )
