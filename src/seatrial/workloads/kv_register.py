"""The workload `kv`: read, write and compare-and-set over registers that rotate, on our HTTP API or on etcd.

Values are unique integers; half of the clients on our own API retry unknown writes under their session, which the
server promises to apply once.  At the end every register is read, linearizably, from every node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from seatrial.checkers.base import Checker
from seatrial.checkers.linearizability import Linearizability
from seatrial.env import Rng
from seatrial.workloads.base import Client, Endpoint, Generator, Request
from seatrial.workloads.dialect import Dialect, find_dialect, with_http
from seatrial.workloads.etcd_client import EtcdClient
from seatrial.workloads.generators import RegisterGenerator
from seatrial.workloads.http_outcomes import open_client
from seatrial.workloads.kv_client import KvClient
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.scoped import ScopedChecker

PREFIX = "kv."


class KvWorkload:
    """Registers behind HTTP; which client is used is found out at set-up.

    `open_http` opens the HTTP client of our own API's clients: httpx's, or one that answers and raises as it does.
    `prefix`: of its keys.  `dialect`: what the nodes speak, where that is known; else they are asked.
    """

    name = "kv"

    def __init__(
        self,
        *,
        clients: int = 12,
        rate: float = 300.0,
        active: int = 5,
        per_key: int = 300,
        open_http: Callable[[], Any] = open_client,
        prefix: str = PREFIX,
        dialect: Dialect | None = None,
    ) -> None:
        self.clients = clients
        self.rate = rate
        self._active = active
        self._per_key = per_key
        self._open_http = open_http
        self._prefix = prefix
        self._dialect = dialect
        self._generator: RegisterGenerator | None = None

    async def setup(self, endpoints: Sequence[Endpoint], *, timeout: float) -> None:
        speaking = with_http(endpoints, self.name)
        if self._dialect is None:
            self._dialect = await find_dialect(speaking, timeout=timeout)

    def generator(self, rng: Rng) -> Generator:
        self._generator = RegisterGenerator(rng, prefix=self._prefix, active=self._active, per_key=self._per_key)
        return self._generator

    def client(self, endpoints: Sequence[Endpoint], number: int, rng: Rng) -> Client:
        assert self._dialect is not None, "set-up finds out what the nodes speak"
        nodes = NodeChoice(with_http(endpoints, self.name), rng.child("nodes"))
        if self._dialect is Dialect.ETCD:
            return EtcdClient(nodes)
        return KvClient(nodes, rng, session=number % 2 == 0, open_http=self._open_http)

    def final(self, endpoints: Sequence[Endpoint]) -> Sequence[Request]:
        keys = self._generator.keys if self._generator is not None else ()
        nodes = [endpoint.node for endpoint in with_http(endpoints, self.name)]
        return [Request(f="read", key=key, node=node) for key in keys for node in nodes]

    def checkers(self) -> Sequence[Checker]:
        return (ScopedChecker(Linearizability(), self.name, self._prefix),)
