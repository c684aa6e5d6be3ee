"""What key-value clients do in a run: read, write and compare-and-set over HTTP, each logical client in a closed loop.

Rule: as in `workloads.runner`: one operation at a time, recorded before it begins and after it is known.
Knows nothing of faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from seatrial.env import Rng
from seatrial.history import OpType
from seatrial.sim.case import Load
from seatrial.sim.full.http import LeanHttp
from seatrial.workloads.base import Completion, Endpoint, Request
from seatrial.workloads.generators import RegisterGenerator
from seatrial.workloads.kv_client import KvClient
from seatrial.workloads.node_choice import NodeChoice
from seatrial.workloads.recorder import Recorder

PREFIX: Final = "kv."
PER_KEY: Final = 150
RETRY_S: Final = 0.1
ATTEMPT_S: Final = 4.0


class KvLoad:
    """The clients of one run, on one client host.  stop: no operation begins after it is set."""

    def __init__(self, load: Load, endpoints: Sequence[Endpoint], record: Recorder, rng: Rng) -> None:
        self.stop = asyncio.Event()
        self.last_error = ""
        self._load = load
        self._endpoints = list(endpoints)
        self._record = record
        self._rng = rng
        self._left = load.operations_max
        self._generator = RegisterGenerator(
            rng.child("generator"), prefix=PREFIX, active=load.keys, per_key=PER_KEY, reads=load.reads
        )

    async def run(self) -> None:
        """Load until `stop`, then let what is in flight end."""
        if self._load.rate > 0:
            await asyncio.gather(*(self._one(number) for number in range(self._load.clients)))

    def _client(self, rng: Rng, *, session: bool) -> KvClient:
        return KvClient(NodeChoice(self._endpoints, rng.child("nodes")), rng, session=session, open_http=LeanHttp)

    async def _one(self, number: int) -> None:
        loop, rng = asyncio.get_running_loop(), self._rng.child(f"client {number}")
        client = self._client(rng, session=number % 2 == 0)
        interval_s = self._load.clients / self._load.rate
        logical = self._record.new_client()
        due = loop.time() + interval_s * rng.random()
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + interval_s, loop.time())
            if self.stop.is_set() or self._left <= 0:
                return
            self._left -= 1
            request = self._generator.next(number)
            completion = await self._attempt(client, request, logical)
            self._generator.completed(request, completion)
            if completion.type is OpType.INFO:
                logical = self._record.new_client()
                await client.reconnect()
            if completion.type is not OpType.OK:
                await asyncio.sleep(RETRY_S * rng.random())

    async def _attempt(self, client: KvClient, request: Request, logical: int) -> Completion:
        self._record.invoke(logical, request)
        completion = Completion(type=OpType.INFO, error="cut off: the run ended")
        try:
            completion = await client.perform(request)
        finally:
            self._record.complete(logical, completion)
        if completion.error is not None:
            self.last_error = f"{request.f} {request.key}: {completion.error}"
        return completion

    async def read_all(self, nodes: Sequence[int], timeout_s: float) -> list[str]:
        """Every register from every one of these nodes, linearizably; what could not be read in time."""
        missing: list[str] = []
        await asyncio.gather(*(self._read_from(node, timeout_s, missing) for node in nodes))
        return missing

    async def _read_from(self, node: int, timeout_s: float, missing: list[str]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        client = self._client(self._rng.child(f"final {node}"), session=False)
        for key in self._generator.keys:
            while True:
                completion = await self._attempt(
                    client, Request(f="read", key=key, node=node), self._record.new_client()
                )
                if completion.type is OpType.OK:
                    break
                if loop.time() > deadline:
                    missing.append(f"{key} from node {node}: {completion.error}")
                    break
                await client.reconnect()
                await asyncio.sleep(RETRY_S)
        await client.close()
