"""The HTTP API: what each Raft group is doing, the key-value store, health and metrics.

Rule: every error is JSON {"error", "definite", "leader_id"}; `definite` is true only when the operation surely was
not and will not be applied.  Runs uvicorn's protocol on the node's own event loop and socket: no signal handlers, no
thread, no tick.
Knows nothing of Raft beyond what `broker` tells.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from seatrial.raft.ids import NodeId
from seatrial.server.config import Address
from seatrial.server.errors import (
    BadFilter,
    DeadlinePassed,
    NoLeader,
    NoSuchFilter,
    OutcomeUnknown,
    ProposalLost,
    Refused,
)
from seatrial.server.http_answers import BadRequest, RefusedRequest, bounded_bodies, json_response
from seatrial.server.http_connections import HttpConnection, HttpConnections
from seatrial.server.key_value import CONSISTENCIES, KeyValueService, Precondition, Session
from seatrial.server.logs import Logger
from seatrial.server.replica import Replica

if TYPE_CHECKING:
    from seatrial.server.hooks import TestHooks
    from seatrial.server.members_api import MembersApi

TIMEOUT_S_DEFAULT = 5.0
TIMEOUT_S_MAX = 60.0
VALUE_BYTES_MAX = 1 << 20
KEY_BYTES_MAX = 1024


class Status(Protocol):
    """What the API tells of the node."""

    @property
    def key_value(self) -> KeyValueService: ...

    def info(self) -> dict[str, Any]: ...

    def group_info(self, replica: Replica) -> dict[str, Any]: ...

    def leader_of(self, name: str) -> int | None: ...

    def replica_named(self, name: str) -> Replica | None: ...

    def is_ready(self) -> str | None:
        """None when it is; otherwise what is still missing."""

    def metrics_text(self) -> bytes: ...

    @property
    def hooks(self) -> TestHooks | None:
        """None without --test-hooks."""


class AdminApi:
    """The routes; each method is one."""

    def __init__(self, status: Status, logger: Logger, token: str, members: MembersApi | None = None) -> None:
        self._status = status
        self._logger = logger
        group = "/api/v1/raft/groups/{name:path}"
        # Routes are tried in this order, so the one that is asked most comes first.
        routes = [Route("/api/v1/kv/{key:path}", self._guarded(self.key_value), methods=["GET", "PUT", "DELETE"])]
        routes += members.routes(self._guarded) if members is not None else []
        routes += [
            Route("/api/v1/raft/info", self._guarded(self.raft_info)),
            Route(group + "/transfer", self._guarded(self.transfer), methods=["POST"]),
            Route(group + "/snapshot", self._guarded(self.snapshot), methods=["POST"]),
            Route(group, self._guarded(self.raft_group)),
            Route("/healthz", self._guarded(self.healthz)),
            Route("/readyz", self._guarded(self.readyz)),
            Route("/metrics", self._guarded(self.metrics)),
        ]
        if status.hooks is not None:
            routes += self._hook_routes(status.hooks)
        app = bounded_bodies(Starlette(routes=routes))
        self.app = BearerToken(app, token) if token else app

    def _hook_routes(self, hooks: TestHooks) -> list[Route]:
        """Without --test-hooks these do not exist: 404."""

        def number(request: Request) -> int:
            return int(request.path_params["number"])

        def release(request: Request) -> bool:
            return request.query_params.get("release", "true") != "false"

        async def filters(request: Request) -> Response:
            if request.method == "POST":
                return json_response(201, hooks.attach(await request.body()))
            if request.method == "DELETE":
                return json_response(200, hooks.detach_all(release=release(request)))
            return json_response(200, hooks.told())

        async def one_filter(request: Request) -> Response:
            return json_response(200, hooks.detach(number(request), release=release(request)))

        async def released(request: Request) -> Response:
            return json_response(200, hooks.release(number(request)))

        path = "/api/v1/test/filters"
        return [
            Route(path, self._guarded(filters), methods=["GET", "POST", "DELETE"]),
            Route(path + "/{number:int}", self._guarded(one_filter), methods=["DELETE"]),
            Route(path + "/{number:int}/release", self._guarded(released), methods=["POST"]),
        ]

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Errors of the node as HTTP: 4xx the caller's, 503 nobody to ask, 504 out of time."""

        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(request)
            except (BadRequest, BadFilter) as error:
                return self._error(400, str(error), definite=True)
            except RefusedRequest as error:
                return self._error(error.status, str(error), definite=True, code=error.code)
            except NoSuchFilter as error:
                return self._error(404, str(error), definite=True)
            except (NoLeader, ProposalLost, Refused) as error:
                return self._error(503, str(error), definite=True)
            except OutcomeUnknown as error:
                return self._error(503, str(error), definite=False)
            except DeadlinePassed as error:
                return self._error(504, str(error), definite=error.definite)
            except Exception as error:  # a bug of ours: told, logged, and never passed off as definite
                self._logger.error("http_request_failed", path=request.url.path, error=repr(error))
                return self._error(500, f"internal error: {error!r}", definite=False)

        return guarded

    def _error(self, status: int, message: str, *, definite: bool, code: str | None = None) -> Response:
        body: dict[str, Any] = {"error": message, "definite": definite, "leader_id": self._status.leader_of("kv")}
        if code is not None:
            body["code"] = code
        return json_response(status, body)

    # ---- Raft ------------------------------------------------------------------------------------------------------

    async def raft_info(self, request: Request) -> Response:
        return json_response(200, self._status.info())

    async def raft_group(self, request: Request) -> Response:
        """As in `raft_info`, with the last snapshot; of a leader also how far it has brought each other member."""
        replica = self._replica(request)
        status = replica.status()
        more = {
            "snapshot_index": status.snapshot_index,  # 0: there is none
            "peers": {str(node_id): asdict(progress) for node_id, progress in status.peers.items()},
        }
        return json_response(200, {**self._status.group_info(replica), **more})

    async def transfer(self, request: Request) -> Response:
        replica = self._replica(request)
        to = request.query_params.get("to", "")
        if not to.isdigit() or NodeId(int(to)) not in replica.node.configuration.voters:
            voters = ", ".join(map(str, replica.node.configuration.voters))
            raise BadRequest(f"?to={to} is not a voter of {replica.name}; these are: {voters}")
        if not replica.node.is_leader:
            raise Refused(f"this node does not lead {replica.name}; ask node {replica.node.leader}")
        replica.transfer_leadership(NodeId(int(to)))
        return json_response(202, {"group": replica.name, "to": int(to)})

    async def snapshot(self, request: Request) -> Response:
        """`?keep=N`: of the log behind it, keep N entries and no more; a follower that is further behind gets the
        snapshot.  202 with `made` false where another one was being saved just now."""
        replica = self._replica(request)
        keep = request.query_params.get("keep")
        if keep is not None and not (keep.isdigit() and len(keep) < 10):
            raise BadRequest(f"?keep={keep} is not a number of entries, such as ?keep=100")
        if keep is not None and replica.options.keep_entries is None:
            raise BadRequest(
                f"the log of {replica.name} is what it stores: a snapshot drops none of it; leave out ?keep"
            )
        made = replica.make_snapshot(keep_entries=None if keep is None else int(keep))
        return json_response(202, {"group": replica.name, "last_applied": replica.last_applied, "made": made})

    def _replica(self, request: Request) -> Replica:
        name = request.path_params["name"]
        replica = self._status.replica_named(name)
        if replica is None:
            raise BadRequest(f"this node has no group {name!r}; GET /api/v1/raft/info lists its groups")
        return replica

    # ---- the key-value store ---------------------------------------------------------------------------------------

    async def key_value(self, request: Request) -> Response:
        key = request.path_params["key"].encode()
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise BadRequest(f"a key has 1 to {KEY_BYTES_MAX} bytes")
        timeout_s = self._timeout(request)
        if request.method in ("GET", "HEAD"):
            return await self._read(request, key, timeout_s)
        expected = _precondition(request)
        session = _session(request)
        service = self._status.key_value
        if request.method == "PUT":
            value = await request.body()
            if len(value) > VALUE_BYTES_MAX:
                raise BadRequest(f"a value has at most {VALUE_BYTES_MAX} bytes")
            result = await service.put(key, value, expected, session, timeout_s)
        else:
            result = await service.delete(key, expected, session, timeout_s)
        if not result.applied:
            body = {"error": "the version differs", "definite": True, "version": result.version}
            return json_response(412, body, {"ETag": f'"{result.version}"'})
        body = {"version": result.version, "existed": result.existed}
        return json_response(200, body, {"ETag": f'"{result.version}"'})

    async def _read(self, request: Request, key: bytes, timeout_s: float) -> Response:
        consistency = request.query_params.get("consistency", "linearizable")
        if consistency not in CONSISTENCIES:
            raise BadRequest(f"?consistency={consistency} is none of {', '.join(CONSISTENCIES)}")
        found = await self._status.key_value.get(key, consistency, timeout_s)
        if found is None:
            return json_response(404, {"error": "no such key", "definite": True})
        value, version = found
        return Response(value, 200, {"ETag": f'"{version}"'}, media_type="application/octet-stream")

    def _timeout(self, request: Request) -> float:
        text = request.query_params.get("timeout_ms")
        if text is None:
            return TIMEOUT_S_DEFAULT
        if not text.isdigit() or not 0 < int(text) <= TIMEOUT_S_MAX * 1000:
            raise BadRequest(f"?timeout_ms={text} is not between 1 and {TIMEOUT_S_MAX * 1000:.0f}")
        return int(text) / 1000

    # ---- health ----------------------------------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return json_response(200, {"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        missing = self._status.is_ready()
        if missing is None:
            return json_response(200, {"status": "ready"})
        return json_response(503, {"status": "starting", "error": missing, "definite": True})

    async def metrics(self, request: Request) -> Response:
        return Response(self._status.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _precondition(request: Request) -> Precondition:
    """`If-Match: "7"` as 7, `If-None-Match: *` as 0 (must not exist), neither as None."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none_match is not None:
        raise BadRequest("give If-Match or If-None-Match, not both")
    if none_match is not None:
        if none_match.strip() != "*":
            raise BadRequest("If-None-Match takes * alone: the key must not exist")
        return 0
    if match is None:
        return None
    version = match.strip().strip('"')
    if not version.isdigit():
        raise BadRequest(f"If-Match: {match} is not a version; take it from an ETag")
    return int(version)


def _session(request: Request) -> Session:
    client, sequence = request.headers.get("seatrial-client-id"), request.headers.get("seatrial-sequence")
    if client is None and sequence is None:
        return None
    name = (client or "").encode()
    if not 0 < len(name) <= 255 or sequence is None or not sequence.isdigit() or not 0 < int(sequence) < 1 << 63:
        raise BadRequest("Seatrial-Client-Id (1 to 255 bytes) and Seatrial-Sequence (1, 2, 3, …) go together")
    return name, int(sequence)


class BearerToken:
    """Refuses every request without the token, in constant time; health checks too."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
        else:
            body = {"error": "send Authorization: Bearer <the token of --http-token>", "definite": True}
            await json_response(401, body, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


class _ToLogger(logging.Handler):
    """uvicorn's own warnings and errors, as events of ours."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.warning("http_server", message=record.getMessage())


class AdminServer:
    """uvicorn's protocol for each connection (`http_connections`), on a socket of ours."""

    def __init__(self, api: AdminApi, logger: Logger, connections: HttpConnections) -> None:
        self._config = uvicorn.Config(
            api.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ws="none",
            date_header=False,
            server_header=False,
            proxy_headers=False,  # nothing here asks where a request came from
        )
        self._state = ServerState()
        self.connections = connections
        self._server: asyncio.Server | None = None
        log = logging.getLogger("uvicorn.error")
        log.handlers = [_ToLogger(logger)]
        log.propagate = False

    async def start(self, address: Address, create: Callable[..., Awaitable[asyncio.Server]]) -> None:
        """Listen; raises OSError where the address is in use or not ours."""
        self._config.load()
        protocol: Any = self._config.http_protocol_class

        def connection() -> asyncio.Protocol:
            inner = protocol(config=self._config, server_state=self._state, app_state={})
            return HttpConnection(self.connections, inner)

        self._server = await create(connection, address.host, address.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections.open):
            connection.shutdown()
