"""DescribeGroups, ListGroups, DeleteGroups: groups as an administrator sees them.

Rule: each group is described by its own coordinator alone; a node lists the groups that it coordinates.
Knows nothing of what members do.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_backend import GroupView
from seatrial.kafka.group_messages import GroupState
from seatrial.kafka.group_requests import ready_coordinator_of

CLASSIC: Final = "classic"  # the type of all groups here (KIP-848 brings others)
NOT_FOUND_SINCE: Final = 6  # of DescribeGroups (KIP-1043): before, an unknown group is a dead one


async def describe_groups(call: Call) -> Any:
    """DescribeGroups 0 to 6."""
    views = await asyncio.gather(*(_read(call, group_id) for group_id in call.request.groups))
    described = [_described(call, group_id, view) for group_id, view in zip(call.request.groups, views, strict=True)]
    return message("DescribeGroupsResponse").new(groups=described)


async def _read(call: Call, group_id: str) -> GroupView | ErrorCode:
    found = await ready_coordinator_of(call, group_id) if group_id else ErrorCode.INVALID_GROUP_ID
    return found if isinstance(found, ErrorCode) else await found.read(group_id)


def _described(call: Call, group_id: str, view: GroupView | ErrorCode) -> Any:
    codec = message("DescribeGroupsResponse")
    group = codec.structure("DescribedGroup")
    if view == ErrorCode.GROUP_ID_NOT_FOUND:
        if call.version < NOT_FOUND_SINCE:
            return group(group_id=group_id, group_state=GroupState.DEAD.value)
        text = f"there is no group {group_id!r}"
        return group(group_id=group_id, error_code=view, error_message=text, group_state=GroupState.DEAD.value)
    if isinstance(view, ErrorCode):
        return group(group_id=group_id, error_code=view)
    member = codec.structure("DescribedGroupMember")
    # Before everybody has an assignment, what is there is half of two generations.
    is_settled = view.state == GroupState.STABLE
    return group(
        group_id=group_id,
        group_state=view.state.value,
        protocol_type=view.protocol_type,
        protocol_data=view.protocol if is_settled else "",
        members=[
            member(
                member_id=one.member_id,
                group_instance_id=one.instance_id,
                client_id=one.client_id,
                client_host=one.client_host,
                member_metadata=one.metadata if is_settled else b"",
                member_assignment=one.assignment if is_settled else b"",
            )
            for one in view.members
        ],
    )


def list_groups(call: Call) -> Any:
    """ListGroups 0 to 5: those of this node, by state and type where asked (KIP-518, KIP-848)."""
    codec = message("ListGroupsResponse")
    listed = codec.structure("ListedGroup")
    states = {state.lower() for state in call.request.states_filter or ()}
    types = {kind.lower() for kind in call.request.types_filter or ()}
    error, groups = ErrorCode.NONE, []
    for found in call.backend.groups.coordinators():
        if isinstance(found, ErrorCode):
            error = found
            continue
        groups += [
            listed(group_id=group_id, protocol_type=protocol_type, group_state=state.value, group_type=CLASSIC)
            for group_id, protocol_type, state in found.listed()
            if (not states or state.value.lower() in states) and (not types or CLASSIC in types)
        ]
    return codec.new(error_code=error, groups=groups)


async def delete_groups(call: Call) -> Any:
    """DeleteGroups 0 to 2: groups without members, and their offsets."""
    codec = message("DeleteGroupsResponse")
    result = codec.structure("DeletableGroupResult")
    names = call.request.groups_names
    errors = await asyncio.gather(*(_delete(call, name) for name in names))
    return codec.new(
        results=[result(group_id=name, error_code=error) for name, error in zip(names, errors, strict=True)]
    )


async def _delete(call: Call, group_id: str) -> ErrorCode:
    found = await ready_coordinator_of(call, group_id) if group_id else ErrorCode.INVALID_GROUP_ID
    return found if isinstance(found, ErrorCode) else await found.delete(group_id)
