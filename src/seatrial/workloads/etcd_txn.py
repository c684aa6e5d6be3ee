"""The workload `kv-txn`: etcd transactions that compare a range of 1,000 keys and put one of them.

The comparison makes each transaction slow to apply, which brings etcd issue 13766 to light (3.5.0 to 3.5.2): the
consistent index is persisted before the transaction is applied, so a member killed in between skips the entry for
ever, and then answers linearizable reads with stale values.  The final reads therefore ask every member.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from seatrial.checkers.base import Checker
from seatrial.checkers.linearizability import Linearizability
from seatrial.env import Rng
from seatrial.workloads.base import Client, Completion, Endpoint, Generator, Request, SetupFailed, Unsupported
from seatrial.workloads.dialect import Dialect, find_dialect, with_http
from seatrial.workloads.etcd_client import FILLED, EtcdClient
from seatrial.workloads.etcd_gateway import EtcdError, put_of, transact
from seatrial.workloads.http_outcomes import open_client
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.scoped import ScopedChecker

PREFIX = "kv-txn."
RANGE_END = "kv-txn/"  # the first string behind all that begin with the prefix
PUTS_PER_TRANSACTION = 100  # etcd's default limit is 128
READ_SHARE = 0.05
RETRY_S = 0.1


class TxnGenerator:
    """Mostly writes of unique values to random keys, now and then a read."""

    def __init__(self, rng: Rng, keys: Sequence[str]) -> None:
        self._rng = rng
        self._keys = keys
        self._values = 0

    def next(self, client: int) -> Request:
        key = self._rng.choice(self._keys)
        if self._rng.chance(READ_SHARE):
            return Request(f="read", key=key)
        self._values += 1
        return Request(f="write", key=key, value=self._values)

    def completed(self, request: Request, completion: Completion) -> None:
        """No choice builds on an answer."""


class TxnWorkload:
    """24 clients as fast as etcd lets them."""

    name = "kv-txn"

    def __init__(self, *, clients: int = 24, rate: float = 0.0, keys: int = 1000) -> None:
        self.clients = clients
        self.rate = rate
        self._keys = tuple(f"{PREFIX}{number:04}" for number in range(keys))

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        speaking = with_http(endpoints, self.name)
        deadline = asyncio.get_running_loop().time() + timeout
        if await find_dialect(speaking, timeout=timeout) is not Dialect.ETCD:
            raise Unsupported("workload kv-txn speaks etcd's gateway only; use the workload kv for this system")
        async with open_client() as http:
            for first in range(0, len(self._keys), PUTS_PER_TRANSACTION):
                await _fill(http, speaking, self._keys[first : first + PUTS_PER_TRANSACTION], deadline)

    def generator(self, rng: Rng) -> Generator:
        return TxnGenerator(rng, self._keys)

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        nodes = NodeChoice(with_http(endpoints, self.name), rng.child("nodes"))
        return EtcdClient(nodes, filled=(PREFIX, RANGE_END))

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        return [Request(f="read", keys=self._keys, node=e.node) for e in with_http(endpoints, self.name)]

    def checkers(self) -> Sequence[Checker]:
        return (ScopedChecker(Linearizability(), self.name, PREFIX),)


async def _fill(http: httpx.AsyncClient, endpoints: Sequence[Endpoint], keys: Sequence[str], deadline: float) -> None:
    """Write FILLED to the keys in one transaction, through whichever node takes it."""
    puts = [put_of(key, FILLED) for key in keys]
    last = "no time was left to try"
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        for endpoint in endpoints:
            try:
                await transact(http, endpoint.http or "", compare=[], success=puts)
            except (httpx.HTTPError, EtcdError) as error:
                last = f"node {endpoint.node}: {type(error).__name__}: {error}"
            else:
                return
        await asyncio.sleep(RETRY_S)
    raise SetupFailed(f"the keys from {keys[0]} on could not be written in time; {last}")
