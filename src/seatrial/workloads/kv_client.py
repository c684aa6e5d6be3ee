"""A client of the server's key-value API over HTTP: read, write, compare-and-set, each tried within its time limit.

Rule: a write is sent again only under the same session and sequence number, which the server promises to apply once;
without a session an unknown outcome stays `info`.
Knows the API as documented (`GET|PUT /api/v1/kv/{key}`, ETag, If-Match, Seatrial-Client-Id and -Sequence) and nothing
of the server's code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from seatrial.env import Rng
from seatrial.history import Json, OpType
from seatrial.workloads.base import Completion, Request
from seatrial.workloads.http_outcomes import after_exception, ended, open_client
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.payload import Payload

SERVER_TIMEOUT_MS = 1200  # asked of the server; shorter than ours, so that its answer is heard
ATTEMPTS = 3  # of one write, under a session
MISMATCH = "mismatch"
NO_VERSION = "the node gives no version (ETag) to compare with"


class KvClient:
    """One logical client.  With `session` it retries unknown writes under their sequence number.

    Values are integers, written as `payload` says: as decimal text alone, unless there is one; a key that is absent
    reads as None.  `open_http` opens the HTTP client: httpx's, or one that answers and raises as it does.
    """

    def __init__(
        self,
        nodes: NodeChoice,
        rng: Rng,
        *,
        session: bool,
        open_http: Callable[[], Any] = open_client,
        payload: Payload | None = None,
    ) -> None:
        self._nodes = nodes
        self._rng = rng
        self._sessions = session
        self._payload = payload if payload is not None else Payload()
        self._open_http = open_http
        self._http = open_http()
        self._session_id = ""
        self._sequence = 0
        self._new_session()

    async def perform(self, request: Request) -> Completion:
        assert request.key is not None, "a register operation names its key"
        match request.f:
            case "read":
                completion, _ = await self._read(request)
            case "write":
                completion = await self._write(request, request.value, {})
            case "cas":
                completion = await self._compare_and_set(request)
            case _:
                raise ValueError(f"a register has no operation {request.f!r}")
        if completion.type is OpType.INFO or (completion.type is OpType.FAIL and completion.error != MISMATCH):
            self._nodes.move_on()
        return completion

    async def reconnect(self) -> None:
        await self._http.aclose()
        self._http = self._open_http()
        self._new_session()

    async def close(self) -> None:
        await self._http.aclose()

    async def _read(self, request: Request) -> tuple[Completion, str]:
        """The completion, and the version that was read ("" when none was)."""
        try:
            node, response = await self._send("GET", request, None, {})
        except httpx.HTTPError as error:
            return self._after(error, request), ""
        if response.status_code == 404:
            return Completion(type=OpType.OK, value=None, node=node), ""
        if response.status_code != 200:
            return _refused(request.f, node, response), ""
        return Completion(type=OpType.OK, value=self._payload.read(response.content), node=node), response.headers.get(
            "etag", ""
        )

    async def _compare_and_set(self, request: Request) -> Completion:
        """Read, and write only over the version that was read: If-Match makes the server compare again."""
        old, new = request.value
        seen, version = await self._read(request)
        if seen.type is not OpType.OK:
            # Nothing was written yet, so it surely did not happen.
            return Completion(type=OpType.FAIL, error=seen.error)
        if seen.value != old:
            return Completion(type=OpType.FAIL, error=MISMATCH, node=seen.node)
        if not version:  # it surely did not happen, but nothing was compared either
            return Completion(type=OpType.FAIL, error=NO_VERSION, node=seen.node)
        return await self._write(request, new, {"If-Match": version})

    async def _write(self, request: Request, value: Json, headers: Mapping[str, str]) -> Completion:
        if self._sessions:
            self._sequence += 1
            headers = {
                **headers,
                "Seatrial-Client-Id": self._session_id,
                "Seatrial-Sequence": str(self._sequence),
            }
        completion = await self._write_once(request, value, headers)
        attempts = 1
        while self._sessions and completion.type is OpType.INFO and attempts < ATTEMPTS:
            attempts += 1
            self._nodes.move_on()
            again = await self._write_once(request, value, headers)
            # A refused retry says nothing of the first attempt, which may still be under way.
            completion = completion if again.type is OpType.FAIL and again.error != MISMATCH else again
        return completion

    async def _write_once(self, request: Request, value: Json, headers: Mapping[str, str]) -> Completion:
        try:
            node, response = await self._send("PUT", request, self._payload.written(value), headers)
        except httpx.HTTPError as error:
            return self._after(error, request)
        if response.status_code == 200:
            return Completion(type=OpType.OK, value=request.value, node=node)
        if response.status_code == 412:
            return Completion(type=OpType.FAIL, error=MISMATCH, node=node)
        return _refused(request.f, node, response)

    async def _send(
        self, method: str, request: Request, content: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, httpx.Response]:
        endpoint = self._nodes.pick(request.node)
        url = f"{endpoint.http}/api/v1/kv/{quote(request.key or '', safe='')}"
        parameters = {"timeout_ms": str(SERVER_TIMEOUT_MS)}
        # httpx bounds each wait for a byte, not the whole exchange; a dripping answer must end too.
        try:
            async with asyncio.timeout(2 * SERVER_TIMEOUT_MS / 1000):
                response = await self._http.request(
                    method, url, params=parameters, content=content, headers=dict(headers)
                )
        except TimeoutError as error:
            raise httpx.ReadTimeout("the answer took too long") from error
        return endpoint.node, response

    def _after(self, error: httpx.HTTPError, request: Request) -> Completion:
        return after_exception(request.f, error, node=self._nodes.pick(request.node).node)

    def _new_session(self) -> None:
        self._session_id = f"seatrial-{self._rng.bytes(8).hex()}"
        self._sequence = 0


def _refused(f: str, node: int, response: httpx.Response) -> Completion:
    """An error status: definite when the server says so, or when the request was wrong in itself."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    detail = body.get("error", "") if isinstance(body, dict) else ""
    said_definite = isinstance(body, dict) and body.get("definite") is True
    definite = said_definite or response.status_code in (400, 401, 403, 404, 405, 411, 413, 414)
    return ended(f, definite=definite, error=f"node {node}: HTTP {response.status_code} {detail}".rstrip())
