"""What the HTTP API's handlers have in common: answers in JSON, refusals with a status, bodies of bounded size.

Rule: a refusal says what to do, and is definite.  Knows nothing of what is asked.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seatrial.server.http_connections import BODY_BYTES_MAX


class BadRequest(Exception):
    """The request itself is wrong; the message says how."""


class RefusedRequest(Exception):
    """A request that is well formed and is not carried out; `code` tells programs why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def json_response(status: int, body: object, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def bounded_bodies(app: ASGIApp) -> ASGIApp:
    """The same application, in which reading more than BODY_BYTES_MAX of a request's body raises RefusedRequest."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def bounded_receive() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > BODY_BYTES_MAX:
                raise RefusedRequest(413, "BODY_TOO_LARGE", f"a request has at most {BODY_BYTES_MAX} bytes of body")
            return message

        await app(scope, bounded_receive, send)

    return bounded
