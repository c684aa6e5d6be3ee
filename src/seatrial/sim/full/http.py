"""A lean HTTP/1.1 client on asyncio streams, parsing with httptools: answers and raises as httpx does, at a tenth of
its cost, which decides how many virtual seconds a second the full level has.

Rule: an exception says whether a byte of the request can have left (`httpx.ConnectError`, `httpx.ConnectTimeout`: none
did); connections are kept and used again, and one that failed under a request is dropped, never tried again.
Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import httptools
import httpx

from seatrial.workloads.http_outcomes import ANSWER_S, CONNECT_S

READ_BYTES: Final = 64 << 10


class Response:
    """What came back; as much of `httpx.Response` as clients here use."""

    def __init__(self) -> None:
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self.content = b""
        self.complete = False

    def json(self) -> Any:
        return json.loads(self.content)

    # httptools calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.content += body

    def on_message_complete(self) -> None:
        self.complete = True


class LeanHttp:
    """One connection a host and port, opened when it is first needed.  answer_s: how long an answer is waited for."""

    def __init__(self, *, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._open: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Ask once.  Raises httpx's ConnectError, ConnectTimeout, ReadTimeout, ReadError, RemoteProtocolError."""
        parts = urlsplit(url)
        path = parts.path + (f"?{urlencode(params)}" if params else "")
        body = content or b""
        lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        reader, writer = await self._connection(parts.netloc)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            async with asyncio.timeout(self._answer_s):
                response = await _read(reader)
        except BaseException as error:
            self._drop(parts.netloc)
            raise _as_httpx(error, self._answer_s) from error
        if response.headers.get("connection") == "close":
            self._drop(parts.netloc)
        return response

    async def _connection(self, netloc: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        known = self._open.get(netloc)
        if known is not None and not known[1].is_closing() and not known[0].at_eof():
            return known
        host, _, port = netloc.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                opened = await asyncio.open_connection(host, int(port))
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection to {netloc} within {CONNECT_S} s") from error
        except OSError as error:
            raise httpx.ConnectError(f"{netloc}: {error}") from error
        self._open[netloc] = opened
        return opened

    def _drop(self, netloc: str) -> None:
        dropped = self._open.pop(netloc, None)
        if dropped is not None:
            dropped[1].transport.abort()

    async def aclose(self) -> None:
        for netloc in list(self._open):
            self._drop(netloc)


async def _read(reader: asyncio.StreamReader) -> Response:
    response = Response()
    parser = httptools.HttpResponseParser(response)
    while not response.complete:
        data = await reader.read(READ_BYTES)
        if not data:
            raise httpx.RemoteProtocolError("the server hung up without a whole answer")
        parser.feed_data(data)
    response.status_code = parser.get_status_code()
    return response


def _as_httpx(error: BaseException, answer_s: float) -> BaseException:
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(f"no answer within {answer_s} s")
    if isinstance(error, OSError):
        return httpx.ReadError(str(error))
    if isinstance(error, httptools.HttpParserError):
        return httpx.RemoteProtocolError(str(error))
    return error
