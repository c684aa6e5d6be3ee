"""One small HTTP request from node to node: JSON there, JSON back, a connection for each.

Rule: every request has a deadline; what is no HTTP answer with a JSON object is an error like a refused connection.
Written by hand because a client library would be half of a node's start time.
Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

ANSWER_BYTES_MAX: Final = 16 << 20


class NoAnswer(Exception):
    """The other side could not be reached, or did not answer as an HTTP API does."""


async def ask_json(method: str, url: str, body: object, *, token: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """(status, object) of `http://host:port/path`.

    Raises:
        NoAnswer: nothing that can be read came back in time; whether the request was carried out is not known.
    """
    authority, slash, path = url.removeprefix("http://").partition("/")
    host, _, port = authority.rpartition(":")
    content = json.dumps(body).encode()
    head = [f"{method} {slash}{path} HTTP/1.1", f"Host: {authority}", "Connection: close"]
    head += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    if token:
        head.append(f"Authorization: Bearer {token}")
    request = "\r\n".join([*head, "", ""]).encode() + content
    try:
        async with asyncio.timeout(timeout_s):
            return _parsed(await _exchange(host.strip("[]"), int(port), request))
    except TimeoutError:
        raise NoAnswer(f"{url} did not answer within {timeout_s:g} s") from None
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise NoAnswer(f"{url}: {error}") from error


async def _exchange(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        answer = await reader.read(ANSWER_BYTES_MAX)
        while part := await reader.read(ANSWER_BYTES_MAX):
            answer += part
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError(f"more than {ANSWER_BYTES_MAX} bytes")
        return answer
    finally:
        writer.close()


def _parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, blank, content = answer.partition(b"\r\n\r\n")
    if not blank or not head.startswith(b"HTTP/1."):
        raise ValueError(f"no HTTP answer: {answer[:80]!r}")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object: {content[:80]!r}")
    return int(head.split(b" ", 2)[1]), found
