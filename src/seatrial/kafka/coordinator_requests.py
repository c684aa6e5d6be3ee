"""FindCoordinator: which node a group's members have to talk to.

Rule: the topic that holds the groups is made when a group is first asked for: a cluster without groups pays nothing
for them.  A leader that is not known yet is waited for, but not for long: there are clients that ask again at once,
and others that ask again after half a second.
Knows nothing of groups.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from seatrial.kafka.backend import BackendError
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call
from seatrial.kafka.controller import Refused
from seatrial.kafka.errors import ErrorCode
from seatrial.kafka.group_settings import GROUPS_TOPIC
from seatrial.kafka.produce import NO_TRANSACTIONS
from seatrial.kafka.topic_requests import NewTopic, create_internal_topic

GROUP: Final = 0  # key types
TRANSACTION: Final = 1
_NOWHERE: Final = {"node_id": -1, "host": "", "port": -1}
WAIT_S: Final = 0.2  # for a leader, as long as an election takes
FIRST_WAIT_S: Final = 2.0  # and for the first one
LOOK_S: Final = 0.01


def find_coordinator(call: Call) -> Any:
    """FindCoordinator 0 to 6: the node that leads the shard of a group; there are no transactions."""
    if call.request.key_type != GROUP:
        return _found(call)
    keys = [call.request.key] if call.version < 4 else call.request.coordinator_keys
    if all(call.backend.groups.leader_of(key) >= 0 for key in keys):
        return _found(call)
    return _wait_then_answer(call, keys)


async def _wait_then_answer(call: Call, keys: list[str]) -> Any:
    groups, loop = call.backend.groups, asyncio.get_running_loop()
    patience_s = WAIT_S
    if not groups.are_created:
        patience_s = FIRST_WAIT_S
        topic = NewTopic(GROUPS_TOPIC, call.settings.groups.coordinators)
        try:
            await create_internal_topic(call.backend, call.settings, topic, call.settings.metadata_timeout_ms / 1000)
        except (Refused, BackendError) as error:
            return _found(call, f"the topic that holds the groups could not be made: {error}")
    deadline = loop.time() + patience_s
    while loop.time() < deadline and any(groups.leader_of(key) < 0 for key in keys):
        await asyncio.sleep(LOOK_S)
    return _found(call)


def _found(call: Call, reason: str = "the group's coordinator is not known at the moment") -> Any:
    codec = message("FindCoordinatorResponse")
    request = call.request
    if call.version < 4:
        return codec.new(**_coordinator(call, request.key_type, request.key, reason))
    coordinator = codec.structure("Coordinator")
    return codec.new(
        coordinators=[
            coordinator(key=key, **_coordinator(call, request.key_type, key, reason))
            for key in request.coordinator_keys
        ]
    )


def _coordinator(call: Call, key_type: int, key: str, reason: str) -> dict[str, Any]:
    if key_type == TRANSACTION:
        # Not the truest code, but the one that makes producers give up with this message instead of asking for ever.
        refused = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return {"error_code": refused, "error_message": NO_TRANSACTIONS, **_NOWHERE}
    if key_type != GROUP:
        text = f"unknown coordinator key type {key_type}"
        return {"error_code": ErrorCode.INVALID_REQUEST, "error_message": text, **_NOWHERE}
    node = next((n for i, n in call.backend.metadata.nodes.items() if i == call.backend.groups.leader_of(key)), None)
    if node is None:
        return {"error_code": ErrorCode.COORDINATOR_NOT_AVAILABLE, "error_message": reason, **_NOWHERE}
    return {"error_message": None, "node_id": node.node_id, "host": node.kafka_host, "port": node.kafka_port}
