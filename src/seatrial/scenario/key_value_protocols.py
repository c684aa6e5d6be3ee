"""The key-value stores that a scenario can speak to: our own HTTP API, and etcd's JSON gateway.

Rule: one call is one attempt.  It raises NoAnswer where the exchange went wrong (`definite`: nothing can have happened)
and Refused where the system will not do it at all.
Knows the APIs as documented, and nothing of when an attempt is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import quote

import httpx

from seatrial.scenario.attempts import NoAnswer
from seatrial.scenario.errors import NotHere, Refused
from seatrial.workloads.etcd_gateway import EtcdError, decode, encode, post, put_of, transact
from seatrial.workloads.http_outcomes import NEVER_SENT

Consistency: TypeAlias = Literal["linearizable", "lease", "stale"]
# (client id, sequence): the server applies a write once, however often it is sent under the same.
Session: TypeAlias = tuple[str, int] | None

REFUSALS: Final = frozenset({400, 401, 403, 405, 411, 413, 414})
BEYOND_SERVER_S: Final = 0.3  # our patience beyond what the server was given, so that its answer is heard
ABSENT: Final = "*"  # instead of a version: the key must not exist


@dataclass(frozen=True, slots=True)
class Found:
    """A key's text, and the version under which the store has it; both None where there is no such key."""

    text: str | None = None
    version: str | None = None


class KeyValueProtocol(Protocol):
    """One attempt of each operation, at the node with this base URL."""

    resends: bool  # a write that nobody answered may be sent again under its session

    async def read(self, http: Any, base: str, key: str, consistency: Consistency, timeout_s: float) -> Found: ...

    async def write(
        self, http: Any, base: str, key: str, text: str | None, version: str | None, session: Session, timeout_s: float
    ) -> bool:
        """Set the key, or with None remove it; False where it has not this `version` (None: whatever it has)."""


class OwnApi:
    """`GET|PUT|DELETE /api/v1/kv/{key}` of our own server."""

    resends = True

    async def read(self, http: Any, base: str, key: str, consistency: Consistency, timeout_s: float) -> Found:
        response = await self._send(http, "GET", base, key, timeout_s, parameters={"consistency": consistency})
        if response.status_code == 404:
            return Found()
        self._expect(response, 200)
        return Found(response.content.decode("utf-8", "replace"), response.headers.get("etag"))

    async def write(
        self, http: Any, base: str, key: str, text: str | None, version: str | None, session: Session, timeout_s: float
    ) -> bool:
        headers: dict[str, str] = {}
        if session is not None:
            headers = {"Seatrial-Client-Id": session[0], "Seatrial-Sequence": str(session[1])}
        if version is not None:
            headers |= {"If-None-Match": "*"} if version == ABSENT else {"If-Match": version}
        method = "DELETE" if text is None else "PUT"
        content = None if text is None else text.encode()
        response = await self._send(http, method, base, key, timeout_s, content=content, headers=headers)
        if response.status_code == 412:
            return False
        self._expect(response, 200)
        return True

    async def _send(
        self,
        http: Any,
        method: str,
        base: str,
        key: str,
        timeout_s: float,
        *,
        parameters: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        asked = {"timeout_ms": str(max(1, int(timeout_s * 1000))), **(parameters or {})}
        url = f"{base}/api/v1/kv/{quote(key, safe='')}"
        try:
            async with asyncio.timeout(timeout_s + BEYOND_SERVER_S):
                return await http.request(method, url, params=asked, content=content, headers=dict(headers or {}))
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {timeout_s:g} s", definite=False) from error
        except httpx.HTTPError as error:
            raise _failed(error) from error

    def _expect(self, response: Any, status: int) -> None:
        if response.status_code == status:
            return
        try:
            body = response.json()
        except ValueError:
            body = {}
        told = body if isinstance(body, dict) else {}
        text = f"HTTP {response.status_code} {told.get('error', '')}".rstrip()
        if response.status_code in REFUSALS:
            raise Refused(text)
        raise NoAnswer(text, definite=told.get("definite") is True)


class EtcdApi:
    """etcd's JSON gateway under /v3.  A put that nobody answered cannot be sent again: it might be applied twice."""

    resends = False

    async def read(self, http: Any, base: str, key: str, consistency: Consistency, timeout_s: float) -> Found:
        if consistency == "lease":
            raise NotHere("etcd's API offers no lease reads: ask for linearizable or stale ones")
        body = {"key": encode(key), "serializable": consistency == "stale"}
        answer = await self._ask(http, base, "kv/range", body, timeout_s)
        for found in answer.get("kvs", ()):
            return Found(decode(found.get("value", "")), str(found.get("mod_revision", "0")))
        return Found()

    async def write(
        self, http: Any, base: str, key: str, text: str | None, version: str | None, session: Session, timeout_s: float
    ) -> bool:
        if version is None and text is not None:
            await self._ask(http, base, "kv/put", {"key": encode(key), "value": encode(text)}, timeout_s)
            return True
        if version is None:
            await self._ask(http, base, "kv/deleterange", {"key": encode(key)}, timeout_s)
            return True
        revision = "0" if version == ABSENT else version
        compare = {"key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}
        change = put_of(key, text) if text is not None else {"requestDeleteRange": {"key": encode(key)}}
        try:
            return await transact(http, base, compare=[compare], success=[change], exchange_s=timeout_s)
        except (httpx.HTTPError, EtcdError) as error:
            raise _failed(error) from error

    async def _ask(self, http: Any, base: str, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            return await post(http, base, path, dict(body), exchange_s=timeout_s)
        except (httpx.HTTPError, EtcdError) as error:
            raise _failed(error) from error


def _failed(error: BaseException) -> NoAnswer | Refused:
    if isinstance(error, EtcdError):
        return Refused(str(error)) if error.definite else NoAnswer(str(error), definite=False)
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return NoAnswer(text, definite=isinstance(error, NEVER_SENT))
