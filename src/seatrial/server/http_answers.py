"""What the HTTP API's handlers have in common: answers in JSON, and refusals with a status.

Rule: a refusal says what to do, and is definite.  Knows nothing of what is asked.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response


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
