"""Says, for one HTTP exchange that went wrong, whether the request surely had no effect.

Rule: `fail` only where the request cannot have reached a server, or the server itself says that nothing was done;
everything else is `info`.  A read that failed has no effect by nature, so it is always `fail`.
Knows nothing of any one API.
"""

from __future__ import annotations

import ssl
from functools import cache

import httpx

from seatrial.history import OpType
from seatrial.workloads.base import Completion

# Raised before a byte of the request was sent (httpx has no retries of its own unless asked).
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
READ_ONLY = frozenset({"read", "final-read"})

CONNECT_S = 0.5
ANSWER_S = 1.5


@cache
def _certificates() -> ssl.SSLContext:
    """Loading them takes tens of milliseconds and blocks the event loop, so all clients share one set."""
    return ssl.create_default_context()


def open_client(answer_s: float = ANSWER_S) -> httpx.AsyncClient:
    """A client with this project's time limits: so long for an answer, no retries, no proxy from the environment."""
    return httpx.AsyncClient(
        verify=_certificates(),
        timeout=httpx.Timeout(answer_s, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=16),
        trust_env=False,
    )


def after_exception(f: str, error: httpx.HTTPError, *, node: int) -> Completion:
    """How an operation ended whose exchange with `node` raised."""
    never_sent = isinstance(error, NEVER_SENT)
    text = f"node {node}: {type(error).__name__}: {error}".rstrip(": ")
    return ended(f, definite=never_sent, error=text)


def ended(f: str, *, definite: bool, error: str) -> Completion:
    """`fail` when the operation surely did nothing, else `info`."""
    kind = OpType.FAIL if definite or f in READ_ONLY else OpType.INFO
    return Completion(type=kind, error=error)
