"""etcd's JSON gateway: keys, ranges and transactions as HTTP requests, and which of its errors are definite.

Rule: 64-bit integers are JSON strings and default-valued fields are absent (protobuf's JSON mapping), so an absent
`succeeded` is false and an absent `value` is empty.
Source: etcd's `rpc.proto` (KV service) as served under /v3 by its grpc-gateway.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from typing import Any

import httpx

from seatrial.history import Json
from seatrial.workloads.base import Completion
from seatrial.workloads.http_outcomes import ended

EXCHANGE_S = 2.0
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 3, 8, 16  # gRPC codes of requests refused before raft


class EtcdError(Exception):
    """The gateway answered with an error; `definite`: the request surely did nothing."""

    def __init__(self, message: str, *, definite: bool) -> None:
        super().__init__(message)
        self.definite = definite

    def completion(self, f: str, *, node: int) -> Completion:
        return ended(f, definite=self.definite, error=f"node {node}: {self}")


def encode(text: str) -> str:
    return b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return b64decode(text).decode("utf-8", "replace")


def put_of(key: str, value: Json) -> Json:
    """A put inside a transaction."""
    return {"requestPut": {"key": encode(key), "value": encode(str(value))}}


async def post(
    http: httpx.AsyncClient, base: str, path: str, body: Json, *, exchange_s: float = EXCHANGE_S
) -> dict[str, Any]:
    """One exchange.  Raises httpx.HTTPError when there was no answer, EtcdError when it is an error."""
    try:
        async with asyncio.timeout(exchange_s):
            response = await http.post(f"{base}/v3/{path}", json=body)
    except TimeoutError as error:
        raise httpx.ReadTimeout("the answer took too long") from error
    try:
        answer = response.json()
    except ValueError as error:
        raise EtcdError(f"HTTP {response.status_code}, not JSON", definite=False) from error
    if response.status_code != 200 or not isinstance(answer, dict):
        code = answer.get("code") if isinstance(answer, dict) else None
        message = answer.get("message") or answer.get("error") if isinstance(answer, dict) else answer
        raise EtcdError(f"{message}", definite=code in (INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAUTHENTICATED))
    return answer


async def read_range(http: httpx.AsyncClient, base: str, first: str, end: str | None = None) -> dict[str, str]:
    """A linearizable read of one key, or of all keys from `first` up to but without `end`."""
    body = {"key": encode(first)} | ({"range_end": encode(end)} if end is not None else {})
    answer = await post(http, base, "kv/range", body)
    return {decode(kv["key"]): decode(kv.get("value", "")) for kv in answer.get("kvs", ())}


async def put(http: httpx.AsyncClient, base: str, key: str, value: Json) -> None:
    await post(http, base, "kv/put", {"key": encode(key), "value": encode(str(value))})


async def transact(
    http: httpx.AsyncClient, base: str, *, compare: Json, success: Json, exchange_s: float = EXCHANGE_S
) -> bool:
    """Whether the comparisons held and `success` was therefore applied."""
    answer = await post(http, base, "kv/txn", {"compare": compare, "success": success}, exchange_s=exchange_s)
    return answer.get("succeeded") is True


async def put_if_all_exist(http: httpx.AsyncClient, base: str, key: str, value: Json, first: str, end: str) -> bool:
    """A transaction that puts one key if every key from `first` up to but without `end` has a VERSION above 0."""
    compare = {
        "key": encode(first),
        "range_end": encode(end),
        "target": "VERSION",
        "result": "GREATER",
        "version": "0",
    }
    return await transact(http, base, compare=[compare], success=[put_of(key, value)])
