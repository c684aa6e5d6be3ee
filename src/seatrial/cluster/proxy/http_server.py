"""A small HTTP/1.1 server on asyncio: enough for a JSON API, and nothing that costs start-up time.

Rules: requests of one connection are answered in order; bodies and header blocks are bounded; an idle
connection is closed. httptools parses, so what reaches the handler is well-formed HTTP.  Knows nothing of
proxies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import httptools

BODY_BYTES_MAX = 16 * 1024 * 1024
HEADER_BYTES_MAX = 64 * 1024
PIPELINED_REQUESTS_MAX = 64
IDLE_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`target` is the path with its query, still percent-encoded; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "application/json"

    def encoded(self, *, keep_alive: bool, with_body: bool) -> bytes:
        head = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        if self.status != HTTPStatus.NO_CONTENT:
            head.append(f"Content-Length: {len(self.body)}")
        if self.body:
            head.append(f"Content-Type: {self.content_type}")
        if not keep_alive:
            head.append("Connection: close")
        return "\r\n".join(head).encode() + b"\r\n\r\n" + (self.body if with_body else b"")


Handler = Callable[[Request], Awaitable[Response]]


class HttpConnection(asyncio.Protocol):
    """One client of the API."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transports in all but ancestry.
        self._transport = cast(asyncio.Transport, transport)
        self._restart_idle_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._idle is not None:
            self._idle.cancel()

    def data_received(self, data: bytes) -> None:
        self._restart_idle_timer()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "this server does not upgrade connections")
        except httptools.HttpParserError as error:
            # Our own refusals come back wrapped by the parser.
            refusal = error.__context__ if isinstance(error.__context__, _TooLarge) else None
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if refusal else HTTPStatus.BAD_REQUEST
            self._refuse(status, str(refusal or f"malformed HTTP request: {error}"))

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) > BODY_BYTES_MAX:
            raise _TooLarge(f"request body over {BODY_BYTES_MAX} bytes")
        self._body += body

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode("ascii"),
            target=bytes(self._target).decode("latin-1"),
            headers=self._headers,
            body=bytes(self._body),
            keep_alive=self._parser.should_keep_alive(),
        )
        self._clear()
        self._waiting.append(request)
        if len(self._waiting) >= PIPELINED_REQUESTS_MAX and self._transport is not None:
            self._transport.pause_reading()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            try:
                response = await self._handler(request)
            except Exception as error:
                # A bug of ours: tell the client, and let the event loop report it with its traceback.
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error: {error!r}")
                raise
            self._reply(request, response)
        self._worker = None

    def _reply(self, request: Request, response: Response) -> None:
        if self._transport is None:
            return
        with_body = request.method != "HEAD"
        self._transport.write(response.encoded(keep_alive=request.keep_alive, with_body=with_body))
        if request.keep_alive:
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _refuse(self, status: int, reason: str) -> None:
        if self._transport is not None:
            response = Response(status=status, body=reason.encode(), content_type="text/plain; charset=utf-8")
            self._transport.write(response.encoded(keep_alive=False, with_body=True))
            self._transport.close()

    def _clear(self) -> None:
        self._target = bytearray()
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body = bytearray()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES_MAX:
            raise _TooLarge(f"request header over {HEADER_BYTES_MAX} bytes")

    def _restart_idle_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_TIMEOUT_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self._transport is not None and self._worker is None:
            self._transport.close()


class _TooLarge(Exception):
    """A request over a limit; raised inside the parser's callbacks."""
