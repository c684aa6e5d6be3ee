"""From a request frame to the buffers of its response.

Rule: the request is parsed, and its work started, before `handle` returns; only the answer may come later.  So the
listener hands over requests as they arrive, and has nothing to do but send the responses in order.
Knows nothing of sockets.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from seatrial.kafka import fetch, produce
from seatrial.kafka.api_versions import api_versions, unsupported_api_versions
from seatrial.kafka.apis import APIS, Api, ApiKey
from seatrial.kafka.backend import Backend, BrokerSettings, Buffer
from seatrial.kafka.cluster_requests import describe_cluster, init_producer_id, metadata
from seatrial.kafka.codec import message
from seatrial.kafka.context import Call, ClientContext, CloseConnection, Handler
from seatrial.kafka.offset_requests import list_offsets, offset_for_leader_epoch
from seatrial.kafka.topic_requests import create_topics, delete_topics
from seatrial.kafka.wire import MalformedMessage, read_string, skip_tagged_fields

__all__ = ["ClientContext", "CloseConnection", "Dispatcher", "Response"]

Response: TypeAlias = list[Buffer]  # a whole frame, with its 4-byte length, for `writelines`

# Requests that carry records, or what consumers say to each other, may be as large as a frame; the others only name
# things, and so many of them would keep everything else waiting.
NAMES_BYTES_MAX: Final = 4 << 20
_LARGE: Final = frozenset({ApiKey.PRODUCE, ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP, ApiKey.OFFSET_COMMIT})

_HEADER: Final = struct.Struct(">hhih")  # api key, api version, correlation id, length of the client id (-1: null)
_RESPONSE_HEADER: Final = struct.Struct(">ii")  # frame length, correlation id

HANDLERS: Final[Mapping[ApiKey, Handler]] = {
    ApiKey.LIST_OFFSETS: list_offsets,
    ApiKey.METADATA: metadata,
    ApiKey.API_VERSIONS: api_versions,
    ApiKey.CREATE_TOPICS: create_topics,
    ApiKey.DELETE_TOPICS: delete_topics,
    ApiKey.INIT_PRODUCER_ID: init_producer_id,
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch,
    ApiKey.DESCRIBE_CLUSTER: describe_cluster,
}  # what clients need to write and read; Produce and Fetch have codecs of their own


@cache
def group_handlers() -> Mapping[ApiKey, Handler]:
    """Of everything about consumer groups."""
    # Only when somebody asks for one: a node should listen soon, and these take 10 ms to import.
    from seatrial.kafka.coordinator_requests import find_coordinator
    from seatrial.kafka.group_admin_requests import delete_groups, describe_groups, list_groups
    from seatrial.kafka.group_offset_requests import offset_commit, offset_delete, offset_fetch
    from seatrial.kafka.group_requests import heartbeat, join_group, leave_group, sync_group

    return {
        ApiKey.OFFSET_COMMIT: offset_commit,
        ApiKey.OFFSET_FETCH: offset_fetch,
        ApiKey.FIND_COORDINATOR: find_coordinator,
        ApiKey.JOIN_GROUP: join_group,
        ApiKey.HEARTBEAT: heartbeat,
        ApiKey.LEAVE_GROUP: leave_group,
        ApiKey.SYNC_GROUP: sync_group,
        ApiKey.DESCRIBE_GROUPS: describe_groups,
        ApiKey.LIST_GROUPS: list_groups,
        ApiKey.DELETE_GROUPS: delete_groups,
        ApiKey.OFFSET_DELETE: offset_delete,
    }


@cache
def admin_handlers() -> Mapping[ApiKey, Handler]:
    """Of what is asked for now and then; imported when it is."""
    from seatrial.kafka.config_requests import alter_configs, describe_configs, incremental_alter_configs
    from seatrial.kafka.description_requests import describe_log_dirs, describe_topic_partitions
    from seatrial.kafka.partition_requests import create_partitions, delete_records, elect_leaders
    from seatrial.kafka.reassignment_requests import alter_partition_reassignments, list_partition_reassignments

    return {
        ApiKey.DELETE_RECORDS: delete_records,
        ApiKey.DESCRIBE_CONFIGS: describe_configs,
        ApiKey.ALTER_CONFIGS: alter_configs,
        ApiKey.DESCRIBE_LOG_DIRS: describe_log_dirs,
        ApiKey.CREATE_PARTITIONS: create_partitions,
        ApiKey.ELECT_LEADERS: elect_leaders,
        ApiKey.INCREMENTAL_ALTER_CONFIGS: incremental_alter_configs,
        ApiKey.ALTER_PARTITION_REASSIGNMENTS: alter_partition_reassignments,
        ApiKey.LIST_PARTITION_REASSIGNMENTS: list_partition_reassignments,
        ApiKey.DESCRIBE_TOPIC_PARTITIONS: describe_topic_partitions,
    }


class Dispatcher:
    """Serves all connections of one broker."""

    def __init__(self, backend: Backend, settings: BrokerSettings) -> None:
        self._backend = backend
        self._settings = settings

    def handle(self, frame: bytes | memoryview, client: ClientContext) -> Response | asyncio.Future[Response] | None:
        """Start one request; `frame` is without its length, and must not change while the request is served.

        Returns the response, its future, or None where the client expects none (acks 0).  Raises CloseConnection
        where the frame is no request that can be answered; so may the future.
        """
        data = memoryview(frame)
        try:
            return self._handle(data, client)
        except MalformedMessage as error:
            raise CloseConnection(f"a malformed request: {error}") from error

    def _handle(self, data: memoryview, client: ClientContext) -> Response | asyncio.Future[Response] | None:
        if len(data) < _HEADER.size:
            raise MalformedMessage(f"{len(data)} bytes are too few for a request header")
        api_key, version, correlation_id, length = _HEADER.unpack_from(data)
        api = APIS.get(api_key)
        if api is None:
            raise CloseConnection(f"request with the unknown API key {api_key}")
        if not api.serves(version):
            if api.key == ApiKey.API_VERSIONS:
                body = message("ApiVersionsResponse").encode(unsupported_api_versions(), 0)
                return _framed(correlation_id, (body,), flexible=False)
            raise CloseConnection(
                f"{api.message} version {version} is not served, only {api.min_served} to {api.max_served}"
            )
        if len(data) > NAMES_BYTES_MAX and api.key not in _LARGE:
            raise CloseConnection(f"a {api.message} request of {len(data)} bytes; at most {NAMES_BYTES_MAX} are served")
        position = _HEADER.size
        client_id: str | None = None
        if length >= 0:
            client_id, position = read_string(data, position, length)
        client.client_id = client_id
        if version >= api.flexible_from:
            position = skip_tagged_fields(data, position)
        return self._serve(api, version, correlation_id, data, position, client)

    def _serve(
        self, api: Api, version: int, correlation_id: int, data: memoryview, position: int, client: ClientContext
    ) -> Response | asyncio.Future[Response] | None:
        # The header of an ApiVersions response never has tagged fields: its reader may not know our version (KIP-511).
        flexible = version >= api.flexible_from and api.key != ApiKey.API_VERSIONS

        def reply(body: Sequence[Buffer]) -> Response:
            return _framed(correlation_id, body, flexible=flexible)

        if api.key == ApiKey.PRODUCE:
            return produce.serve(self._backend, self._settings, data, position, version, reply)
        if api.key == ApiKey.FETCH:
            return fetch.serve(self._backend, self._settings, client, data, position, version, reply)
        request, _ = message(f"{api.message}Request").decode(data, position, version)
        handler = HANDLERS.get(api.key) or admin_handlers().get(api.key) or group_handlers()[api.key]
        answer = handler(Call(self._backend, self._settings, client, version, request))
        response_codec = message(f"{api.message}Response")
        if not isinstance(answer, Coroutine):
            return reply((response_codec.encode(answer, version),))

        async def later(coroutine: Coroutine[Any, Any, Any]) -> Response:
            return reply((response_codec.encode(await coroutine, version),))

        task = asyncio.get_running_loop().create_task(later(answer))
        task.add_done_callback(lambda _: answer.close())  # it never began where the task was cancelled at once
        return task


def _framed(correlation_id: int, body: Sequence[Buffer], *, flexible: bool) -> Response:
    """Length, response header (version 1 where flexible, 0 elsewhere) and body."""
    tags = b"\0" if flexible else b""
    length = 4 + len(tags) + sum(map(len, body))
    return [_RESPONSE_HEADER.pack(length, correlation_id) + tags, *body]
