"""What the API answers when a request cannot be carried out.

Rule: the words and status codes are Toxiproxy's own (v2.12, api.go) wherever it has any, because clients
match on them. Knows nothing of HTTP beyond the status number.
"""

from __future__ import annotations


class ApiError(Exception):
    """A refused request: nothing was changed.  `status` is the HTTP status, the text is for people."""

    definite = True

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def bad_request_body(reason: str) -> ApiError:
    return ApiError(f"bad request body: {reason}", 400)


def missing_field(field: str) -> ApiError:
    return ApiError(f"missing required field: {field}", 400)


def invalid_stream() -> ApiError:
    return ApiError("stream was invalid, can be either upstream or downstream", 400)


def invalid_toxic_type() -> ApiError:
    return ApiError("invalid toxic type", 400)


def proxy_not_found() -> ApiError:
    return ApiError("proxy not found", 404)


def toxic_not_found() -> ApiError:
    return ApiError("toxic not found", 404)


def proxy_already_exists() -> ApiError:
    return ApiError("proxy already exists", 409)


def toxic_already_exists() -> ApiError:
    return ApiError("toxic already exists", 409)


def cannot_listen(address: str, reason: object) -> ApiError:
    return ApiError(f"listen tcp {address}: {reason}", 500)
