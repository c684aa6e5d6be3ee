"""Finds out which key-value protocol a cluster speaks over HTTP, and waits until one of its nodes answers.

Rule: asked of the nodes themselves, never guessed from ports or names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import httpx

from seatrial.workloads.base import Endpoint, SetupFailed, Unsupported
from seatrial.workloads.http_outcomes import open_client

RETRY_S = 0.1


class Dialect(StrEnum):
    """The key-value protocols that the register clients speak."""

    SEATRIAL = "seatrial"  # GET|PUT /api/v1/kv/{key}
    ETCD = "etcd"  # the JSON gateway under /v3


def with_http(endpoints: Sequence[Endpoint], workload: str) -> list[Endpoint]:
    """The nodes that speak HTTP.  Raises Unsupported when none does."""
    found = [endpoint for endpoint in endpoints if endpoint.http is not None]
    if not found:
        raise Unsupported(f"workload {workload} needs HTTP, and no node of this system has an HTTP address")
    return found


async def find_dialect(endpoints: Sequence[Endpoint], *, timeout: float) -> Dialect:
    """Ask node after node until one tells.  Raises SetupFailed with what each answered last."""
    deadline = asyncio.get_running_loop().time() + timeout
    last: dict[int, str] = {}
    async with open_client() as http:
        while True:
            for endpoint in endpoints:
                dialect, said = await _ask(http, endpoint)
                if dialect is not None:
                    return dialect
                last[endpoint.node] = said
            if asyncio.get_running_loop().time() >= deadline:
                seen = "; ".join(f"node {node}: {said}" for node, said in last.items())
                raise SetupFailed(f"no node spoke a known key-value protocol within {timeout:g} s ({seen})")
            await asyncio.sleep(RETRY_S)


async def _ask(http: httpx.AsyncClient, endpoint: Endpoint) -> tuple[Dialect | None, str]:
    """The dialect, or what was answered instead."""
    try:
        version = await http.get(f"{endpoint.http}/version")
        if version.status_code == 200 and "etcdserver" in version.text:
            return Dialect.ETCD, ""
        ready = await http.get(f"{endpoint.http}/readyz")
    except httpx.HTTPError as error:
        return None, f"{type(error).__name__}: {error}"
    return (Dialect.SEATRIAL if ready.status_code == 200 else None), f"HTTP {ready.status_code} {ready.text[:120]}"
